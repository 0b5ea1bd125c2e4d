/*
 * Timers whose signal is pending: in its place between other signals, with the periods missed since it fired counted on; once only;
 * for a thread of its own; by processor time. And the count of a signal that was delivered, timer_getoverrun(2).
 */
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>

#include "target.h"

enum { PERIOD_NS = 10000000, MISSED = 20, COUNT = 7, NSEC = 1000000000 };

static int to_thread[2], from_thread[2];
static int private_timer, count_timer;

static long long now_ns(clockid_t clock)
{
	struct timespec now;

	CHECK(!clock_gettime(clock, &now));
	return now.tv_sec * (long long)NSEC + now.tv_nsec;
}

static int create(clockid_t clock, int notify, int sig, int value)
{
	struct sigevent ev = { .sigev_notify = notify, .sigev_signo = sig, .sigev_value.sival_int = value };
	int id;

	ev._sigev_un._tid = gettid();
	CHECK(!syscall(SYS_timer_create, clock, &ev, &id));
	return id;
}

static void set(int id, int flags, long long value, long long interval)
{
	struct itimerspec its = { { interval / NSEC, interval % NSEC }, { value / NSEC, value % NSEC } };

	CHECK(!syscall(SYS_timer_settime, id, flags, &its, NULL));
}

static long long remaining(int id)
{
	struct itimerspec its;

	CHECK(!syscall(SYS_timer_gettime, id, &its));
	return its.it_value.tv_sec * (long long)NSEC + its.it_value.tv_nsec;
}

static siginfo_t receive(int sig)
{
	siginfo_t info;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, sig);
	CHECK_EQUAL(sigtimedwait(&set, &info, &(struct timespec){ 0 }), sig);
	return info;
}

static void none_left(int sig)
{
	sigset_t set;

	CHECK(!sigpending(&set));
	CHECK_EQUAL(sigismember(&set, sig), 0);
}

static void await_pending(int sig)
{
	sigset_t set;

	do
		CHECK(!sigpending(&set));
	while (!sigismember(&set, sig));
}

/* Sends itself a signal, has its timer fire, sends itself another one. */
static void *other(void *arg)
{
	char byte;

	private_timer = create(CLOCK_MONOTONIC, SIGEV_SIGNAL | SIGEV_THREAD_ID, SIGRTMIN + 3, 30);
	set(private_timer, 0, 1, PERIOD_NS);
	await_pending(SIGRTMIN + 3);
	CHECK_EQUAL(write(from_thread[1], "", 1), 1);
	CHECK_EQUAL(read(to_thread[0], &byte, 1), 1);
	siginfo_t info = receive(SIGRTMIN + 3);
	CHECK_EQUAL(info.si_code, SI_TIMER);
	CHECK_EQUAL(info.si_value.sival_int, 30);
	CHECK(info.si_overrun >= MISSED);
	CHECK_EQUAL(syscall(SYS_timer_getoverrun, private_timer), info.si_overrun);
	CHECK(remaining(private_timer) <= PERIOD_NS);
	CHECK_EQUAL(write(from_thread[1], "", 1), 1);
	return NULL;
}

static void check_queued(int id, long long fired_ns)
{
	siginfo_t info = receive(SIGRTMIN);

	CHECK_EQUAL(info.si_code, SI_QUEUE);
	CHECK_EQUAL(info.si_value.sival_int, 1);
	info = receive(SIGRTMIN);
	CHECK_EQUAL(info.si_code, SI_TIMER);
	CHECK_EQUAL(info.si_timerid, id);
	CHECK_EQUAL(info.si_value.sival_int, 10);
	if (info.si_overrun < MISSED || info.si_overrun > (now_ns(CLOCK_MONOTONIC) - fired_ns) / PERIOD_NS)
		TARGET_FAIL("%d periods missed, of %d before and %lld in all", info.si_overrun, MISSED,
			    (now_ns(CLOCK_MONOTONIC) - fired_ns) / PERIOD_NS);
	CHECK_EQUAL(syscall(SYS_timer_getoverrun, id), info.si_overrun);
	CHECK(remaining(id) <= PERIOD_NS);
	info = receive(SIGRTMIN);
	CHECK_EQUAL(info.si_code, SI_QUEUE);
	CHECK_EQUAL(info.si_value.sival_int, 2);
}

