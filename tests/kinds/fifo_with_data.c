/* A named pipe, open for reading and for writing, with data in it. */
#include <sys/stat.h>

#include "target.h"

int main(void)
{
	char buf[16] = {};

	CHECK(!mkfifo("fifo", 0600));
	int r = open("fifo", O_RDONLY | O_NONBLOCK);
	int w = open("fifo", O_WRONLY);
	CHECK(r >= 0 && w >= 0);
	CHECK_EQUAL(write(w, "through", 7), 7);
	target_ready();
	CHECK_EQUAL(read(r, buf, sizeof(buf)), 7);
	CHECK(!strcmp(buf, "through"));
	CHECK_EQUAL(read(r, buf, 1), -1);
	CHECK_EQUAL(errno, EAGAIN);
	CHECK_EQUAL(fcntl(w, F_GETFL) & (O_ACCMODE | O_NONBLOCK), O_WRONLY);
	CHECK(!close(w));
	CHECK_EQUAL(read(r, buf, 1), 0);
	return target_pass();
}
