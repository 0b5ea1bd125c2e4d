/* The vDSO and its data pages, moved by the program to another place: there again, in order, and its code works. */
#include <elf.h>
#include <time.h>

#include "mappings.h"

enum { MAX = 8 };

typedef int clock_fn(clockid_t clock, struct timespec *ts);

static struct mapping parts[MAX];
static int nr_parts;

static void find_parts(void)
{
	char line[512];
	FILE *f = fopen("/proc/self/maps", "re");

	CHECK(f);
	while (fgets(line, sizeof(line), f)) {
		struct mapping *m = &parts[nr_parts];

		if ((strstr(line, "[vdso]") || strstr(line, "[vvar")) && nr_parts < MAX) {
			CHECK(sscanf(line, "%lx-%lx", &m->start, &m->end) == 2);
			nr_parts++;
		}
	}
	fclose(f);
	CHECK(nr_parts >= 2);
}

/* clock_gettime of the vDSO at `base`. The C library's own pointers show where it was at first. */
static clock_fn *find_clock(const char *base)
{
	const Elf64_Ehdr *head = (const void *)base;
	const Elf64_Phdr *ph = (const void *)(base + head->e_phoff);
	const Elf64_Sym *symbols = NULL;
	const char *names = NULL;

	CHECK(!memcmp(base, ELFMAG, SELFMAG));
	for (int i = 0; i < head->e_phnum; i++) {
		if (ph[i].p_type != PT_DYNAMIC)
			continue;
		for (const Elf64_Dyn *d = (const void *)(base + ph[i].p_offset); d->d_tag != DT_NULL; d++) {
			if (d->d_tag == DT_SYMTAB)
				symbols = (const void *)(base + d->d_un.d_ptr);
			if (d->d_tag == DT_STRTAB)
				names = base + d->d_un.d_ptr;
		}
	}
	CHECK(symbols && names);
	/* The names come right behind the symbols. */
	for (; (const char *)symbols < names; symbols++) {
		if (!strcmp(names + symbols->st_name, "__vdso_clock_gettime"))
			return (clock_fn *)(base + symbols->st_value);
	}
	TARGET_FAIL("the vDSO has no clock_gettime");
}

int main(void)
{
	struct mapping was[MAX];
	struct timespec ts = { 0 };

	find_parts();
	/* All by one distance: its code finds its data by that. */
	char *to = (char *)map_pages(NULL, 256, PROT_NONE, MAP_PRIVATE) + 64 * PAGE;
	unsigned long first = parts[0].start;
	for (int i = 0; i < nr_parts; i++) {
		size_t len = parts[i].end - parts[i].start;
		char *there = to + (parts[i].start - first);

		CHECK(mremap((void *)parts[i].start, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, there) == there);
		was[i] = mapping_of(there);
	}
	CHECK(!strcmp(was[nr_parts - 1].name, "[vdso]"));
	clock_fn *clock = find_clock((char *)was[nr_parts - 1].start);
	CHECK(!clock(CLOCK_MONOTONIC, &ts) && ts.tv_sec + ts.tv_nsec > 0);

	target_ready();

	for (int i = 0; i < nr_parts; i++) {
		struct mapping is = mapping_of((void *)was[i].start);

		CHECK(!strcmp(is.name, was[i].name));
		mapping_check_same(was[i].name, &was[i]);
	}
	ts = (struct timespec){ 0 };
	CHECK(!clock(CLOCK_MONOTONIC, &ts) && ts.tv_sec + ts.tv_nsec > 0);
	return target_pass();
}
