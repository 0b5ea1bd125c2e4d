/*
 * The memory of a task, mapped and filled by the task's own process before it forks its children.
 *
 * Theory of operation. Every mapping is made at its final address where that is free in bcr, else in the staging area
 * (plan_vma_at()); the restorer moves the staged ones. A child inherits what its parent has mapped. Where a private mapping of the
 * child's images lies over one of the same sort of its parent's, wholly or in part (a heap or a stack that has grown since), the
 * inherited pages are compared with the child's: equal ones are left alone, and so stay shared copy-on-write, different ones are
 * written, and those the child does not have are dropped.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/mman.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "kinds/kinds.h"
#include "restore/plan.h"
#include "sys/uapi.h"

/* Small enough to stay in the processor's cache between being made and being filled. */
enum { CHUNK_BYTES = 128 << 10, ADVICE_POPULATE_WRITE = 23 /* Linux 5.14 */ };

/* Huge pages, and which. */
static const uint32_t huge_flags = MAP_HUGETLB | (uint32_t)MAP_HUGE_MASK << MAP_HUGE_SHIFT;

/* The file of the mapping before. Neighbours that have one open file in common can become one mapping. */
struct last_file {
	uint32_t id, flags;
	int fd; /* -1: none */
};

/* One mapping being filled. */
struct filling {
	struct restore *r;
	const struct task_plan *tp;
	const struct mm *contents; /* whose */
	const struct vma *vma;
	uint8_t *at;       /* in this process */
	bool inherited;    /* the part that is being filled */
	bool writable;     /* mapped readable and writable for the filling */
	uint8_t *buf;      /* CHUNK_BYTES, for comparing */
	struct pages_reader *from;
	struct last_file *file;
};

static int vma_fail(const struct filling *fl, int err, const char *what)
{
	return fail(err, "pid %d mapping %" PRIx64 "-%" PRIx64 ": %s", fl->tp->task->pid, fl->vma->start, fl->vma->end,
		    what);
}

static size_t vma_bytes(const struct vma *vma)
{
	return vma->end - vma->start;
}

