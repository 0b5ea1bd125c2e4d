/*
 * Write protection by a userfaultfd of the target in asynchronous mode (Linux 6.7): the kernel lifts the protection of
 * a page by itself at the first write, nobody has to answer.
 */
#include <errno.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

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
static void register_vma(struct track_mm *tm, const struct vma *vma)
{
	struct uffdio_register reg = {
		.range = { .start = vma->start, .len = vma->end - vma->start },
		.mode = UFFDIO_REGISTER_MODE_WP,
	};

	if (ioctl(tm->uffd, UFFDIO_REGISTER, &reg))
		log_debug("pid %d mapping %llx-%llx: not protected, it is copied inside the stop: %s", tm->pid,
			  (unsigned long long)vma->start, (unsigned long long)vma->end, strerror(errno));
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
	bool ok = !ioctl(tm->uffd, UFFDIO_REGISTER, &reg);

	protect_unregister(tm, start, end);
	return ok;
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

	VEC_FOREACH(vma, &mm->vmas) {
		if (!err && can_be_protected(vma) && !scan_is_registered(tm->pagemap_fd, vma->start))
			register_vma(tm, vma);
	}
	return err;
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
