/* Pages that are copied at once: ahead of the stop, or inside it. They wait in the store. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "kinds/shmem.h"
#include "sys/proc.h"
#include "track/futex-x86_64.h"
#include "track/inner.h"

/* PROT_NONE and execute-only mappings: only /proc/PID/mem reads those (ptrace access). */
static ssize_t read_forced(struct track_mm *tm, taddr_t addr, uint8_t *buf, size_t len)
{
	if (tm->mem_fd < 0) {
		char path[48];

		snprintf(path, sizeof(path), "/proc/%d/mem", proc_living(tm->pid));
		tm->mem_fd = open(path, O_RDONLY | O_CLOEXEC);
		if (tm->mem_fd < 0)
			return -1;
	}
	return pread(tm->mem_fd, buf, len, (off_t)addr);
}

static size_t read_some(struct track_mm *tm, taddr_t addr, uint8_t *buf, size_t len)
{
	struct iovec local = { buf, len };
	struct iovec remote = { (void *)(uintptr_t)addr, len };
	/*
	 * process_vm_readv is faster, but pins what it reads: pages shared copy-on-write with relatives would be
	 * unshared.
	 */
	ssize_t got = tm->keep_shared ? 0 : process_vm_readv(tm->pid, &local, 1, &remote, 1, 0);

	if (got < MODEL_PAGE_SIZE)
		got = read_forced(tm, addr, buf, len);
	return got > 0 ? (size_t)got / MODEL_PAGE_SIZE : 0;
}

size_t now_read(struct track_mm *tm, taddr_t addr, size_t nr, uint8_t *buf, uint64_t *got)
{
	size_t nr_read = 0;

	for (size_t i = 0; i < nr;) {
		size_t n = read_some(tm, addr + i * MODEL_PAGE_SIZE, buf + i * MODEL_PAGE_SIZE,
				     (nr - i) * MODEL_PAGE_SIZE);

		nr_read += n;
		i += n;
		if (i < nr) {
			/* This one cannot be read: gone meanwhile, or a guard page. The ones behind it may be. */
			got[i / 64] &= ~(1ull << i % 64);
			i++;
		}
	}
	return nr_read;
}

int now_copy(struct tracker *t, struct track_mm *tm, taddr_t start, taddr_t end)
{
	for (taddr_t at = start; at < end;) {
		uint64_t got[PIECE_PAGES / 64];
		size_t nr = (end - at) / MODEL_PAGE_SIZE;
		uint32_t slot;
		int err = 0;

		if (nr > PIECE_PAGES)
			nr = PIECE_PAGES;
		memset(got, 0xff, sizeof(got));
		uint8_t *room = store_room(&t->store, nr, &slot);
		if (!room)
			return fail(-ENOMEM, "pid %d: keep %zu of its pages", tm->pid, nr);
		now_read(tm, at, nr, room, got);
		for (size_t i = 0; i < nr && !err; i++) {
			taddr_t addr = at + i * MODEL_PAGE_SIZE;

			if (got[i / 64] >> i % 64 & 1)
				err = store_set(&t->store, tm->nr, addr, 0, slot + i);
			else
				err = store_put(&t->store, tm->nr, addr, 0, NULL);
		}
		if (err)
			return fail(err, "pid %d: keep %zu of its pages", tm->pid, nr);
		at += nr * MODEL_PAGE_SIZE;
	}
	return 0;
}

int now_charge(struct tracker *t, uint64_t bytes)
{
	t->stop_bytes += bytes;
	t->stats.cut_pages_copied += bytes / MODEL_PAGE_SIZE;
	return t->env.max_stop_bytes && t->stop_bytes > t->env.max_stop_bytes ? -EAGAIN : 0;
}

struct now_walk {
	struct tracker *t;
	struct track_mm *tm;
	const struct vma *vma;
	size_t span; /* first of tm->seen that may reach to what is looked at */
};

