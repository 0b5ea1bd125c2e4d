/*
 * Signal state: actions, masks, queued signals with their values, timers; and a program that is dumped inside a handler,
 * on its alternate stack.
 */
#include <pthread.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <ucontext.h>

#include "self.h"

#ifndef SA_RESTORER
#define SA_RESTORER 0x04000000
#endif

enum { NR_QUEUED = 5, NR_FOR_THREAD = 3, TIMER_S = 1000 };

static char alternate[65536];
static volatile sig_atomic_t in_handler, reset_count;

static void on_reset(int sig)
{
	reset_count++;
}

static void on_info(int sig, siginfo_t *info, void *context)
{
}

/* The handler that everything is dumped in. */
static void on_dump(int sig, siginfo_t *info, void *context)
{
	char here;
	stack_t stack;
	sigset_t mask;

	in_handler = 1;
	CHECK(&here >= alternate && &here < alternate + sizeof(alternate), "not on the alternate stack");
	self_ready();
	self_wait();

	CHECK(sig == SIGUSR1 && info->si_signo == SIGUSR1, "signal %d", sig);
	CHECK(info->si_code == SI_QUEUE && info->si_value.sival_int == 77, "value %d", info->si_value.sival_int);
	NEED(sigaltstack(NULL, &stack) == 0);
	CHECK(stack.ss_flags & SS_ONSTACK, "flags %#x", stack.ss_flags);
	sigprocmask(SIG_SETMASK, NULL, &mask);
	CHECK(sigismember(&mask, SIGUSR1) && sigismember(&mask, SIGWINCH), "the mask of the handler");
	in_handler = 2;
}

static void set_action(int sig, void (*handler)(int, siginfo_t *, void *), int flags, int masked)
{
	struct sigaction sa = { .sa_sigaction = handler, .sa_flags = flags };

	if (masked)
		sigaddset(&sa.sa_mask, masked);
	NEED(sigaction(sig, &sa, NULL) == 0);
}

static void check_action(int sig, void (*handler)(int, siginfo_t *, void *), int flags, int masked)
{
	struct sigaction sa;

	NEED(sigaction(sig, NULL, &sa) == 0);
	sa.sa_flags &= ~SA_RESTORER; /* libc's own business */
	CHECK(sa.sa_sigaction == handler, "signal %d: handler %p", sig, (void *)sa.sa_sigaction);
	CHECK(sa.sa_flags == flags, "signal %d: flags %#x, were %#x", sig, sa.sa_flags, flags);
	for (int i = 1; i < 65; i++)
		CHECK((sigismember(&sa.sa_mask, i) == 1) == (i == masked), "signal %d: %d in its mask", sig, i);
}

static void check_pending(int sig, int code, int value)
{
	static const struct timespec now = { 0, 0 };
	siginfo_t info;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, sig);
	CHECK(sigtimedwait(&set, &info, &now) == sig, "signal %d is not pending: %s", sig, strerror(errno));
	CHECK(info.si_code == code, "signal %d: code %d", sig, info.si_code);
	CHECK(info.si_pid == getpid() && info.si_uid == getuid(), "signal %d: from pid %d", sig, info.si_pid);
	CHECK(code != SI_QUEUE || info.si_value.sival_int == value, "signal %d: value %d, was %d", sig,
	      info.si_value.sival_int, value);
}

static void check_not_pending(int sig)
{
	sigset_t set;

	sigpending(&set);
	CHECK(!sigismember(&set, sig), "signal %d is pending once more", sig);
}

/* A thread with signals queued for it alone. */
static int to_thread[2], from_thread[2];

static void *run_thread(void *arg)
{
	char byte;

	for (int i = 0; i < NR_FOR_THREAD; i++)
		CHECK(pthread_sigqueue(pthread_self(), SIGRTMIN + 2, (union sigval){ .sival_int = 100 + i }) == 0,
		      "queue");
	NEED(write(from_thread[1], "", 1) == 1);
	NEED(read(to_thread[0], &byte, 1) == 1);
	for (int i = 0; i < NR_FOR_THREAD; i++)
		check_pending(SIGRTMIN + 2, SI_QUEUE, 100 + i);
	check_not_pending(SIGRTMIN + 2);
	return NULL;
}

static void check_timers(timer_t timer)
{
	struct itimerspec its;
	struct itimerval itv;

	NEED(getitimer(ITIMER_REAL, &itv) == 0);
	CHECK(itv.it_value.tv_sec > TIMER_S - 100 && itv.it_value.tv_sec < TIMER_S, "ITIMER_REAL has %ld s left",
	      itv.it_value.tv_sec);
	CHECK(itv.it_interval.tv_sec == 7 && itv.it_interval.tv_usec == 5000, "its interval");
	NEED(getitimer(ITIMER_PROF, &itv) == 0);
	CHECK(itv.it_value.tv_sec > TIMER_S - 100 && itv.it_value.tv_sec <= TIMER_S, "ITIMER_PROF has %ld s left",
	      itv.it_value.tv_sec);
	NEED(timer_gettime(timer, &its) == 0);
	CHECK(its.it_value.tv_sec > 2 * TIMER_S - 100 && its.it_value.tv_sec < 2 * TIMER_S, "the timer has %ld s left",
	      its.it_value.tv_sec);
	CHECK(its.it_interval.tv_sec == 3 && its.it_interval.tv_nsec == 9000, "its interval");

	/* It still raises its signal, with its value. */
	its.it_value = (struct timespec){ 0, 1000000 };
	its.it_interval = (struct timespec){ 0, 0 };
	NEED(timer_settime(timer, 0, &its, NULL) == 0);
	siginfo_t info;
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 4);
	CHECK(sigwaitinfo(&set, &info) == SIGRTMIN + 4, "%s", strerror(errno));
	CHECK(info.si_code == SI_TIMER && info.si_value.sival_int == 55, "value %d", info.si_value.sival_int);
}

