/*
 * System calls that are under way when the program is stopped, each in ten threads that began it one after the other,
 * so that a stop finds it at ten points of its wait. None may return with EINTR, none before its time is over or it is
 * woken after `go`, and none later.
 *
 *   interrupted DIR WAIT_MS   the target. A file DIR/noise, there when it is told to go, holds the nanoseconds by
 *                             which the machine was late meanwhile; they are allowed for
 *   interrupted DIR           the twin: not dumped, it waits again and again while the target does. When told to go
 *                             it makes DIR/noise: by how much its worst wait was late
 *
 * All of them run under SCHED_FIFO, where they may, so that what is measured is the wait and not the queue for a
 * processor. How long the target was away is told by threads that look at the clock every millisecond. That time is
 * added to relative waits and not to absolute ones: that is what their remaining time means.
 */
#include <dirent.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>

#include "noise.h"
#include "self.h"

static const int64_t ms = 1000000;
/* How wrong a wait may be, besides what the machine was late by. */
static const int64_t PRECISION_NS = 5 * 1000000;

enum {
	NR_POINTS = 10,
	STEP_MS = 250,       /* between one point and the next */
	SAMPLE_NS = 1000000,
	NR_SAMPLERS = 4,
	STACK_BYTES = 128 << 10,
	LATE = 75,           /* exit status: a call had ended before the stop came */
};

enum how { RELATIVE, ABSOLUTE, TIMER, WOKEN };

struct call;

/* One of the ten. */
struct wait {
	const struct call *call;
	pthread_t thread;
	int64_t start_ns, end_ns; /* CLOCK_MONOTONIC; end 0: still in the call */
	long result;              /* 0, or -errno */
	pid_t child;              /* of calls that wait for one */
};

struct call {
	const char *name;
	enum how how;
	long (*run)(const struct call *c, struct wait *w);
	clockid_t clock;
	long nr;                  /* of one of several that are made alike */
	void (*wake)(const struct call *c);
};

static int64_t wait_ns;
static struct timespec wait_ts;
static const struct timespec *wait_ro; /* the same in memory that cannot be written */

static int silent[2], ending[2], noisy[2], eaten[2], full[2];
static int event_fd, epoll_fd, silent_epoll_fd, listen_fd, udp_fd;
static uint32_t word_quiet, word_woken, word_pi_held, word_pi;
static pid_t owner_tid;
static volatile sig_atomic_t handled;

static long result(long rc)
{
	return rc < 0 ? -errno : rc;
}

/* What a call has to end with, and anything else. */
static long expect(long rc, long want)
{
	return rc == want ? 0 : rc < 0 ? rc : -EPROTO;
}

static struct timespec deadline(clockid_t clock)
{
	int64_t ns = self_now_ns(clock) + wait_ns;

	return (struct timespec){ ns / 1000000000, ns % 1000000000 };
}

/* --- waits with a limit --- */

static long run_nanosleep(const struct call *c, struct wait *w)
{
	return result(nanosleep(&wait_ts, NULL));
}

static long run_nanosleep_rest(const struct call *c, struct wait *w)
{
	struct timespec rest;

	return result(nanosleep(&wait_ts, &rest));
}

static long run_clock_nanosleep(const struct call *c, struct wait *w)
{
	return -clock_nanosleep(c->clock, 0, &wait_ts, NULL);
}

static long run_clock_deadline(const struct call *c, struct wait *w)
{
	struct timespec ts = deadline(c->clock);

	return -clock_nanosleep(c->clock, TIMER_ABSTIME, &ts, NULL);
}

static long timed_out(long rc)
{
	return expect(result(rc), -ETIMEDOUT);
}

static long run_futex_timed(const struct call *c, struct wait *w)
{
	return timed_out(syscall(SYS_futex, &word_quiet, FUTEX_WAIT_PRIVATE, 0, &wait_ts, NULL, 0));
}

static long run_futex_deadline(const struct call *c, struct wait *w)
{
	struct timespec ts = deadline(c->clock);
	int op = FUTEX_WAIT_BITSET_PRIVATE | (c->clock == CLOCK_REALTIME ? FUTEX_CLOCK_REALTIME : 0);

	return timed_out(syscall(SYS_futex, &word_quiet, op, 0, &ts, NULL, FUTEX_BITSET_MATCH_ANY));
}

