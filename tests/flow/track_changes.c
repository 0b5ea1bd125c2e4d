/*
 * Memory that is unmapped, moved, dropped, grown and mapped anew while it is cut and copied: each change alone, several
 * cuts each, by each back end. Every copy is the memory of the cut, whole.
 * timeout: 400
 */
#include "track_rig.h"

#include <sys/prctl.h>

enum { PAGES = 512, BYTES = PAGES * RIG_PAGE, CUTS = 6, GUARD_INSTALL = 102, GUARD_REMOVE = 103 };

static void fill(uint8_t *p, size_t bytes, uint64_t seed)
{
	for (size_t i = 0; i < bytes; i += RIG_PAGE)
		*(uint64_t *)(p + i + seed % 500 * 8) = seed + i;
}

static uint8_t *map(size_t bytes)
{
	return rig_memory(bytes);
}

static void do_munmap(uint64_t n)
{
	static uint8_t *kept[4];

	if (kept[n % 4])
		munmap(kept[n % 4], BYTES);
	kept[n % 4] = map(BYTES);
	fill(kept[n % 4], BYTES, n);
}

static void do_dontneed(uint64_t n)
{
	static uint8_t *p;

	if (!p)
		p = map(4 * BYTES);
	madvise(p + n % 4 * BYTES, BYTES, MADV_DONTNEED);
	fill(p + n % 4 * BYTES, BYTES / 2, n);
}

static void do_mremap(uint64_t n)
{
	static uint8_t *p;

	if (!p)
		p = map(BYTES);
	uint8_t *to = map(BYTES);
	p = mremap(p, BYTES, BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, to);
	fill(p, BYTES, n);
}

static void do_mremap_grow(uint64_t n)
{
	static uint8_t *p;

	if (!p)
		p = map(BYTES);
	p = mremap(p, BYTES, 2 * BYTES, MREMAP_MAYMOVE);
	fill(p, 2 * BYTES, n);
	p = mremap(p, 2 * BYTES, BYTES, MREMAP_MAYMOVE);
}

static void do_brk(uint64_t n)
{
	static uint8_t *base;

	if (!base)
		base = sbrk(BYTES);
	if (n % 2)
		fill(sbrk(BYTES), BYTES, n);
	else if (n)
		sbrk(-BYTES);
	fill(base, BYTES, n);
}

static __attribute__((noinline)) uint64_t deep(uint64_t n)
{
	volatile uint64_t page[512];

	page[n % 512] = n;
	return n ? deep(n - 1) + page[n % 512] : 0;
}

static void do_stack(uint64_t n)
{
	/* Deeper every time, up to the 8 MiB a stack may have. */
	deep(50 + n % 1500);
}

static void do_fork(uint64_t n)
{
	static uint8_t *p;

	if (!p)
		p = map(BYTES);
	fill(p, BYTES, n);
	pid_t pid = fork();
	if (!pid) {
		fill(p, BYTES, ~n);
		_exit(0);
	}
	fill(p, BYTES, n + 1);
	waitpid(pid, NULL, 0);
	usleep(20000);
}

static void do_prot(uint64_t n)
{
	static uint8_t *p;

	if (!p)
		p = map(BYTES);
	mprotect(p, BYTES, PROT_READ | PROT_WRITE);
	fill(p, BYTES, n);
	mprotect(p, BYTES, n % 2 ? PROT_NONE : PROT_EXEC);
	usleep(500);
}

static void do_guard(uint64_t n)
{
	static uint8_t *p;

	if (!p)
		p = map(BYTES);
	madvise(p, BYTES / 2, GUARD_REMOVE);
	fill(p, BYTES, n);
	madvise(p, BYTES / 2, GUARD_INSTALL);
	usleep(500);
}

static void do_file(uint64_t n)
{
	static uint8_t *p;

	if (!p) {
		char path[80], page[RIG_PAGE];

		snprintf(path, sizeof(path), "%s/mapped", rig_dir);
		int fd = open(path, O_CREAT | O_RDWR, 0600);

		memset(page, 'f', sizeof(page));
		for (int i = 0; i < PAGES; i++)
			if (write(fd, page, sizeof(page)) != sizeof(page))
				_exit(3);
		p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
		close(fd);
		if (p == MAP_FAILED)
			_exit(3);
	}
	fill(p + n % 8 * (BYTES / 8), BYTES / 8, n);
	if (n % 8 == 7)
		madvise(p, BYTES / 2, MADV_DONTNEED);
}

static void do_reserve(uint64_t n)
{
	static uint8_t *p;

	if (!p)
		p = mmap(NULL, 1ul << 40, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED || madvise(p, 1ul << 40, MADV_NOHUGEPAGE))
		_exit(3);
	fill(p + (n * 7919 % 1000) * (1ul << 30), RIG_PAGE, n);
	usleep(10);
}

static void do_huge(uint64_t n)
{
	static uint8_t *p;

	if (!p) {
		p = map(5 * BYTES);
		p = (uint8_t *)(((uintptr_t)p + BYTES - 1) & ~(uintptr_t)(BYTES - 1));
		madvise(p, 4 * BYTES, MADV_HUGEPAGE);
	}
	p[n * 4567 % (4 * BYTES)] = n;
	if (n % 5000 == 4999)
		madvise(p + n % 4 * BYTES, BYTES, MADV_DONTNEED);
}

static void do_shared(uint64_t n)
{
	static uint8_t *p;

	if (!p)
		p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	fill(p, BYTES, n);
}

static void do_free(uint64_t n)
{
	static uint8_t *p;

	if (!p)
		p = map(BYTES);
	fill(p, BYTES, n);
	madvise(p, BYTES, MADV_FREE);
}

static const struct {
	const char *name;
	void (*run)(uint64_t n);
} changes[] = {
	{ "munmap and mmap", do_munmap },
	{ "MADV_DONTNEED", do_dontneed },
	{ "mremap to a fixed place", do_mremap },
	{ "mremap that grows", do_mremap_grow },
	{ "brk", do_brk },
	{ "stack growth", do_stack },
	{ "fork", do_fork },
	{ "PROT_NONE and PROT_EXEC", do_prot },
	{ "guard pages", do_guard },
	{ "private file mapping", do_file },
	{ "1 TiB reserved", do_reserve },
	{ "huge pages", do_huge },
	{ "shared anonymous memory", do_shared },
	{ "MADV_FREE", do_free },
};

static size_t chosen;

static int target(void)
{
	for (uint64_t n = 0; !rig_shared->go; n++) {
		changes[chosen].run(n);
		rig_shared->steps++;
		if (n == 8)
			rig_shared->ready = 1;
	}
	return 0;
}

static void run(const char *backend, int cuts)
{
	struct rig r;

	rig_start(&r, target);
	rig_open(&r, backend, NULL);
	for (int i = 0; i < cuts; i++)
		rig_cut(&r, RIG_MAX_TRIES);
	rig_print(&r, changes[chosen].name);
	rig_close(&r);
	rig_end(&r);
}

int main(int argc, char **argv)
{
	const char *backend;

	log_set_modules(getenv("BCR_LOG"));
	for (size_t i = 0; (backend = rig_backend(&i));) {
		for (chosen = 0; chosen < sizeof(changes) / sizeof(changes[0]); chosen++) {
			if (argc > 1 && strcmp(argv[1], changes[chosen].name))
				continue;
			run(backend, strcmp(backend, "wp-cow") ? CUTS / 3 : CUTS);
		}
	}
	puts("PASS");
	return 0;
}
