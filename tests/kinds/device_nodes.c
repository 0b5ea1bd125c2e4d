/* Devices without state. */
#include "target.h"

int main(void)
{
	static const char *const names[] = { "/dev/null", "/dev/zero", "/dev/full", "/dev/urandom", "/dev/random" };
	int fds[5];
	char c = 1;

	for (int i = 0; i < 5; i++) {
		fds[i] = open(names[i], O_RDWR | O_NONBLOCK);
		CHECK(fds[i] >= 0);
	}
	target_ready();
	CHECK_EQUAL(write(fds[0], &c, 1), 1);
	CHECK_EQUAL(read(fds[0], &c, 1), 0);
	CHECK_EQUAL(read(fds[1], &c, 1), 1);
	CHECK_EQUAL(c, 0);
	CHECK_EQUAL(write(fds[2], &c, 1), -1);
	CHECK_EQUAL(errno, ENOSPC);
	CHECK_EQUAL(read(fds[3], &c, 1), 1);
	CHECK_EQUAL(read(fds[4], &c, 1), 1);
	return target_pass();
}
