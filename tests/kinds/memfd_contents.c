/* Memory files: as descriptors (several descriptions), mapped shared and privately, with a hole, an odd size, a mode. */
#include <sys/mman.h>
#include <sys/stat.h>

#include "target.h"

enum { PAGE = 4096, SIZE = 5 * PAGE + 100 };

static void check_link(int fd)
{
	char path[32], link[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ssize_t len = readlink(path, link, sizeof(link) - 1);
	CHECK(len > 0);
	link[len] = 0;
	CHECK(!strcmp(link, "/memfd:a/b c (deleted)"));
}

int main(void)
{
	int fd = memfd_create("a/b c", 0), other, only_mapped = memfd_create("only mapped", MFD_CLOEXEC);
	char path[32], byte;
	struct stat st;

	CHECK(fd >= 0 && only_mapped >= 0 && !ftruncate(fd, SIZE) && !ftruncate(only_mapped, 2 * PAGE));
	CHECK(!fchmod(fd, 0640) && !fchown(fd, 12, 34));
	CHECK_EQUAL(pwrite(fd, "begin", 5, 0), 5);
	CHECK_EQUAL(pwrite(fd, "end", 3, SIZE - 3), 3);
	CHECK_EQUAL(lseek(fd, 77, SEEK_SET), 77);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	other = open(path, O_RDONLY | O_CLOEXEC);
	CHECK(other >= 0);

	char *shared = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, PAGE);
	char *private = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, PAGE);
	char *mapped = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, only_mapped, 0);
	CHECK(shared != MAP_FAILED && private != MAP_FAILED && mapped != MAP_FAILED && !close(only_mapped));
	memset(shared, 's', PAGE);
	private[10] = 'p'; /* a page of its own from here on */
	strcpy(mapped + PAGE, "mapped only");

	target_ready();
	check_link(fd);
	CHECK(!fstat(fd, &st));
	CHECK_EQUAL(st.st_size, SIZE);
	CHECK_EQUAL(st.st_mode, S_IFREG | 0640);
	CHECK_EQUAL(st.st_uid, 12);
	CHECK_EQUAL(st.st_gid, 34);
	CHECK_EQUAL(st.st_blocks, 3 * 8);
	CHECK_EQUAL(lseek(fd, 0, SEEK_CUR), 77);
	CHECK_EQUAL(lseek(other, 0, SEEK_CUR), 0);
	CHECK_EQUAL(fcntl(other, F_GETFL) & O_ACCMODE, O_RDONLY);
	CHECK_EQUAL(fcntl(other, F_GETFD), FD_CLOEXEC);
	CHECK_EQUAL(fcntl(fd, F_GET_SEALS), F_SEAL_SEAL);
	CHECK(pread(fd, &byte, 1, SIZE - 1) == 1 && byte == 'd');
	CHECK(pread(other, &byte, 1, 4) == 1 && byte == 'n');
	CHECK(shared[0] == 's' && shared[PAGE - 1] == 's' && !shared[PAGE]);
	CHECK(private[9] == 's' && private[10] == 'p' && !private[PAGE]);
	CHECK(!mapped[0] && !strcmp(mapped + PAGE, "mapped only"));
	/* One file it is, still. */
	shared[PAGE] = 'x';
	CHECK(pread(other, &byte, 1, 2 * PAGE) == 1 && byte == 'x');
	CHECK(private[PAGE] == 'x');
	shared[20] = 'y';
	CHECK(private[20] == 's');
	shared[20] = 's';
	shared[PAGE] = 0;
	return target_pass();
}
