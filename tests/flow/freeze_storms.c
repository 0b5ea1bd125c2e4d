/*
 * What may happen to a thread while it is seized, interrupted and awaited: signals and stop signals, execve by a thread that is not the
 * leader, vfork by one whose child takes its time. Nothing is lost, nothing hangs, and the stop holds everything.
 *
 *   freeze_storms exec SHM_FD    is this program after an execve
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "freeze_rig.h"

enum { NR_SLEEPERS = 200, NR_FREEZES = 60, NR_SIGNALS = 4000, PATIENCE_MS = 10000 };

static struct shared {
	atomic_long steps, got, sum, sent, ready;
	atomic_int end, tell;
} *shared;

static int shm_fd;

static void *sleeper(void *arg)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	shared->ready++;
	while (!shared->end)
		pause();
	return arg;
}

static void start_sleepers(int nr)
{
	pthread_attr_t small;
	pthread_t t;

	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 64 << 10);
	for (int i = 0; i < nr; i++)
		if (pthread_create(&t, &small, sleeper, NULL))
			_exit(2);
}

/* Waits until the target has changed the number. */
static bool changes(const atomic_long *number, long before)
{
	for (int ms = 0; ms < PATIENCE_MS; ms++) {
		if (*number != before)
			return true;
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
	return false;
}

static bool goes_on(void)
{
	return changes(&shared->steps, shared->steps);
}

static bool stands_still(void)
{
	long before = shared->steps;

	nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
	return shared->steps == before;
}

/* Freezes again and again, with a lister and without, prepared and not. */
static void freeze_often(pid_t pid, const char *what)
{
	struct freeze *f;
	struct proc_lister lister = proc_lister(pid);
	int failures_before = failures;

	if (freeze_create("ptrace", pid, 10, &f))
		return check(false, "create");
	for (int i = 0; i < NR_FREEZES && failures == failures_before; i++) {
		if (i == NR_FREEZES / 2)
			use_lister(f, &lister);
		if (i % 2)
			check(!freeze_prepare(f), "prepare");
		check(!freeze_stop(f), "stop");
		check(stands_still(), "everything stands still");
		check(!freeze_was_listed(f) || (lister.in_stop && lister.stood), "who was said to be listed standing still stood still");
		check(freeze_frozen_us(f) < 5000000, "it does not take long");
		check(!freeze_thaw(f, THAW_RUN, NULL), "thaw");
		check(goes_on(), "everything goes on");
	}
	freeze_destroy(f);
	if (failures != failures_before)
		printf("... during %s\n", what);
}

static pid_t start(void (*target)(void))
{
	memset(shared, 0, sizeof(*shared));
	pid_t pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		target();
		_exit(0);
	}
	check(goes_on(), "the target begins");
	return pid;
}

/* --- signals --- */

static void on_signal(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	shared->sum += info->si_value.sival_int;
	shared->got++;
}

/* The leader is seized first and, as it runs, interrupted last: between the two it meets most of the signals. */
static void signal_target(void)
{
	struct sigaction sa = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO };

	sigaction(SIGRTMIN, &sa, NULL);
	start_sleepers(NR_SLEEPERS);
	while (shared->got < NR_SIGNALS)
		shared->steps++;
	/* Till the freezes are over. */
	while (!shared->end)
		shared->steps++;
}

static void send_signals(pid_t pid)
{
	for (int i = 1; i <= NR_SIGNALS; i++) {
		while (sigqueue(pid, SIGRTMIN, (union sigval){ .sival_int = i }) != 0)
			sched_yield();
		/* No faster than they are taken: they are to come all the time. */
		while (shared->got < i - 2 && !shared->end)
			sched_yield();
	}
}

static void check_signals(void)
{
	pid_t pid = start(signal_target);
	pid_t sender = fork();

	if (!sender) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		send_signals(pid);
		_exit(0);
	}
	freeze_often(pid, "signals");
	for (int ms = 0; ms < PATIENCE_MS && shared->got < NR_SIGNALS; ms++)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	check(shared->got == NR_SIGNALS && shared->sum == (long)NR_SIGNALS * (NR_SIGNALS + 1) / 2, "every signal came once");
	shared->end = 1;
	waitpid(sender, NULL, 0);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

/* --- stop signals --- */

static void count_target(void)
{
	start_sleepers(NR_SLEEPERS);
	while (!shared->end)
		shared->steps++;
}

static void check_stop_signals(void)
{
	pid_t pid = start(count_target);
	pid_t sender = fork();

	if (!sender) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		while (!shared->end) {
			kill(pid, SIGSTOP);
			kill(pid, SIGCONT);
			sched_yield();
		}
		_exit(0);
	}
	freeze_often(pid, "stop signals");
	shared->end = 1;
	waitpid(sender, NULL, 0);
	kill(pid, SIGCONT);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

/* --- execve --- */

