/* A root directory of its own (chroot), and a working directory inside it. */
#include <sys/stat.h>

#include "target.h"

int main(void)
{
	struct stat jail, now;
	int outside = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	CHECK(outside >= 0);
	CHECK(!stat(".", &jail));
	CHECK(!chroot("."));
	CHECK(!mkdir("/inside", 0755));
	CHECK(!stat("/", &now) && now.st_ino == jail.st_ino && now.st_dev == jail.st_dev);
	target_ready();
	CHECK(!stat("/", &now));
	CHECK(now.st_ino == jail.st_ino && now.st_dev == jail.st_dev);
	CHECK(!stat("/..", &now) && now.st_ino == jail.st_ino);
	CHECK(!access("/inside", F_OK) && !access("inside", F_OK));
	CHECK(!faccessat(outside, "proc/self", F_OK, 0));
	return target_pass();
}
