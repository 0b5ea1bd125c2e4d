/* Which pages of a process exist: PAGEMAP_SCAN (Linux 6.7), or /proc/PID/pagemap before. */
#ifndef BCR_SYS_PAGEMAP_H
#define BCR_SYS_PAGEMAP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Categories, the numbers of include/uapi/linux/fs.h (PAGE_IS_*). */
enum page_category {
	PAGE_CAT_WPALLOWED = 1 << 0,
	PAGE_CAT_WRITTEN = 1 << 1,
	PAGE_CAT_FILE = 1 << 2, /* backed by a file or shared anonymous memory */
	PAGE_CAT_PRESENT = 1 << 3,
	PAGE_CAT_SWAPPED = 1 << 4,
	PAGE_CAT_PFNZERO = 1 << 5, /* the shared zero page: reads as a hole does */
	PAGE_CAT_HUGE = 1 << 6,
	PAGE_CAT_SOFT_DIRTY = 1 << 7,
	PAGE_CAT_GUARD = 1 << 8, /* MADV_GUARD_INSTALL (Linux 6.13; reported since 6.15) */
};

struct page_range {
	uint64_t start, end;
	uint64_t categories;
};

struct pagemap;

/* Opens the page map of `pid`. Returns 0 or a negative errno, not reported. */
int pagemap_open(pid_t pid, struct pagemap **ret);

/* Does the kernel have PAGEMAP_SCAN? */
bool pagemap_can_scan(const struct pagemap *pm);

/*
 * Calls `found` for each range of present or swapped pages in [start, end), ascending; categories hold FILE, PRESENT,
 * SWAPPED, PFNZERO and GUARD as far as the kernel tells (without PAGEMAP_SCAN: not PFNZERO).
 * Returns 0, a negative errno (not reported), or what `found` returned when that was not 0.
 */
int pagemap_walk(struct pagemap *pm, uint64_t start, uint64_t end,
		 int (*found)(void *arg, const struct page_range *r), void *arg);

/*
 * The same by reading `fd`, an open /proc/PID/pagemap, an entry for each page: slow in large holes. Told are those
 * of the categories FILE, PRESENT, SWAPPED, GUARD (Linux 6.15) and SOFT_DIRTY that are in `told`.
 */
int pagemap_read(int fd, uint64_t start, uint64_t end, uint64_t told,
		 int (*found)(void *arg, const struct page_range *r), void *arg);

/* Accepts NULL. */
void pagemap_close(struct pagemap *pm);

#endif