static long run_lock_pi_deadline(const struct call *c, struct wait *w)
{
	struct timespec ts = deadline(c->clock);

	return timed_out(syscall(SYS_futex, &word_pi_held, (int)c->nr | FUTEX_PRIVATE_FLAG, 0, &ts, NULL, 0));
}

static long waitv(uint32_t *word, const struct timespec *ts)
{
	struct futex_waitv v = { .uaddr = (uintptr_t)word, .flags = FUTEX_32 | FUTEX_PRIVATE_FLAG };

	return result(syscall(SYS_futex_waitv, &v, 1, 0, ts, CLOCK_MONOTONIC));
}

static long run_waitv_deadline(const struct call *c, struct wait *w)
{
	struct timespec ts = deadline(CLOCK_MONOTONIC);

	return expect(waitv(&word_quiet, &ts), -ETIMEDOUT);
}

static long run_poll_timed(const struct call *c, struct wait *w)
{
	struct pollfd p = { .fd = silent[0], .events = POLLIN };

	return result(poll(&p, 1, wait_ns / ms));
}

static long call_ppoll(int fd, const struct timespec *ts)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return result(syscall(SYS_ppoll, &p, 1, ts, NULL, sizeof(uint64_t)));
}

static long run_ppoll_timed(const struct call *c, struct wait *w)
{
	struct timespec ts = wait_ts;

	return call_ppoll(silent[0], &ts);
}

static long run_ppoll_ro(const struct call *c, struct wait *w)
{
	return call_ppoll(silent[0], wait_ro);
}

static long run_select_timed(const struct call *c, struct wait *w)
{
	struct timeval tv = { wait_ns / 1000000000, wait_ns % 1000000000 / 1000 };
	fd_set set;

	FD_ZERO(&set);
	FD_SET(silent[0], &set);
	return result(select(silent[0] + 1, &set, NULL, NULL, &tv));
}

static long call_pselect(int fd, const struct timespec *ts)
{
	fd_set set;

	FD_ZERO(&set);
	FD_SET(fd, &set);
	return result(syscall(SYS_pselect6, fd + 1, &set, NULL, NULL, ts, NULL));
}

static long run_pselect_timed(const struct call *c, struct wait *w)
{
	struct timespec ts = wait_ts;

	return call_pselect(silent[0], &ts);
}

static long run_pselect_ro(const struct call *c, struct wait *w)
{
	return call_pselect(silent[0], wait_ro);
}

static long call_epoll(long nr, int fd, bool timed)
{
	static const uint64_t mask = 1ULL << (SIGHUP - 1);
	struct epoll_event ev = { 0 };
	long rc = nr == SYS_epoll_pwait2 ? syscall(nr, fd, &ev, 1, timed ? &wait_ts : NULL, &mask, sizeof(mask)) :
					   syscall(nr, fd, &ev, 1, timed ? wait_ns / ms : -1, &mask, sizeof(mask));

	rc = result(rc);
	return rc == 1 && ev.data.u64 != 42 ? -EPROTO : rc;
}

static long run_epoll_timed(const struct call *c, struct wait *w)
{
	return call_epoll(c->nr, silent_epoll_fd, true);
}

static long run_sigtimedwait(const struct call *c, struct wait *w)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGWINCH);
	return expect(result(sigtimedwait(&set, NULL, &wait_ts)), -EAGAIN);
}

static long run_read_timerfd(const struct call *c, struct wait *w)
{
	struct itimerspec its = { .it_value = wait_ts };
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	uint64_t ticks;

	NEED(fd >= 0 && timerfd_settime(fd, 0, &its, NULL) == 0);
	long rc = expect(result(read(fd, &ticks, sizeof(ticks))), sizeof(ticks));
	return rc ? rc : expect(ticks, 1);
}

/* --- waits for an event --- */

static long run_futex(const struct call *c, struct wait *w)
{
	return result(syscall(SYS_futex, &word_woken, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0));
}

