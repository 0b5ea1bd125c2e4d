/* A descriptor of a process. */
#include <sys/syscall.h>

#include "target.h"

int main(void)
{
	CHECK(syscall(SYS_pidfd_open, getpid(), 0) >= 0);
	target_expect_refusal("pidfd");
	target_ready();
	return target_pass();
}
