/* A Landlock sandbox: nobody but the kernel knows its rules, and restored without it the program could do more. */
#include <linux/landlock.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "target.h"

int main(void)
{
	struct landlock_ruleset_attr attr = { .handled_access_fs = LANDLOCK_ACCESS_FS_MAKE_BLOCK };
	int fd = syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);

	if (fd < 0 && (errno == ENOSYS || errno == EOPNOTSUPP))
		target_skip("this kernel has no Landlock");
	CHECK(fd >= 0);
	CHECK(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	CHECK(!syscall(SYS_landlock_restrict_self, fd, 0));
	CHECK(!close(fd));
	target_expect_refusal("is in a Landlock sandbox, which is not supported");
	target_ready();
	return target_pass();
}
