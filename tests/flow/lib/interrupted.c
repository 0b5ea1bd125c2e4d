/*
 * System calls that are under way when the program is stopped. Each of them, in a thread or process of its own, may
 * return only when its time is over or when it is woken after `go`, and never with EINTR. The time for which the program
 * did not run at all is added to relative times and not to absolute ones: that is what their remaining time means.
 */
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/syscall.h>

#include "self.h"

/*
 * Long enough for a dump to come in between on a slow machine. A time may be off by what a loaded machine takes to
 * schedule; epoll_wait also by the time it had waited already: the kernel does not tell how much that was, so it starts anew.
 */
static const int64_t TIMED_NS = 4000000000, SLACK_NS = 500000000;

/* How often a test stops it at most. */
enum { MAX_STOPS = 5 };

enum how { RELATIVE, ABSOLUTE, WOKEN };

struct call {
	const char *name;
	enum how how;
	long (*run)(struct call *c); /* 0, or -errno */
	int pipe[2];                 /* for calls that wait for data */
	uint32_t futex;
	pthread_t thread;
	pid_t pid;                   /* of calls that need a process of their own */
	long result;
	int64_t start_ns, end_ns;    /* CLOCK_MONOTONIC; end 0: still in the call */
};

static const struct timespec timed = { 4, 0 };

static struct timespec until(const struct call *c)
{
	int64_t ns = c->start_ns + TIMED_NS;

	return (struct timespec){ ns / 1000000000, ns % 1000000000 };
}

static long result(long rc)
{
	return rc < 0 ? -errno : rc;
}

static long run_nanosleep(struct call *c)
{
	return result(nanosleep(&timed, NULL));
}

static long run_clock_relative(struct call *c)
{
	return -clock_nanosleep(CLOCK_MONOTONIC, 0, &timed, NULL);
}

static long run_clock_absolute(struct call *c)
{
	struct timespec ts = until(c);

	return -clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL);
}

static long run_futex_timed(struct call *c)
{
	long rc = syscall(SYS_futex, &c->futex, FUTEX_WAIT_PRIVATE, 0, &timed, NULL, 0);

	return rc < 0 && errno == ETIMEDOUT ? 0 : result(rc);
}

static long run_futex_absolute(struct call *c)
{
	struct timespec ts = until(c);
	long rc = syscall(SYS_futex, &c->futex, FUTEX_WAIT_BITSET_PRIVATE, 0, &ts, NULL, FUTEX_BITSET_MATCH_ANY);

	return rc < 0 && errno == ETIMEDOUT ? 0 : result(rc);
}

static long run_futex(struct call *c)
{
	return result(syscall(SYS_futex, &c->futex, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0));
}

static long run_poll_timed(struct call *c)
{
	struct pollfd p = { .fd = c->pipe[0], .events = POLLIN };

	return result(poll(&p, 1, TIMED_NS / 1000000));
}

static long run_poll(struct call *c)
{
	struct pollfd p = { .fd = c->pipe[0], .events = POLLIN };
	long rc = result(poll(&p, 1, -1));

	return rc == 1 ? 0 : rc;
}

static long epoll(struct call *c, int timeout_ms)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = 42 };
	int fd = epoll_create1(0);

	NEED(fd >= 0);
	NEED(epoll_ctl(fd, EPOLL_CTL_ADD, c->pipe[0], &ev) == 0);
	ev.data.u64 = 0;
	long rc = result(epoll_wait(fd, &ev, 1, timeout_ms));
	CHECK(rc != 1 || ev.data.u64 == 42, "epoll data %lu", ev.data.u64);
	return rc;
}

static long run_epoll_timed(struct call *c)
{
	return epoll(c, TIMED_NS / 1000000);
}

static long run_epoll(struct call *c)
{
	long rc = epoll(c, -1);

	return rc == 1 ? 0 : rc;
}

static long run_select_timed(struct call *c)
{
	struct timeval tv = { 4, 0 };
	fd_set set;

	FD_ZERO(&set);
	FD_SET(c->pipe[0], &set);
	return result(select(c->pipe[0] + 1, &set, NULL, NULL, &tv));
}

static long run_select(struct call *c)
{
	fd_set set;

	FD_ZERO(&set);
	FD_SET(c->pipe[0], &set);
	long rc = result(select(c->pipe[0] + 1, &set, NULL, NULL, NULL));
	return rc == 1 ? 0 : rc;
}

