/* PAGEMAP_SCAN for the tracker, and reading the page map where there is none. */
#include "track/scan.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "sys/proc.h"
#include "sys/uapi.h"
#include "track/steps.h"

enum {
	SCAN_WP_MATCHING = 1 << 0,
	NR_RANGES = 1024,
	TABLE_BYTES = 2 << 20, /* what one page table maps */
	PAGE_BYTES = 4096,
	EXISTS = PAGE_CAT_PRESENT | PAGE_CAT_SWAPPED,
	TOLD = PAGE_CAT_FILE | PAGE_CAT_PRESENT | PAGE_CAT_SWAPPED | PAGE_CAT_PFNZERO | PAGE_CAT_HUGE,
};

int scan_open(pid_t pid, int *ret_fd)
{
	char path[48];

	snprintf(path, sizeof(path), "/proc/%d/pagemap", proc_living(pid));
	*ret_fd = open(path, O_RDONLY | O_CLOEXEC);
	return *ret_fd < 0 ? -errno : 0;
}

int scan_open_maps(pid_t pid)
{
	char path[48];

	snprintf(path, sizeof(path), "/proc/%d/maps", proc_living(pid));
	return open(path, O_RDONLY | O_CLOEXEC);
}

bool scan_has_ended(int fd)
{
	uint64_t entry;

	return pread(fd, &entry, sizeof(entry), 0) == 0;
}

/* An unknown category is EINVAL, a kernel without the call ENOTTY. */
static int try_scan(int fd, uint64_t told)
{
	struct bcr_pm_page_region one;
	struct bcr_pm_scan_arg arg = {
		.size = sizeof(arg),
		.end = PAGE_BYTES,
		.vec = (uintptr_t)&one,
		.vec_len = 1,
		.category_anyof_mask = EXISTS,
		.return_mask = told,
	};

	return ioctl(fd, BCR_PAGEMAP_SCAN, &arg) < 0 ? -errno : 0;
}

/* What is told without being asked for: guard pages are told apart since Linux 6.15. 0: there is no PAGEMAP_SCAN. */
static uint64_t told_always(int fd)
{
	static uint64_t known;
	static bool asked;

	if (!asked) {
		known = !try_scan(fd, TOLD | PAGE_CAT_GUARD) ? TOLD | PAGE_CAT_GUARD : !try_scan(fd, TOLD) ? TOLD : 0;
		asked = true;
	}
	return known;
}

int scan_probe(void)
{
	_cleanup_close_ int fd = -1;
	int err = scan_open(getpid(), &fd);

	return err ? err : try_scan(fd, TOLD);
}

/* Asks for `scan->start` to `scan->end`. */
static int scan_step(int fd, struct bcr_pm_scan_arg *scan, int (*found)(void *arg, const struct page_range *r), void *arg)
{
	struct page_range ranges[NR_RANGES];
	int nr;

	_Static_assert(sizeof(ranges[0]) == sizeof(struct bcr_pm_page_region), "the kernel's layout");
	scan->vec = (uintptr_t)ranges;
	scan->vec_len = NR_RANGES;
	do {
		nr = ioctl(fd, BCR_PAGEMAP_SCAN, scan);
		if (nr < 0)
			return -errno;
		for (int i = 0; i < nr; i++) {
			int err = found ? found(arg, &ranges[i]) : 0;

			if (err)
				return err;
			scan->start = ranges[i].end;
		}
		/* walk_end may be stale at the end of a walk (see sys/pagemap.c): a vector not full means the end. */
	} while (nr == NR_RANGES && scan->start < scan->end);
	return 0;
}

/* Asks in as many calls as it takes, for `scan->start` to `scan->end`; `found` may be NULL. Returns as scan_pages(). */
static int scan_all(int fd, struct bcr_pm_scan_arg *scan, int (*found)(void *arg, const struct page_range *r), void *arg)
{
	struct steps s = steps_over(fd, scan->start, scan->end);
	int err = 0;

	scan->size = sizeof(*scan);
	while (!err && steps_next(&s)) {
		scan->start = s.start;
		scan->end = s.end;
		err = scan_step(fd, scan, found, arg);
	}
	return err;
}

int scan_take_written(int fd, uint64_t start, uint64_t end, int (*found)(void *arg, const struct page_range *r), void *arg)
{
	struct bcr_pm_scan_arg scan = {
		.flags = SCAN_WP_MATCHING,
		.start = start,
		.end = end,
		.category_mask = PAGE_CAT_WRITTEN,
		.category_anyof_mask = EXISTS,
		.return_mask = told_always(fd),
	};

	return scan_all(fd, &scan, found, arg);
}

