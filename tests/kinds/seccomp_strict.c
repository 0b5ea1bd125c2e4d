/* A child in the strict mode of seccomp(2), which may read, write and exit: it still can, and nothing else. */
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "target.h"

/* Adds one to each byte it gets, and asks for its number at the end: for that it is to be killed. */
static void strict_child(int in, int out)
{
	char byte;

	CHECK(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT));
	while (read(in, &byte, 1) == 1) {
		byte++;
		if (write(out, &byte, 1) != 1)
			syscall(SYS_exit, 1);
	}
	syscall(SYS_getpid);
	syscall(SYS_exit, 0);
}

static void check_answer(int to, int from)
{
	char byte;

	CHECK_EQUAL(write(to, "a", 1), 1);
	CHECK(read(from, &byte, 1) == 1 && byte == 'b');
}

int main(void)
{
	int to[2], from[2], status;

	CHECK(!pipe(to) && !pipe(from));
	pid_t pid = fork();
	CHECK(pid >= 0);
	if (!pid) {
		close(to[1]);
		strict_child(to[0], from[1]);
	}
	check_answer(to[1], from[0]);
	target_ready();
	check_answer(to[1], from[0]);
	close(to[1]);
	CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	return target_pass();
}
