/* The page map of one process as the tracker uses it: which pages exist, which were written, protect them again. */
#ifndef BCR_TRACK_SCAN_H
#define BCR_TRACK_SCAN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "sys/pagemap.h"

/* Opens /proc/PID/pagemap; bound to the address space the process has now. 0 or a negative errno, not reported. */
int scan_open(pid_t pid, int *ret_fd);

/* Is the address space of this page map no more? */
bool scan_has_ended(int fd);

/* Can the kernel scan page maps? 0 or a negative errno. Without it, only scan_pages() and scan_soft_dirty() work. */
int scan_probe(void);

/*
 * Write-protects the pages in [start, end) that were written and exist, where mappings are registered for asynchronous
 * protection; skips others. Holes stay as they are: protecting them would cost page tables.
 */
int scan_arm(int fd, uint64_t start, uint64_t end);

/* The same for all pages, whether they exist or not: a page that comes is told from one that is written. It takes page tables. */
int scan_arm_all(int fd, uint64_t start, uint64_t end);

/*
 * As scan_arm(), and calls `found` for each range that was protected, ascending, with categories as scan_pages()
 * without `state`. What is told is what was written since it was protected the last time: nothing is lost
 * between. Results as of scan_pages().
 */
int scan_take_written(int fd, uint64_t start, uint64_t end, int (*found)(void *arg, const struct page_range *r), void *arg);

/*
 * Calls `found` for each range of pages that are not protected, holes among them: the only question that the kernel
 * answers in a nanosecond a page. Results as of scan_pages().
 */
int scan_written(int fd, uint64_t start, uint64_t end, int (*found)(void *arg, const struct page_range *r), void *arg);

/*
 * Does scan_written() tell of holes that have no page table? Kernels since 6.7 do not, until they got "fs/proc/task_mmu: fix PAGEMAP_SCAN
 * written state for PMD holes" (2026); and page tables go when all that they map is dropped (Linux 6.14).
 */
bool scan_tells_holes(void);

/* As scan_written(), and protects them at the same time: what is written later is told the next time. */
int scan_protect_written(int fd, uint64_t start, uint64_t end, int (*found)(void *arg, const struct page_range *r), void *arg);

/*
 * Calls `found` for each range of existing (present or swapped) pages, ascending. `need` are categories a page must have
 * (0: none). Categories told: FILE, PRESENT, SWAPPED, PFNZERO, GUARD, HUGE, and with `state` WRITTEN and WPALLOWED too.
 * Without PAGEMAP_SCAN, `need` is 0; nothing is told of PFNZERO, WRITTEN and WPALLOWED.
 * Returns 0, a negative errno (not reported), or what `found` returned.
 */
int scan_pages(int fd, uint64_t start, uint64_t end, uint64_t need, bool state,
	       int (*found)(void *arg, const struct page_range *r), void *arg);

/* The same for all existing pages, with SOFT_DIRTY told. */
int scan_soft_dirty(int fd, uint64_t start, uint64_t end, int (*found)(void *arg, const struct page_range *r), void *arg);

/* /proc/PID/maps, of a living thread, for questions about single mappings. The descriptor is the caller's; -1: there is none. */
int scan_open_maps(pid_t pid);

/* Is the mapping at `addr` registered for asynchronous protection? */
bool scan_is_registered(int fd, uint64_t addr);

#endif