/* Index of the first run that ends behind `addr`. */
static size_t first_run(const struct mm *mm, taddr_t addr)
{
	size_t lo = 0, hi = mm->pages.nr;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		const struct page_run *run = &mm->pages.v[mid];

		if (run->start + run->nr_pages * MODEL_PAGE_SIZE <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static bool has_pages(const struct mm *mm, const struct vma *vma)
{
	size_t i = first_run(mm, vma->start);

	return i < mm->pages.nr && mm->pages.v[i].start < vma->end;
}

static int make_writable(struct filling *fl)
{
	if (fl->writable)
		return 0;
	if (mprotect(fl->at, vma_bytes(fl->vma), PROT_READ | PROT_WRITE))
		return vma_fail(fl, -errno, "make it writable for its contents");
	fl->writable = true;
	return 0;
}

static int read_pages(const struct filling *fl, const struct page_run *run, void *to, size_t len, uint64_t skip)
{
	int err = pages_reader_read(fl->from, run, skip, to, len);

	return err ? vma_fail(fl, err, "its pages were not read") : 0;
}

/* Inherited pages: only what differs is written. */
static int compare_pages(struct filling *fl, const struct page_run *run, uint8_t *at, size_t len, uint64_t skip)
{
	struct restorer_control *c = fl->r->control;
	int err = read_pages(fl, run, fl->buf, len, skip);

	for (size_t i = 0; !err && i < len; i += MODEL_PAGE_SIZE) {
		bool same = !memcmp(at + i, fl->buf + i, MODEL_PAGE_SIZE);

		__atomic_add_fetch(&c->pages_compared, 1, __ATOMIC_RELAXED);
		if (same) {
			__atomic_add_fetch(&c->pages_skipped_cow, 1, __ATOMIC_RELAXED);
			continue;
		}
		memcpy(at + i, fl->buf + i, MODEL_PAGE_SIZE);
		__atomic_add_fetch(&c->pages_restored, 1, __ATOMIC_RELAXED);
	}
	return err;
}

static int fill_range(struct filling *fl, const struct page_run *run, taddr_t start, taddr_t end)
{
	struct restorer_control *c = fl->r->control;

	while (start < end) {
		size_t len = end - start < CHUNK_BYTES ? end - start : CHUNK_BYTES;
		uint8_t *at = fl->at + (start - fl->vma->start);
		int err;

		if (fl->inherited) {
			err = compare_pages(fl, run, at, len, start - run->start);
		} else {
			/* Pages made in one go cost a third less than by faults; a failure shows in the read. */
			madvise(at, len, ADVICE_POPULATE_WRITE);
			err = read_pages(fl, run, at, len, start - run->start);
			__atomic_add_fetch(&c->pages_restored, len / MODEL_PAGE_SIZE, __ATOMIC_RELAXED);
		}
		if (err)
			return err;
		__atomic_add_fetch(&c->bytes_done, len, __ATOMIC_RELAXED);
		start += len;
	}
	return 0;
}

/* What the parent has and the child has not. */
static int drop(struct filling *fl, taddr_t start, taddr_t end)
{
	if (!fl->inherited || start >= end)
		return 0;
	if (madvise(fl->at + (start - fl->vma->start), end - start, MADV_DONTNEED))
		return vma_fail(fl, -errno, "drop inherited pages");
	return 0;
}

static int fill(struct filling *fl, taddr_t from, taddr_t to)
{
	const struct mm *mm = fl->contents;
	taddr_t done = from;

	for (size_t i = first_run(mm, from); i < mm->pages.nr && mm->pages.v[i].start < to; i++) {
		const struct page_run *run = &mm->pages.v[i];
		taddr_t start = run->start, end = run->start + run->nr_pages * MODEL_PAGE_SIZE;
		int err;

		if (!page_run_has_contents(run))
			continue;
		if (start < from)
			start = from;
		if (end > to)
			end = to;
		err = drop(fl, done, start);
		if (!err)
			err = make_writable(fl);
		if (!err)
			err = fill_range(fl, run, start, end);
		if (err)
			return err;
		done = end;
	}
	return drop(fl, done, to);
}

/* --- mapping --- */

static void forget_file(struct last_file *file)
{
	if (file->fd >= 0)
		close(file->fd);
	file->fd = -1;
}

/* The descriptor stays with `file`. */
static int open_vma_file(const struct filling *fl, int *ret)
{
	const struct vma *vma = fl->vma;
	struct last_file *last = fl->file;
	const struct file *f = model_find_file(fl->r->m, vma->file_id);

	if (!f)
		return vma_fail(fl, 0, "its file is not in the images");
	if (last->fd < 0 || last->id != vma->file_id || last->flags != vma->fdflags) {
		forget_file(last);
		int err = restore_open_file(fl->r, f, vma->fdflags, &last->fd);
		if (err)
			return err;
		last->id = vma->file_id;
		last->flags = vma->fdflags;
	}
	*ret = last->fd;
	return 0;
}

/* Maps a part of it, `from` to `to`. */
static int map_part(struct filling *fl, taddr_t from, taddr_t to, int prot)
{
	const struct vma *vma = fl->vma;
	int flags = MAP_FIXED | (vma->flags & (MAP_TYPE | MAP_GROWSDOWN | MAP_NORESERVE | huge_flags));
	uint8_t *at = fl->at + (from - vma->start);
	uint64_t offset = 0;
	int fd = -1;

	if (vma->status & VMA_FILE_PRIVATE) {
		int err = open_vma_file(fl, &fd);
		if (err)
			return err;
		offset = vma->pgoff + (from - vma->start);
	} else {
		flags |= MAP_ANONYMOUS;
	}
	if (mmap(at, to - from, prot, flags, fd, offset) != at)
		return vma_fail(fl, -errno, errno == ENOMEM && vma->flags & MAP_HUGETLB ?
						    "map it: there are not enough free huge pages (/proc/sys/vm/nr_hugepages)" :
						    "map it");
	return 0;
}

static int map_private(struct filling *fl)
{
	const struct vma *vma = fl->vma;
	bool filled = has_pages(fl->tp->mm, vma);
	/* The kernel reserves memory for what is mapped writable, and keeps it reserved when that is taken away. */
	int prot = filled ? PROT_READ | PROT_WRITE : (int)vma->prot | (vma->reserved ? PROT_WRITE : 0);
	int err = map_part(fl, vma->start, vma->end, prot);

	if (err)
		return err;
	fl->writable = filled;
	/* A staged mapping that is never touched would merge with its neighbour once it has been moved there. */
	if ((uintptr_t)fl->at != vma->start && !filled && prot & PROT_WRITE && vma->status & VMA_ANON_PRIVATE &&
	    !(vma->flags & MAP_HUGETLB)) {
		*(volatile uint8_t *)fl->at = 1;
		madvise(fl->at, MODEL_PAGE_SIZE, MADV_DONTNEED);
	}
	return 0;
}

static int map_file_shared(struct filling *fl)
{
	const struct vma *vma = fl->vma;
	int fd, err = open_vma_file(fl, &fd);

	if (err)
		return err;
	if (mmap(fl->at, vma_bytes(vma), vma->prot, MAP_SHARED | MAP_FIXED | (vma->flags & MAP_NORESERVE), fd,
		 vma->pgoff) != fl->at)
		return vma_fail(fl, -errno, "map its file");
	return 0;
}

/* The coordinator's own mapping, opened as a file: huge pages cannot be mapped once more in any other way. */
static int map_from_file(struct filling *fl, const struct shmem_place *place)
{
	const struct vma *vma = fl->vma;
	char path[96];

	snprintf(path, sizeof(path), "/proc/self/map_files/%" PRIx64 "-%" PRIx64, place->at, place->at + place->bytes);
	_cleanup_close_ int fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return vma_fail(fl, -errno, "open its shared memory in huge pages");
	if (mmap(fl->at, vma_bytes(vma), vma->prot, MAP_SHARED | MAP_FIXED | (vma->flags & MAP_NORESERVE), fd, vma->pgoff) !=
	    fl->at)
		return vma_fail(fl, -errno, "map its shared memory in huge pages");
	return 0;
}

/* As the program attached it, all of it: access by the mode of the attachment stays as it was. */
static int attach(struct filling *fl, const struct shmem *s)
{
	const struct vma *vma = fl->vma;
	int flags = SHM_REMAP | (vma->fdflags == O_RDONLY ? SHM_RDONLY : 0) | (vma->prot & PROT_EXEC ? SHM_EXEC : 0);

	if (shmat(s->sysv.id, fl->at, flags) != fl->at)
		return vma_fail(fl, -errno, "attach its System V segment");
	return 0;
}

/* One more mapping of an object that the coordinator has made: mremap(2), "old_size is zero". */
static int map_shmem(struct filling *fl)
{
	const struct restore_plan *p = fl->r->plan;
	const struct vma *vma = fl->vma;
	ssize_t i = plan_shmem_index(p, vma->shmem_id);

	if (i < 0)
		return vma_fail(fl, 0, "its shared memory is not in the images");
	const struct shmem *s = p->m->shmems.v[i];
	const struct shmem_place *place = &p->shmems.v[i];

	if (vma->pgoff > place->bytes || vma_bytes(vma) > place->bytes - vma->pgoff)
		return vma_fail(fl, 0, "it is larger than its shared memory");
	if (s->sort == SHMEM_SYSV && !vma->pgoff && vma_bytes(vma) == shmem_whole_bytes(s))
		return attach(fl, s);
	if (s->huge_bytes)
		return map_from_file(fl, place);
	if (mremap((void *)(uintptr_t)(place->at + vma->pgoff), 0, vma_bytes(vma), MREMAP_MAYMOVE | MREMAP_FIXED, fl->at) != fl->at)
		return vma_fail(fl, -errno, "map its shared memory");
	return 0;
}

/* Index of the first mapping of the parent that ends behind `addr`. */
static size_t first_vma(const struct mm *parent, taddr_t addr)
{
	size_t lo = 0, hi = parent ? parent->vmas.nr : 0;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (parent->vmas.v[mid].end <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* Could pages of the parent's mapping be pages of this one, where the two meet? */
static bool is_same_sort(const struct vma *p, const struct vma *vma)
{
	const uint32_t kinds = VMA_ANON_PRIVATE | VMA_FILE_PRIVATE, special = VMA_VDSO | VMA_VVAR;

	return !(p->status & special) && (p->status & kinds) == (vma->status & kinds) && p->status & kinds &&
	       p->file_id == vma->file_id && (!vma->file_id || p->pgoff - p->start == vma->pgoff - vma->start) &&
	       !((p->flags ^ vma->flags) & (MAP_TYPE | MAP_GROWSDOWN | MAP_NORESERVE | huge_flags));
}

/* A part of a mapping: all of it that the parent has had in one mapping, or has not had. */
struct part {
	taddr_t start, end;
	bool inherited;
};

/* The part that begins at `at`; *i is where to look among the parent's mappings. */
static struct part next_part(const struct mm *parent, const struct vma *vma, size_t *i, taddr_t at)
{
	for (; parent && *i < parent->vmas.nr && parent->vmas.v[*i].start < vma->end; (*i)++) {
		const struct vma *p = &parent->vmas.v[*i];
		taddr_t end = p->end < vma->end ? p->end : vma->end;

		if (end <= at || !is_same_sort(p, vma))
			continue;
		if (p->start > at)
			return (struct part){ at, p->start, false };
		return (struct part){ at, end, true };
	}
	return (struct part){ at, vma->end, false };
}

/*
 * How many mappings of the parent are of use. A staged mapping is moved in one go, for which it has to be one: parts
 * of several that the kernel has kept apart are not used then.
 */
static size_t count_inherited(const struct filling *fl, const struct mm *parent)
{
	const struct vma *vma = fl->vma;
	size_t first = first_vma(parent, vma->start), nr = 0;

	for (size_t i = first; parent && i < parent->vmas.nr && parent->vmas.v[i].start < vma->end; i++) {
		const struct vma *p = &parent->vmas.v[i];

		/* Mappings in huge pages never become one with others. */
		if (vma->flags & MAP_HUGETLB && (p->start > vma->start || p->end < vma->end))
			continue;
		nr += is_same_sort(p, vma);
	}
	return nr > 1 && (uintptr_t)fl->at != vma->start ? 0 : nr;
}

/* The rest around what is inherited is mapped; all is one mapping again when it has been made writable. */
static int complete(struct filling *fl, const struct mm *parent)
{
	const struct vma *vma = fl->vma;
	size_t i = first_vma(parent, vma->start);
	bool missing = false;

	for (taddr_t at = vma->start; at < vma->end;) {
		struct part part = next_part(parent, vma, &i, at);
		int err = part.inherited ? 0 : map_part(fl, part.start, part.end, PROT_READ | PROT_WRITE);

		if (err)
			return err;
		missing |= !part.inherited;
		at = part.end;
	}
	return missing || has_pages(fl->tp->mm, vma) ? make_writable(fl) : 0;
}

/* Index of the first late range that ends behind `addr`. */
static size_t first_late(const late_ranges *all, taddr_t addr)
{
	size_t lo = 0, hi = all->nr;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (all->v[mid].end <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* What children have to inherit as this process has inherited it is left alone for now. */
static int fill_unless_late(struct filling *fl, taddr_t from, taddr_t to)
{
	const late_ranges *all = &fl->tp->late;

	for (size_t i = first_late(all, from); i < all->nr && all->v[i].start < to; i++) {
		const struct late_range *late = &all->v[i];

		if (late->source)
			continue;
		int err = late->start > from ? fill(fl, from, late->start) : 0;
		if (err)
			return err;
		from = late->end;
	}
	return from < to ? fill(fl, from, to) : 0;
}

static int map_or_inherit(struct filling *fl, const struct mm *parent)
{
	const struct vma *vma = fl->vma;

	if (!count_inherited(fl, parent))
		parent = NULL;
	size_t i = first_vma(parent, vma->start);
	int err = parent ? complete(fl, parent) : map_private(fl);
	for (taddr_t at = vma->start; !err && at < vma->end;) {
		struct part part = next_part(parent, vma, &i, at);

		fl->inherited = part.inherited;
		err = part.inherited ? fill_unless_late(fl, part.start, part.end) : fill(fl, part.start, part.end);
		at = part.end;
	}
	return err;
}

/*
 * Before children are forked, and while the mapping is writable if it ever is: locking it later would make this process copy
 * every page that it shares copy-on-write with them. First without making pages, where every error counts; what then is not
 * readable yields ENOMEM, and is locked all the same.
 */
static int lock(const struct filling *fl)
{
	size_t len = vma_bytes(fl->vma);

	if (!(fl->vma->flags & MAP_LOCKED))
		return 0;
	if (mlock2(fl->at, len, MLOCK_ONFAULT))
		return vma_fail(fl, -errno, "lock it");
	/* Not mlock(3), which sanitizers make do nothing. */
	if (!fl->vma->lock_on_fault && mlock2(fl->at, len, 0) && errno != ENOMEM)
		return vma_fail(fl, -errno, "lock it");
	return 0;
}

static int map_vma(struct filling *fl, const struct mm *parent)
{
	const struct vma *vma = fl->vma;

	fl->at = (void *)(uintptr_t)plan_vma_at(fl->r->plan, vma);
	fl->writable = false;
	if (vma->status & VMA_ANON_SHARED)
		return map_shmem(fl);
	if (vma->status & VMA_FILE_SHARED)
		return map_file_shared(fl);
	if (!(vma->status & (VMA_ANON_PRIVATE | VMA_FILE_PRIVATE)))
		return vma_fail(fl, 0, "mappings of this sort are not supported");
	return map_or_inherit(fl, parent);
}

int task_map_memory(struct restore *r, const struct task_plan *tp, const struct mm *parent)
{
	struct pages_reader from = { .dirfd = r->opts.images_dirfd, .pages_id = tp->mm->pages_id };
	_cleanup_free_ uint8_t *buf = malloc(CHUNK_BYTES);
	struct last_file file = { .fd = -1 };
	int err = 0;

	if (!buf)
		return fail(-ENOMEM, "pid %d: buffer for its memory", tp->task->pid);
	/*
	 * It is kept free by a mapping, which each staged one would cut once more: that is twice as many as a process
	 * may have. The kernel puts nothing of bcr's there by itself, from the top down.
	 */
	if (!parent)
		munmap((void *)(uintptr_t)r->plan->staging, r->plan->shmem - r->plan->staging);
	VEC_FOREACH(vma, &tp->mm->vmas) {
		struct filling fl = { .r = r, .tp = tp, .contents = tp->mm, .vma = vma, .buf = buf, .from = &from, .file = &file };

		if (!err && !(vma->status & (VMA_VDSO | VMA_VVAR)))
			err = map_vma(&fl, parent);
		if (!err && !(vma->status & (VMA_VDSO | VMA_VVAR)))
			err = lock(&fl);
	}
	forget_file(&file);
	pages_reader_close(&from);
	return err;
}

/* --- what children have in common --- */

/* Puts the contents that `fl` says into this process's private mappings. Their protection is set right by the restorer. */
static int put_contents(struct filling *fl, taddr_t start, taddr_t end)
{
	const struct mm *mm = fl->tp->mm;
	int err = 0;

	for (size_t i = first_vma(mm, start); !err && i < mm->vmas.nr && mm->vmas.v[i].start < end; i++) {
		const struct vma *vma = &mm->vmas.v[i];

		if (!(vma->status & (VMA_ANON_PRIVATE | VMA_FILE_PRIVATE)) || vma->status & (VMA_VDSO | VMA_VVAR))
			continue;
		fl->vma = vma;
		fl->at = (void *)(uintptr_t)plan_vma_at(fl->r->plan, vma);
		fl->writable = false;
		err = fill(fl, vma->start > start ? vma->start : start, vma->end < end ? vma->end : end);
	}
	return err;
}

/* Does somebody still need other contents there, when this child is forked? Equal ranges stand side by side. */
static bool is_needed(const late_ranges *all, size_t at, uint64_t order)
{
	size_t i = at;

	while (i && all->v[i - 1].start == all->v[at].start)
		i--;
	for (; i < all->nr && all->v[i].start == all->v[at].start; i++) {
		if (all->v[i].first <= order && order <= all->v[i].last)
			return true;
	}
	return false;
}

static int put_own(struct filling *fl, late_ranges *all, uint64_t order)
{
	int err = 0;

	for (size_t i = 0; !err && i < all->nr; i++) {
		struct late_range *late = &all->v[i];

		if (late->done || late->last >= order)
			continue;
		late->done = true;
		if (!is_needed(all, i, order))
			err = put_contents(fl, late->start, late->end);
	}
	return err;
}

static int put_of_others(struct filling *fl, const late_ranges *all, uint64_t order)
{
	struct pages_reader *from = fl->from;
	int err = 0;

	VEC_FOREACH(late, all) {
		if (err || !late->source || late->first != order)
			continue;
		if (fl->contents != late->source) {
			pages_reader_close(from);
			*from = (struct pages_reader){ .dirfd = fl->r->opts.images_dirfd, .pages_id = late->source->pages_id };
			fl->contents = late->source;
		}
		err = put_contents(fl, late->start, late->end);
	}
	return err;
}

int task_memory_before_fork(struct restore *r, size_t index, uint64_t order)
{
	struct task_plan *tp = &r->plan->tasks.v[index];

	if (!tp->late.nr)
		return 0;
	struct pages_reader from = { .dirfd = r->opts.images_dirfd, .pages_id = tp->mm->pages_id };
	_cleanup_free_ uint8_t *buf = malloc(CHUNK_BYTES);
	struct filling fl = { .r = r, .tp = tp, .contents = tp->mm, .buf = buf, .from = &from, .inherited = true };
	int err = buf ? put_own(&fl, &tp->late, order) : fail(-ENOMEM, "pid %d: buffer for its memory", tp->task->pid);
	if (!err)
		err = put_of_others(&fl, &tp->late, order);
	pages_reader_close(&from);
	return err;
}