static long run_read(struct call *c)
{
	char byte;
	long rc = result(read(c->pipe[0], &byte, 1));

	return rc == 1 ? 0 : rc;
}

static long run_write(struct call *c)
{
	static char block[65536];

	/* The pipe is full: the second write waits until somebody reads. */
	NEED(write(c->pipe[1], block, sizeof(block)) == sizeof(block));
	long rc = result(write(c->pipe[1], block, 4096));
	return rc == 4096 ? 0 : rc;
}

static long run_sigtimedwait(struct call *c)
{
	siginfo_t info;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	long rc = result(sigwaitinfo(&set, &info));
	return rc == SIGUSR2 ? 0 : rc;
}

/* In processes: woken by a signal or a child's end. */
static volatile sig_atomic_t handled;

static void on_signal(int sig)
{
	handled++;
}

static long run_pause(struct call *c)
{
	long rc = result(pause());

	return rc == -EINTR && handled ? 0 : -EPROTO;
}

static long run_sigsuspend(struct call *c)
{
	sigset_t blocked, inside, after;

	sigemptyset(&blocked);
	sigaddset(&blocked, SIGUSR1);
	sigaddset(&blocked, SIGHUP);
	sigprocmask(SIG_BLOCK, &blocked, NULL);
	sigemptyset(&inside);
	long rc = result(sigsuspend(&inside));
	sigprocmask(SIG_SETMASK, NULL, &after);
	CHECK(sigismember(&after, SIGHUP) && sigismember(&after, SIGUSR1), "the mask of before is not back");
	return rc == -EINTR && handled ? 0 : -EPROTO;
}

static long run_wait4(struct call *c)
{
	pid_t child = fork();
	int status;

	if (!child) {
		self_wait();
		_exit(7);
	}
	long rc = result(wait4(-1, &status, 0, NULL));
	return rc != child ? rc < 0 ? rc : -EPROTO : WEXITSTATUS(status) == 7 ? 0 : -EPROTO;
}

static struct call calls[] = {
	{ .name = "nanosleep", .how = RELATIVE, .run = run_nanosleep },
	{ .name = "clock_nanosleep, relative", .how = RELATIVE, .run = run_clock_relative },
	{ .name = "clock_nanosleep, absolute", .how = ABSOLUTE, .run = run_clock_absolute },
	{ .name = "futex with a timeout", .how = RELATIVE, .run = run_futex_timed },
	{ .name = "futex with a deadline", .how = ABSOLUTE, .run = run_futex_absolute },
	{ .name = "poll with a timeout", .how = RELATIVE, .run = run_poll_timed },
	{ .name = "epoll_wait with a timeout", .how = RELATIVE, .run = run_epoll_timed },
	{ .name = "select with a timeout", .how = RELATIVE, .run = run_select_timed },
	{ .name = "futex", .how = WOKEN, .run = run_futex },
	{ .name = "poll", .how = WOKEN, .run = run_poll },
	{ .name = "epoll_wait", .how = WOKEN, .run = run_epoll },
	{ .name = "select", .how = WOKEN, .run = run_select },
	{ .name = "read", .how = WOKEN, .run = run_read },
	{ .name = "write", .how = WOKEN, .run = run_write },
	{ .name = "rt_sigtimedwait", .how = WOKEN, .run = run_sigtimedwait },
	/* From here on in a process each. */
	{ .name = "pause", .how = WOKEN, .run = run_pause },
	{ .name = "sigsuspend", .how = WOKEN, .run = run_sigsuspend },
	{ .name = "wait4", .how = WOKEN, .run = run_wait4 },
};

enum { NR_CALLS = sizeof(calls) / sizeof(calls[0]), NR_PROCESSES = 3, NR_THREADS = NR_CALLS - NR_PROCESSES };

static struct call *in_process; /* results of processes, in shared memory */

static void *make_call(void *arg)
{
	struct call *c = arg;

	c->start_ns = self_now_ns(CLOCK_MONOTONIC);
	c->result = c->run(c);
	__atomic_store_n(&c->end_ns, self_now_ns(CLOCK_MONOTONIC), __ATOMIC_RELEASE);
	return NULL;
}

/* All other threads of the process sleep in the kernel. */
static bool all_asleep(pid_t pid)
{
	char cmd[128], letters[256] = "";

	snprintf(cmd, sizeof(cmd), "cut -d' ' -f3 /proc/%d/task/*/stat | grep -c S", pid);
	FILE *f = popen(cmd, "re");
	NEED(f && fgets(letters, sizeof(letters), f));
	pclose(f);
	return atoi(letters) == (pid == getpid() ? NR_THREADS : 1) ||
	       /* This thread, inside popen, may be asleep itself. */
	       (pid == getpid() && atoi(letters) == NR_THREADS + 1);
}

