/*
 * Memory that may not be read: PROT_NONE with pages and without, execute-only code, write-only, guard regions in anonymous
 * memory and in that of a file; the signal each gives, and what is in it when it is allowed again.
 */
#include <setjmp.h>
#include <signal.h>

#include "mappings.h"

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif

enum { RW = PROT_READ | PROT_WRITE };

static sigjmp_buf fault;

static void on_fault(int sig)
{
	siglongjmp(fault, sig);
}

static bool can_read(const volatile char *at)
{
	if (sigsetjmp(fault, 1))
		return false;
	(void)*at;
	return true;
}

int main(void)
{
	static const unsigned char return_42[] = { 0xb8, 42, 0, 0, 0, 0xc3 };
	char *hidden = map_pages(NULL, 8, RW, MAP_PRIVATE), *never = map_pages(NULL, 8, PROT_NONE, MAP_PRIVATE);
	char *code = map_pages(NULL, 2, RW, MAP_PRIVATE), *write_only = map_pages(NULL, 2, RW, MAP_PRIVATE);
	char *guarded = map_pages(NULL, 8, RW, MAP_PRIVATE);
	int fd = open("file", O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	CHECK(fd >= 0 && !ftruncate(fd, 8 * PAGE));
	char *of_file = mmap(NULL, 8 * PAGE, RW, MAP_PRIVATE, fd, 0);
	CHECK(of_file != MAP_FAILED && !close(fd));
	signal(SIGSEGV, on_fault);
	pages_fill(hidden + PAGE, 2, 1);
	CHECK(!mprotect(hidden, 8 * PAGE, PROT_NONE));
	memcpy(code, return_42, sizeof(return_42));
	CHECK(!mprotect(code, 2 * PAGE, PROT_EXEC));
	pages_fill(write_only, 1, 2);
	CHECK(!mprotect(write_only, 2 * PAGE, PROT_WRITE));
	pages_fill(guarded, 8, 3);
	pages_fill(of_file, 2, 4);
	bool guards = !madvise(guarded + 2 * PAGE, 3 * PAGE, MADV_GUARD_INSTALL);
	bool file_guards = guards && !madvise(of_file + PAGE, 3 * PAGE, MADV_GUARD_INSTALL);
	if (!file_guards)
		printf("note: this kernel has no guard regions%s\n", guards ? " in mappings of files" : "");
	struct mapping was[] = { mapping_of(hidden), mapping_of(never), mapping_of(code), mapping_of(write_only),
				 mapping_of(guarded), mapping_of(of_file) };

	target_ready();

	for (size_t i = 0; i < sizeof(was) / sizeof(was[0]); i++)
		mapping_check_same("forbidden", &was[i]);
	CHECK(!can_read(hidden + PAGE) && !can_read(never));
	CHECK_EQUAL(((int (*)(void))code)(), 42);
	for (int i = 0; i < 8; i++) {
		CHECK_EQUAL(can_read(guarded + i * PAGE), !guards || i < 2 || i > 4);
		CHECK_EQUAL(can_read(of_file + i * PAGE), !file_guards || i < 1 || i > 3);
	}
	write_only[PAGE] = 1;
	CHECK(!mprotect(write_only, PAGE, RW) && !mprotect(hidden, 8 * PAGE, RW));
	pages_check("write-only", write_only, 1, 2);
	pages_check("hidden", hidden + PAGE, 2, 1);
	CHECK(!page_present(hidden) && !page_present(hidden + 3 * PAGE) && !page_present(never));
	pages_check("below the guards", guarded, 2, 3);
	pages_check("of a file", of_file, 1, 4);
	if (guards) {
		CHECK(!madvise(guarded + 2 * PAGE, PAGE, MADV_GUARD_REMOVE));
		CHECK_EQUAL(guarded[2 * PAGE], 0);
		CHECK(!can_read(guarded + 3 * PAGE));
	}
	return target_pass();
}