static int found_unprotected(void *arg, const struct page_range *r)
{
	struct now_walk *w = arg;
	bool guard = r->categories & PAGE_CAT_GUARD;

	if (!page_is_wanted(w->vma, r->categories))
		return 0;
	int err = spans_add(&w->tm->copied, r->start, r->end, r->categories);
	if (!err && !guard)
		err = now_charge(w->t, r->end - r->start);
	return err || guard ? err : now_copy(w->t, w->tm, r->start, r->end);
}

int now_copy_vma(struct tracker *t, struct track_mm *tm, const struct vma *vma)
{
	struct now_walk w = { .t = t, .tm = tm, .vma = vma };

	return scan_pages(tm->pagemap_fd, vma->start, vma->end, 0, false, found_unprotected, &w);
}

static int found_written(void *arg, const struct page_range *r)
{
	struct now_walk *w = arg;

	if (!page_is_wanted(w->vma, r->categories) || r->categories & PAGE_CAT_GUARD)
		return 0;
	int err = now_charge(w->t, r->end - r->start);
	return err ? err : now_copy(w->t, w->tm, r->start, r->end);
}

/*
 * Pages that are not dirty may have come since the copying ahead: a zero page brought by a read. The page map does
 * not tell them from others where it has to be read.
 */
static int found_dirty_or_new(void *arg, const struct page_range *r)
{
	struct now_walk *w = arg;
	const spans *ahead = &w->tm->seen;

	if (r->categories & PAGE_CAT_SOFT_DIRTY)
		return found_written(arg, r);
	for (taddr_t at = r->start; at < r->end;) {
		while (w->span < ahead->nr && ahead->v[w->span].end <= at)
			w->span++;
		const struct span *s = w->span < ahead->nr ? &ahead->v[w->span] : NULL;
		struct page_range new = { at, s && s->start < r->end ? s->start : r->end, r->categories };
		int err = new.start < new.end ? found_written(arg, &new) : 0;

		if (err)
			return err;
		at = s && s->start < r->end ? s->end : r->end;
	}
	return 0;
}

/*
 * A page of a private file mapping that was dropped leaves a mark that reads as swapped, and protected, though it is
 * the file's again: it may have been copied ahead with other contents.
 */
static int found_maybe_dropped(void *arg, const struct page_range *r)
{
	return r->categories & PAGE_CAT_WRITTEN ? 0 : found_written(arg, r);
}

int now_copy_written(struct tracker *t, struct track_mm *tm, const struct vma *vma)
{
	struct now_walk w = { .t = t, .tm = tm, .vma = vma };

	if (!t->ops->write_protects)
		return scan_soft_dirty(tm->pagemap_fd, vma->start, vma->end, found_dirty_or_new, &w);
	int err = scan_pages(tm->pagemap_fd, vma->start, vma->end, PAGE_CAT_WRITTEN, true, found_written, &w);
	if (err || !(vma->status & VMA_FILE_PRIVATE))
		return err;
	return scan_pages(tm->pagemap_fd, vma->start, vma->end, PAGE_CAT_SWAPPED, true, found_maybe_dropped, &w);
}

static int found_page(void *arg, const struct page_range *r)
{
	struct now_walk *w = arg;

	if (r->categories & (PAGE_CAT_PFNZERO | PAGE_CAT_GUARD))
		return 0;
	int err = now_charge(w->t, r->end - r->start);
	return err ? err : now_copy(w->t, w->tm, r->start, r->end);
}

int now_copy_pages(struct tracker *t, const uint64_t *pages, size_t nr)
{
	for (size_t i = 0; i < nr; i++) {
		uint32_t mm = pages[i] & (MODEL_PAGE_SIZE - 1);
		taddr_t addr = pages[i] - mm;
		struct now_walk w = { .t = t };

		if (mm >= t->mms.nr || !t->mms.v[mm]->present)
			continue;
		w.tm = t->mms.v[mm];
		int err = scan_pages(w.tm->pagemap_fd, addr, addr + MODEL_PAGE_SIZE, 0, false, found_page, &w);
		if (err)
			return err == -EAGAIN ? err : fail(err, "pid %d: copy its page %llx", w.tm->pid,
							   (unsigned long long)addr);
	}
	return 0;
}

