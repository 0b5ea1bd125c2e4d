/*
 * The copier reads a piece, asks the page map, and empties the ring: at each instant in between something happens to one page of
 * the piece, and the copy is that of the cut all the same, or is refused as torn. user/track/copy.c is compiled in here, with
 * calls to what this test does around its own.
 */
#include "track_rig.h"

#include <sys/uio.h>

#include "track/inner.h"

enum instant { BEFORE_READ, AFTER_READ, AFTER_SCAN, NR_INSTANTS };

static void instant(enum instant now, pid_t pid, taddr_t start, size_t nr);

static pid_t reading_pid;

static size_t read_with_instants(struct track_mm *tm, taddr_t addr, size_t nr, uint8_t *buf, uint64_t *got)
{
	reading_pid = tm->pid;
	instant(BEFORE_READ, tm->pid, addr, nr);
	size_t n = now_read(tm, addr, nr, buf, got);
	instant(AFTER_READ, tm->pid, addr, nr);
	return n;
}

static int scan_with_instants(int fd, uint64_t start, uint64_t end, uint64_t need, bool state,
			      int (*found)(void *arg, const struct page_range *r), void *arg)
{
	int err = scan_pages(fd, start, end, need, state, found, arg);

	instant(AFTER_SCAN, reading_pid, start, (end - start) / RIG_PAGE);
	return err;
}

#define now_read read_with_instants
#define scan_pages scan_with_instants
#include "../../user/track/copy.c"
#undef now_read
#undef scan_pages

enum { BYTES = 8 << 20, FOREVER = 600000 };

/* What happens to a page: done by the target, or by this process. */
static const struct {
	const char *name;
	bool outside; /* no fault and no call of the target tells of it */
} happenings[] = {
	{ "store", false },
	{ "store by read(2)", false },
	{ "direct read", true },
	{ "process_vm_writev", true },
	{ "MADV_DONTNEED", false },
	{ "MADV_DONTNEED and store", false },
	{ "store and MADV_DONTNEED", false },
	{ "munmap and mmap", false },
	{ "mmap over it", false },
	{ "mremap away and back", false },
	{ "PROT_NONE", false },
};
enum { DIRECT_READ = 2, NR_HAPPENINGS = sizeof(happenings) / sizeof(happenings[0]) };

/* Shared with the target. */
static struct {
	atomic_int wanted, done; /* number of what is to be done, and of what has been */
	int what;
	uint64_t addr, memory;
} *order;

static int file_fd, direct_fd;

static void store(uint8_t *page)
{
	*(volatile uint64_t *)(page + 8 * 17) ^= 0x123456789;
}

static void map_at(uint8_t *page, int more)
{
	if (mmap(page, RIG_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | more, -1, 0) != page)
		_exit(4);
	store(page);
}

static bool happen(int what, uint8_t *page)
{
	void *elsewhere;

	switch (what) {
	case 0:
		store(page);
		return true;
	case 1:
		return pread(file_fd, page, RIG_PAGE, 0) == RIG_PAGE;
	case DIRECT_READ:
		return pread(direct_fd, page, RIG_PAGE, 0) == RIG_PAGE;
	case 4:
		return !madvise(page, RIG_PAGE, MADV_DONTNEED);
	case 5:
		if (madvise(page, RIG_PAGE, MADV_DONTNEED))
			return false;
		store(page);
		return true;
	case 6:
		store(page);
		return !madvise(page, RIG_PAGE, MADV_DONTNEED);
	case 7:
		munmap(page, RIG_PAGE);
		map_at(page, MAP_FIXED_NOREPLACE);
		return true;
	case 8:
		map_at(page, MAP_FIXED);
		return true;
	case 9:
		elsewhere = mremap(page, RIG_PAGE, RIG_PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP);
		if (elsewhere == MAP_FAILED)
			return false;
		store(elsewhere);
		return mremap(elsewhere, RIG_PAGE, RIG_PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, page) == page;
	case 10:
		if (mprotect(page, RIG_PAGE, PROT_READ | PROT_WRITE))
			return false;
		store(page);
		return !mprotect(page, RIG_PAGE, PROT_NONE);
	default:
		return false;
	}
}

