/* Memory files with seals: those that are in the way of writing, and the one that lets mappings made before go on. */
#include <sys/mman.h>
#include <sys/stat.h>

#include "target.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x10
#endif
#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x20
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8U
#endif

enum { PAGE = 4096, ALL = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE };

static int make(unsigned flags)
{
	int fd = memfd_create("sealed", flags);

	CHECK(fd >= 0 && pwrite(fd, "text", 4, 0) == 4 && !ftruncate(fd, PAGE));
	return fd;
}

int main(void)
{
	int all = make(MFD_ALLOW_SEALING), later = make(MFD_ALLOW_SEALING), none = make(MFD_ALLOW_SEALING), noexec;
	char byte;
	struct stat st;

	CHECK(!fcntl(all, F_ADD_SEALS, ALL));
	char *reads = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, all, 0);
	char *writes = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, later, 0);
	CHECK(reads != MAP_FAILED && writes != MAP_FAILED && !fcntl(later, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK));
	noexec = memfd_create("noexec", MFD_NOEXEC_SEAL); /* since Linux 6.3 */

	target_ready();
	CHECK_EQUAL(fcntl(all, F_GET_SEALS), ALL);
	CHECK_EQUAL(fcntl(later, F_GET_SEALS), F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK);
	CHECK_EQUAL(fcntl(none, F_GET_SEALS), 0);
	CHECK(pwrite(all, "x", 1, 0) < 0 && errno == EPERM);
	CHECK(ftruncate(all, 0) < 0 && errno == EPERM);
	CHECK(!memcmp(reads, "text", 4));
	CHECK(pread(all, &byte, 1, 0) == 1 && byte == 't');
	CHECK(pwrite(later, "x", 1, 0) < 0 && errno == EPERM);
	writes[0] = 'T';
	CHECK(pread(later, &byte, 1, 0) == 1 && byte == 'T');
	writes[0] = 't';
	CHECK(pwrite(none, "text", 4, 0) == 4);
	if (noexec >= 0) {
		CHECK_EQUAL(fcntl(noexec, F_GET_SEALS), F_SEAL_EXEC);
		CHECK(!fstat(noexec, &st));
		CHECK_EQUAL(st.st_mode & 0777, 0666);
		CHECK(fchmod(noexec, 0777) < 0 && errno == EPERM);
	}
	return target_pass();
}