int main(int argc, char **argv)
{
	stack_t stack = { .ss_sp = alternate, .ss_size = sizeof(alternate) }, stack_after;
	sigset_t blocked, mask;
	pthread_t thread;
	timer_t timer;
	char byte;

	self_init(argc, argv);
	NEED(pipe(to_thread) == 0 && pipe(from_thread) == 0);
	sigemptyset(&blocked);
	for (int i = 1; i < 5; i++)
		sigaddset(&blocked, SIGRTMIN + i);
	sigaddset(&blocked, SIGUSR2);
	sigaddset(&blocked, SIGCHLD);
	NEED(sigprocmask(SIG_SETMASK, &blocked, NULL) == 0);
	NEED(sigaltstack(&stack, NULL) == 0);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGTTOU, SIG_IGN);
	set_action(SIGUSR1, on_dump, SA_SIGINFO | SA_ONSTACK | SA_RESTART, SIGWINCH);
	set_action(SIGHUP, (void *)on_reset, SA_RESETHAND | SA_NODEFER, SIGRTMIN + 9);
	set_action(SIGCHLD, on_info, SA_SIGINFO | SA_NOCLDSTOP, 0);
	set_action(SIGRTMAX, on_info, SA_SIGINFO, SIGTERM);

	/* Pending: for the process, and for a thread. */
	for (int i = 0; i < NR_QUEUED; i++) {
		NEED(sigqueue(getpid(), SIGRTMIN + 1, (union sigval){ .sival_int = i * 3 }) == 0);
		NEED(sigqueue(getpid(), SIGRTMIN + 3, (union sigval){ .sival_int = i * 5 }) == 0);
	}
	NEED(kill(getpid(), SIGUSR2) == 0);
	CHECK(pthread_create(&thread, NULL, run_thread, NULL) == 0, "no thread");
	NEED(read(from_thread[0], &byte, 1) == 1);

	NEED(setitimer(ITIMER_REAL, &(struct itimerval){ { 7, 5000 }, { TIMER_S, 0 } }, NULL) == 0);
	NEED(setitimer(ITIMER_PROF, &(struct itimerval){ { 0, 0 }, { TIMER_S, 0 } }, NULL) == 0);
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 4, .sigev_value.sival_int = 55 };
	NEED(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
	NEED(timer_settime(timer, 0, &(struct itimerspec){ { 3, 9000 }, { 2 * TIMER_S, 0 } }, NULL) == 0);

	/* Sent to this thread: the other one would be as good for a signal to the process. */
	CHECK(pthread_sigqueue(pthread_self(), SIGUSR1, (union sigval){ .sival_int = 77 }) == 0, "queue");
	CHECK(in_handler == 2, "the handler did not come back");

	sigprocmask(SIG_SETMASK, NULL, &mask);
	for (int i = 1; i < 65; i++)
		CHECK(sigismember(&mask, i) == sigismember(&blocked, i), "signal %d in the mask", i);
	NEED(sigaltstack(NULL, &stack_after) == 0);
	CHECK(stack_after.ss_sp == alternate && !stack_after.ss_flags, "flags %#x", stack_after.ss_flags);

	check_action(SIGUSR1, on_dump, SA_SIGINFO | SA_ONSTACK | SA_RESTART, SIGWINCH);
	check_action(SIGHUP, (void *)on_reset, SA_RESETHAND | SA_NODEFER, SIGRTMIN + 9);
	check_action(SIGCHLD, on_info, SA_SIGINFO | SA_NOCLDSTOP, 0);
	check_action(SIGRTMAX, on_info, SA_SIGINFO, SIGTERM);
	check_action(SIGPIPE, (void *)SIG_IGN, SA_RESTART, SIGPIPE); /* as signal(3) sets it */
	check_action(SIGTERM, (void *)SIG_DFL, 0, 0);
	for (int i = 0; i < NR_QUEUED; i++)
		check_pending(SIGRTMIN + 1, SI_QUEUE, i * 3);
	for (int i = 0; i < NR_QUEUED; i++)
		check_pending(SIGRTMIN + 3, SI_QUEUE, i * 5);
	check_pending(SIGUSR2, SI_USER, 0);
	check_not_pending(SIGRTMIN + 1);
	check_not_pending(SIGRTMIN + 3);
	check_not_pending(SIGUSR2);
	NEED(write(to_thread[1], "", 1) == 1);
	pthread_join(thread, NULL);
	check_timers(timer);

	/* Handlers do what their flags say. */
	raise(SIGHUP);
	CHECK(reset_count == 1, "%d", reset_count);
	check_action(SIGHUP, (void *)SIG_DFL, SA_RESETHAND | SA_NODEFER, SIGRTMIN + 9);
	self_pass();
}
