/* A semaphore gives one at a time. */
#include <stdint.h>
#include <sys/eventfd.h>

#include "target.h"

int main(void)
{
	uint64_t value;
	int fd = eventfd(2, EFD_NONBLOCK | EFD_SEMAPHORE);

	CHECK(fd >= 0);
	target_ready();
	CHECK_EQUAL(read(fd, &value, 8), 8);
	CHECK_EQUAL(value, 1);
	CHECK_EQUAL(read(fd, &value, 8), 8);
	CHECK_EQUAL(read(fd, &value, 8), -1);
	return target_pass();
}
