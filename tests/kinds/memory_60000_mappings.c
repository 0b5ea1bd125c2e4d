/*
 * 60,000 mappings: half of them by their protection, half of them equal neighbours that only their history keeps apart.
 * timeout: 300
 */
#include "mappings.h"

enum { RW = PROT_READ | PROT_WRITE, NR = 30000 };

static int count_mappings(void)
{
	static char text[1 << 16];
	int nr = 0, fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	ssize_t got;

	CHECK(fd >= 0);
	while ((got = read(fd, text, sizeof(text))) > 0) {
		for (ssize_t i = 0; i < got; i++)
			nr += text[i] == '\n';
	}
	close(fd);
	return nr;
}

int main(void)
{
	char *striped = map_pages(NULL, NR + 2, PROT_NONE, MAP_PRIVATE | MAP_NORESERVE);
	char *moved = map_pages(NULL, NR + 2, PROT_NONE, MAP_PRIVATE | MAP_NORESERVE);

	striped += PAGE;
	moved += PAGE;
	for (size_t i = 0; i < NR; i++) {
		char *at = striped + i * PAGE;
		char *to = moved + i * PAGE;

		CHECK(mmap(at, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == at);
		*(unsigned *)at = i;
		CHECK(i % 2 || !mprotect(at, PAGE, PROT_READ));
		char *from = map_pages(NULL, 1, RW, MAP_PRIVATE);
		*(unsigned *)from = ~i;
		CHECK(mremap(from, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
	}
	int nr = count_mappings();
	CHECK(nr >= 2 * NR);

	target_ready();

	CHECK_EQUAL(count_mappings(), nr);
	for (size_t i = 0; i < NR; i++) {
		CHECK_EQUAL(*(unsigned *)(striped + i * PAGE), i);
		CHECK_EQUAL(*(unsigned *)(moved + i * PAGE), ~(unsigned)i);
	}
	return target_pass();
}
