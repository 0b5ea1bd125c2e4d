/* A chain of 100 processes, each the parent of the next: the last one's answer comes back through all of them. */
#include <sys/wait.h>

#include "target.h"

enum { DEPTH = 100 };

/* Adds one to what its child ends with. The last one waits for the word to end, at a pipe that nobody writes to. */
static int chain(int level, int end)
{
	int status;
	char byte;

	if (level == DEPTH - 1) {
		CHECK_EQUAL(read(end, &byte, 1), 0);
		return 1;
	}
	pid_t pid = fork();
	CHECK(pid >= 0);
	if (!pid)
		_exit(chain(level + 1, end));
	CHECK_EQUAL(waitpid(pid, &status, 0), pid);
	CHECK(WIFEXITED(status));
	return WEXITSTATUS(status) + 1;
}

int main(void)
{
	int end[2], status;

	CHECK(!pipe(end));
	pid_t pid = fork();
	CHECK(pid >= 0);
	if (!pid) {
		close(end[1]);
		_exit(chain(1, end[0]));
	}
	close(end[0]);
	target_ready();
	close(end[1]);
	CHECK_EQUAL(waitpid(pid, &status, 0), pid);
	CHECK(WIFEXITED(status));
	CHECK_EQUAL(WEXITSTATUS(status), DEPTH - 1);
	return target_pass();
}
