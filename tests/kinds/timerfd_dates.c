/*
 * Timers set to a date (TFD_TIMER_ABSTIME) of every clock expire at that date, to the nanosecond; a periodic one that nobody reads counts
 * the periods that passed while the program was away; flags are kept, TFD_TIMER_CANCEL_ON_SET among them.
 */
#include <stdint.h>
#include <sys/timerfd.h>

#include "target.h"

enum { NSEC = 1000000000, PERIOD_NS = 20000000, MAX = 8 };

static struct {
	int fd;
	clockid_t clock;
	long long date, interval;
	char flags[64];
} timers[MAX];
static int nr;

static long long now_ns(clockid_t clock)
{
	struct timespec now;

	CHECK(!clock_gettime(clock, &now));
	return now.tv_sec * (long long)NSEC + now.tv_nsec;
}

/* Of an alarm clock: the one that it wakes by. */
static clockid_t readable(clockid_t clock)
{
	return clock == CLOCK_REALTIME_ALARM ? CLOCK_REALTIME : clock == CLOCK_BOOTTIME_ALARM ? CLOCK_BOOTTIME : clock;
}

static void read_flags(int fd, char *text, size_t size)
{
	char path[64], line[64];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	CHECK((f = fopen(path, "re")));
	text[0] = 0;
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, "clockid:", 8) || !strncmp(line, "settime flags:", 14))
			strncat(text, line, size - strlen(text) - 1);
	fclose(f);
	CHECK(strlen(text) > 20);
}

static void add(clockid_t clock, long long date, long long interval, int flags)
{
	struct itimerspec its = { { interval / NSEC, interval % NSEC }, { date / NSEC, date % NSEC } };
	int fd = timerfd_create(clock, TFD_NONBLOCK);

	if (fd < 0) {
		printf("clock %d: %s; left out\n", clock, strerror(errno));
		return;
	}
	CHECK(!timerfd_settime(fd, TFD_TIMER_ABSTIME | flags, &its, NULL));
	timers[nr].fd = fd;
	timers[nr].clock = readable(clock);
	timers[nr].date = date;
	timers[nr].interval = interval;
	read_flags(fd, timers[nr].flags, sizeof(timers[nr].flags));
	nr++;
}

int main(void)
{
	static const clockid_t clocks[] = { CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_REALTIME_ALARM, CLOCK_BOOTTIME_ALARM };
	char flags[64];
	uint64_t ticks;

	for (unsigned i = 0; i < sizeof(clocks) / sizeof(clocks[0]); i++)
		add(clocks[i], now_ns(readable(clocks[i])) + (4000LL + i) * NSEC + 7, i & 1 ? 3LL * NSEC : 0,
		    readable(clocks[i]) == CLOCK_REALTIME ? TFD_TIMER_CANCEL_ON_SET : 0);
	long long start = now_ns(CLOCK_MONOTONIC);
	add(CLOCK_MONOTONIC, start, PERIOD_NS, 0);
	int periodic = timers[--nr].fd;
	target_ready();

	for (int i = 0; i < nr; i++) {
		struct itimerspec its;
		long long before = now_ns(timers[i].clock);

		CHECK(!timerfd_gettime(timers[i].fd, &its));
		long long after = now_ns(timers[i].clock), left = its.it_value.tv_sec * (long long)NSEC + its.it_value.tv_nsec;
		if (timers[i].date < before + left || timers[i].date > after + left)
			TARGET_FAIL("clock %d: expires %lld ns after its date", timers[i].clock, before + left - timers[i].date);
		CHECK_EQUAL(its.it_interval.tv_sec * (long long)NSEC + its.it_interval.tv_nsec, timers[i].interval);
		read_flags(timers[i].fd, flags, sizeof(flags));
		if (strcmp(flags, timers[i].flags))
			TARGET_FAIL("was %s is %s", timers[i].flags, flags);
		CHECK_EQUAL(read(timers[i].fd, &ticks, 8), -1);
		CHECK_EQUAL(errno, EAGAIN);
	}
	long long before = (now_ns(CLOCK_MONOTONIC) - start) / PERIOD_NS + 1;
	CHECK_EQUAL(read(periodic, &ticks, 8), 8);
	long long after = (now_ns(CLOCK_MONOTONIC) - start) / PERIOD_NS + 1;
	if ((long long)ticks < before || (long long)ticks > after)
		TARGET_FAIL("%lld expirations, expected %lld to %lld", (long long)ticks, before, after);
	return target_pass();
}
