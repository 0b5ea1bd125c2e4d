/*
 * Remote calls and the parasite in threads that were stopped inside calls of their own: what they ask is right, the calls
 * go on as if nothing had been, and a thread whose tracer is killed while the parasite runs goes back to its work.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "capture/capture.h"
#include "capture/parasite.h"
#include "capture/remote.h"
#include "freeze/freeze.h"
#include "noise.h"

/* The sanitizer gives every thread an alternate stack; here they are the test's own. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "use_sigaltstack=0";
}

enum { SLEEP_MS = 3000, SLACK_MS = 400, ORPHAN_MS = 1000, PATIENCE_MS = 30000, ROUNDS = 20, ALTSTACK_BYTES = 32768 };

static struct shared {
	atomic_int ready, failures, spins;
	pid_t tids[4];
	atomic_long began_ms, took_ms; /* the sleep */
	taddr_t clear_tid;
} *shared;

static int pipe_fds[2], failures;
static char altstack_memory[ALTSTACK_BYTES];

static void check(bool ok, const char *what)
{
	if (ok)
		return;
	printf("wrong: %s\n", what);
	fflush(stdout);
	failures++;
	if (shared)
		shared->failures++;
}

static void handler(int sig)
{
	check(false, "a signal arrived that nobody sent");
}

static void set_altstack(void)
{
	stack_t st = { .ss_sp = altstack_memory, .ss_size = sizeof(altstack_memory) };

	sigaltstack(&st, NULL);
}

static long now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void enter(int slot)
{
	shared->tids[slot] = (pid_t)syscall(SYS_gettid);
	shared->ready++;
}

static void *sleeper(void *arg)
{
	struct timespec t = { SLEEP_MS / 1000, SLEEP_MS % 1000 * 1000000 }, left;

	shared->began_ms = now_ms();
	enter(1);
	check(nanosleep(&t, &left) == 0, "nanosleep was interrupted");
	shared->took_ms = now_ms() - shared->began_ms;
	return NULL;
}

static void *waiter(void *arg)
{
	struct epoll_event ev = { .events = EPOLLIN };
	int ep = epoll_create1(0);

	epoll_ctl(ep, EPOLL_CTL_ADD, pipe_fds[0], &ev);
	set_altstack();
	enter(2);
	check(epoll_wait(ep, &ev, 1, -1) == 1, "epoll_wait was interrupted");
	return NULL;
}

/* Counts with state in a vector register and in flags: nothing of it may change. */
static void *spinner(void *arg)
{
	double x = 1.0;

	enter(3);
	while (shared->ready < 100) {
		for (int i = 0; i < 1000; i++)
			x = x * 1.0000001 / 1.0000001;
		shared->spins++;
	}
	check(x > 0.999 && x < 1.001, "floating point state changed");
	return NULL;
}

static int target(void)
{
	pthread_t threads[3];
	struct itimerval it = { .it_value = { .tv_sec = 1000 }, .it_interval = { .tv_usec = 77 } };
	struct sigevent sev = { .sigev_notify = SIGEV_NONE };
	struct itimerspec its = { .it_value = { 500, 0 }, .it_interval = { 3, 5 } };
	sigset_t block;
	timer_t timer;

	signal(SIGUSR2, handler);
	signal(SIGTRAP, SIG_IGN);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	setitimer(ITIMER_REAL, &it, NULL);
	timer_create(CLOCK_MONOTONIC, &sev, &timer);
	timer_settime(timer, 0, &its, NULL);
	sigemptyset(&block);
	sigaddset(&block, SIGUSR1);
	sigprocmask(SIG_BLOCK, &block, NULL);
	kill(getpid(), SIGUSR1);
	pthread_create(&threads[0], NULL, sleeper, NULL);
	pthread_create(&threads[1], NULL, waiter, NULL);
	pthread_create(&threads[2], NULL, spinner, NULL);
	enter(0);
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);

	struct sigaction sa;
	sigaction(SIGTRAP, NULL, &sa);
	check(sa.sa_handler == SIG_IGN, "the action of SIGTRAP changed");
	return shared->failures != 0;
}

static void check_remote(pid_t pid)
{
	struct remote r;
	int64_t ret = 0;
	taddr_t at;
	struct way_back_code code;

	way_back_find(pid, &code);
	for (int i = 0; i < 4; i++) {
		if (remote_begin(&r, pid, shared->tids[i], &code)) {
			check(false, "remote_begin failed");
			continue;
		}
		check(!remote_syscall(&r, SYS_gettid, (uint64_t[6]){ 0 }, &ret) && ret == shared->tids[i], "remote gettid");
		check(!remote_syscall(&r, SYS_close, (uint64_t[6]){ 9999 }, &ret) && ret == -EBADF, "remote close of no descriptor");
		check(!remote_map(&r, 8192, &at) && !remote_write(pid, at, "text", 5) && !remote_unmap(&r, at, 8192), "remote memory");
		check(!remote_end(&r), "remote_end");
	}
}

static void make_model(struct model *m, pid_t pid)
{
	struct task *task = VEC_ADD(&m->tasks);

	task->pid = pid;
	task->state = TASK_ALIVE;
	task->mm_id = model_add_mm(m, 0)->id;
	VEC_ADD(&task->timers)->id = 0;
	for (int i = 0; i < 4; i++)
		VEC_ADD(&task->threads)->tid = shared->tids[i];
}

