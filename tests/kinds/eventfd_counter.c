/* The counter of an eventfd. */
#include <stdint.h>
#include <sys/eventfd.h>

#include "target.h"

int main(void)
{
	uint64_t big = UINT64_MAX - 1, value;
	int small = eventfd(41, EFD_NONBLOCK), full = eventfd(0, EFD_CLOEXEC);

	CHECK(small >= 0 && full >= 0);
	CHECK_EQUAL(write(full, &big, 8), 8);
	target_ready();
	CHECK_EQUAL(read(small, &value, 8), 8);
	CHECK_EQUAL(value, 41);
	CHECK_EQUAL(read(small, &value, 8), -1);
	CHECK_EQUAL(read(full, &value, 8), 8);
	CHECK(value == big);
	CHECK_EQUAL(fcntl(full, F_GETFL) & O_NONBLOCK, 0);
	return target_pass();
}
