/* A pair of sockets, one end of which is held by a process outside the tree: its parent. */
#include <sys/socket.h>
#include <sys/wait.h>

#include "target.h"

int main(void)
{
	int s[2], status;

	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	/* The process that is dumped is the child: it is the one that says it is ready. */
	pid_t pid = fork();
	CHECK(pid >= 0);
	if (pid) {
		close(s[0]);
		CHECK_EQUAL(waitpid(pid, &status, 0), pid);
		return WEXITSTATUS(status);
	}
	close(s[1]);
	target_expect_refusal("is outside the tree");
	target_ready();
	return target_pass();
}