/*
 * A wait that the stop interrupted is begun again; for a futex that processes may share, as pthread_join(3) uses, the
 * kernel finds the page by pinning it for writing. It is not written then, but it is not protected any more either.
 */
static int copy_futex(struct tracker *t, pid_t mm_pid, const struct cpu_regs *r)
{
	struct track_mm *tm = futex_wait_is_shared(r) ? tracker_find(t, mm_pid) : NULL;

	if (!tm)
		return 0;
	uint64_t page = (r->di & ~(uint64_t)(MODEL_PAGE_SIZE - 1)) | tm->nr;
	return now_copy_pages(t, &page, 1);
}

struct futex_walk {
	struct tracker *t;
	const struct model *m;
};

static pid_t pid_of_mm(const struct model *m, const struct task *task)
{
	const struct mm *mm = task && task->mm_id ? model_find_mm(m, task->mm_id) : NULL;

	return mm ? mm->pid : 0;
}

static int copy_futex_of(void *ctx, pid_t pid, pid_t tid, const struct cpu_regs *regs)
{
	const struct futex_walk *w = ctx;

	(void)tid;
	if (!futex_wait_is_shared(regs))
		return 0;
	return copy_futex(w->t, pid_of_mm(w->m, model_find_task(w->m, pid)), regs);
}

int now_copy_futexes(struct tracker *t, const struct model *m, bool same)
{
	struct futex_walk w = { t, m };
	int err = 0;

	if (same)
		return t->env.each_thread(t->env.arg, copy_futex_of, &w);
	VEC_FOREACH(task, &m->tasks)
		for (size_t i = 0; !err && i < task->threads.nr; i++)
			err = copy_futex(t, pid_of_mm(m, task), &task->threads.v[i].cpu.regs);
	return err;
}

static int copy_shmem_range(struct tracker *t, const struct shmem *s, size_t index, int fd, uint64_t start, uint64_t end)
{
	int err = now_charge(t, end - start);

	for (uint64_t at = start; !err && at < end;) {
		size_t nr = (end - at) / MODEL_PAGE_SIZE;
		uint32_t slot;

		if (nr > PIECE_PAGES)
			nr = PIECE_PAGES;
		uint8_t *room = store_room(&t->store, nr, &slot);
		if (!room)
			return fail(-ENOMEM, "pid %d: keep shared memory %u", s->pid, s->id);
		err = shmem_read(s, fd, at, room, nr * MODEL_PAGE_SIZE);
		if (!err)
			err = VEC_PUSH(&t->shmem_pieces, ((struct shmem_piece){ index, at, nr, slot }));
		at += nr * MODEL_PAGE_SIZE;
	}
	return err;
}

int now_copy_shmem(struct tracker *t, const struct model *m, size_t index)
{
	const struct shmem *s = m->shmems.v[index];
	_cleanup_close_ int fd = -1;
	struct stat st;
	int err = shmem_open(s, &fd);

	if (err == -ENOENT)
		return fail(0, "pid %d: shared memory %u is not where it was any more", s->pid, s->id);
	/* Somebody outside the tree may have given it another size since the look. */
	if (!err && s->sort == SHMEM_MEMFD && (fstat(fd, &st) || (uint64_t)st.st_size != s->size_bytes))
		return -EAGAIN;
	for (uint64_t at = 0, end; !err; at = end) {
		err = shmem_next_data(s, fd, &at, &end);
		if (err <= 0)
			break;
		err = copy_shmem_range(t, s, index, fd, at, end);
	}
	return err;
}
