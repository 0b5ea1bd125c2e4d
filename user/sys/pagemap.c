/* Which pages of a process exist. */
#include "sys/pagemap.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "sys/proc.h"

enum { PAGE_SHIFT = 12, VEC_LEN = 4096 };

/* Since Linux 6.7, include/uapi/linux/fs.h; the headers bcr is built with may be older. */
struct scan_arg {
	uint64_t size;
	uint64_t flags;
	uint64_t start;
	uint64_t end;
	uint64_t walk_end;
	uint64_t vec;
	uint64_t vec_len;
	uint64_t max_pages;
	uint64_t category_inverted;
	uint64_t category_mask;
	uint64_t category_anyof_mask;
	uint64_t return_mask;
};
#define IOCTL_PAGEMAP_SCAN _IOWR('f', 16, struct scan_arg)

struct pagemap {
	int fd;
	bool can_scan;
	uint64_t return_mask;
	struct page_range ranges[VEC_LEN];
};

/* Returns the number of ranges found, or a negative errno. */
static int scan(struct pagemap *pm, uint64_t start, uint64_t end)
{
	struct scan_arg arg = {
		.size = sizeof(arg),
		.start = start,
		.end = end,
		.vec = (uintptr_t)pm->ranges,
		.vec_len = VEC_LEN,
		.category_anyof_mask = PAGE_CAT_PRESENT | PAGE_CAT_SWAPPED,
		.return_mask = pm->return_mask,
	};
	int nr = ioctl(pm->fd, IOCTL_PAGEMAP_SCAN, &arg);

	return nr < 0 ? -errno : nr;
}

int pagemap_open(pid_t pid, struct pagemap **ret)
{
	char path[48];
	struct pagemap *pm = calloc(1, sizeof(*pm));

	if (!pm)
		return -ENOMEM;
	snprintf(path, sizeof(path), "/proc/%d/pagemap", proc_living(pid));
	pm->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (pm->fd < 0) {
		int err = -errno;

		free(pm);
		return err;
	}
	/* An unknown category is EINVAL: find out with the smallest scan. */
	pm->return_mask = PAGE_CAT_FILE | PAGE_CAT_PRESENT | PAGE_CAT_SWAPPED | PAGE_CAT_PFNZERO |
			  PAGE_CAT_GUARD;
	pm->can_scan = scan(pm, 0, 1 << PAGE_SHIFT) >= 0;
	if (!pm->can_scan) {
		pm->return_mask &= ~(uint64_t)PAGE_CAT_GUARD;
		pm->can_scan = scan(pm, 0, 1 << PAGE_SHIFT) >= 0;
	}
	*ret = pm;
	return 0;
}

bool pagemap_can_scan(const struct pagemap *pm)
{
	return pm->can_scan;
}

/*
 * One call answers with at most VEC_LEN ranges. Where the next one has to begin is told by the last range, not by
 * arg.walk_end: seen on 6.18, a walk that reaches the end can leave there the address of an earlier flush of the
 * kernel's own buffer, and ranges would be reported twice. Fewer than VEC_LEN ranges mean that nothing is left.
 */
static int walk_by_scan(struct pagemap *pm, uint64_t start, uint64_t end,
			int (*found)(void *arg, const struct page_range *r), void *arg)
{
	int nr;

	do {
		nr = scan(pm, start, end);
		if (nr < 0)
			return nr;
		for (int i = 0; i < nr; i++) {
			int err = found(arg, &pm->ranges[i]);

			if (err)
				return err;
			start = pm->ranges[i].end;
		}
	} while (nr == VEC_LEN && start < end);
	return 0;
}

/* Bits of a /proc/PID/pagemap entry, Documentation/admin-guide/mm/pagemap.rst. */
static uint64_t entry_categories(uint64_t e)
{
	if (!(e >> 62))
		return 0;
	return (e >> 63 & 1 ? PAGE_CAT_PRESENT : 0) | (e >> 62 & 1 ? PAGE_CAT_SWAPPED : 0) |
	       (e >> 61 & 1 ? PAGE_CAT_FILE : 0) | (e >> 58 & 1 ? PAGE_CAT_GUARD : 0) |
	       (e >> 55 & 1 ? PAGE_CAT_SOFT_DIRTY : 0);
}

int pagemap_read(int fd, uint64_t start, uint64_t end, uint64_t told,
		 int (*found)(void *arg, const struct page_range *r), void *arg)
{
	uint64_t entries[VEC_LEN];
	struct page_range run = { 0 };
	int err = 0;

	while (start < end) {
		uint64_t want = (end - start) >> PAGE_SHIFT;

		if (want > VEC_LEN)
			want = VEC_LEN;
		ssize_t got = pread(fd, entries, want * 8, start >> PAGE_SHIFT << 3);
		if (got < 0)
			return -errno;
		if (got < 8)
			break;
		for (ssize_t i = 0; i < got / 8; i++, start += 1 << PAGE_SHIFT) {
			uint64_t cat = entry_categories(entries[i]) & told;

			if (run.end == start && run.categories == cat) {
				run.end += 1 << PAGE_SHIFT;
				continue;
			}
			if (run.categories && (err = found(arg, &run)))
				return err;
			run = (struct page_range){ start, start + (1 << PAGE_SHIFT), cat };
		}
	}
	return run.categories ? found(arg, &run) : 0;
}

int pagemap_walk(struct pagemap *pm, uint64_t start, uint64_t end,
		 int (*found)(void *arg, const struct page_range *r), void *arg)
{
	return pm->can_scan ? walk_by_scan(pm, start, end, found, arg)
			    : pagemap_read(pm->fd, start, end, ~(uint64_t)PAGE_CAT_SOFT_DIRTY, found, arg);
}

void pagemap_close(struct pagemap *pm)
{
	if (!pm)
		return;
	close(pm->fd);
	free(pm);
}
