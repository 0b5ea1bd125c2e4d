/* Duplicates, and a child, share one position; a second opening does not. */
#include <sys/wait.h>

#include "target.h"

int main(void)
{
	char c;
	int go[2], status;
	int fd = open("file", O_RDWR | O_CREAT, 0600);

	CHECK_EQUAL(write(fd, "0123456789", 10), 10);
	CHECK_EQUAL(lseek(fd, 0, SEEK_SET), 0);
	int same = dup(fd), other = open("file", O_RDONLY);
	CHECK(same >= 0 && other >= 0 && !pipe(go));
	pid_t child = fork();
	CHECK(child >= 0);
	if (!child)
		_exit(read(go[0], &c, 1) == 1 && read(fd, &c, 1) == 1 && c == '0' ? 0 : 1);
	target_ready();
	CHECK_EQUAL(write(go[1], "x", 1), 1);
	CHECK_EQUAL(waitpid(child, &status, 0), child);
	CHECK_EQUAL(status, 0);
	CHECK_EQUAL(read(same, &c, 1), 1);
	CHECK_EQUAL(c, '1');
	CHECK_EQUAL(lseek(fd, 0, SEEK_CUR), 2);
	CHECK_EQUAL(lseek(other, 0, SEEK_CUR), 0);
	return target_pass();
}
