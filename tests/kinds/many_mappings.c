/* 60,000 mappings of a page each, every second one read-only, with a number in it. */
#include <stdint.h>
#include <sys/mman.h>

#include "target.h"

enum { NR = 60000, PAGE = 4096 };

static size_t count_mappings(void)
{
	FILE *f = fopen("/proc/self/maps", "re");
	size_t nr = 0;

	CHECK(f);
	for (int c; (c = getc(f)) != EOF;)
		nr += c == '\n';
	fclose(f);
	return nr;
}

int main(void)
{
	char *area = mmap(NULL, (size_t)NR * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(area != MAP_FAILED);
	for (uint64_t i = 0; i < NR; i++) {
		*(uint64_t *)(area + i * PAGE) = i * 0x9e3779b97f4a7c15u;
		CHECK(i % 2 || !mprotect(area + i * PAGE, PAGE, PROT_READ));
	}
	size_t before = count_mappings();
	CHECK(before >= NR);
	target_ready();
	CHECK_EQUAL(count_mappings(), before);
	for (uint64_t i = 0; i < NR; i++) {
		CHECK(*(uint64_t *)(area + i * PAGE) == i * 0x9e3779b97f4a7c15u);
		if (i % 2)
			*(uint64_t *)(area + i * PAGE) = i;
	}
	return target_pass();
}
