/*
 * Directories that have been removed, of which somebody is inside: as working directory, alone or three in one another, with the
 * name taken again; as root directory; open, also by O_PATH; and a file that was in one.
 */
#include <dirent.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "target.h"

static int top, go[2], up[2];

static int open_dir(const char *path, int flags)
{
	int fd = open(path, flags | O_DIRECTORY | O_CLOEXEC);

	CHECK(fd >= 0);
	return fd;
}

static ino_t inode(const char *path, nlink_t nr_links)
{
	struct stat st;

	CHECK(!stat(path, &st));
	CHECK_EQUAL(st.st_nlink != 0, nr_links != 0);
	return st.st_ino;
}

static void check_link(const char *link, const char *end)
{
	char path[512];
	ssize_t len = readlink(link, path, sizeof(path) - 1);

	CHECK(len > (ssize_t)strlen(end));
	path[len] = 0;
	if (strcmp(path + len - strlen(end), end))
		TARGET_FAIL("%s leads to %s", link, path);
}

static void check_dead(const char *path)
{
	DIR *dir = opendir(path);
	char name[64];

	snprintf(name, sizeof(name), "%s/new", path);
	CHECK(open(name, O_WRONLY | O_CREAT, 0600) < 0 && errno == ENOENT);
	CHECK(mkdir(name, 0700) < 0 && errno == ENOENT);
	CHECK(dir && !readdir(dir) && !closedir(dir));
}

/* --- who is in them --- */

/* Says that it is there, and waits until it is to look. */
static void wait_inside(void)
{
	char c = 0;

	CHECK(write(up[1], &c, 1) == 1 && !close(up[0]) && !close(up[1]));
	CHECK(!close(go[1]) && !read(go[0], &c, 1));
}

/* three/two/one, of which `three` has been made again since. */
static void in_three(void)
{
	CHECK(!chdir("three/two/one"));
	int two = open_dir("..", O_RDONLY), one = open_dir(".", O_PATH);
	int file = open("file", O_RDWR | O_CREAT | O_EXCL, 0600);

	CHECK(write(file, "text", 4) == 4 && !unlink("file"));
	wait_inside();

	struct stat st, two_st;
	char text[8];

	CHECK(!fstat(one, &st));
	CHECK_EQUAL(inode(".", 0), st.st_ino);
	CHECK_EQUAL(st.st_mode, S_IFDIR | 01750);
	CHECK_EQUAL(st.st_uid, 12);
	CHECK_EQUAL(st.st_gid, 34);
	CHECK(!fstat(two, &two_st));
	CHECK_EQUAL(inode("..", 0), two_st.st_ino);
	CHECK_EQUAL(two_st.st_mtim.tv_sec, 1000000002);
	CHECK(!fstatat(top, "three", &st, 0) && st.st_nlink);
	CHECK(inode("../..", 0) != st.st_ino);
	CHECK(!stat("../..", &st));
	CHECK_EQUAL(st.st_mode, S_IFDIR | 0711);
	CHECK(!fstat(top, &st));
	CHECK_EQUAL(inode("../../..", 1), st.st_ino);
	check_dead(".");
	check_dead("..");
	check_dead("../..");
	CHECK(!getcwd(text, sizeof(text)) && errno == ENOENT);
	CHECK(pread(file, text, sizeof(text), 0) == 4 && !memcmp(text, "text", 4));
	CHECK(!faccessat(top, "three", F_OK, 0) && faccessat(top, "three/two", F_OK, 0));
}

static void in_one(void)
{
	struct stat st;

	CHECK(!chdir("gone"));
	wait_inside();
	CHECK(!fstat(top, &st));
	CHECK_EQUAL(inode("..", 1), st.st_ino);
	check_dead(".");
	check_link("/proc/self/cwd", "/gone (deleted)");
	CHECK(faccessat(top, "gone", F_OK, 0));
}

static void in_root(void)
{
	CHECK(!chroot("jail") && !chdir("/"));
	wait_inside();
	CHECK_EQUAL(inode("/", 0), inode(".", 0));
	CHECK_EQUAL(inode("/..", 0), inode("/", 0));
	check_dead("/");
}

int main(void)
{
	static void (*const who[])(void) = { in_three, in_one, in_root, in_one };
	enum { NR = sizeof(who) / sizeof(who[0]) };
	const struct timespec times[2] = { { 1000000001, 0 }, { 1000000002, 0 } };
	pid_t pids[NR];
	char c;

	top = open_dir(".", O_PATH);
	CHECK(!mkdir("three", 0711) && !mkdir("three/two", 0700) && !mkdir("three/two/one", 0700));
	CHECK(!chown("three/two/one", 12, 34) && !chmod("three/two/one", 01750));
	CHECK(!mkdir("gone", 0700) && !mkdir("jail", 0755));
	int two = open_dir("three/two", O_RDONLY);
	CHECK(!pipe2(go, O_CLOEXEC) && !pipe2(up, O_CLOEXEC));
	for (int i = 0; i < NR; i++) {
		pids[i] = fork();
		CHECK(pids[i] >= 0);
		if (!pids[i]) {
			who[i]();
			exit(0);
		}
		CHECK(read(up[0], &c, 1) == 1);
	}
	CHECK(!close(up[0]) && !close(up[1]) && !close(go[0]));
	CHECK(!rmdir("three/two/one") && !rmdir("three/two") && !rmdir("three"));
	CHECK(!mkdir("three", 0700) && !rmdir("gone") && !rmdir("jail") && !futimens(two, times));
	target_ready();
	CHECK(!close(go[1]));
	for (int i = 0; i < NR; i++) {
		int status;

		CHECK_EQUAL(waitpid(pids[i], &status, 0), pids[i]);
		CHECK_EQUAL(status, 0);
	}
	CHECK(!rmdir("three"));
	return target_pass();
}
