/*
 * Memory where nobody has any: from the lowest address that may be mapped, at the highest one, and over everything that is
 * free around where a restore would like to be: the low gigabytes, the places of programs, heaps, libraries and
 * stacks.
 */
#include <sys/prctl.h>

#include "mappings.h"

/* Where bcr itself, built as it is, comes to lie; reserved as far as this program leaves it free. */
static const struct {
	unsigned long start, end;
} wide[] = {
	{ 0x200000, 0x100000000 },
	{ 0x555000000000, 0x558000000000 },
	{ 0x7ff000000000, 0x7ff100000000 },
};
enum { NR_WIDE = sizeof(wide) / sizeof(wide[0]), MAX_PIECES = 64 };

static struct piece {
	char *at;
	struct mapping was;
} pieces[MAX_PIECES];
static int nr_pieces;

static char *lowest(void)
{
	char text[32] = "";
	int fd = open("/proc/sys/vm/mmap_min_addr", O_RDONLY | O_CLOEXEC);

	CHECK(fd >= 0 && read(fd, text, sizeof(text) - 1) > 0);
	close(fd);
	unsigned long at = strtoul(text, NULL, 10);
	return (char *)(at < PAGE ? PAGE : at);
}

static void take(char *at, size_t pages)
{
	CHECK(nr_pieces < MAX_PIECES);
	pieces[nr_pieces++].at = at;
	CHECK(map_pages(at, pages, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE) == at);
	pages_fill(at + (pages - 1) * PAGE, 1, nr_pieces);
	pages_fill(at, 1, nr_pieces);
}

/* Everything that is free in a range, in pieces around what is there. */
static void take_range(unsigned long start, unsigned long end)
{
	struct mapping taken[MAX_PIECES];
	char line[512];
	int nr = 0;
	FILE *f = fopen("/proc/self/maps", "re");

	CHECK(f);
	while (fgets(line, sizeof(line), f) && nr < MAX_PIECES)
		CHECK(sscanf(line, "%lx-%lx", &taken[nr].start, &taken[nr].end) == 2 && ++nr);
	fclose(f);
	for (int i = 0; i <= nr; i++) {
		unsigned long to = i < nr && taken[i].start < end ? taken[i].start : end;

		/* The heap and the stack must be able to grow. */
		if (to > start + (64 << 20))
			take((char *)start + (32 << 20), (to - start - (64 << 20)) / PAGE);
		if (i < nr && taken[i].end > start)
			start = taken[i].end;
		if (start >= end)
			break;
	}
}

int main(void)
{
	/* A page each, not a huge one where there happens to be one. */
	CHECK(!prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
	take(lowest(), 4);
	take((char *)0x7fffffffe000, 1);
	for (int i = 0; i < NR_WIDE; i++)
		take_range(wide[i].start, wide[i].end);
	for (int i = 0; i < nr_pieces; i++)
		pieces[i].was = mapping_of(pieces[i].at);

	target_ready();

	for (int i = 0; i < nr_pieces; i++) {
		struct piece *p = &pieces[i];

		mapping_check_same("taken", &p->was);
		pages_check("first page", p->at, 1, i + 1);
		CHECK_EQUAL(p->was.end - p->was.start > 2 * PAGE && page_present(p->at + PAGE), 0);
	}
	struct mapping m;
	CHECK(!mapping_at(lowest() + 4 * PAGE, &m));
	return target_pass();
}
