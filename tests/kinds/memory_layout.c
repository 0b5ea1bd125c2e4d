/*
 * What the kernel knows of a process's layout: a heap that ends inside a page and goes on from there, arguments and environment
 * that the program moved elsewhere, an auxiliary vector of its own, code and data bounds, a stack it has made itself.
 */
#include <elf.h>
#include <linux/prctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "mappings.h"

static char before[4][8192];
static const char *const files[] = { "/proc/self/cmdline", "/proc/self/environ", "/proc/self/auxv", "/proc/self/stat" };

static void read_all(char texts[4][8192])
{
	for (int i = 0; i < 4; i++) {
		int fd = open(files[i], O_RDONLY | O_CLOEXEC);

		memset(texts[i], 0, 8192);
		CHECK(fd >= 0 && read(fd, texts[i], 8191) > 0 && !close(fd));
	}
}

/* Fields 26 to 28 and 45 to 51 of stat: code, stack, data, heap, arguments, environment. */
static unsigned long stat_field(const char *stat, int n)
{
	const char *p = strrchr(stat, ')') + 2;

	for (int i = 3; i < n; i++)
		p = strchr(p, ' ') + 1;
	return strtoul(p, NULL, 10);
}

int main(void)
{
	static const int fields[] = { 26, 27, 28, 45, 46, 47, 48, 49, 50, 51 };
	static char after[4][8192];
	static const char words[] = "renamed: by itself\0second argument\0NAME=value\0OTHER=thing";
	char *place = map_pages(NULL, 2, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	uint64_t auxv[46];

	memcpy(place + 100, words, sizeof(words));
	read_all(before);
	memcpy(auxv, before[2], sizeof(auxv));
	for (int i = 0; i < 46 && auxv[i]; i += 2) {
		if (auxv[i] == AT_HWCAP2)
			auxv[i + 1] = 0x4242;
	}
	/* The heap: three bytes into a page. */
	char *start = sbrk(0);
	CHECK(sbrk(5 * PAGE + 3) == start);
	char *brk_was = start + 5 * PAGE + 3;
	pages_fill(start, 5, 1);
	struct prctl_mm_map map = {
		.start_code = stat_field(before[3], 26), .end_code = stat_field(before[3], 27) - 1,
		.start_stack = stat_field(before[3], 28) + 64,
		.start_data = stat_field(before[3], 45), .end_data = stat_field(before[3], 46) - 8,
		.start_brk = stat_field(before[3], 47), .brk = (uintptr_t)brk_was,
		.arg_start = (uintptr_t)place + 100, .arg_end = (uintptr_t)place + 100 + 35,
		.env_start = (uintptr_t)place + 135, .env_end = (uintptr_t)place + 100 + sizeof(words),
		.auxv = (void *)auxv, .auxv_size = sizeof(auxv), .exe_fd = -1,
	};
	CHECK(!prctl(PR_SET_MM, PR_SET_MM_MAP, &map, sizeof(map), 0));
	read_all(before);
	CHECK(!strcmp(before[0], "renamed: by itself") && !memcmp(before[1], "NAME=value", 11));

	target_ready();

	read_all(after);
	for (int i = 0; i < 3; i++)
		CHECK(!memcmp(before[i], after[i], sizeof(before[i])));
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		CHECK_EQUAL(stat_field(after[3], fields[i]), stat_field(before[3], fields[i]));
	CHECK((char *)syscall(SYS_brk, 0) == brk_was);
	pages_check("heap", start, 5, 1);
	CHECK(sbrk(PAGE) == brk_was);
	brk_was[PAGE - 1] = 1;
	struct mapping heap = mapping_of(start);
	CHECK(!strcmp(heap.name, "[heap]") && heap.end >= (uintptr_t)brk_was + PAGE);
	CHECK(sbrk(-PAGE - 3) == brk_was + PAGE);
	CHECK(sbrk(0) == brk_was - 3);
	return target_pass();
}
