/*
 * Write protection by a userfaultfd of the target in asynchronous mode (Linux 6.7): the kernel lifts the protection of
 * a page by itself at the first write, nobody has to answer.
 */
#include <errno.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "sys/uapi.h"
#include "track/inner.h"
#include "track/steps.h"

/*
 * Private file mappings get pages of their own only by being written. Huge pages are copied inside the stop: what is saved
 * before a write is a page of the usual size.
 */
static bool can_be_protected(const struct vma *vma)
{
	if (vma->flags & MAP_HUGETLB)
		return false;
	if (vma->status & (VMA_VVAR | VMA_VSYSCALL | VMA_VDSO))
		return false;
	if (vma->status & VMA_FILE_PRIVATE)
		return vma->has_anon || vma->prot & PROT_WRITE;
	return vma->status & VMA_ANON_PRIVATE;
}

/*
 * A mapping that the kernel does not register (one with a userfaultfd of the program: EBUSY) is copied inside the
 * stop; so is one that went away meanwhile, if it ever comes back.
 */
int protect_note(struct track_mm *tm, uint64_t start, uint64_t end, bool is_file)
{
	return VEC_PUSH(&tm->registered, ((struct span){ start, end, is_file ? PAGE_CAT_FILE : 0 }));
}

static bool register_range(struct track_mm *tm, uint64_t start, uint64_t end)
{
	struct uffdio_register reg = {
		.range = { .start = start, .len = end - start },
		.mode = UFFDIO_REGISTER_MODE_WP,
	};

	if (!ioctl(tm->uffd, UFFDIO_REGISTER, &reg))
		return true;
	log_debug("pid %d mapping %llx-%llx: not protected, it is copied inside the stop: %s", tm->pid, (unsigned long long)start,
		  (unsigned long long)end, strerror(errno));
	return false;
}

/* Is it what the private mapping has grown by since it was observed? The same access, and no file, or the same file further on. */
static bool goes_on(const struct vma *vma, const struct bcr_procmap_query *q)
{
	uint64_t flags = (vma->prot & PROT_READ ? BCR_PROCMAP_READABLE : 0) | (vma->prot & PROT_WRITE ? BCR_PROCMAP_WRITABLE : 0) |
			 (vma->prot & PROT_EXEC ? BCR_PROCMAP_EXECUTABLE : 0);

	return q->vma_start == vma->end && q->vma_flags == flags && !q->inode == !(vma->status & VMA_FILE_PRIVATE) &&
	       (!q->inode || q->vma_offset == vma->pgoff + (vma->end - vma->start));
}

/*
 * A mapping that has grown since it was observed is two by now, and mremap(2) of all of it would fail: the rest is registered, too, which
 * makes it one again. Before Linux 6.11 nobody tells, at a price that could be paid for each mapping.
 */
static int register_vma(struct track_mm *tm, const struct vma *vma, const struct vma *next, int maps_fd)
{
	struct bcr_procmap_query q = { .size = sizeof(q), .query_addr = vma->end };
	uint64_t end = vma->end;

	if (!register_range(tm, vma->start, vma->end))
		return 0;
	if (!(next && next->start == vma->end) && !ioctl(maps_fd, BCR_PROCMAP_QUERY, &q) && goes_on(vma, &q) &&
	    register_range(tm, q.vma_start, q.vma_end))
		end = q.vma_end;
	return protect_note(tm, vma->start, end, vma->status & VMA_FILE_PRIVATE);
}

/* Gets the userfaultfd. Without one, nothing of this address space is protected: everything is copied inside the stop. */
static int get_uffd(struct tracker *t, struct track_mm *tm)
{
	struct uffdio_api api = { .api = UFFD_API, .features = BCR_UFFD_FEATURE_WP_ASYNC };
	int err = t->env.userfaultfd(t->env.arg, tm->pid, &tm->uffd);

	if (err) {
		tm->uffd = -1;
		return err;
	}
	if (ioctl(tm->uffd, UFFDIO_API, &api))
		return fail(-errno, "pid %d: asynchronous write protection of its memory", tm->pid);
	return 0;
}

void protect_unregister(const struct track_mm *tm, uint64_t start, uint64_t end)
{
	struct uffdio_range range = { .start = start, .len = end - start };

	/* Whatever is left of it goes with the descriptor. */
	ioctl(tm->uffd, UFFDIO_UNREGISTER, &range);
}

bool protect_lift(const struct track_mm *tm, uint64_t start, uint64_t end)
{
	struct steps s = steps_over(tm->pagemap_fd, start, end);

	while (steps_next(&s)) {
		struct uffdio_writeprotect wp = { .range = { .start = s.start, .len = s.end - s.start } };

		/* ENOENT: part of it is not registered any more. */
		if (wp.range.len == end - start || ioctl(tm->uffd, UFFDIO_WRITEPROTECT, &wp))
			return false;
	}
	return true;
}

/* The kernel looks at pages only when protection by writes was asked for, and that ends with the other mode. */
bool protect_drop(const struct track_mm *tm, uint64_t start, uint64_t end)
{
	struct uffdio_register reg = {
		.range = { .start = start, .len = end - start },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	int err = ioctl(tm->uffd, UFFDIO_REGISTER, &reg) ? errno : 0;

	/* It may have come half way. */
	if (!err || err == ENOMEM)
		protect_unregister(tm, start, end);
	return !err;
}

void protect_barrier(const struct track_mm *tm)
{
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_WP };

	if (tm->uffd < 0 || !tm->ranges.nr)
		return;
	/* The kernel takes the lock for writing, and then finds nothing to do, or nothing there: either is fine. */
	reg.range.start = tm->ranges.v[0].start;
	reg.range.len = tm->ranges.v[0].end - tm->ranges.v[0].start;
	ioctl(tm->uffd, UFFDIO_REGISTER, &reg);
}

int protect_register(struct tracker *t, struct track_mm *tm, const struct mm *mm)
{
	int err = tm->uffd < 0 ? get_uffd(t, tm) : 0;
	_cleanup_close_ int maps_fd = err ? -1 : scan_open_maps(tm->pid);

	for (size_t i = 0; !err && i < mm->vmas.nr; i++) {
		const struct vma *vma = &mm->vmas.v[i];

		if (can_be_protected(vma) && !scan_is_registered(tm->pagemap_fd, vma->start))
			err = register_vma(tm, vma, i + 1 < mm->vmas.nr ? vma + 1 : NULL, maps_fd);
	}
	return err == -ENOMEM ? fail(err, "pid %d: list its mappings", tm->pid) : err;
}

int protect_mm(struct tracker *t, struct track_mm *tm, const struct mm *mm)
{
	int err = protect_register(t, tm, mm);

	if (err)
		return err;
	VEC_FOREACH(vma, &mm->vmas) {
		if (!can_be_protected(vma))
			continue;
		err = scan_arm(tm->pagemap_fd, vma->start, vma->end);
		if (err)
			return fail(err, "pid %d mapping %llx-%llx: protect its pages", tm->pid,
				    (unsigned long long)vma->start, (unsigned long long)vma->end);
	}
	return 0;
}