static long run_futex_bitset(const struct call *c, struct wait *w)
{
	return result(syscall(SYS_futex, &word_woken, FUTEX_WAIT_BITSET_PRIVATE, 0, NULL, NULL, 4));
}

static void wake_futex(const struct call *c)
{
	__atomic_store_n(&word_woken, 1, __ATOMIC_RELEASE);
	syscall(SYS_futex, &word_woken, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static long run_waitv(const struct call *c, struct wait *w)
{
	return waitv(&word_woken, NULL);
}

static long run_lock_pi(const struct call *c, struct wait *w)
{
	long rc = result(syscall(SYS_futex, &word_pi, FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0));

	return rc ? rc : result(syscall(SYS_futex, &word_pi, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0));
}

static void wake_pi(const struct call *c)
{
	NEED(syscall(SYS_futex, &word_pi, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0) == 0);
}

/* Threads that wait for the pipe to be readable, and do not read it. */
static void wake_pipe(const struct call *c)
{
	NEED(write(noisy[1], "", 1) == 1);
}

static long run_poll(const struct call *c, struct wait *w)
{
	struct pollfd p = { .fd = noisy[0], .events = POLLIN };

	return expect(result(poll(&p, 1, -1)), 1);
}

static long run_ppoll(const struct call *c, struct wait *w)
{
	return expect(call_ppoll(noisy[0], NULL), 1);
}

static long run_select(const struct call *c, struct wait *w)
{
	fd_set set;

	FD_ZERO(&set);
	FD_SET(noisy[0], &set);
	return expect(result(select(noisy[0] + 1, &set, NULL, NULL, NULL)), 1);
}

static long run_pselect(const struct call *c, struct wait *w)
{
	return expect(call_pselect(noisy[0], NULL), 1);
}

static long run_epoll(const struct call *c, struct wait *w)
{
	return expect(call_epoll(c->nr, epoll_fd, false), 1);
}

static long run_read_pipe(const struct call *c, struct wait *w)
{
	char byte;

	return expect(result(read(eaten[0], &byte, 1)), 1);
}

static void wake_read_pipe(const struct call *c)
{
	NEED(write(eaten[1], "0123456789", NR_POINTS) == NR_POINTS);
}

static long run_read_eventfd(const struct call *c, struct wait *w)
{
	uint64_t value;
	long rc = expect(result(read(event_fd, &value, sizeof(value))), sizeof(value));

	return rc ? rc : expect(value, 1);
}

static void wake_eventfd(const struct call *c)
{
	uint64_t value = NR_POINTS;

	NEED(write(event_fd, &value, sizeof(value)) == sizeof(value));
}

static long run_write(const struct call *c, struct wait *w)
{
	static const char block[4096];

	return expect(result(write(full[1], block, sizeof(block))), sizeof(block));
}

static void wake_write(const struct call *c)
{
	static char drain[65536 + NR_POINTS * 4096];
	size_t got = 0;

	while (got < sizeof(drain)) {
		long rc = read(full[0], drain, sizeof(drain) - got);

		NEED(rc > 0);
		got += rc;
	}
}

static long run_sigwait(const struct call *c, struct wait *w)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	return expect(result(sigwaitinfo(&set, NULL)), SIGUSR2);
}

static void on_signal(int sig)
{
	handled++;
}

static long run_pause(const struct call *c, struct wait *w)
{
	sigset_t usr1;

	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	pthread_sigmask(SIG_UNBLOCK, &usr1, NULL);
	long rc = result(pause());
	return handled ? expect(rc, -EINTR) : -EPROTO;
}

static long run_sigsuspend(const struct call *c, struct wait *w)
{
	sigset_t inside, after;

	sigfillset(&inside);
	sigdelset(&inside, SIGUSR1);
	long rc = result(sigsuspend(&inside));
	pthread_sigmask(SIG_SETMASK, NULL, &after);
	CHECK(sigismember(&after, SIGUSR1) && !sigismember(&after, SIGHUP), "the mask of before is not back");
	return handled ? expect(rc, -EINTR) : -EPROTO;
}

static void wake_by_signal(const struct call *c);

static pid_t make_child(void)
{
	pid_t pid = fork();

	NEED(pid >= 0);
	if (!pid) {
		self_wait();
		_exit(7);
	}
	return pid;
}

static long run_wait4(const struct call *c, struct wait *w)
{
	int status;
	long rc = expect(result(wait4(w->child, &status, 0, NULL)), w->child);

	return rc ? rc : expect(WIFEXITED(status) ? WEXITSTATUS(status) : -EPROTO, 7);
}

static long run_waitid(const struct call *c, struct wait *w)
{
	siginfo_t info = { 0 };
	long rc = result(waitid(P_PID, w->child, &info, WEXITED));

	return rc ? rc : expect(info.si_code == CLD_EXITED ? info.si_status : -EPROTO, 7);
}

static long run_accept(const struct call *c, struct wait *w)
{
	long fd = result(accept(listen_fd, NULL, NULL));

	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}

static void wake_accept(const struct call *c)
{
	struct sockaddr_in to = { 0 };
	socklen_t len = sizeof(to);

	NEED(getsockname(listen_fd, (void *)&to, &len) == 0);
	for (int i = 0; i < NR_POINTS; i++) {
		int fd = socket(AF_INET, SOCK_STREAM, 0);

		NEED(fd >= 0 && connect(fd, (void *)&to, len) == 0);
		close(fd);
	}
}

static long run_recv(const struct call *c, struct wait *w)
{
	char byte;

	return expect(result(recv(udp_fd, &byte, 1, 0)), 1);
}

static void wake_recv(const struct call *c)
{
	struct sockaddr_in to = { 0 };
	socklen_t len = sizeof(to);

	NEED(getsockname(udp_fd, (void *)&to, &len) == 0);
	for (int i = 0; i < NR_POINTS; i++)
		NEED(sendto(udp_fd, "", 1, 0, (void *)&to, len) == 1);
}

static long run_splice(const struct call *c, struct wait *w)
{
	return expect(result(splice(ending[0], NULL, full[1], NULL, 1, 0)), 0);
}

static void wake_splice(const struct call *c)
{
	close(ending[1]);
}

static long run_open_fifo(const struct call *c, struct wait *w)
{
	long fd = result(open("fifo", O_RDONLY | O_CLOEXEC));

	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}

static void wake_open_fifo(const struct call *c)
{
	NEED(open("fifo", O_RDWR | O_CLOEXEC) >= 0);
}

static const struct call calls[] = {
	{ .name = "nanosleep", .how = RELATIVE, .run = run_nanosleep },
	{ .name = "nanosleep that tells the rest", .how = RELATIVE, .run = run_nanosleep_rest },
	{ .name = "clock_nanosleep, monotonic",
	  .how = RELATIVE, .run = run_clock_nanosleep, .clock = CLOCK_MONOTONIC },
	{ .name = "clock_nanosleep, realtime", .how = RELATIVE, .run = run_clock_nanosleep, .clock = CLOCK_REALTIME },
	{ .name = "clock_nanosleep, boottime", .how = RELATIVE, .run = run_clock_nanosleep, .clock = CLOCK_BOOTTIME },
	{ .name = "clock_nanosleep, tai", .how = RELATIVE, .run = run_clock_nanosleep, .clock = CLOCK_TAI },
	{ .name = "clock_nanosleep, monotonic deadline",
	  .how = ABSOLUTE, .run = run_clock_deadline, .clock = CLOCK_MONOTONIC },
	{ .name = "clock_nanosleep, realtime deadline",
	  .how = ABSOLUTE, .run = run_clock_deadline, .clock = CLOCK_REALTIME },
	{ .name = "clock_nanosleep, boottime deadline",
	  .how = ABSOLUTE, .run = run_clock_deadline, .clock = CLOCK_BOOTTIME },
	{ .name = "clock_nanosleep, tai deadline", .how = ABSOLUTE, .run = run_clock_deadline, .clock = CLOCK_TAI },
	{ .name = "futex with a timeout", .how = RELATIVE, .run = run_futex_timed },
	{ .name = "futex with a deadline", .how = ABSOLUTE, .run = run_futex_deadline, .clock = CLOCK_MONOTONIC },
	{ .name = "futex with a realtime deadline",
	  .how = ABSOLUTE, .run = run_futex_deadline, .clock = CLOCK_REALTIME },
	{ .name = "futex of priority inheritance with a deadline",
	  .how = ABSOLUTE, .run = run_lock_pi_deadline, .clock = CLOCK_REALTIME, .nr = FUTEX_LOCK_PI },
	{ .name = "futex of priority inheritance with a monotonic deadline",
	  .how = ABSOLUTE, .run = run_lock_pi_deadline, .clock = CLOCK_MONOTONIC, .nr = FUTEX_LOCK_PI2 },
	{ .name = "futex_waitv with a deadline", .how = ABSOLUTE, .run = run_waitv_deadline },
	{ .name = "poll with a timeout", .how = RELATIVE, .run = run_poll_timed },
	{ .name = "ppoll with a timeout", .how = RELATIVE, .run = run_ppoll_timed },
	{ .name = "ppoll with a timeout that cannot be written", .how = RELATIVE, .run = run_ppoll_ro },
	{ .name = "select with a timeout", .how = RELATIVE, .run = run_select_timed },
	{ .name = "pselect with a timeout", .how = RELATIVE, .run = run_pselect_timed },
	{ .name = "pselect with a timeout that cannot be written", .how = RELATIVE, .run = run_pselect_ro },
	{ .name = "epoll_wait with a timeout", .how = RELATIVE, .run = run_epoll_timed, .nr = SYS_epoll_wait },
	{ .name = "epoll_pwait with a timeout", .how = RELATIVE, .run = run_epoll_timed, .nr = SYS_epoll_pwait },
	{ .name = "epoll_pwait2 with a timeout", .how = RELATIVE, .run = run_epoll_timed, .nr = SYS_epoll_pwait2 },
	{ .name = "rt_sigtimedwait", .how = RELATIVE, .run = run_sigtimedwait },
	{ .name = "read of a timerfd", .how = TIMER, .run = run_read_timerfd },
	/* The signal is sent first: it makes two sorts of them end that nothing else wakes. */
	{ .name = "pause", .how = WOKEN, .run = run_pause, .wake = wake_by_signal },
	{ .name = "sigsuspend", .how = WOKEN, .run = run_sigsuspend, .wake = wake_by_signal },
	{ .name = "sigwaitinfo", .how = WOKEN, .run = run_sigwait, .wake = wake_by_signal },
	{ .name = "futex", .how = WOKEN, .run = run_futex, .wake = wake_futex },
	{ .name = "futex with a bit set", .how = WOKEN, .run = run_futex_bitset, .wake = wake_futex },
	{ .name = "futex_waitv", .how = WOKEN, .run = run_waitv, .wake = wake_futex },
	{ .name = "futex of priority inheritance", .how = WOKEN, .run = run_lock_pi, .wake = wake_pi },
	{ .name = "poll", .how = WOKEN, .run = run_poll, .wake = wake_pipe },
	{ .name = "ppoll", .how = WOKEN, .run = run_ppoll, .wake = wake_pipe },
	{ .name = "select", .how = WOKEN, .run = run_select, .wake = wake_pipe },
	{ .name = "pselect", .how = WOKEN, .run = run_pselect, .wake = wake_pipe },
	{ .name = "epoll_wait", .how = WOKEN, .run = run_epoll, .nr = SYS_epoll_wait, .wake = wake_pipe },
	{ .name = "epoll_pwait", .how = WOKEN, .run = run_epoll, .nr = SYS_epoll_pwait, .wake = wake_pipe },
	{ .name = "epoll_pwait2", .how = WOKEN, .run = run_epoll, .nr = SYS_epoll_pwait2, .wake = wake_pipe },
	{ .name = "read of a pipe", .how = WOKEN, .run = run_read_pipe, .wake = wake_read_pipe },
	{ .name = "read of an eventfd", .how = WOKEN, .run = run_read_eventfd, .wake = wake_eventfd },
	{ .name = "write to a full pipe", .how = WOKEN, .run = run_write, .wake = wake_write },
	{ .name = "wait4", .how = WOKEN, .run = run_wait4 },   /* their children go by themselves */
	{ .name = "waitid", .how = WOKEN, .run = run_waitid },
	{ .name = "accept", .how = WOKEN, .run = run_accept, .wake = wake_accept },
	{ .name = "recv", .how = WOKEN, .run = run_recv, .wake = wake_recv },
	{ .name = "open of a FIFO", .how = WOKEN, .run = run_open_fifo, .wake = wake_open_fifo },
	{ .name = "splice", .how = WOKEN, .run = run_splice, .wake = wake_splice },
};

enum { NR_CALLS = sizeof(calls) / sizeof(calls[0]) };

static struct wait waits[NR_POINTS][NR_CALLS];

static void wake_by_signal(const struct call *c)
{
	for (int point = 0; point < NR_POINTS; point++)
		pthread_kill(waits[point][c - calls].thread, c->run == run_sigwait ? SIGUSR2 : SIGUSR1);
}

static void *make_call(void *arg)
{
	struct wait *w = arg;

	w->start_ns = self_now_ns(CLOCK_MONOTONIC);
	w->result = w->call->run(w->call, w);
	__atomic_store_n(&w->end_ns, self_now_ns(CLOCK_MONOTONIC), __ATOMIC_RELEASE);
	return NULL;
}

static void start(pthread_t *thread, void *(*fn)(void *arg), void *arg)
{
	pthread_attr_t attr;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	int err = pthread_create(thread, &attr, fn, arg);
	CHECK(!err, "no thread: %s", strerror(err));
	pthread_attr_destroy(&attr);
}

/* Until all other threads of the process sleep in the kernel. */
static void await_sleep(void)
{
	char path[64], text[256];
	int nr_awake;

	do {
		DIR *dir = opendir("/proc/self/task");
		const struct dirent *d;

		NEED(dir);
		nr_awake = 0;
		while ((d = readdir(dir))) {
			if (d->d_name[0] == '.' || atoi(d->d_name) == owner_tid)
				continue;
			snprintf(path, sizeof(path), "/proc/self/task/%.16s/stat", d->d_name);
			int fd = open(path, O_RDONLY | O_CLOEXEC);
			/* One that has ended meanwhile was awake for it. */
			bool asleep = fd >= 0 && read(fd, text, sizeof(text)) > 0 && strstr(text, ") S ");

			if (fd >= 0)
				close(fd);
			nr_awake += !asleep;
		}
		closedir(dir);
		if (nr_awake)
			self_nap(ms);
	} while (nr_awake);
}

/* --- how long the target was away --- */

/*
 * What a sampler saw of its biggest gap: it did not run between the last look before it and the first one after it. All
 * threads are not stopped at the same instant, nor let go: some samplers are the eldest threads and some the youngest, and
 * the others' stops lie between theirs. Smaller gaps are added up: a dump stops its target for moments before it stops it
 * for good, and a wait may go on where it was after each of them.
 */
static struct sampler {
	pthread_t thread;
	int64_t from_ns, to_ns, others_ns;
} samplers[NR_SAMPLERS];
static bool stop_sampling;

static void *sample(void *arg)
{
	struct sampler *s = arg;
	int64_t last = self_now_ns(CLOCK_MONOTONIC);

	while (!__atomic_load_n(&stop_sampling, __ATOMIC_RELAXED)) {
		self_nap(SAMPLE_NS);
		int64_t now = self_now_ns(CLOCK_MONOTONIC), gap = now - last;
		int64_t smaller = gap < s->to_ns - s->from_ns ? gap : s->to_ns - s->from_ns;
		if (smaller > 2 * SAMPLE_NS)
			s->others_ns += smaller - SAMPLE_NS;
		if (gap > s->to_ns - s->from_ns) {
			s->from_ns = last;
			s->to_ns = now;
		}
		last = now;
	}
	return NULL;
}

static void start_samplers(int from, int to)
{
	for (int i = from; i < to; i++)
		start(&samplers[i].thread, sample, &samplers[i]);
}

/* When the target was away: between which moments it went, and between which it came back. */
struct away {
	int64_t first_gone_ns, last_gone_ns, first_back_ns, last_back_ns;
	int64_t others_ns; /* all other gaps together */
};

static void join_samplers(struct away *a)
{
	__atomic_store_n(&stop_sampling, true, __ATOMIC_RELAXED);
	*a = (struct away){ INT64_MAX, 0, INT64_MAX, 0, INT64_MAX };
	for (int i = 0; i < NR_SAMPLERS; i++) {
		const struct sampler *s = &samplers[i];

		pthread_join(s->thread, NULL);
		a->first_gone_ns = s->from_ns < a->first_gone_ns ? s->from_ns : a->first_gone_ns;
		a->last_gone_ns = s->from_ns + SAMPLE_NS > a->last_gone_ns ? s->from_ns + SAMPLE_NS : a->last_gone_ns;
		a->first_back_ns = s->to_ns - SAMPLE_NS < a->first_back_ns ? s->to_ns - SAMPLE_NS : a->first_back_ns;
		a->last_back_ns = s->to_ns > a->last_back_ns ? s->to_ns : a->last_back_ns;
		a->others_ns = s->others_ns < a->others_ns ? s->others_ns : a->others_ns;
	}
}

static void run_fifo(void)
{
	struct sched_param param = { .sched_priority = 1 };

	if (sched_setscheduler(0, SCHED_FIFO, &param))
		printf("not under SCHED_FIFO: %s\n", strerror(errno));
}

/* --- the twin --- */

__attribute__((noreturn)) static void run_twin(void)
{
	struct noise noise;
	char text[32];

	run_fifo();
	NEED(noise_start(&noise));
	self_ready();
	while (access("go", F_OK))
		self_nap(SAMPLE_NS);
	snprintf(text, sizeof(text), "%ld\n", noise_end(&noise));
	self_write_file("noise", text);
	self_pass();
}

static int64_t read_noise(void)
{
	long noise_ns = 0;
	FILE *f = fopen("noise", "re");

	if (f && fscanf(f, "%ld", &noise_ns) != 1)
		CHECK(false, "the twin's file is not a number");
	if (f)
		fclose(f);
	return noise_ns;
}

/* --- the target --- */

static void prepare(void)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = 42 };
	struct sockaddr_in any = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	static char block[65536];
	sigset_t blocked;

	NEED(pipe2(silent, O_CLOEXEC) == 0 && pipe2(ending, O_CLOEXEC) == 0);
	NEED(pipe2(noisy, O_CLOEXEC) == 0 && pipe2(eaten, O_CLOEXEC) == 0);
	NEED(pipe2(full, O_CLOEXEC) == 0 && write(full[1], block, sizeof(block)) == sizeof(block));
	event_fd = eventfd(0, EFD_SEMAPHORE | EFD_CLOEXEC);
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	silent_epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	NEED(event_fd >= 0 && epoll_fd >= 0 && silent_epoll_fd >= 0);
	NEED(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, noisy[0], &ev) == 0);
	NEED(epoll_ctl(silent_epoll_fd, EPOLL_CTL_ADD, silent[0], &ev) == 0);
	listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	NEED(listen_fd >= 0 && bind(listen_fd, (void *)&any, sizeof(any)) == 0 && listen(listen_fd, NR_POINTS) == 0);
	udp_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	NEED(udp_fd >= 0 && bind(udp_fd, (void *)&any, sizeof(any)) == 0);
	NEED(mkfifo("fifo", 0600) == 0);

	struct timespec *ro = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	NEED(ro != MAP_FAILED);
	*ro = wait_ts = (struct timespec){ wait_ns / 1000000000, wait_ns % 1000000000 };
	NEED(mprotect(ro, 4096, PROT_READ) == 0);
	wait_ro = ro;

	owner_tid = gettid();
	NEED(syscall(SYS_futex, &word_pi_held, FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0) == 0);
	NEED(syscall(SYS_futex, &word_pi, FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0) == 0);

	signal(SIGUSR1, on_signal);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGUSR1);
	sigaddset(&blocked, SIGUSR2);
	sigaddset(&blocked, SIGWINCH);
	sigprocmask(SIG_BLOCK, &blocked, NULL);
	for (int point = 0; point < NR_POINTS; point++)
		for (int i = 0; i < NR_CALLS; i++)
			if (calls[i].run == run_wait4 || calls[i].run == run_waitid)
				waits[point][i].child = make_child();
	/* After the children, whose waits are not looked at. */
	run_fifo();
}

