/*
 * Mappings side by side: those the kernel keeps apart stay apart, those it would join are one, and what is split and made
 * equal again after the restore becomes one again. Moved ones (mremap, MREMAP_DONTUNMAP) are where they were moved.
 */
#include <sys/syscall.h>

#include "mappings.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

enum { RW = PROT_READ | PROT_WRITE };

/* Addresses to put mappings at, with pages that nobody may touch on both sides. */
static char *room(size_t pages)
{
	return (char *)map_pages(NULL, pages + 2, PROT_NONE, MAP_PRIVATE) + PAGE;
}

static char *put(char *at, size_t pages, int flags)
{
	CHECK(mmap(at, pages * PAGE, RW, flags | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == at);
	return at;
}

/* Two that have been written to apart from each other, and then moved together: equal, but never one. */
static char *moved_together(int prot, uint64_t salt)
{
	char *to = room(4);

	for (int i = 0; i < 2; i++) {
		char *from = map_pages(NULL, 2, RW, MAP_PRIVATE);

		pages_fill(from, 2, salt + i);
		CHECK(mremap(from, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to + i * 2 * PAGE) != MAP_FAILED);
		/* The second one has pages no more. */
		if (i)
			CHECK(!madvise(to + 2 * PAGE, 2 * PAGE, MADV_DONTNEED));
	}
	CHECK(!mprotect(to, 4 * PAGE, prot));
	CHECK_EQUAL(mapping_of(to).end, (uintptr_t)to + 2 * PAGE);
	return to;
}

/* The middle page of three, other than the others. */
static char *split(char *at, int prot)
{
	CHECK(!mprotect(at + PAGE, PAGE, prot));
	CHECK_EQUAL(mapping_of(at).end, (uintptr_t)at + PAGE);
	return at;
}

static void check_joins(const char *what, char *at)
{
	CHECK(!mprotect(at + PAGE, PAGE, RW));
	struct mapping m = mapping_of(at);

	if (m.end != m.start + 3 * PAGE)
		TARGET_FAIL("%s: does not become one again: %lx-%lx", what, m.start, m.end);
}

int main(void)
{
	char *apart[] = { moved_together(RW, 10), moved_together(PROT_READ, 20), moved_together(PROT_NONE, 30) };
	struct mapping apart_was[6];
	char *full = room(3), *empty = room(3), *shared = room(3), *of_file = room(3);

	put(full, 3, MAP_PRIVATE);
	pages_fill(full, 3, 40);
	split(full, PROT_READ);
	split(put(empty, 3, MAP_PRIVATE), PROT_READ);
	split(put(shared, 3, MAP_SHARED), PROT_READ);
	int fd = open("file", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	CHECK(fd >= 0 && !ftruncate(fd, 3 * PAGE));
	CHECK(mmap(of_file, 3 * PAGE, RW, MAP_PRIVATE | MAP_FIXED, fd, 0) == of_file && !close(fd));
	split(of_file, PROT_READ);

	/* Moved, and the old place left behind empty. */
	char *from = room(4);
	put(from, 4, MAP_PRIVATE);
	pages_fill(from, 4, 50);
	/* Not by the C library, which knows only MREMAP_FIXED to come with an address. */
	char *moved = (char *)syscall(SYS_mremap, from, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
	CHECK(moved != MAP_FAILED && !page_present(from));
	/* One object, seen at two places. */
	char *object = map_pages(NULL, 4, RW, MAP_SHARED);
	char *again = mremap(object, 0, 4 * PAGE, MREMAP_MAYMOVE);
	CHECK(again != MAP_FAILED);
	/* Grown in place or elsewhere. */
	char *grown = map_pages(NULL, 2, RW, MAP_PRIVATE);
	pages_fill(grown, 2, 60);
	grown = mremap(grown, 2 * PAGE, 64 * PAGE, MREMAP_MAYMOVE);
	CHECK(grown != MAP_FAILED);
	for (int i = 0; i < 6; i++)
		apart_was[i] = mapping_of(apart[i / 2] + i % 2 * 2 * PAGE);
	struct mapping was[] = { mapping_of(full),   mapping_of(full + PAGE), mapping_of(full + 2 * PAGE), mapping_of(empty),
				 mapping_of(shared), mapping_of(of_file),     mapping_of(from),		 mapping_of(moved) };

	target_ready();

	for (int i = 0; i < 6; i++)
		mapping_check_same("to be kept apart", &apart_was[i]);
	for (size_t i = 0; i < sizeof(was) / sizeof(was[0]); i++)
		mapping_check_same("neighbour", &was[i]);
	CHECK(!mprotect(apart[2], 2 * PAGE, PROT_READ));
	for (int i = 0; i < 3; i++)
		pages_check("kept apart", apart[i], 2, 10 + i * 10);
	CHECK(!page_present(from));
	pages_check("moved", moved, 4, 50);
	pages_fill(object, 4, 70);
	pages_check("at another place", again, 4, 70);
	pages_check("grown", grown, 2, 60);
	CHECK(!page_present(grown + 2 * PAGE));
	check_joins("private", full);
	check_joins("without pages", empty);
	check_joins("shared", shared);
	check_joins("of a file", of_file);
	pages_check("joined", full, 3, 40);
	return target_pass();
}
