/* Signals that arrive while the target is stopped, or about to be, are all delivered; stopped processes stay stopped. */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "freeze/freeze.h"
#include "state.h"

enum { NR_SIGNALS = 3000 };

static struct shared {
	atomic_int ready, sender_done, end;
	atomic_long sum, got, eintr, returned;
} *shared;

static int failures;

static void check(bool ok, const char *what)
{
	if (ok)
		return;
	printf("wrong: %s\n", what);
	failures++;
}

static void on_signal(int sig, siginfo_t *info, void *context)
{
	shared->sum += info->si_value.sival_int;
	shared->got++;
}

/* A handler makes epoll_wait return EINTR; as often as there were handlers in it, and never without one. */
static int target(void)
{
	struct sigaction sa = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO };
	struct epoll_event ev;
	int ep = epoll_create1(0);
	long seen = 0;

	sigaction(SIGRTMIN, &sa, NULL);
	shared->ready = 1;
	while (shared->got < NR_SIGNALS) {
		if (epoll_wait(ep, &ev, 1, 200) == 0)
			continue;
		shared->eintr++;
		if (shared->got == seen)
			shared->returned++; /* EINTR although no handler ran */
		seen = shared->got;
	}
	/* It is not to end under the last freeze. */
	while (!shared->end)
		sched_yield();
	return 0;
}

static void send_all(pid_t pid)
{
	for (int i = 1; i <= NR_SIGNALS; i++)
		while (sigqueue(pid, SIGRTMIN, (union sigval){ .sival_int = i }) != 0)
			sched_yield();
	shared->sender_done = 1;
}

static void check_none_lost(void)
{
	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(target());
	}
	while (!shared->ready)
		sched_yield();

	pid_t sender = fork();
	if (sender == 0) {
		send_all(pid);
		_exit(0);
	}

	struct freeze *f;
	check(!freeze_create("ptrace", pid, 10, &f), "create");
	do {
		check(!freeze_stop(f) && !freeze_thaw(f, THAW_RUN, NULL), "stop and thaw");
	} while (!shared->sender_done && !failures);
	freeze_destroy(f);
	waitpid(sender, NULL, 0);
	shared->end = 1;
	int status;
	waitpid(pid, &status, 0);
	check(status == 0, "the target's end");
	check(shared->got == NR_SIGNALS && shared->sum == (long)NR_SIGNALS * (NR_SIGNALS + 1) / 2, "every signal came once");
	check(shared->returned == 0, "no EINTR without a handler");
}

static void check_stopped_stays(void)
{
	struct freeze *f;
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	kill(pid, SIGSTOP);
	waitpid(pid, &status, WUNTRACED);
	check(!freeze_create("ptrace", pid, 10, &f) && !freeze_stop(f), "stop what is stopped");
	check(freeze_was_stopped(f, pid), "it was stopped");
	check(!freeze_thaw(f, THAW_RUN, NULL), "thaw");
	freeze_destroy(f);
	for (int ms = 0; ms < 30000 && state_of(pid) != 'T'; ms++)
		usleep(1000);
	check(state_of(pid) == 'T', "it is stopped afterwards");

	kill(pid, SIGCONT);
	check(waitpid(pid, &status, WCONTINUED) == pid && WIFCONTINUED(status), "SIGCONT continues it");
	check(!freeze_create("ptrace", pid, 10, &f) && !freeze_stop(f) && !freeze_was_stopped(f, pid), "stop what runs");
	check(!freeze_thaw(f, THAW_STOP, NULL) && state_of(pid) == 'T', "left stopped");
	freeze_destroy(f);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

/* One clear refusal, and the tracer keeps what it had. */
static void check_other_tracer(void)
{
	int ready[2];
	char c;
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	if (pipe(ready))
		return check(false, "pipe");
	pid_t tracer = fork();
	if (tracer == 0) {
		struct freeze *f;

		if (freeze_create("ptrace", pid, 10, &f) || freeze_stop(f) || write(ready[1], "x", 1) != 1)
			_exit(1);
		pause();
	}
	check(read(ready[0], &c, 1) == 1, "the first tracer is there");

	struct freeze *f;
	check(!freeze_create("ptrace", pid, 10, &f) && freeze_stop(f) == -EBUSY, "a traced process is refused");
	freeze_destroy(f);
	check(state_of(pid) == 't', "the other tracer still has it");
	kill(tracer, SIGKILL);
	waitpid(tracer, NULL, 0);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return 1;
	check_none_lost();
	check_stopped_stays();
	check_other_tracer();
	puts(failures ? "FAIL" : "PASS");
	return failures != 0;
}
