/* Sealed mappings (mseal): contents, bounds and the seal itself; one is read-only, one was sealed in pieces. */
#include <sys/syscall.h>

#include "mappings.h"

enum { SYS_MSEAL = 462 };

static void check_sealed(char *at, size_t pages)
{
	CHECK(munmap(at, pages * PAGE) == -1 && errno == EPERM);
	CHECK(mprotect(at, PAGE, PROT_NONE) == -1 && errno == EPERM);
	CHECK(mremap(at, pages * PAGE, pages * 2 * PAGE, MREMAP_MAYMOVE) == MAP_FAILED && errno == EPERM);
}

int main(void)
{
	char *data = map_pages(NULL, 4, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	char *text = map_pages(NULL, 4, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	char *parts = map_pages(NULL, 6, PROT_READ | PROT_WRITE, MAP_PRIVATE);

	pages_fill(data + PAGE, 2, 1);
	pages_fill(text, 4, 2);
	pages_fill(parts, 6, 3);
	CHECK(!mprotect(text, 4 * PAGE, PROT_READ));
	if (syscall(SYS_MSEAL, data, 4 * PAGE, 0)) {
		printf("note: this kernel does not seal mappings\n");
		target_ready();
		return target_pass();
	}
	CHECK(!syscall(SYS_MSEAL, text, 4 * PAGE, 0));
	CHECK(!syscall(SYS_MSEAL, parts + 2 * PAGE, 2 * PAGE, 0));
	struct mapping was[] = { mapping_of(data), mapping_of(text), mapping_of(parts + 2 * PAGE), mapping_of(parts),
				 mapping_of(parts + 4 * PAGE) };
	CHECK(mapping_has(&was[0], "sl") && !mapping_has(&was[3], "sl"));

	target_ready();

	for (size_t i = 0; i < sizeof(was) / sizeof(was[0]); i++)
		mapping_check_same("sealed", &was[i]);
	CHECK(!page_present(data));
	pages_check("sealed data", data + PAGE, 2, 1);
	pages_check("sealed text", text, 4, 2);
	pages_check("sealed in parts", parts, 6, 3);
	check_sealed(data, 4);
	check_sealed(text, 4);
	check_sealed(parts + 2 * PAGE, 2);
	data[0] = 1;
	CHECK(!munmap(parts, 2 * PAGE));
	return target_pass();
}
