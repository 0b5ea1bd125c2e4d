/* A descriptor with a high number and one with a gap before it keep number and close-on-exec. */
#include <sys/stat.h>

#include "target.h"

int main(void)
{
	struct stat a, b;
	int open_before[1024];
	int fd = open("/dev/null", O_RDONLY);

	CHECK_EQUAL(dup3(fd, 900, O_CLOEXEC), 900);
	CHECK_EQUAL(dup2(fd, 77), 77);
	CHECK(!close(fd));
	for (int i = 0; i < 1024; i++)
		open_before[i] = fcntl(i, F_GETFD);
	target_ready();
	CHECK_EQUAL(fcntl(900, F_GETFD), FD_CLOEXEC);
	CHECK_EQUAL(fcntl(77, F_GETFD), 0);
	CHECK_EQUAL(fcntl(fd, F_GETFD), -1);
	CHECK(!fstat(900, &a) && !fstat(77, &b));
	CHECK_EQUAL(a.st_rdev, b.st_rdev);
	/* Nothing is open that was not. */
	for (int i = 0; i < 1024; i++)
		CHECK_EQUAL(fcntl(i, F_GETFD), open_before[i]);
	return target_pass();
}
