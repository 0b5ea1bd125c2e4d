/* MAP_DROPPABLE: the mapping, its pages (dropped or whole, never torn), and that a child sees none of them. */
#include <sys/wait.h>

#include "mappings.h"

#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif

enum { NR = 16 };

static char *area;

/* The kernel may take any page away at any time. */
static int count_pages(void)
{
	int there = 0;

	for (int i = 0; i < NR; i++) {
		if (!page_present(area + i * PAGE) || !*(volatile char *)(area + i * PAGE))
			continue;
		for (int k = 0; k < PAGE; k++)
			CHECK_EQUAL(area[i * PAGE + k], i + 1);
		there++;
	}
	return there;
}

int main(void)
{
	int to_child[2], status;
	char byte;

	area = mmap(NULL, NR * PAGE, PROT_READ | PROT_WRITE, MAP_DROPPABLE | MAP_ANONYMOUS, -1, 0);
	if (area == MAP_FAILED) {
		printf("note: this kernel has no MAP_DROPPABLE\n");
		target_ready();
		return target_pass();
	}
	for (int i = 0; i < NR / 2; i++)
		memset(area + i * PAGE, i + 1, PAGE);
	struct mapping was = mapping_of(area);
	CHECK(mapping_has(&was, "dp"));
	CHECK(!pipe(to_child));
	pid_t pid = fork();
	CHECK(pid >= 0);
	if (!pid) {
		CHECK(read(to_child[0], &byte, 1) == 1);
		mapping_check_same("droppable, in a child", &was);
		CHECK_EQUAL(count_pages(), 0);
		memset(area, 1, PAGE);
		exit(0);
	}
	CHECK_EQUAL(count_pages(), NR / 2);

	target_ready();

	mapping_check_same("droppable", &was);
	if (count_pages() < NR / 2)
		printf("note: %d pages were dropped\n", NR / 2 - count_pages());
	CHECK(count_pages() <= NR / 2);
	CHECK(write(to_child[1], "", 1) == 1);
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	memset(area + (NR - 1) * PAGE, NR, PAGE);
	CHECK_EQUAL(area[NR * PAGE - 1], NR);
	return target_pass();
}
