/* A pipe between parent and child, inherited over fork, still connects them. */
#include <sys/wait.h>

#include "target.h"

int main(void)
{
	char c = 0;
	int down[2], up[2], status;

	CHECK(!pipe(down) && !pipe(up));
	pid_t child = fork();
	CHECK(child >= 0);
	if (!child) {
		close(down[1]);
		close(up[0]);
		if (read(down[0], &c, 1) != 1 || write(up[1], &c, 1) != 1)
			_exit(1);
		_exit(read(down[0], &c, 1) == 0 ? 0 : 2);
	}
	CHECK(!close(down[0]) && !close(up[1]));
	target_ready();
	CHECK_EQUAL(write(down[1], "q", 1), 1);
	CHECK_EQUAL(read(up[0], &c, 1), 1);
	CHECK_EQUAL(c, 'q');
	CHECK(!close(down[1]));
	CHECK_EQUAL(waitpid(child, &status, 0), child);
	CHECK_EQUAL(status, 0);
	CHECK_EQUAL(read(up[0], &c, 1), 0);
	return target_pass();
}
