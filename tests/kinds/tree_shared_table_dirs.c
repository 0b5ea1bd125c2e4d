/*
 * Processes that share their descriptors (CLONE_FILES) and are each in a directory of their own, every other one in a removed one,
 * and one with a root of its own: a restore puts the descriptors of all in place while each enters where it was.
 */
#include <limits.h>
#include <sys/stat.h>

#include "../lib/family.h"

enum { ROOTED = 1, LAST = 25, NR_FDS = 500 };

static void check_inside(const char *name, bool removed)
{
	char expected[32], cwd[PATH_MAX];
	ssize_t len = readlink("/proc/self/cwd", cwd, sizeof(cwd) - 1);

	CHECK(len > 0);
	cwd[len] = 0;
	snprintf(expected, sizeof(expected), "%s%s", name, removed ? " (deleted)" : "");
	if (strcmp(strrchr(cwd, '/') + 1, expected))
		TARGET_FAIL("working directory %s, expected %s", cwd, expected);
	CHECK_EQUAL(mkdir("new", 0700) || rmdir("new"), removed);
}

__attribute__((noreturn)) static void stay(int who)
{
	bool removed = who % 2 == 0;
	char name[32];

	snprintf(name, sizeof(name), "dir-%d", who);
	CHECK(!mkdir(name, 0700) && !chdir(name));
	if (who == ROOTED)
		CHECK(!mkdir("inside", 0700) && !chroot("."));
	family_note(who);
	family_wait();
	family_check(who);
	if (who == ROOTED)
		CHECK(!access("/inside", F_OK) && access("/proc", F_OK));
	else
		check_inside(name, removed);
	_exit(0);
}

int main(void)
{
	char name[32];

	family_init();
	for (int fd = 100; fd < 100 + NR_FDS; fd++)
		CHECK_EQUAL(dup2(STDIN_FILENO, fd), fd);
	for (int who = 1; who < LAST; who++) {
		if (!family_fork(CLONE_FILES, SIGCHLD))
			stay(who);
		family_await(who);
		snprintf(name, sizeof(name), "dir-%d", who);
		CHECK(who % 2 || !rmdir(name));
	}
	target_ready();
	family_go();
	for (int who = 1; who < LAST; who++)
		family_join(-1);
	return target_pass();
}
