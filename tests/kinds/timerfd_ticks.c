/* Expirations that nobody has read, of a timer that is not armed any more and of one that goes on. */
#include <poll.h>
#include <stdint.h>
#include <sys/timerfd.h>

#include "target.h"

int main(void)
{
	struct itimerspec once = { .it_value.tv_nsec = 1000000 }, now;
	struct itimerspec again = { .it_value.tv_nsec = 1000000, .it_interval.tv_sec = 3600 };
	int a = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK), b = timerfd_create(CLOCK_BOOTTIME, 0);
	struct pollfd p = { .fd = a, .events = POLLIN }, q = { .fd = b, .events = POLLIN };
	uint64_t ticks;

	CHECK(a >= 0 && b >= 0);
	CHECK(!timerfd_settime(a, 0, &once, NULL) && !timerfd_settime(b, 0, &again, NULL));
	CHECK_EQUAL(poll(&p, 1, -1), 1);
	CHECK_EQUAL(poll(&q, 1, -1), 1);
	target_ready();
	CHECK_EQUAL(read(a, &ticks, 8), 8);
	CHECK_EQUAL(ticks, 1);
	CHECK_EQUAL(read(a, &ticks, 8), -1);
	CHECK(!timerfd_gettime(a, &now));
	CHECK_EQUAL(now.it_value.tv_sec + now.it_value.tv_nsec, 0);
	CHECK_EQUAL(read(b, &ticks, 8), 8);
	CHECK_EQUAL(ticks, 1);
	CHECK(!timerfd_gettime(b, &now));
	CHECK_EQUAL(now.it_interval.tv_sec, 3600);
	CHECK(now.it_value.tv_sec > 3000);
	return target_pass();
}