/* How long this process did not run at all, in its biggest gap: the time it was away. */
static int64_t gap_ns;

static void *sample(void *arg)
{
	int64_t last = self_now_ns(CLOCK_MONOTONIC);

	for (;;) {
		self_nap(5000000);
		int64_t now = self_now_ns(CLOCK_MONOTONIC);
		if (now - last > gap_ns)
			__atomic_store_n(&gap_ns, now - last, __ATOMIC_RELAXED);
		last = now;
	}
	return NULL;
}

static void check_result(const struct call *c)
{
	int64_t took = c->end_ns - c->start_ns;
	int64_t want = TIMED_NS + (c->how == RELATIVE ? gap_ns : 0);

	CHECK(c->result == 0, "%s: %s", c->name, c->result < 0 ? strerror(-c->result) : "unexpected result");
	if (c->how == WOKEN)
		return;
	/* A deadline that passed while we were away ends right after. */
	int64_t slack = SLACK_NS + (c->how == ABSOLUTE ? gap_ns : 0) + (c->run == run_epoll_timed ? MAX_STOPS * TIMED_NS : 0);
	CHECK(took > want - SLACK_NS && took < want + slack, "%s: took %ld ms, should take %ld ms", c->name,
	      took / 1000000, want / 1000000);
}

static void wake(struct call *c)
{
	static char drain[65536];

	CHECK(!__atomic_load_n(&c->end_ns, __ATOMIC_ACQUIRE), "%s: returned %ld before it was woken", c->name, c->result);
	if (c->run == run_futex) {
		c->futex = 1;
		syscall(SYS_futex, &c->futex, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	} else if (c->run == run_write) {
		NEED(read(c->pipe[0], drain, sizeof(drain)) == sizeof(drain));
	} else if (c->run == run_sigtimedwait) {
		pthread_kill(c->thread, SIGUSR2);
	} else if (c->run == run_pause || c->run == run_sigsuspend) {
		NEED(kill(c->pid, SIGUSR1) == 0);
	} else if (c->run != run_wait4) { /* whose child goes by itself */
		NEED(write(c->pipe[1], "", 1) == 1);
	}
}

int main(int argc, char **argv)
{
	pthread_t sampler;
	sigset_t usr2;

	self_init(argc, argv);
	in_process = mmap(NULL, sizeof(calls), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	NEED(in_process != MAP_FAILED);
	memcpy(in_process, calls, sizeof(calls));
	signal(SIGUSR1, on_signal);
	sigemptyset(&usr2);
	sigaddset(&usr2, SIGUSR2);
	sigprocmask(SIG_BLOCK, &usr2, NULL);

	for (int i = NR_THREADS; i < NR_CALLS; i++) {
		struct call *c = &in_process[i];
		pid_t pid = fork();

		NEED(pid >= 0);
		if (!pid) {
			make_call(c);
			_exit(0);
		}
		c->pid = pid;
	}
	for (int i = 0; i < NR_THREADS; i++) {
		NEED(pipe(calls[i].pipe) == 0);
		CHECK(pthread_create(&calls[i].thread, NULL, make_call, &calls[i]) == 0, "no thread");
	}
	while (!all_asleep(getpid()))
		self_nap(1000000);
	for (int i = NR_THREADS; i < NR_CALLS; i++) {
		while (!all_asleep(in_process[i].pid))
			self_nap(1000000);
	}
	CHECK(pthread_create(&sampler, NULL, sample, NULL) == 0, "no thread");
	self_ready();
	self_wait();

	for (int i = 0; i < NR_THREADS; i++) {
		if (calls[i].how == WOKEN)
			wake(&calls[i]);
	}
	for (int i = NR_THREADS; i < NR_CALLS; i++)
		if (in_process[i].run != run_wait4)
			wake(&in_process[i]);
	for (int i = 0; i < NR_THREADS; i++)
		pthread_join(calls[i].thread, NULL);
	for (int i = NR_THREADS; i < NR_CALLS; i++)
		self_join(in_process[i].pid);
	for (int i = 0; i < NR_THREADS; i++)
		check_result(&calls[i]);
	for (int i = NR_THREADS; i < NR_CALLS; i++)
		check_result(&in_process[i]);
	self_pass();
}