static int target(void)
{
	uint8_t *memory = rig_memory(BYTES);
	char path[80];

	for (size_t i = 0; i < BYTES; i += 8)
		*(uint64_t *)(memory + i) = i * 0x9e3779b97f4a7c15 + 1;
	snprintf(path, sizeof(path), "%s/data", rig_dir);
	file_fd = open(path, O_RDWR | O_CREAT, 0600);
	if (write(file_fd, memory + RIG_PAGE, RIG_PAGE) != RIG_PAGE || fsync(file_fd))
		return 2;
	direct_fd = open(path, O_RDONLY | O_DIRECT);
	if (direct_fd < 0 && errno != EINVAL)
		return 2;
	order->memory = (uintptr_t)memory;
	rig_shared->ready = 1;
	while (!rig_shared->go) {
		if (order->wanted == order->done) {
			usleep(50);
			continue;
		}
		if (!happen(order->what, (uint8_t *)order->addr)) {
			snprintf(rig_shared->why, sizeof(rig_shared->why), "%s: %s", happenings[order->what].name,
				 strerror(errno));
			rig_shared->failures++;
		}
		order->done++;
	}
	return 0;
}

/* What is to happen when, in this copy; -1: nothing. */
static int what = -1;
static enum instant when;
static int happened;

static void write_from_here(pid_t pid, taddr_t addr)
{
	static uint8_t page[RIG_PAGE];
	struct iovec local = { page, sizeof(page) }, remote = { (void *)(uintptr_t)addr, sizeof(page) };

	memset(page, 0x77, sizeof(page));
	RIG_NEED(process_vm_writev(pid, &local, 1, &remote, 1, 0) == RIG_PAGE);
}

/* One page of each piece of the memory. */
static void instant(enum instant now, pid_t pid, taddr_t start, size_t nr)
{
	if (what < 0 || now != when || start < order->memory || start + nr * RIG_PAGE > order->memory + BYTES)
		return;
	order->addr = start + (unsigned)(what * 31 + when * 7 + 3) % nr * RIG_PAGE;
	happened++;
	if (!strcmp(happenings[what].name, "process_vm_writev")) {
		write_from_here(pid, order->addr);
		return;
	}
	order->what = what;
	order->wanted++;
	for (int i = 0; order->done != order->wanted; i++) {
		if (i > FOREVER)
			rig_fail("%s: the target does not do it (%s)", happenings[what].name, rig_shared->why);
		usleep(100);
	}
}

/* Stores of the kernel that no fault shows tear the page, unless the page map has been asked already. */
static void one(struct rig *r, const char *when_name)
{
	bool torn_expected = happenings[what].outside && when != AFTER_SCAN;
	int this = what;

	happened = 0;
	int err = rig_cut_once(r);
	what = -1;
	if (!happened)
		rig_fail("%s %s: it did not happen", happenings[this].name, when_name);
	if (rig_shared->failures)
		rig_fail("%s", rig_shared->why);
	if (torn_expected != (err == -EAGAIN))
		rig_fail("%s %s: the copy was %s", happenings[this].name, when_name,
			 err ? "refused" : "taken for whole, with a page that was written unseen");
	/* And the next one is whole. */
	if (err)
		rig_cut(r, RIG_MAX_TRIES);
}

int main(void)
{
	static const char *const names[NR_INSTANTS] = { "before the piece is read", "after it was read",
							"after the page map was asked" };

	log_set_modules(getenv("BCR_LOG"));
	rig_need_saving();
	order = mmap(NULL, sizeof(*order), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	RIG_NEED(order != MAP_FAILED);
	for (int i = 0; i < NR_HAPPENINGS; i++) {
		struct rig r;

		if (i == DIRECT_READ && !rig_has_direct_reads())
			continue;
		memset(order, 0, sizeof(*order));
		rig_start(&r, target);
		rig_open(&r, "wp-cow", NULL);
		for (when = 0; when < NR_INSTANTS; when++) {
			what = i;
			one(&r, names[when]);
		}
		rig_print(&r, happenings[i].name);
		rig_close(&r);
		rig_end(&r);
	}
	puts("PASS");
	return 0;
}
