/* A pipe that holds data, with a size of its own, comes back with both. */
#include "target.h"

int main(void)
{
	char buf[64] = {};
	int p[2];

	CHECK(!pipe2(p, O_CLOEXEC));
	CHECK_EQUAL(fcntl(p[1], F_SETPIPE_SZ, 16384), 16384);
	CHECK_EQUAL(write(p[1], "seventeen letters", 17), 17);
	CHECK(!fcntl(p[0], F_SETFL, O_NONBLOCK));
	target_ready();
	CHECK_EQUAL(fcntl(p[1], F_GETPIPE_SZ), 16384);
	CHECK_EQUAL(read(p[0], buf, sizeof(buf)), 17);
	CHECK(!strcmp(buf, "seventeen letters"));
	CHECK_EQUAL(read(p[0], buf, 1), -1);
	CHECK_EQUAL(errno, EAGAIN);
	CHECK_EQUAL(fcntl(p[0], F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	CHECK_EQUAL(fcntl(p[1], F_GETFL) & O_NONBLOCK, 0);
	CHECK_EQUAL(fcntl(p[0], F_GETFD), FD_CLOEXEC);
	CHECK_EQUAL(write(p[1], "x", 1), 1);
	CHECK_EQUAL(read(p[0], buf, 1), 1);
	return target_pass();
}