int main(void)
{
	pthread_t thread;
	sigset_t all;
	char byte;

	sigfillset(&all);
	CHECK(!sigprocmask(SIG_SETMASK, &all, NULL));
	CHECK(!pipe(to_thread) && !pipe(from_thread));

	int periodic = create(CLOCK_MONOTONIC, SIGEV_SIGNAL, SIGRTMIN, 10), once = create(CLOCK_BOOTTIME, SIGEV_SIGNAL, SIGRTMIN + 1, 11);
	int cpu = create(CLOCK_PROCESS_CPUTIME_ID, SIGEV_SIGNAL, SIGRTMIN + 2, 12), ignored = create(CLOCK_MONOTONIC, SIGEV_SIGNAL, SIGUSR2, 13);
	count_timer = create(CLOCK_MONOTONIC, SIGEV_SIGNAL, SIGRTMIN + 4, 14);

	CHECK(!sigqueue(getpid(), SIGRTMIN, (union sigval){ .sival_int = 1 }));
	/* Read before the timer is set: it can only fire later. */
	long long fired = now_ns(CLOCK_MONOTONIC);
	set(periodic, 0, 1, PERIOD_NS);
	set(once, 0, 1, 0);
	set(cpu, 0, 1000000, 3600LL * NSEC);
	await_pending(SIGRTMIN + 1);
	await_pending(SIGRTMIN + 2);
	CHECK(!sigqueue(getpid(), SIGRTMIN, (union sigval){ .sival_int = 2 }));

	signal(SIGUSR2, SIG_IGN);
	sigdelset(&all, SIGUSR2);
	CHECK(!sigprocmask(SIG_SETMASK, &all, NULL));
	set(ignored, 0, PERIOD_NS, PERIOD_NS);
	sigaddset(&all, SIGUSR2);
	CHECK(!pthread_sigmask(SIG_SETMASK, &all, NULL));

	/* A date seven periods and a half ago, of as long a period as the clock allows: nothing happens to it for half of one. */
	long long clock = now_ns(CLOCK_MONOTONIC), period = clock / 10;
	set(count_timer, TIMER_ABSTIME, clock - COUNT * period - period / 2, period);
	await_pending(SIGRTMIN + 4);
	siginfo_t info = receive(SIGRTMIN + 4);
	CHECK_EQUAL(info.si_overrun, COUNT);
	CHECK_EQUAL(syscall(SYS_timer_getoverrun, count_timer), COUNT);

	CHECK(!pthread_create(&thread, NULL, other, NULL));
	CHECK_EQUAL(read(from_thread[0], &byte, 1), 1);
	long long later = now_ns(CLOCK_MONOTONIC) + (MISSED + 1LL) * PERIOD_NS;
	while (now_ns(CLOCK_MONOTONIC) < later)
		;
	target_ready();

	CHECK_EQUAL(syscall(SYS_timer_getoverrun, count_timer), COUNT);
	CHECK(remaining(count_timer) > 0 && remaining(count_timer) <= period / 2);
	none_left(SIGRTMIN + 4);
	check_queued(periodic, fired);
	info = receive(SIGRTMIN + 1);
	CHECK_EQUAL(info.si_code, SI_TIMER);
	CHECK_EQUAL(info.si_overrun, 0);
	CHECK_EQUAL(info.si_timerid, once);
	none_left(SIGRTMIN + 1);
	CHECK_EQUAL(remaining(once), 0);
	info = receive(SIGRTMIN + 2);
	CHECK_EQUAL(info.si_code, SI_TIMER);
	CHECK_EQUAL(info.si_overrun, 0);
	CHECK_EQUAL(info.si_timerid, cpu);
	none_left(SIGRTMIN + 2);
	CHECK(remaining(cpu) > 3500LL * NSEC);
	CHECK_EQUAL(write(to_thread[1], "", 1), 1);
	CHECK_EQUAL(read(from_thread[0], &byte, 1), 1);
	CHECK(!pthread_join(thread, NULL));

	/* It fires on and on, also for nobody. */
	signal(SIGUSR2, SIG_DFL);
	await_pending(SIGUSR2);
	CHECK_EQUAL(receive(SIGUSR2).si_timerid, ignored);
	/* A deleted timer takes its signal along since Linux 6.13; what was sent by hand stays. */
	CHECK(!syscall(SYS_timer_delete, periodic));
	return target_pass();
}