/* False, with a line that says why, when it went wrong. */
static bool check_wait(const struct wait *w, int point, const struct away *a, bool running, int64_t noise_ns)
{
	const struct call *c = w->call;
	int64_t took = w->end_ns - w->start_ns, least = wait_ns, most = wait_ns;

	if (w->result) {
		printf("%s, point %d: %s\n", c->name, point,
		       w->result == -EPROTO ? "unexpected result" : strerror((int)-w->result));
		return false;
	}
	/* When a timerfd expires is a matter of the timerfd. */
	if (c->how == WOKEN || c->how == TIMER)
		return true;
	if (c->how == RELATIVE) {
		/* Stops that a running target hardly notices: what it stood still may be added, and need not. */
		least += running ? 0 : a->first_back_ns - a->last_gone_ns - noise_ns;
		most += a->last_back_ns - a->first_gone_ns + a->others_ns;
	} else if (w->start_ns + wait_ns < a->last_back_ns) {
		/* The date was over when it came back. */
		most = a->last_back_ns - w->start_ns;
	}
	if (took > least - PRECISION_NS && took < most + PRECISION_NS + noise_ns)
		return true;
	printf("%s, point %d: took %.3f ms, should take %.3f to %.3f ms (away %.3f ms, machine late by %.3f ms)\n", c->name, point,
	       took / 1e6, least / 1e6, most / 1e6, (a->first_back_ns - a->last_gone_ns) / 1e6, noise_ns / 1e6);
	return false;
}

