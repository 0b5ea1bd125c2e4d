/* A removed directory inside so many other removed ones that they are not carried. */
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "target.h"

enum { LEVELS = 60 };

int main(void)
{
	int up[2];
	char c;

	CHECK(!pipe2(up, O_CLOEXEC));
	pid_t child = fork();
	CHECK(child >= 0);
	if (!child) {
		for (int i = 0; i < LEVELS; i++)
			CHECK(!mkdir("d", 0700) && !chdir("d"));
		/* From the innermost outwards. */
		for (int i = 0; i < LEVELS; i++) {
			char above[3 * (LEVELS + 1) + 2] = "";

			for (int k = 0; k <= i; k++)
				strcat(above, "../");
			CHECK(!rmdir(strcat(above, "d")));
		}
		CHECK_EQUAL(write(up[1], "", 1), 1);
		for (;;)
			pause();
	}
	CHECK(read(up[0], &c, 1) == 1 && !close(up[0]) && !close(up[1]));
	target_expect_refusal("has been removed with so many directories above it that it is not supported");
	target_ready();
	CHECK(!kill(child, SIGKILL) && waitpid(child, NULL, 0) == child);
	return target_pass();
}
