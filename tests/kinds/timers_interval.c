/* The three interval timers: what remains, intervals, a signal that is pending between two periods of ITIMER_REAL; alarm(2). */
#include <signal.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "target.h"

enum { LEFT_S = 3000, SPREAD_S = 600 };

static void check(int which, long left_s, long spread_s, long s, long us)
{
	struct itimerval now;

	CHECK(!getitimer(which, &now));
	if (now.it_value.tv_sec >= left_s || now.it_value.tv_sec < left_s - spread_s)
		TARGET_FAIL("timer %d has %ld.%06ld s left", which, now.it_value.tv_sec, now.it_value.tv_usec);
	CHECK_EQUAL(now.it_interval.tv_sec, s);
	CHECK_EQUAL(now.it_interval.tv_usec, us);
}

static void set(int which, long left_s, long s, long us)
{
	CHECK(!setitimer(which, &(struct itimerval){ { s, us }, { left_s, 0 } }, NULL));
}

static void await_pending(int sig)
{
	sigset_t set;

	do
		CHECK(!sigpending(&set));
	while (!sigismember(&set, sig));
}

static void take(int sig)
{
	sigset_t set;
	siginfo_t info;

	sigemptyset(&set);
	sigaddset(&set, sig);
	CHECK_EQUAL(sigtimedwait(&set, &info, &(struct timespec){ .tv_sec = 100 }), sig);
	CHECK_EQUAL(info.si_code, SI_KERNEL);
}

int main(void)
{
	sigset_t all;
	int status;

	sigfillset(&all);
	CHECK(!sigprocmask(SIG_SETMASK, &all, NULL));
	/* A child whose alarm goes off every 50 ms, and one with alarm(2) only. */
	pid_t root = getpid(), child = fork();
	if (!child) {
		CHECK(!setitimer(ITIMER_REAL, &(struct itimerval){ { 0, 50000 }, { 0, 1 } }, NULL));
		await_pending(SIGALRM);
	} else {
		set(ITIMER_REAL, LEFT_S, 17, 999999);
		set(ITIMER_VIRTUAL, 10 * LEFT_S, 0, 1000);
		set(ITIMER_PROF, 20 * LEFT_S, 5, 0);
	}
	pid_t second = child ? fork() : 0;
	if (child && !second)
		alarm(LEFT_S);
	if (getpid() == root)
		target_ready();
	else
		while (access("go", F_OK))
			nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);

	if (!child) {
		/* What waits, and then the next ones. */
		for (int i = 0; i < 4; i++)
			take(SIGALRM);
		return 0;
	}
	check(ITIMER_REAL, LEFT_S, SPREAD_S, second ? 17 : 0, second ? 999999 : 0);
	if (!second)
		return 0;
	check(ITIMER_VIRTUAL, 10 * LEFT_S + 1, 30, 0, 1000);
	check(ITIMER_PROF, 20 * LEFT_S + 1, 30, 5, 0);
	for (int i = 0; i < 2; i++) {
		CHECK(wait(&status) > 0);
		CHECK_EQUAL(status, 0);
	}
	CHECK(alarm(0) > LEFT_S - SPREAD_S);

	/* By processor time, from now on. */
	CHECK(!setitimer(ITIMER_PROF, &(struct itimerval){ { 0, 0 }, { 0, 20000 } }, NULL));
	await_pending(SIGPROF);
	take(SIGPROF);
	return target_pass();
}