static void *exec_again(void *arg)
{
	char fd[16];

	/* It belongs to the thread, and this one becomes the leader. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	snprintf(fd, sizeof(fd), "%d", shm_fd);
	shared->steps++;
	if (!shared->end)
		execl("/proc/self/exe", "freeze_storms", "exec", fd, NULL);
	return arg;
}

/* The leader sleeps, and a thread replaces it. */
static void exec_target(void)
{
	pthread_t t;

	start_sleepers(3);
	if (pthread_create(&t, NULL, exec_again, NULL))
		_exit(2);
	pthread_join(t, NULL);
	_exit(0);
}

static void check_exec(void)
{
	pid_t pid = start(exec_target);
	int status;

	freeze_often(pid, "execve");
	shared->end = 1;
	waitpid(pid, &status, 0);
	check(status == 0, "the end of what calls execve");
}

static void *exec_when_told(void *arg)
{
	while (!shared->tell)
		shared->steps++;
	return exec_again(arg);
}

static void told_target(void)
{
	pthread_t t;

	if (pthread_create(&t, NULL, exec_when_told, NULL))
		_exit(2);
	pthread_join(t, NULL);
	_exit(0);
}

/* A listing that has missed the thread, and one that comes when it has become the leader. */
static int list_around_exec(void *arg, bool stopping, int (*add)(void *ctx, pid_t pid, pid_t tid), void *ctx)
{
	struct proc_lister *p = arg;

	if (!p->nr_calls++)
		return add(ctx, p->root, p->root);
	shared->tell = 1;
	/* The new program has sleepers. */
	check(changes(&shared->ready, 0), "the thread calls execve");
	p->in_stop = p->stood = stopping;
	return list_process(p, p->root, add, ctx);
}

static void check_unseen_exec(void)
{
	pid_t pid = start(told_target);
	struct proc_lister lister = { .lister = { .list = list_around_exec }, .root = pid };
	struct freeze *f;
	int status;

	if (freeze_create("ptrace", pid, 10, &f))
		return check(false, "create");
	use_lister(f, &lister);
	check(!freeze_stop(f), "stop");
	check(lister.nr_calls > 1, "the tree was listed again");
	check(stands_still(), "what an unknown thread has become stands still");
	check(!freeze_was_listed(f) || lister.stood, "who was said to be listed standing still stood still");
	check(!freeze_thaw(f, THAW_RUN, NULL), "thaw");
	check(goes_on(), "it goes on");
	freeze_destroy(f);
	shared->end = 1;
	waitpid(pid, &status, 0);
	check(status == 0, "its end");
}

/* --- vfork --- */

static void vfork_target(void)
{
	while (!shared->end) {
		pid_t child = vfork();

		if (!child) {
			/* It sleeps, and must not be stopped before its parent, which waits. */
			usleep(3000);
			execl("/proc/self/exe", "freeze_storms", "nothing", NULL);
			_exit(1);
		}
		int status;
		while (waitpid(child, &status, 0) < 0 && errno == EINTR)
			;
		if (status)
			_exit(3);
		shared->steps++;
	}
	_exit(0);
}

static void check_vfork(void)
{
	pid_t pid = start(vfork_target);
	int status;

	freeze_often(pid, "vfork");
	shared->end = 1;
	waitpid(pid, &status, 0);
	check(status == 0, "the end of what calls vfork");
}

/* Its child waits in vfork, for a grandchild that takes longer than the freezer's patience with a thread that does not stop. */
static void told_vfork_target(void)
{
	const struct timespec nap = { .tv_nsec = 1000000 }, long_nap = { .tv_nsec = 200000000 };
	pid_t pid = fork();

	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		shared->steps++;
		if (!vfork()) {
			shared->ready++;
			while (!shared->tell)
				nanosleep(&nap, NULL);
			nanosleep(&long_nap, NULL);
			_exit(0);
		}
		while (!shared->end)
			shared->steps++;
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	_exit(0);
}

/* A listing that has missed the child, and one that shows it when the stop has begun. */
static int list_late(void *arg, bool stopping, int (*add)(void *ctx, pid_t pid, pid_t tid), void *ctx)
{
	struct proc_lister *p = arg;

	if (!p->nr_calls++)
		return add(ctx, p->root, p->root);
	shared->tell = 1;
	p->in_stop = p->stood = stopping;
	return list_process(p, p->root, add, ctx);
}

/* Met inside the stop, it makes everything run once more, and the tree is stopped by /proc: what the lister saw before does not count. */
static void check_unseen_vfork(void)
{
	pid_t pid = start(told_vfork_target);
	struct proc_lister lister = { .lister = { .list = list_late }, .root = pid };
	struct freeze *f;
	int status;

	check(changes(&shared->ready, 0), "it waits in vfork");
	if (freeze_create("ptrace", pid, 10, &f))
		return check(false, "create");
	use_lister(f, &lister);
	check(!freeze_stop(f), "stop");
	check(lister.nr_calls > 1 && !lister.stood, "the lister met a child that did not stand still");
	check(!freeze_was_listed(f), "what it saw is not taken for the stopped tree");
	check(stands_still(), "what waited in vfork stands still");
	check(!freeze_thaw(f, THAW_RUN, NULL), "thaw");
	check(goes_on(), "it goes on");
	freeze_destroy(f);
	shared->end = 1;
	waitpid(pid, &status, 0);
	check(status == 0, "its end");
}

static int map_shared(void)
{
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED, shm_fd, 0);
	return shared == MAP_FAILED;
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc > 2 && !strcmp(argv[1], "exec")) {
		shm_fd = atoi(argv[2]);
		if (map_shared())
			return 4;
		exec_target();
	}
	/* Not by exit(3): under a tracer LeakSanitizer cannot look for leaks, and says so by the status. */
	if (argc > 1)
		_exit(0);
	shm_fd = memfd_create("freeze_storms", 0);
	if (shm_fd < 0 || ftruncate(shm_fd, sizeof(*shared)) || map_shared())
		return 1;
	check_signals();
	check_stop_signals();
	check_exec();
	check_unseen_exec();
	check_vfork();
	check_unseen_vfork();
	puts(failures ? "FAIL" : "PASS");
	return failures != 0;
}
