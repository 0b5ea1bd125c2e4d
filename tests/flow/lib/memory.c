/*
 * Every kind of mapping, with contents. What is a hole stays a hole, what is shared stays shared, what is forbidden
 * stays forbidden.
 */
#include <setjmp.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "self.h"

enum { PAGE = 4096, NR = 64, STACK_BYTES = 3 << 20 };

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

static uint8_t pattern(size_t page, size_t offset, unsigned salt)
{
	return page * 7 + offset * 13 + (offset >> 8) + salt;
}

static void fill(uint8_t *area, size_t page, unsigned salt)
{
	for (size_t i = 0; i < PAGE; i++)
		area[page * PAGE + i] = pattern(page, i, salt);
}

static void check_page(const char *what, const uint8_t *area, size_t page, unsigned salt)
{
	for (size_t i = 0; i < PAGE; i++) {
		uint8_t want = pattern(page, i, salt);

		CHECK(area[page * PAGE + i] == want, "%s: page %zu offset %zu holds %u, not %u", what, page, i,
		      area[page * PAGE + i], want);
	}
}

static void check_zero(const char *what, const uint8_t *area, size_t page)
{
	for (size_t i = 0; i < PAGE; i++)
		CHECK(area[page * PAGE + i] == 0, "%s: page %zu offset %zu is not zero", what, page, i);
}

/* Is there memory or swap behind the page? */
static bool present(const uint8_t *area, size_t page)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry;

	NEED(fd >= 0);
	NEED(pread(fd, &entry, 8, ((uintptr_t)area / PAGE + page) * 8) == 8);
	close(fd);
	return entry >> 62;
}

static uint8_t *map_at(void *addr, size_t pages, int prot, int flags, int fd, off_t offset)
{
	uint8_t *p = mmap(addr, pages * PAGE, prot, flags, fd, offset);

	NEED(p != MAP_FAILED);
	return p;
}

static uint8_t *map(size_t pages, int prot, int flags)
{
	return map_at(NULL, pages, prot, flags | MAP_ANONYMOUS, -1, 0);
}

static sigjmp_buf fault;

static void on_fault(int sig)
{
	siglongjmp(fault, sig);
}

/* The signal that reading, or writing, the byte raises; 0: none. */
static int touch(volatile uint8_t *byte, bool write)
{
	int sig = sigsetjmp(fault, 1);

	if (sig)
		return sig;
	if (write)
		*byte = *byte;
	else
		(void)*byte;
	return 0;
}

static uint8_t *holes, *private_file, *shared_file, *shared, *heap, *brk_end, *hidden, *guarded, *locked, *huge,
	*neighbours, *readonly, *code, *beyond, *zero, *exec_only;
static bool has_guards;
static int to_child[2], from_child[2];

static const int RW = PROT_READ | PROT_WRITE;

static int file_of(const char *name, size_t pages, unsigned salt)
{
	uint8_t buf[PAGE];
	int fd = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	NEED(fd >= 0);
	for (size_t page = 0; page < pages; page++) {
		for (size_t i = 0; i < PAGE; i++)
			buf[i] = pattern(page, i, salt);
		NEED(write(fd, buf, PAGE) == PAGE);
	}
	return fd;
}

