/*
 * MAP_GROWSDOWN: one mapping that has grown, with a hole in it, one that has not; both can grow on. The program's own stack,
 * three megabytes deep, is among them.
 */
#include "mappings.h"

enum { ROOM = 512, RW = PROT_READ | PROT_WRITE };

static char *grown, *small;

/* With room below: a stack does not grow to within a megabyte of other mappings. */
static char *make_stack(size_t pages)
{
	char *room = map_pages(NULL, ROOM + pages, PROT_NONE, MAP_PRIVATE | MAP_NORESERVE);

	CHECK(!munmap(room, (ROOM + pages) * PAGE));
	return map_pages(room + ROOM * PAGE, pages, RW, MAP_PRIVATE | MAP_GROWSDOWN);
}

static void deep(void)
{
	char frame[3 << 20];

	pages_fill(frame, sizeof(frame) / PAGE, 3);
	struct mapping stack = mapping_of(frame);
	struct mapping was[] = { mapping_of(grown), mapping_of(small) };
	CHECK(mapping_has(&was[0], "gd") && mapping_has(&stack, "gd"));

	target_ready();

	/* It may have grown by what target_ready() calls. */
	struct mapping is = mapping_of(frame);
	CHECK(is.start <= stack.start && is.end == stack.end && !strcmp(is.flags, stack.flags) && !strcmp(is.name, "[stack]"));
	mapping_check_same("grown", &was[0]);
	mapping_check_same("not grown", &was[1]);
	pages_check("stack", frame, sizeof(frame) / PAGE, 3);
}

int main(void)
{
	grown = make_stack(4);
	small = make_stack(4);
	pages_fill(grown, 4, 1);
	pages_fill(small + PAGE, 1, 2);
	for (int i = 0; i < 8; i++) {
		grown -= PAGE;
		*(volatile char *)grown = i;
	}
	CHECK(!madvise(grown + PAGE, 2 * PAGE, MADV_DONTNEED));
	CHECK_EQUAL(mapping_of(grown + 8 * PAGE).start, (uintptr_t)grown);

	deep();

	pages_check("grown", grown + 8 * PAGE, 4, 1);
	pages_check("not grown", small + PAGE, 1, 2);
	CHECK(!page_present(grown + PAGE) && !page_present(small));
	CHECK_EQUAL(*grown, 7);
	for (int i = 1; i <= 4; i++) {
		*(volatile char *)(grown - i * PAGE) = 1;
		*(volatile char *)(small - i * PAGE) = 1;
	}
	CHECK_EQUAL(mapping_of(small).start, (uintptr_t)small - 4 * PAGE);
	return target_pass();
}
