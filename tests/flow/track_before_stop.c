/*
 * Between the last look at the pages of a running target and its stop something happens to many of them, each time something else: the
 * copy is that of the stop, by every back end.
 */
#include "track_rig.h"

enum { PAGES = 4096, BYTES = PAGES * RIG_PAGE, FILE_PAGES = 512, FILE_BYTES = FILE_PAGES * RIG_PAGE, MAX_TRIES = 20 };

static uint8_t *memory, *of_file, *holes;

static int store(size_t first, size_t nr, size_t step)
{
	for (size_t i = 0; i < nr; i++)
		memory[(first + i * step) % PAGES * RIG_PAGE] += 1;
	return 0;
}

static int happen_nothing(void) { return 0; }
static int happen_store(void) { return store(7, 1, 1); }
static int happen_stores(void) { return store(3, 50, 67); }
/* More than are followed one by one, and so many that all of it is looked at while the target runs. */
static int happen_many_stores(void) { return store(0, 1000, 3); }
static int happen_all_stores(void) { return store(0, PAGES, 1); }
static int happen_drop(void) { return madvise(memory + 64 * RIG_PAGE, 300 * RIG_PAGE, MADV_DONTNEED); }
static int happen_file_store(void)
{
	for (size_t i = 0; i < FILE_PAGES; i += 5)
		of_file[i * RIG_PAGE + 1] += 1;
	return 0;
}
/* Leaves a mark that reads as a swapped page, and protected. */
static int happen_file_drop(void) { return madvise(of_file, FILE_BYTES / 2, MADV_DONTNEED); }
static int happen_file_drop_and_store(void) { return happen_file_drop() || happen_file_store(); }
static int happen_read_holes(void)
{
	int sum = 0;

	for (size_t i = 0; i < PAGES; i += 9)
		sum += *(volatile uint8_t *)(holes + i * RIG_PAGE);
	return sum;
}
static int happen_fill_holes(void)
{
	for (size_t i = 0; i < PAGES; i += 11)
		holes[i * RIG_PAGE] = 1;
	return 0;
}
static int happen_unmap(void) { return munmap(memory + 1000 * RIG_PAGE, 10 * RIG_PAGE); }
static int happen_map_over(void)
{
	uint8_t *at = memory + 1000 * RIG_PAGE;

	if (mmap(at, 10 * RIG_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != at)
		return 1;
	memset(at, 'n', 5 * RIG_PAGE);
	return 0;
}
static int happen_protect(void)
{
	return mprotect(memory + 2000 * RIG_PAGE, 10 * RIG_PAGE, PROT_READ) || store(1990, 10, 1) || store(2010, 10, 1);
}
static int happen_unprotect(void)
{
	return mprotect(memory + 2000 * RIG_PAGE, 10 * RIG_PAGE, PROT_READ | PROT_WRITE) || store(2000, 10, 1);
}
static int happen_new(void)
{
	uint8_t *p = mmap(NULL, 30 * RIG_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p != MAP_FAILED)
		memset(p, 'm', 20 * RIG_PAGE);
	return p == MAP_FAILED;
}
static int happen_brk(void)
{
	uint8_t *p = sbrk(20 * RIG_PAGE);

	if (p != (void *)-1)
		memset(p, 'b', 20 * RIG_PAGE);
	return p == (void *)-1;
}
static int happen_move(void)
{
	void *to = mmap(NULL, 10 * RIG_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return mremap(memory + 3000 * RIG_PAGE, 10 * RIG_PAGE, 10 * RIG_PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) == MAP_FAILED;
}

static const struct {
	const char *name;
	int (*happen)(void);
} happenings[] = {
	{ "nothing", happen_nothing },
	{ "a store", happen_store },
	{ "50 stores", happen_stores },
	{ "1,000 stores", happen_many_stores },
	{ "all pages are written", happen_all_stores },
	{ "pages are dropped", happen_drop },
	{ "pages of a file are written", happen_file_store },
	{ "pages of a file are dropped", happen_file_drop },
	{ "pages of a file are dropped and written", happen_file_drop_and_store },
	{ "holes are read", happen_read_holes },
	{ "holes are filled", happen_fill_holes },
	{ "munmap", happen_unmap },
	{ "mmap over it", happen_map_over },
	{ "mprotect", happen_protect },
	{ "mprotect back", happen_unprotect },
	{ "a new mapping", happen_new },
	{ "brk", happen_brk },
	{ "mremap", happen_move },
};
enum { NR_HAPPENINGS = sizeof(happenings) / sizeof(happenings[0]) };

static uint8_t *map_file(void)
{
	char path[80];

	snprintf(path, sizeof(path), "%s/mapped", rig_dir);
	int fd = open(path, O_RDWR | O_CREAT, 0600);
	if (fd < 0 || ftruncate(fd, FILE_BYTES))
		_exit(2);
	uint8_t *p = mmap(NULL, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	close(fd);
	return p == MAP_FAILED ? NULL : p;
}

/* Does what `steps` says (number plus one), and takes it back when it is done. */
static int target(void)
{
	memory = rig_memory(BYTES);
	holes = rig_memory(BYTES);
	of_file = map_file();
	if (!of_file)
		return 2;
	memset(memory, 'a', BYTES);
	memset(of_file, 'f', FILE_BYTES);
	rig_shared->ready = 1;
	while (!rig_shared->go) {
		long what = rig_shared->steps;

		if (what) {
			if (happenings[what - 1].happen())
				snprintf(rig_shared->why, sizeof(rig_shared->why), "%s", strerror(errno));
			rig_shared->steps = 0;
		}
		sched_yield();
	}
	return 0;
}

static size_t what;
static bool happened;

/* Called by the rig right before the stop; once for each happening, the cuts that are made again have their peace. */
static void before_stop(bool on)
{
	if (!on || happened)
		return;
	happened = true;
	rig_shared->steps = what + 1;
	while (rig_shared->steps)
		sched_yield();
	if (rig_shared->why[0])
		rig_fail("%s: the target could not do it: %s", happenings[what].name, rig_shared->why);
}

int main(void)
{
	const char *backend;

	log_set_modules(getenv("BCR_LOG"));
	rig_hold_others = before_stop;
	for (size_t i = 0; (backend = rig_backend(&i));) {
		struct rig r;

		rig_start(&r, target);
		rig_open(&r, backend, NULL);
		for (what = 0; what < NR_HAPPENINGS; what++) {
			happened = false;
			rig_cut(&r, MAX_TRIES);
			rig_print(&r, happenings[what].name);
		}
		rig_close(&r);
		rig_end(&r);
	}
	puts("PASS");
	return 0;
}