static void build(void)
{
	holes = map(NR, RW, MAP_PRIVATE);
	for (int i = 0; i < NR; i += 3)
		fill(holes, i, 1);

	int fd = file_of("private", NR, 2);
	private_file = map_at(NULL, NR, RW, MAP_PRIVATE, fd, 0);
	fill(private_file, 1, 3);
	fill(private_file, 5, 3);
	close(fd);

	fd = file_of("shared", NR, 4);
	shared_file = map_at(NULL, NR, RW, MAP_SHARED, fd, 0);
	fill(shared_file, 7, 5);
	close(fd);

	shared = map(NR, RW, MAP_SHARED);
	fill(shared, 0, 6);
	fill(shared, 2, 6);

	heap = malloc(20000);
	NEED(heap);
	heap += -(uintptr_t)heap % PAGE;
	fill(heap, 0, 7);
	brk_end = sbrk(4 * PAGE);
	brk_end += -(uintptr_t)brk_end % PAGE;
	fill(brk_end, 1, 8);

	hidden = map(8, RW, MAP_PRIVATE);
	fill(hidden, 3, 9);
	NEED(mprotect(hidden, 8 * PAGE, PROT_NONE) == 0);

	guarded = map(8, RW, MAP_PRIVATE);
	for (int i = 0; i < 8; i++)
		fill(guarded, i, 10);
	has_guards = madvise(guarded + 2 * PAGE, 2 * PAGE, MADV_GUARD_INSTALL) == 0;
	if (!has_guards)
		puts("note: no guard regions in this kernel");

	locked = map(4, RW, MAP_PRIVATE);
	fill(locked, 0, 11);
	NEED(mlock(locked, 4 * PAGE) == 0);

	huge = map(1UL << 28, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE);
	fill(huge, 0, 12);
	fill(huge, 1UL << 27, 12);
	fill(huge, (1UL << 28) - 1, 12);

	/* Two mappings that the kernel keeps apart by their protection, and a third by its file. */
	neighbours = map(6, PROT_NONE, MAP_PRIVATE);
	map_at(neighbours, 2, RW, MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS, -1, 0);
	map_at(neighbours + 2 * PAGE, 2, RW | PROT_EXEC, MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS, -1, 0);
	fd = open("private", O_RDONLY | O_CLOEXEC);
	map_at(neighbours + 4 * PAGE, 2, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 2 * PAGE);
	close(fd);
	for (int i = 0; i < 4; i++)
		fill(neighbours, i, 13);

	readonly = map(2, RW, MAP_PRIVATE);
	fill(readonly, 0, 14);
	fill(readonly, 1, 14);
	NEED(mprotect(readonly, 2 * PAGE, PROT_READ) == 0);

	static const uint8_t return_42[] = { 0xb8, 42, 0, 0, 0, 0xc3 };
	code = map(1, RW, MAP_PRIVATE);
	memcpy(code, return_42, sizeof(return_42));
	NEED(mprotect(code, PAGE, PROT_READ | PROT_EXEC) == 0);
	exec_only = map(1, RW, MAP_PRIVATE);
	memcpy(exec_only, return_42, sizeof(return_42));
	NEED(mprotect(exec_only, PAGE, PROT_EXEC) == 0);

	/* Longer than its file. */
	fd = file_of("short", 1, 15);
	NEED(ftruncate(fd, 1000) == 0);
	beyond = map_at(NULL, 4, RW, MAP_PRIVATE, fd, 0);
	close(fd);

	zero = map(4, RW, MAP_PRIVATE);
	touch(zero, false); /* the kernel's page of zeros */
}

static void check_private_pages(void)
{
	for (int i = 0; i < NR; i++) {
		if (i % 3 == 0) {
			check_page("anonymous", holes, i, 1);
			continue;
		}
		CHECK(!present(holes, i), "a hole at page %d has memory", i);
	}
	check_zero("anonymous", holes, 1);

	for (int i = 0; i < NR; i++)
		check_page("private file", private_file, i, i == 1 || i == 5 ? 3 : 2);
	check_page("heap", heap, 0, 7);
	check_page("brk", brk_end, 1, 8);

	CHECK(touch(hidden, false) == SIGSEGV, "PROT_NONE can be read");
	NEED(mprotect(hidden, 8 * PAGE, RW) == 0);
	check_page("PROT_NONE", hidden, 3, 9);
	CHECK(!present(hidden, 2), "a hole in PROT_NONE has memory");

	for (int i = 0; i < 8; i++) {
		if (has_guards && (i == 2 || i == 3))
			CHECK(touch(guarded + i * PAGE + 5, false) == SIGSEGV, "guard page %d can be read", i);
		else
			check_page("guarded", guarded, i, 10);
	}

	check_page("mlocked", locked, 0, 11);
	check_page("1 TiB", huge, 0, 12);
	check_page("1 TiB", huge, 1UL << 27, 12);
	check_page("1 TiB", huge, (1UL << 28) - 1, 12);
	CHECK(!present(huge, 12345), "a hole in the middle of 1 TiB has memory");

	for (int i = 0; i < 4; i++)
		check_page("neighbours", neighbours, i, 13);
	for (int i = 2; i < 4; i++)
		check_page("neighbour from a file", neighbours + 2 * PAGE, i, 2);
	CHECK(touch(neighbours + 4 * PAGE, true) == SIGSEGV, "a read-only neighbour can be written");

	check_page("read-only", readonly, 1, 14);
	CHECK(touch(readonly, true) == SIGSEGV, "a read-only mapping can be written");
	CHECK(((int (*)(void))code)() == 42, "code");
	CHECK(touch(code, true) == SIGSEGV, "code can be written");
	CHECK(((int (*)(void))exec_only)() == 42, "execute-only code");

	CHECK(beyond[999] == pattern(0, 999, 15) && beyond[1000] == 0, "the end of a short file");
	CHECK(touch(beyond + PAGE, false) == SIGBUS, "beyond the end of its file");
	check_zero("zero page", zero, 0);
	zero[0] = 1;
	CHECK(!present(zero, 1), "a hole next to a zero page has memory");
}