static int scan_unprotected(int fd, uint64_t flags, uint64_t start, uint64_t end, int (*found)(void *arg, const struct page_range *r),
			    void *arg)
{
	struct bcr_pm_scan_arg scan = {
		.flags = flags,
		.start = start,
		.end = end,
		.category_mask = PAGE_CAT_WRITTEN,
		.return_mask = PAGE_CAT_WRITTEN,
	};

	return scan_all(fd, &scan, found, arg);
}

int scan_written(int fd, uint64_t start, uint64_t end, int (*found)(void *arg, const struct page_range *r), void *arg)
{
	return scan_unprotected(fd, 0, start, end, found, arg);
}

int scan_protect_written(int fd, uint64_t start, uint64_t end, int (*found)(void *arg, const struct page_range *r), void *arg)
{
	return scan_unprotected(fd, SCAN_WP_MATCHING, start, end, found, arg);
}

/*
 * The vector is not needed, but has to be there: without one the kernel takes a shortcut that protects whatever
 * there is an entry for in the page tables, of whatever category (seen on 6.18). Holes then get marks that read
 * as swapped pages.
 */
int scan_arm(int fd, uint64_t start, uint64_t end)
{
	return scan_take_written(fd, start, end, NULL, NULL);
}

int scan_arm_all(int fd, uint64_t start, uint64_t end)
{
	struct bcr_pm_scan_arg arg = { .size = sizeof(arg), .flags = SCAN_WP_MATCHING };
	struct steps s = steps_over(fd, start, end);

	while (steps_next(&s)) {
		arg.start = s.start;
		arg.end = s.end;
		if (ioctl(fd, BCR_PAGEMAP_SCAN, &arg) < 0)
			return -errno;
	}
	return 0;
}

static int add_hole(void *arg, const struct page_range *r)
{
	uint64_t *bytes = arg;

	*bytes += r->end - r->start;
	return 0;
}

/* Of memory of bcr's own that nobody has touched, where there is no page table yet. */
static bool ask_holes(void)
{
	struct uffdio_api api = { .api = UFFD_API, .features = BCR_UFFD_FEATURE_WP_ASYNC };
	_cleanup_close_ int uffd = syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	_cleanup_close_ int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t bytes = 2 * TABLE_BYTES;
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct uffdio_register reg = { .range = { (uintptr_t)p, bytes }, .mode = UFFDIO_REGISTER_MODE_WP };
	uint64_t told = 0;

	if (p == MAP_FAILED)
		return false;
	if (uffd >= 0 && fd >= 0 && !ioctl(uffd, UFFDIO_API, &api) && !ioctl(uffd, UFFDIO_REGISTER, &reg))
		scan_written(fd, reg.range.start, reg.range.start + bytes, add_hole, &told);
	munmap(p, bytes);
	return told == bytes;
}

bool scan_tells_holes(void)
{
	static bool known, asked;

	if (!asked)
		known = ask_holes();
	asked = true;
	return known;
}

static int scan(int fd, uint64_t start, uint64_t end, uint64_t need, uint64_t told,
		int (*found)(void *arg, const struct page_range *r), void *arg)
{
	struct bcr_pm_scan_arg scan = {
		.start = start,
		.end = end,
		.category_mask = need,
		.category_anyof_mask = EXISTS,
		.return_mask = told,
	};

	return scan_all(fd, &scan, found, arg);
}

int scan_pages(int fd, uint64_t start, uint64_t end, uint64_t need, bool state,
	       int (*found)(void *arg, const struct page_range *r), void *arg)
{
	uint64_t told = told_always(fd);

	if (!told)
		return pagemap_read(fd, start, end, TOLD | PAGE_CAT_GUARD, found, arg);
	return scan(fd, start, end, need, told | (state ? PAGE_CAT_WRITTEN | PAGE_CAT_WPALLOWED : 0), found, arg);
}

int scan_soft_dirty(int fd, uint64_t start, uint64_t end, int (*found)(void *arg, const struct page_range *r), void *arg)
{
	uint64_t told = told_always(fd);

	if (!told)
		return pagemap_read(fd, start, end, TOLD | PAGE_CAT_GUARD | PAGE_CAT_SOFT_DIRTY, found, arg);
	return scan(fd, start, end, 0, told | PAGE_CAT_SOFT_DIRTY, found, arg);
}

bool scan_is_registered(int fd, uint64_t addr)
{
	struct bcr_pm_page_region one;
	struct bcr_pm_scan_arg arg = {
		.size = sizeof(arg),
		.start = addr,
		.end = addr + PAGE_BYTES,
		.vec = (uintptr_t)&one,
		.vec_len = 1,
		.category_mask = PAGE_CAT_WPALLOWED,
		.return_mask = PAGE_CAT_WPALLOWED,
	};

	return ioctl(fd, BCR_PAGEMAP_SCAN, &arg) == 1;
}
