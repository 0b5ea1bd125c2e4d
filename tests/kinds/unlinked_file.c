/*
 * Unlinked files: open for reading and for writing, shared by two descriptors, with a hole, an owner and times; mapped only,
 * shared and private; and one whose name is another file's by now.
 */
#include <sys/mman.h>
#include <sys/stat.h>

#include "target.h"

enum { PAGE = 4096, SIZE = 20 * PAGE + 7 };

static int make(const char *name)
{
	int fd = open(name, O_RDWR | O_CREAT | O_EXCL, 0600);

	CHECK(fd >= 0);
	return fd;
}

static int ends_with(int fd, const char *end)
{
	char path[32], link[512];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ssize_t len = readlink(path, link, sizeof(link) - 1);
	CHECK(len > (ssize_t)strlen(end));
	link[len] = 0;
	return !strcmp(link + len - strlen(end), end);
}

int main(void)
{
	const struct timespec times[2] = { { 1000000001, 5000 }, { 1000000002, 7000 } };
	int fd = make("file"), reads = open("file", O_RDONLY), gone = make("mapped"), old = make("taken"), new;
	struct stat st;
	char text[8] = "";

	CHECK(pwrite(fd, "begin", 5, 0) == 5 && pwrite(fd, "end", 3, SIZE - 3) == 3);
	CHECK(!fchown(fd, 12, 34) && !fchmod(fd, 04750) && lseek(fd, 3, SEEK_SET) == 3 && !futimens(fd, times));
	CHECK(reads >= 0 && !unlink("file"));

	CHECK(!ftruncate(gone, 3 * PAGE));
	char *shared = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, gone, 0);
	char *private = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, gone, 0);
	CHECK(shared != MAP_FAILED && private != MAP_FAILED && !close(gone) && !unlink("mapped"));
	strcpy(shared, "shared");
	private[2 * PAGE] = 'p';

	CHECK(write(old, "old", 3) == 3 && !unlink("taken"));
	new = make("taken");
	CHECK(write(new, "new", 3) == 3);

	target_ready();
	CHECK(access("file", F_OK) && access("mapped", F_OK));
	CHECK(ends_with(fd, "/file (deleted)"));
	CHECK(!fstat(fd, &st));
	CHECK_EQUAL(st.st_nlink, 0);
	CHECK_EQUAL(st.st_size, SIZE);
	CHECK_EQUAL(st.st_mode, S_IFREG | 04750);
	CHECK_EQUAL(st.st_uid, 12);
	CHECK_EQUAL(st.st_gid, 34);
	CHECK_EQUAL(st.st_mtim.tv_sec, 1000000002);
	CHECK_EQUAL(st.st_mtim.tv_nsec, 7000);
	CHECK(st.st_blocks * 512 < SIZE);
	CHECK_EQUAL(lseek(fd, 0, SEEK_CUR), 3);
	CHECK(pread(reads, text, 5, 0) == 5 && !strcmp(text, "begin"));
	CHECK(pread(reads, text, 8, SIZE - 3) == 3 && !memcmp(text, "end", 3));
	CHECK(write(reads, "x", 1) < 0 && errno == EBADF);
	/* One file it is, still. */
	CHECK(pwrite(fd, "B", 1, 0) == 1 && pread(reads, text, 1, 0) == 1 && *text == 'B');
	CHECK(pwrite(fd, "b", 1, 0) == 1 && !futimens(fd, times));
	CHECK(!strcmp(shared, "shared") && !shared[2 * PAGE] && private[2 * PAGE] == 'p' && !strcmp(private, "shared"));
	shared[PAGE] = 's';
	CHECK(private[PAGE] == 's');
	shared[PAGE] = 0;
	CHECK(pread(old, text, 8, 0) == 3 && !memcmp(text, "old", 3));
	CHECK(pread(new, text, 8, 0) == 3 && !memcmp(text, "new", 3));
	CHECK(ends_with(new, "/taken"));
	return target_pass();
}