static void check_files(void)
{
	uint8_t buf[PAGE];

	for (int i = 0; i < NR; i++)
		check_page("shared file", shared_file, i, i == 7 ? 5 : 4);
	fill(shared_file, 8, 16);
	int fd = open("shared", O_RDONLY | O_CLOEXEC);
	NEED(pread(fd, buf, PAGE, 8 * PAGE) == PAGE);
	for (int i = 0; i < PAGE; i++)
		CHECK(buf[i] == pattern(8, i, 16), "a write to a shared mapping did not reach the file");
	close(fd);

	fd = open("private", O_RDONLY | O_CLOEXEC);
	NEED(pread(fd, buf, PAGE, PAGE) == PAGE);
	for (int i = 0; i < PAGE; i++)
		CHECK(buf[i] == pattern(1, i, 2), "a write to a private mapping reached the file");
	close(fd);
}

/* The child fills a page when told to, and says so. */
static void run_child(void)
{
	char byte;

	NEED(read(to_child[0], &byte, 1) == 1);
	check_page("shared, in the child", shared, 0, 6);
	check_page("shared, written by the parent since", shared, 4, 17);
	fill(shared, 5, 18);
	NEED(write(from_child[1], "", 1) == 1);
	_exit(0);
}

static void check_shared(pid_t child)
{
	char byte;

	check_page("shared", shared, 0, 6);
	check_page("shared", shared, 2, 6);
	check_zero("shared", shared, 1);
	fill(shared, 4, 17);
	NEED(write(to_child[1], "", 1) == 1);
	NEED(read(from_child[0], &byte, 1) == 1);
	check_page("shared, written by the child since", shared, 5, 18);
	self_join(child);
}

static long locked_kib(void)
{
	char line[256];
	long kib = -1;
	FILE *f = fopen("/proc/self/status", "re");

	while (f && fgets(line, sizeof(line), f))
		sscanf(line, "VmLck: %ld", &kib);
	fclose(f);
	return kib;
}

/* A stack frame of its own, larger than what the kernel maps at first; then one more below it. */
__attribute__((noinline))
static void with_big_frame(int depth)
{
	volatile uint8_t frame[STACK_BYTES];

	for (size_t i = 0; i < STACK_BYTES; i += 64)
		frame[i] = pattern(i / PAGE, i % PAGE, depth);
	if (depth == 0) {
		long before = locked_kib();

		self_ready();
		self_wait();
		CHECK(locked_kib() == before, "VmLck was %ld kB and is %ld kB", before, locked_kib());
		with_big_frame(1);
	}
	for (size_t i = 0; i < STACK_BYTES; i += 64)
		CHECK(frame[i] == pattern(i / PAGE, i % PAGE, depth), "stack at depth %d, byte %zu", depth, i);
}

int main(int argc, char **argv)
{
	self_init(argc, argv);
	NEED(pipe(to_child) == 0 && pipe(from_child) == 0);
	build();
	signal(SIGSEGV, on_fault);
	signal(SIGBUS, on_fault);
	pid_t child = fork();
	NEED(child >= 0);
	if (!child)
		run_child();

	with_big_frame(0);
	check_private_pages();
	check_files();
	check_shared(child);

	/* The heap goes on where it was. */
	uint8_t *end = sbrk(0);
	CHECK(sbrk(PAGE) == end, "brk moved");
	end[0] = 1;
	self_pass();
}
