/*
 * Processes that share descriptors (CLONE_FILES), working directory, root and umask (CLONE_FS), each without the other and
 * both: with their parent, with a grandparent, with a sister; and one that has a copy of its own.
 */
#include <sys/stat.h>

#include "../lib/family.h"

enum { FILES = 1, FS, BOTH, BELOW, SISTER_A, SISTER_B, NEITHER, LAST };

/* A step in which one process does something and all look what they see of it. */
static int *step;

static void await_step(int n)
{
	while (__atomic_load_n(step, __ATOMIC_ACQUIRE) < n)
		family_nap();
}

static void set_step(int n)
{
	__atomic_store_n(step, n, __ATOMIC_RELEASE);
}

static void check_cwd(const char *end)
{
	char cwd[4096];

	CHECK(getcwd(cwd, sizeof(cwd)));
	if (strcmp(strrchr(cwd, '/') + 1, end))
		TARGET_FAIL("working directory %s, expected %s", cwd, end);
}

/* Waits, looks at what the root has done to what is its own, and ends well. */
static void stay(int who, bool files, bool fs, int nr_children)
{
	family_note(who);
	family_wait();
	family_check(who);
	CHECK((fcntl(700, F_GETFD) >= 0) == files);
	CHECK((fcntl(20 + who, F_GETFD) >= 0) == files);
	check_cwd(fs ? "elsewhere" : "target");
	CHECK_EQUAL(umask(fs ? 031 : 027), fs ? 031 : 027);
	while (nr_children--)
		family_join(-1);
	_exit(0);
}

/* Two that share with each other, and not with their parent. */
static void stay_sister(int who)
{
	int fds[2];

	family_note(who);
	family_wait();
	family_check(who);
	if (who == SISTER_A) {
		CHECK(!pipe(fds) && dup2(fds[1], 900) == 900 && !chdir("/"));
		set_step(1);
		await_step(2);
		CHECK(fcntl(900, F_GETFD) < 0 && errno == EBADF);
	} else {
		await_step(1);
		CHECK_EQUAL(write(900, "x", 1), 1);
		check_cwd("");
		CHECK(!close(900));
		set_step(2);
	}
	CHECK(fcntl(700, F_GETFD) < 0);
	_exit(0);
}

int main(void)
{
	int fds[2];
	pid_t pid;

	family_init();
	step = mmap(NULL, sizeof(*step), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(step != MAP_FAILED && !mkdir("elsewhere", 0755));
	umask(027);
	for (int i = 1; i < LAST; i++)
		CHECK_EQUAL(dup2(open("/dev/null", O_RDONLY), 50 + i), 50 + i);
	if (!family_fork(CLONE_FILES, SIGCHLD))
		stay(FILES, true, false, 0);
	if (!family_fork(CLONE_FS, SIGCHLD))
		stay(FS, false, true, 0);
	if (!family_fork(CLONE_FILES | CLONE_FS, SIGCHLD)) {
		if (!family_fork(CLONE_FILES | CLONE_FS, SIGCHLD))
			stay(BELOW, true, true, 0);
		stay(BOTH, true, true, 1);
	}
	pid = family_fork(0, SIGCHLD);
	if (!pid) {
		if (!family_fork(CLONE_FILES | CLONE_FS | CLONE_PARENT, 0))
			stay_sister(SISTER_B);
		stay_sister(SISTER_A);
	}
	if (!family_fork(0, SIGCHLD))
		stay(NEITHER, false, false, 0);
	for (int i = 1; i < LAST; i++)
		family_await(i);

	target_ready();

	/* What is shared shows everywhere, what is not does not. */
	CHECK(!pipe(fds));
	CHECK_EQUAL(dup2(fds[0], 700), 700);
	for (int i = 1; i < LAST; i++)
		CHECK_EQUAL(dup2(fds[0], 20 + i), 20 + i);
	CHECK(!chdir("elsewhere"));
	CHECK_EQUAL(umask(031), 027);
	family_go();
	/* Also both sisters. */
	for (int i = 0; i < 6; i++)
		family_join(-1);
	CHECK(waitpid(-1, NULL, __WALL) < 0 && errno == ECHILD);
	return target_pass();
}
