/* 200 pending signals with values, in order: half to the process, half to a thread, of two numbers each. */
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>

#include "target.h"

enum { NR = 50 };

static sigset_t queued;

static void take(int sig, int from)
{
	const struct timespec none = {};
	sigset_t one;
	siginfo_t info;

	sigemptyset(&one);
	sigaddset(&one, sig);
	for (int i = 0; i < NR; i++) {
		CHECK_EQUAL(sigtimedwait(&one, &info, &none), sig);
		CHECK_EQUAL(info.si_value.sival_int, from + i);
		CHECK_EQUAL(info.si_code, SI_QUEUE);
		CHECK_EQUAL(info.si_pid, getpid());
		CHECK_EQUAL(info.si_uid, getuid());
	}
	CHECK(sigtimedwait(&one, &info, &none) < 0 && errno == EAGAIN);
}

static void *thread(void *arg)
{
	int *ends = arg, sig;
	char byte;

	CHECK_EQUAL(read(ends[0], &byte, 1), 1);
	/* To the thread first: whatever is sent to it in particular is taken before what is for the process. */
	for (sig = SIGRTMIN + 2; sig < SIGRTMIN + 4; sig++)
		take(sig, 1000 * sig);
	return NULL;
}

int main(void)
{
	int ends[2];
	pthread_t t;

	sigemptyset(&queued);
	for (int i = 0; i < 4; i++)
		sigaddset(&queued, SIGRTMIN + i);
	CHECK(!pthread_sigmask(SIG_BLOCK, &queued, NULL));
	CHECK(!pipe(ends));
	CHECK(!pthread_create(&t, NULL, thread, ends));
	for (int i = 0; i < NR; i++) {
		for (int k = 0; k < 4; k++) {
			int sig = SIGRTMIN + k;
			union sigval value = { .sival_int = 1000 * sig + i };

			CHECK(!(k < 2 ? sigqueue(getpid(), sig, value) : pthread_sigqueue(t, sig, value)));
		}
	}
	target_ready();
	CHECK_EQUAL(write(ends[1], "x", 1), 1);
	CHECK(!pthread_join(t, NULL));
	for (int sig = SIGRTMIN; sig < SIGRTMIN + 2; sig++)
		take(sig, 1000 * sig);
	return target_pass();
}
