/*
 * Locked memory: mlock, mlock2(MLOCK_ONFAULT) whose holes stay holes, locked and then forbidden, a locked file, and
 * mlockall(MCL_FUTURE): what is mapped after the restore is locked as well.
 */
#include "mappings.h"

static long locked_kib(void)
{
	char text[4096] = "", *at;
	int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);

	CHECK(fd >= 0 && read(fd, text, sizeof(text) - 1) > 0);
	close(fd);
	at = strstr(text, "VmLck:");
	CHECK(at);
	return atol(at + 6);
}

int main(void)
{
	static const char words[] = "locked";
	char *plain = map_pages(NULL, 4, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	map_pages(plain - PAGE, 1, PROT_NONE, MAP_PRIVATE);
	char *on_fault = map_pages(NULL, 8, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	map_pages(on_fault - PAGE, 1, PROT_NONE, MAP_PRIVATE);
	char *hidden = map_pages(NULL, 4, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	char *shared = map_pages(NULL, 4, PROT_READ | PROT_WRITE, MAP_SHARED);
	int fd = open("file", O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	CHECK(fd >= 0 && !ftruncate(fd, 2 * PAGE) && pwrite(fd, words, sizeof(words), 0) == sizeof(words));
	char *file = mmap(NULL, 2 * PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
	CHECK(file != MAP_FAILED && !close(fd));

	pages_fill(plain, 2, 1);
	pages_fill(on_fault + PAGE, 1, 2);
	pages_fill(hidden, 1, 3);
	pages_fill(shared, 1, 4);
	CHECK(!mlock(plain, 4 * PAGE));
	CHECK(!mlock2(on_fault, 8 * PAGE, MLOCK_ONFAULT));
	CHECK(!mlock2(hidden, 4 * PAGE, MLOCK_ONFAULT));
	CHECK(!mlock(hidden, 2 * PAGE));
	CHECK(!mprotect(hidden, 4 * PAGE, PROT_NONE));
	CHECK(!mlock(shared, 2 * PAGE));
	CHECK(!mlock(file, 2 * PAGE));

	struct mapping was[] = { mapping_of(plain),  mapping_of(on_fault),	  mapping_of(hidden), mapping_of(hidden + 2 * PAGE),
				 mapping_of(shared), mapping_of(shared + 2 * PAGE), mapping_of(file) };
	CHECK(mapping_has(&was[1], "lo lf") && mapping_has(&was[2], "lo") && !mapping_has(&was[2], "lf"));
	CHECK(!mlockall(MCL_FUTURE | MCL_ONFAULT));
	long kib = locked_kib();

	target_ready();

	CHECK_EQUAL(locked_kib(), kib);
	for (size_t i = 0; i < sizeof(was) / sizeof(was[0]); i++)
		mapping_check_same("locked", &was[i]);
	pages_check("locked", plain, 2, 1);
	CHECK(page_present(plain + 3 * PAGE));
	pages_check("locked on fault", on_fault + PAGE, 1, 2);
	for (int i = 0; i < 8; i++)
		CHECK(i == 1 || !page_present(on_fault + i * PAGE));
	CHECK(!strcmp(file, words));

	struct mapping is = mapping_of(map_pages(NULL, 1, PROT_READ | PROT_WRITE, MAP_PRIVATE));
	CHECK(mapping_has(&is, "lo lf"));
	CHECK(!munlockall());
	CHECK(!mprotect(hidden, PAGE, PROT_READ));
	pages_check("locked and hidden", hidden, 1, 3);
	return target_pass();
}