static void check_state(struct freeze *f, pid_t pid)
{
	struct model *m = model_create();
	struct task *t;

	make_model(m, pid);
	check(!freeze_read_cpu(f, m), "freeze_read_cpu");
	check(!capture_thread_state(f, m), "capture_thread_state");
	t = &m->tasks.v[0];
	check(t->pending.nr == 1 && *(int *)t->pending.v[0].bytes == SIGUSR1, "pending SIGUSR1 of the process");
	check(t->threads.v[0].sigmask == 1ull << (SIGUSR1 - 1), "signal mask");
	check(t->sigactions[SIGUSR2 - 1].handler == (uintptr_t)handler, "action of SIGUSR2");
	check(t->sigactions[SIGTRAP - 1].handler == (uintptr_t)SIG_IGN, "action of SIGTRAP");
	check(t->child_subreaper, "child subreaper");
	check(t->itimers[0].interval_us == 77 && t->itimers[0].value_us > 900000000 && t->itimers[0].value_us <= 1000000000,
	      "interval timer");
	check(t->timers.v[0].interval_ns == 3000000005 && t->timers.v[0].value_ns > 400000000000, "POSIX timer");
	check(t->threads.v[1].restart.kind == RESTART_NANOSLEEP && t->threads.v[1].restart.remaining_ns > 0 &&
		      t->threads.v[1].restart.remaining_ns < SLEEP_MS * 1000000ll, "remaining time of nanosleep");
	check(t->threads.v[2].altstack.sp == (uintptr_t)altstack_memory && t->threads.v[2].altstack.size_bytes == ALTSTACK_BYTES &&
		      t->threads.v[2].altstack.flags == 0, "alternate stack");
	check(t->threads.v[3].altstack.flags == SS_DISABLE, "no alternate stack");
	check(t->threads.v[3].clear_tid != 0, "clear_child_tid");
	check(t->threads.v[3].rseq.ptr != 0, "rseq");
	check(model_find_mm(m, t->mm_id)->dumpable == 1, "dumpable");
	model_destroy(m);
}

/* A child injects the parasite and is killed while the parasite is in a call that lasts. */
static void check_orphan(pid_t pid, pid_t tid)
{
	int ready[2];

	if (pipe(ready))
		return check(false, "pipe");
	pid_t freezer = fork();
	if (freezer == 0) {
		struct freeze *f;
		struct parasite p;
		static struct parasite_list list;
		uint32_t at;
		struct timespec t = { ORPHAN_MS / 1000, ORPHAN_MS % 1000 * 1000000 };

		if (freeze_create("ptrace", pid, 10, &f) || freeze_stop(f) || parasite_inject(pid, tid, &p))
			_exit(1);
		taddr_t there = parasite_data(&p, &list, sizeof(t), &at);
		memcpy(list.data + at, &t, sizeof(t));
		parasite_add(&list, SYS_nanosleep, there, 0, 0, 0);
		if (write(ready[1], "x", 1) != 1)
			_exit(1);
		parasite_execute(&p, tid, &list);
		_exit(0);
	}

	char c;
	check(read(ready[0], &c, 1) == 1, "the freezer began");
	/* Until the thread is in the parasite's nanosleep; then its tracer dies. */
	char path[64], line[64];
	snprintf(path, sizeof(path), "/proc/%d/task/%d/syscall", pid, tid);
	for (;;) {
		FILE *in = fopen(path, "r");
		bool there = in && fgets(line, sizeof(line), in) && strncmp(line, "35 ", 3) == 0;
		if (in)
			fclose(in);
		if (there || waitpid(freezer, NULL, WNOHANG) != 0)
			break;
	}
	kill(freezer, SIGKILL);
	int status = 0;
	waitpid(freezer, &status, 0);
	check(WIFSIGNALED(status), "the freezer was killed in mid-work");
	close(ready[0]);
	close(ready[1]);
}

int main(void)
{
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED || pipe(pipe_fds))
		return 1;

	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(target());
	}
	struct noise noise;
	if (!noise_start(&noise))
		return 1;
	while (shared->ready < 4)
		sched_yield();

	struct freeze *f;
	int rounds = 0;
	/* The thread that sleeps has to be there: a slow machine gets fewer rounds. */
	for (; rounds < ROUNDS && now_ms() < shared->began_ms + SLEEP_MS / 2; rounds++) {
		if (freeze_create("ptrace", pid, 10, &f) || freeze_stop(f))
			return 1;
		check_remote(pid);
		check_state(f, pid);
		freeze_destroy(f);
	}
	check(rounds > 0, "no round");
	check_orphan(pid, shared->tids[2]);
	check_orphan(pid, shared->tids[3]);

	int spins = shared->spins;
	for (int i = 0; i < PATIENCE_MS && shared->spins == spins; i++)
		usleep(1000);
	check(shared->spins != spins, "the spinning thread goes on");
	shared->ready = 100;
	if (write(pipe_fds[1], "x", 1) != 1)
		return 1;
	int status;
	waitpid(pid, &status, 0);
	if (status)
		printf("target ended with status %#x\n", status);
	long late_ms = noise_end(&noise) / 1000000;
	check(shared->took_ms >= SLEEP_MS && shared->took_ms < SLEEP_MS + SLACK_MS + late_ms, "nanosleep took another time");
	if (status || failures || shared->failures)
		return 1;
	puts("PASS");
	return 0;
}
