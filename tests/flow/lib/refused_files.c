/* Directories and file locks that dump refuses. */
#include "refused.h"

#include <linux/magic.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>

static int locked = -1; /* a file that is locked in one of the ways */

static void check_gone(void)
{
	char path[16];

	CHECK(!getcwd(path, sizeof(path)) && errno == ENOENT, "the working directory has a name");
}

/* The working directory of a process that has ended. */
static void enter_process(void)
{
	char path[32];
	pid_t pid = fork();

	NEED(pid >= 0);
	if (!pid)
		for (;;)
			pause();
	snprintf(path, sizeof(path), "/proc/%d", pid);
	NEED(chdir(path) == 0 && kill(pid, SIGKILL) == 0 && waitpid(pid, NULL, 0) == pid);
	EXPECT("pid %d: %s \\(deleted\\) has been unlinked or replaced, which is not supported; leave it first", getpid(), path);
}

/* A program without a working directory cannot find the files of the test: a child of it has the state. */
static void build_process_directory(void)
{
	start_child(enter_process, check_gone);
}

/* A control group that has been removed: made again, it would be a control group. */
static void enter_cgroup(void)
{
	static const char *const roots[] = { "/sys/fs/cgroup/unified", "/sys/fs/cgroup" };
	char path[64];

	for (size_t i = 0; i < sizeof(roots) / sizeof(roots[0]); i++) {
		struct statfs fs;

		if (statfs(roots[i], &fs) || fs.f_type != CGROUP2_SUPER_MAGIC)
			continue;
		snprintf(path, sizeof(path), "%s/bcr-gone-%d", roots[i], getpid());
		if (mkdir(path, 0700))
			continue;
		NEED(chdir(path) == 0 && rmdir(path) == 0);
		EXPECT("pid %d: %s \\(deleted\\) has been unlinked or replaced, which is not supported; leave it first", getpid(), path);
		return;
	}
	unavailable("control groups of version 2");
}

static void build_cgroup_directory(void)
{
	start_child(enter_cgroup, check_gone);
}

/* The test has started us from a copy. */
static void open_locked(const char *how)
{
	locked = open(how, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	NEED(locked >= 0);
}

/* What stands in the way of one's own lock on the file is the lock that was taken before. */
static void check_lock(int cmd, const char *name, int pid)
{
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int fd = open(name, O_RDWR | O_CLOEXEC);

	NEED(fd >= 0 && fcntl(fd, cmd, &l) == 0);
	CHECK(l.l_type == F_WRLCK && l.l_pid == pid, "the lock on %s is of type %d, pid %d", name, l.l_type, l.l_pid);
}

static void build_flock(void)
{
	open_locked("flock");
	NEED(flock(locked, LOCK_EX) == 0);
	EXPECT("pid %d fd %d .*/flock: holds a file lock \\(FLOCK\\)", getpid(), locked);
}

static void check_flock(void)
{
	int fd = open("flock", O_RDWR | O_CLOEXEC);

	CHECK(flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK, "the lock is gone");
}

static void build_posix(void)
{
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 3, .l_len = 5 };

	open_locked("posix");
	NEED(fcntl(locked, F_SETLK, &l) == 0);
	EXPECT("pid %d fd %d .*/posix: holds a file lock \\(POSIX\\)", getpid(), locked);
}

/* One's own lock is no obstacle: a child asks. */
static void check_posix(void)
{
	pid_t self = getpid(), pid = fork();

	NEED(pid >= 0);
	if (!pid) {
		check_lock(F_GETLK, "posix", self);
		_exit(0);
	}
	self_join(pid);
}

static void build_ofd(void)
{
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	open_locked("ofd");
	NEED(fcntl(locked, F_OFD_SETLK, &l) == 0);
	EXPECT("pid %d fd %d .*/ofd: holds a file lock \\(OFDLCK\\)", getpid(), locked);
}

static void check_ofd(void)
{
	check_lock(F_OFD_GETLK, "ofd", -1);
}

static void build_lease(void)
{
	open_locked("lease");
	if (fcntl(locked, F_SETLEASE, F_WRLCK))
		unavailable("F_SETLEASE");
	EXPECT("pid %d fd %d .*/lease: holds a file lock \\(LEASE\\)", getpid(), locked);
}

static void check_lease(void)
{
	CHECK(fcntl(locked, F_GETLEASE) == F_WRLCK, "the lease is %d", fcntl(locked, F_GETLEASE));
}

int main(int argc, char **argv)
{
	static const struct mode modes[] = {
		{ "process-directory", build_process_directory, join_child },
		{ "cgroup-directory", build_cgroup_directory, join_child },
		{ "flock", build_flock, check_flock },
		{ "posix", build_posix, check_posix },
		{ "ofd", build_ofd, check_ofd },
		{ "lease", build_lease, check_lease },
		{},
	};

	return refused_main(argc, argv, modes);
}