/* A stop that came too late finds nothing to interrupt. */
static void check_in_time(const struct away *a)
{
	for (int point = 0; point < NR_POINTS; point++)
		for (int i = 0; i < NR_CALLS; i++) {
			const struct wait *w = &waits[point][i];
			int64_t end_ns = __atomic_load_n(&w->end_ns, __ATOMIC_ACQUIRE);

			if (end_ns && w->call->wake)
				CHECK(false, "%s, point %d: returned %s before it was woken", w->call->name, point,
				      strerror((int)-w->result));
			if (w->call->how != WOKEN && end_ns && end_ns < a->first_gone_ns && !w->result) {
				printf("%s, point %d: over before the stop\n", w->call->name, point);
				exit(LATE);
			}
		}
}

int main(int argc, char **argv)
{
	struct away away;
	int nr_wrong = 0;

	self_init(argc, argv);
	if (argc < 3)
		run_twin();
	wait_ns = atoi(argv[2]) * ms;
	prepare();
	start_samplers(0, NR_SAMPLERS / 2);
	for (int point = 0; point < NR_POINTS; point++) {
		if (point)
			self_nap(STEP_MS * ms);
		for (int i = 0; i < NR_CALLS; i++) {
			waits[point][i].call = &calls[i];
			start(&waits[point][i].thread, make_call, &waits[point][i]);
		}
	}
	await_sleep();
	start_samplers(NR_SAMPLERS / 2, NR_SAMPLERS);
	self_ready();
	self_wait();

	bool running = access("running", F_OK) == 0;
	int64_t noise_ns = read_noise();
	join_samplers(&away);
	check_in_time(&away);
	for (int i = 0; i < NR_CALLS; i++)
		if (calls[i].wake && (calls[i].wake != wake_pipe || calls[i].run == run_poll) &&
		    (calls[i].wake != wake_futex || calls[i].run == run_futex))
			calls[i].wake(&calls[i]);
	for (int point = 0; point < NR_POINTS; point++)
		for (int i = 0; i < NR_CALLS; i++)
			pthread_join(waits[point][i].thread, NULL);
	for (int point = 0; point < NR_POINTS; point++)
		for (int i = 0; i < NR_CALLS; i++)
			nr_wrong += !check_wait(&waits[point][i], point, &away, running, noise_ns);
	fflush(stdout);
	CHECK(!nr_wrong, "%d of %d waits went wrong", nr_wrong, NR_POINTS * NR_CALLS);
	self_pass();
}
