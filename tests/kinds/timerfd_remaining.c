/* The time that remains, relative and absolute, and a timer that was never armed. */
#include <stdint.h>
#include <sys/timerfd.h>

#include "target.h"

static void check_remaining(int fd, long long at_most_s)
{
	struct itimerspec now;

	CHECK(!timerfd_gettime(fd, &now));
	CHECK(now.it_value.tv_sec < at_most_s && now.it_value.tv_sec > at_most_s - 600);
}

int main(void)
{
	struct itimerspec rel = { .it_value.tv_sec = 5000, .it_interval = { 7, 13 } }, abs = {}, now;
	int a = timerfd_create(CLOCK_MONOTONIC, 0), b = timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC);
	int idle = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK);
	uint64_t ticks;

	CHECK(a >= 0 && b >= 0 && idle >= 0);
	CHECK(!clock_gettime(CLOCK_REALTIME, &abs.it_value));
	abs.it_value.tv_sec += 9000;
	CHECK(!timerfd_settime(a, 0, &rel, NULL) && !timerfd_settime(b, TFD_TIMER_ABSTIME, &abs, NULL));
	target_ready();
	check_remaining(a, 5000);
	check_remaining(b, 9000);
	CHECK(!timerfd_gettime(a, &now));
	CHECK_EQUAL(now.it_interval.tv_sec, 7);
	CHECK_EQUAL(now.it_interval.tv_nsec, 13);
	CHECK_EQUAL(read(idle, &ticks, 8), -1);
	CHECK_EQUAL(errno, EAGAIN);
	return target_pass();
}
