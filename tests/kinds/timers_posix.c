/*
 * POSIX timers of every clock and with every notification: numbers with gaps, values, intervals, remaining times, who is notified.
 * /proc/self/timers must read as before, and each armed timer still does what it was made for.
 */
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/syscall.h>

#include "target.h"

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

enum { MAX = 40, REMAINING_S = 5000, SPREAD_S = 600 };

static struct {
	int id;
	clockid_t clock;
	long long interval_ns;
	int armed;
} timers[MAX];
static int nr, to_thread[2], from_thread[2];
static volatile pid_t other_tid;
static volatile int thread_timer, thread_cpu_timer;

static int create(clockid_t clock, int notify, int sig, void *value, pid_t tid)
{
	struct sigevent ev = { .sigev_notify = notify, .sigev_signo = sig, .sigev_value.sival_ptr = value };
	int id;

	ev.sigev_notify_thread_id = tid;
	/* By the system call: the C library hides the numbers. Alarm clocks need a clock that can wake the machine. */
	if (syscall(SYS_timer_create, clock, &ev, &id)) {
		if (clock == CLOCK_REALTIME_ALARM || clock == CLOCK_BOOTTIME_ALARM) {
			printf("clock %d: %s; left out\n", clock, strerror(errno));
			return -1;
		}
		TARGET_FAIL("clock %d: timer_create: %s", clock, strerror(errno));
	}
	return id;
}

static void set(int id, int s, long ns, int interval_s, long interval_ns)
{
	struct itimerspec its = { { interval_s, interval_ns }, { s, ns } };

	CHECK(!syscall(SYS_timer_settime, id, 0, &its, NULL));
}

static void add(clockid_t clock, int notify, int sig, pid_t tid, int arm)
{
	int id = create(clock, notify, sig, (void *)(0x123456789000 + nr), tid);

	if (id < 0)
		return;
	timers[nr].id = id;
	timers[nr].clock = clock;
	timers[nr].armed = arm;
	if (arm) {
		bool once = arm > 1;

		timers[nr].interval_ns = once ? 0 : (long long)nr * 1000000000 + 17;
		set(id, REMAINING_S, 0, once ? 0 : nr, once ? 0 : 17);
	}
	nr++;
}

static void gap(int count)
{
	int ids[8];

	for (int i = 0; i < count; i++)
		ids[i] = create(CLOCK_MONOTONIC, SIGEV_NONE, 0, NULL, 0);
	add(CLOCK_MONOTONIC, SIGEV_SIGNAL, SIGRTMIN + 1, 0, 1);
	for (int i = 0; i < count; i++)
		CHECK(!syscall(SYS_timer_delete, ids[i]));
}

static void read_list(char *text, size_t size)
{
	FILE *f = fopen("/proc/self/timers", "re");

	CHECK(f);
	size_t len = fread(text, 1, size - 1, f);
	text[len] = 0;
	CHECK(len > 0 && len < size - 1);
	fclose(f);
}

/* What is said of one timer, of a list that the kernel gives in no order of ours. */
static const char *find(const char *list, int id, char *text, size_t size)
{
	char head[32];

	snprintf(head, sizeof(head), "ID: %d\n", id);
	const char *at = strstr(list, head);
	CHECK(at);
	const char *end = strstr(at + 1, "ID: ");
	while (end && end[-1] != '\n') /* "ClockID: " */
		end = strstr(end + 1, "ID: ");
	snprintf(text, size, "%.*s", (int)(end ? end - at : (long)strlen(at)), at);
	return text;
}

static void receive(int sig, siginfo_t *info)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, sig);
	CHECK_EQUAL(sigwaitinfo(&set, info), sig);
}

/* The same of a timer that counts processor time: it is looked at in a tick, and on a busy machine ticks find other threads. */
static void burn_and_receive(int sig, siginfo_t *info)
{
	const struct timespec now = { 0 };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, sig);
	while (sigtimedwait(&set, info, &now) < 0)
		CHECK_EQUAL(errno, EAGAIN);
}

/* Has a timer that notifies it, and one that counts its processor time. */
static void *other(void *arg)
{
	siginfo_t info;
	char byte;

	other_tid = gettid();
	thread_cpu_timer = create(CLOCK_THREAD_CPUTIME_ID, SIGEV_SIGNAL, SIGRTMIN + 5, (void *)77, 0);
	set(thread_cpu_timer, 100, 0, 0, 0);
	CHECK_EQUAL(write(from_thread[1], "", 1), 1);
	CHECK_EQUAL(read(to_thread[0], &byte, 1), 1);

	set(thread_timer, 0, 1000000, 0, 0);
	receive(SIGRTMIN + 4, &info);
	CHECK_EQUAL(info.si_code, SI_TIMER);
	CHECK(info.si_value.sival_ptr == (void *)0xfedcba9876543210);
	set(thread_cpu_timer, 0, 3000000, 0, 0);
	burn_and_receive(SIGRTMIN + 5, &info);
	CHECK_EQUAL(info.si_value.sival_int, 77);
	CHECK_EQUAL(write(from_thread[1], "", 1), 1);
	return NULL;
}

