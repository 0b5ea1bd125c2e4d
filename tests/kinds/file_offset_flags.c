/* Position, access mode and flags of regular files. */
#include "target.h"

int main(void)
{
	char buf[8] = {};
	int w = open("file", O_RDWR | O_CREAT, 0600);

	CHECK_EQUAL(write(w, "0123456789", 10), 10);
	int r = open("file", O_RDONLY | O_CLOEXEC), a = open("file", O_WRONLY | O_APPEND | O_NONBLOCK);
	int p = open("file", O_PATH);
	CHECK(r >= 0 && a >= 0 && p >= 0);
	CHECK_EQUAL(lseek(r, 3, SEEK_SET), 3);
	CHECK_EQUAL(lseek(w, 5, SEEK_SET), 5);
	target_ready();
	CHECK_EQUAL(lseek(w, 0, SEEK_CUR), 5);
	CHECK_EQUAL(read(r, buf, 4), 4);
	CHECK(!strcmp(buf, "3456"));
	CHECK_EQUAL(write(r, "x", 1), -1);
	CHECK_EQUAL(write(a, "end", 3), 3);
	CHECK_EQUAL(pread(w, buf, 4, 9), 4);
	CHECK(!memcmp(buf, "9end", 4));
	CHECK_EQUAL(fcntl(a, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK), O_WRONLY | O_APPEND | O_NONBLOCK);
	CHECK_EQUAL(fcntl(p, F_GETFL) & O_PATH, O_PATH);
	CHECK_EQUAL(fcntl(r, F_GETFD), FD_CLOEXEC);
	return target_pass();
}