int main(void)
{
	static const clockid_t clocks[] = { CLOCK_REALTIME,	  CLOCK_MONOTONIC,	    CLOCK_BOOTTIME,	     CLOCK_TAI,
					    CLOCK_REALTIME_ALARM, CLOCK_BOOTTIME_ALARM, CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID };
	static char before[16384], after[16384], a[256], b[256];
	clockid_t own;
	pthread_t thread;
	sigset_t all;
	siginfo_t info;
	char byte;

	sigfillset(&all);
	CHECK(!sigprocmask(SIG_SETMASK, &all, NULL));
	CHECK(!pipe(to_thread) && !pipe(from_thread));
	for (unsigned i = 0; i < sizeof(clocks) / sizeof(clocks[0]); i++) {
		add(clocks[i], SIGEV_SIGNAL, SIGRTMIN + 1, 0, 1);
		add(clocks[i], SIGEV_NONE, 0, 0, 1);
		add(clocks[i], SIGEV_SIGNAL | SIGEV_THREAD_ID, SIGUSR1, gettid(), i & 1);
	}
	gap(3);
	CHECK(!clock_getcpuclockid(getpid(), &own));
	add(own, SIGEV_SIGNAL, SIGRTMIN + 2, 0, 1);
	gap(7);
	CHECK(!pthread_create(&thread, NULL, other, NULL));
	CHECK_EQUAL(read(from_thread[0], &byte, 1), 1);
	thread_timer = create(CLOCK_MONOTONIC, SIGEV_SIGNAL | SIGEV_THREAD_ID, SIGRTMIN + 4, (void *)0xfedcba9876543210, other_tid);
	add(CLOCK_MONOTONIC, SIGEV_SIGNAL, 64, 0, 0);
	/* Once, and nobody is told. */
	add(CLOCK_MONOTONIC, SIGEV_NONE, 0, 0, 2);
	add(CLOCK_REALTIME, SIGEV_NONE, 0, 0, 2);
	read_list(before, sizeof(before));
	target_ready();

	read_list(after, sizeof(after));
	for (int i = 0; i < nr; i++) {
		struct itimerspec now;

		if (strcmp(find(before, timers[i].id, a, sizeof(a)), find(after, timers[i].id, b, sizeof(b))))
			TARGET_FAIL("timer %d was\n%sis\n%s", timers[i].id, a, b);
		CHECK(!syscall(SYS_timer_gettime, timers[i].id, &now));
		CHECK_EQUAL(now.it_interval.tv_sec * 1000000000LL + now.it_interval.tv_nsec, timers[i].interval_ns);
		if (timers[i].armed)
			CHECK(now.it_value.tv_sec <= REMAINING_S && now.it_value.tv_sec > REMAINING_S - SPREAD_S);
		else
			CHECK_EQUAL(now.it_value.tv_sec + now.it_value.tv_nsec, 0);
		CHECK_EQUAL(syscall(SYS_timer_getoverrun, timers[i].id), 0);
	}
	CHECK(strstr(find(after, thread_timer, a, sizeof(a)), "signal: 38/fedcba9876543210"));

	/* A new one gets the next number, as it would have. */
	int id = create(CLOCK_MONOTONIC, SIGEV_NONE, 0, NULL, 0);
	for (int i = 0; i < nr; i++)
		CHECK(id != timers[i].id);

	for (int i = 0; i < nr; i += 3) { /* the first of each clock */
		if (i && timers[i].clock == timers[i - 1].clock)
			continue;
		set(timers[i].id, 0, 2000000, 0, 0);
		if (timers[i].clock == CLOCK_PROCESS_CPUTIME_ID || timers[i].clock == CLOCK_THREAD_CPUTIME_ID)
			burn_and_receive(SIGRTMIN + 1, &info);
		else
			receive(SIGRTMIN + 1, &info);
		CHECK_EQUAL(info.si_code, SI_TIMER);
		CHECK_EQUAL(info.si_timerid, timers[i].id);
		CHECK(info.si_value.sival_ptr == (void *)(0x123456789000 + (long)i));
	}
	CHECK_EQUAL(write(to_thread[1], "", 1), 1);
	CHECK_EQUAL(read(from_thread[0], &byte, 1), 1);
	CHECK(!pthread_join(thread, NULL));
	return target_pass();
}
