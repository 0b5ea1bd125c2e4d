/*
 * Page contents of the stopped tree → pages-N.img.
 *
 * Theory of operation. For each mm: the page map says which pages exist; only those a restore cannot get elsewhere
 * are copied (anonymous pages of private mappings; a page that maps the file or the zero page is left out, so that
 * holes stay holes). Runs are read in pieces of up to CHUNK_BYTES: with process_vm_readv, which is fastest, when the
 * tree is one process; else, and where a mapping may not be read, with /proc/PID/mem. process_vm_readv pins the pages
 * it reads (FOLL_PIN), and a pin gives a process its own copy of a page it shares copy-on-write with its relatives:
 * the target would grow. Memory objects (shared anonymous memory, memory files, System V segments) are files of
 * the kernel's own: kinds/shmem.c opens them by whoever has them, and SEEK_DATA tells what exists, whatever part is mapped.
 */
#include "capture/capture.h"

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
#include "sys/pagemap.h"
#include "sys/proc.h"

enum { CHUNK_BYTES = 4 << 20 };

struct copier {
	struct image_set *set;
	struct dump_stats *stats;
	int (*progress)(uint64_t done, uint64_t all);
	uint64_t done_bytes, all_bytes;
	uint32_t next_pages_id;
	uint8_t *buf; /* CHUNK_BYTES */
	bool keep_shared; /* pages may be shared copy-on-write within the tree */
	bool running;     /* the target may change while it is read */
};

struct vma_walk {
	struct mm *mm;
	const struct vma *vma;
	struct dump_stats *stats;
};

static int add_run(struct mm *mm, uint64_t start, uint64_t end, uint32_t flags)
{
	struct page_run run = {
		.start = start,
		.nr_pages = (end - start) / MODEL_PAGE_SIZE,
		.flags = flags,
	};

	if (mm->pages.nr) {
		struct page_run *last = &mm->pages.v[mm->pages.nr - 1];

		if (last->flags == flags && last->start + last->nr_pages * MODEL_PAGE_SIZE == start) {
			last->nr_pages += run.nr_pages;
			return 0;
		}
	}
	return VEC_PUSH(&mm->pages, run);
}

/* One range of existing pages: is it for the image? */
static int found_range(void *arg, const struct page_range *r)
{
	struct vma_walk *w = arg;

	w->stats->pages_scanned += (r->end - r->start) / MODEL_PAGE_SIZE;
	if (r->categories & PAGE_CAT_GUARD)
		return add_run(w->mm, r->start, r->end, PAGES_GUARD);
	if (r->categories & PAGE_CAT_PFNZERO)
		return 0;
	/* The page a private file mapping shows is the file's until it is written. */
	if (w->vma->status & VMA_FILE_PRIVATE && r->categories & PAGE_CAT_FILE)
		return 0;
	return add_run(w->mm, r->start, r->end, PAGES_PRESENT);
}

static int find_pages(struct mm *mm, bool running, struct dump_stats *stats)
{
	struct pagemap *pm;
	int err = pagemap_open(mm->pid, &pm);

	/* It has ended meanwhile. */
	if (running && (err == -ENOENT || err == -ESRCH))
		return 0;
	if (err)
		return fail(err, "pid %d: open its page map", mm->pid);
	VEC_FOREACH(vma, &mm->vmas) {
		struct vma_walk walk = { mm, vma, stats };

		if (!vma_has_own_pages(vma))
			continue;
		err = pagemap_walk(pm, vma->start, vma->end, found_range, &walk);
		if (err) {
			fail(err, "pid %d mapping %llx-%llx: find its pages", mm->pid,
			     (unsigned long long)vma->start, (unsigned long long)vma->end);
			break;
		}
	}
	pagemap_close(pm);
	return err;
}

/* Reads `len` bytes at `addr`; all of them or an error. */
static int read_target(const struct copier *c, pid_t pid, int *mem_fd, taddr_t addr, size_t len)
{
	uint8_t *buf = c->buf;
	struct iovec local = { buf, len };
	struct iovec remote = { (void *)(uintptr_t)addr, len };
	ssize_t got = c->keep_shared ? 0 : process_vm_readv(pid, &local, 1, &remote, 1, 0);
	size_t done = got > 0 ? got : 0;

	if (done == len)
		return 0;
	/* PROT_NONE and execute-only mappings: only /proc/PID/mem reads those (ptrace access). */
	if (*mem_fd < 0) {
		char path[48];

		snprintf(path, sizeof(path), "/proc/%d/mem", proc_living(pid));
		*mem_fd = open(path, O_RDONLY | O_CLOEXEC);
		if (*mem_fd < 0)
			return -errno;
	}
	while (done < len) {
		got = pread(*mem_fd, buf + done, len - done, addr + done);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got ? -errno : -EIO;
		done += got;
	}
	return 0;
}

/* Puts the first `len` bytes of the buffer into the set and tells how far the copying is. */
static int put(struct copier *c, struct pages_writer *w, uint64_t addr, size_t len, page_runs *runs)
{
	int err = pages_writer_put(w, addr, c->buf, len / MODEL_PAGE_SIZE, runs);

	if (err)
		return err;
	c->done_bytes += len;
	return c->progress(c->done_bytes, c->all_bytes);
}

/* What is left of pages that a running target took away while they were read. */
static int copy_one_by_one(struct copier *c, struct mm *mm, int *mem_fd, taddr_t at, size_t len, struct pages_writer *w)
{
	for (taddr_t end = at + len; at < end; at += MODEL_PAGE_SIZE) {
		if (read_target(c, mm->pid, mem_fd, at, MODEL_PAGE_SIZE))
			continue;
		int err = put(c, w, at, MODEL_PAGE_SIZE, &mm->pages);
		if (err)
			return err;
	}
	return 0;
}

static int copy_run(struct copier *c, struct mm *mm, int *mem_fd, const struct page_run *run, struct pages_writer *w)
{
	uint64_t left = run->nr_pages * MODEL_PAGE_SIZE;
	taddr_t at = run->start;
	pid_t pid = mm->pid;

	while (left) {
		size_t len = left < CHUNK_BYTES ? left : CHUNK_BYTES;
		int err = read_target(c, pid, mem_fd, at, len);

		if (err && !c->running)
			return fail(err, "pid %d: read memory at %llx", pid, (unsigned long long)at);
		if (err)
			err = copy_one_by_one(c, mm, mem_fd, at, len, w);
		else
			err = put(c, w, at, len, &mm->pages);
		if (err)
			return err;
		at += len;
		left -= len;
	}
	return 0;
}

static int copy_mm(struct copier *c, struct mm *mm)
{
	struct pages_writer *w = NULL;
	_cleanup_close_ int mem_fd = -1;
	page_runs found = mm->pages; /* what is to be copied; the runs of the image take its place */

	mm->pages = (page_runs){};
	mm->pages_id = c->next_pages_id++;
	int err = pages_writer_open(c->set, mm->pages_id, &w);
	if (!err)
		err = pages_writer_compare_mm(w, mm->pid);
	VEC_FOREACH(run, &found) {
		if (err)
			break;
		if (run->flags & PAGES_PRESENT)
			err = copy_run(c, mm, &mem_fd, run, w);
		else if (VEC_PUSH(&mm->pages, *run))
			err = fail(-ENOMEM, "pid %d: list its pages", mm->pid);
	}
	VEC_FREE(&found);
	if (w) {
		c->stats->pages_written += pages_writer_written(w);
		c->stats->pages_skipped_parent += pages_writer_in_parent(w);
	}
	int close_err = pages_writer_close(w);
	return err ? err : close_err;
}

static int copy_shmem_range(struct copier *c, struct shmem *s, int fd, uint64_t start, uint64_t end,
			    struct pages_writer *w)
{
	int err = 0;

	for (uint64_t at = start; !err && at < end;) {
		size_t len = end - at < CHUNK_BYTES ? end - at : CHUNK_BYTES;

		err = shmem_read(s, fd, at, c->buf, len);
		if (!err)
			err = put(c, w, at, len, &s->pages);
		at += len;
	}
	return err;
}

/* -ENOENT, not reported: it has gone while the target runs. */
static int open_shmem(const struct copier *c, struct shmem *s, int *ret)
{
	struct stat st;
	int err = shmem_open(s, ret);

	if (err == -ENOENT && !c->running)
		return fail(0, "pid %d: shared memory %u is not where it was any more", s->pid, s->id);
	if (err)
		return err;
	if (fstat(*ret, &st))
		return fail(-errno, "pid %d: look at shared memory %u", s->pid, s->id);
	/* Of a segment the file has whole pages. */
	if (s->sort != SHMEM_SYSV)
		s->size_bytes = st.st_size;
	if (s->sort == SHMEM_ANON)
		s->size_bytes = shmem_whole_bytes(s);
	return 0;
}

static int copy_shmem(struct copier *c, struct shmem *s)
{
	struct pages_writer *w;
	_cleanup_close_ int fd = -1;
	int err = open_shmem(c, s, &fd);

	if (err)
		return err == -ENOENT ? 0 : err;
	s->pages_id = c->next_pages_id++;
	err = pages_writer_open(c->set, s->pages_id, &w);
	if (err)
		return err;
	err = pages_writer_compare_shmem(w, s->id);
	for (uint64_t at = 0, end; !err; at = end) {
		err = shmem_next_data(s, fd, &at, &end);
		if (err <= 0)
			break;
		c->stats->shpages_scanned += (end - at) / MODEL_PAGE_SIZE;
		err = copy_shmem_range(c, s, fd, at, end, w);
	}
	c->stats->shpages_written += pages_writer_written(w);
	c->stats->shpages_skipped_parent += pages_writer_in_parent(w);
	int close_err = pages_writer_close(w);
	return err ? err : close_err;
}

static int copy_all(struct copier *c, struct model *m, bool mms_too)
{
	_cleanup_free_ uint8_t *buf = malloc(CHUNK_BYTES);
	int err = buf ? 0 : fail(-ENOMEM, "buffer for memory contents");

	c->buf = buf;
	VEC_FOREACH(mm, &m->mms) {
		if (!mms_too) {
			if (c->next_pages_id <= (*mm)->pages_id)
				c->next_pages_id = (*mm)->pages_id + 1;
			continue;
		}
		if (!err)
			err = find_pages(*mm, c->running, c->stats);
		VEC_FOREACH(run, &(*mm)->pages)
			c->all_bytes += run->flags & PAGES_PRESENT ? run->nr_pages * MODEL_PAGE_SIZE : 0;
	}
	VEC_FOREACH(mm, &m->mms) {
		if (!err && mms_too)
			err = copy_mm(c, *mm);
	}
	VEC_FOREACH(s, &m->shmems) {
		if (!err)
			err = copy_shmem(c, *s);
	}
	return err;
}

int capture_memory(struct model *m, struct image_set *set, struct dump_stats *stats,
		   int (*progress)(uint64_t done, uint64_t all))
{
	struct copier c = {
		.set = set, .stats = stats, .progress = progress, .next_pages_id = 1, .keep_shared = m->mms.nr > 1
	};

	return copy_all(&c, m, true);
}

int capture_shmems(struct model *m, struct image_set *set, struct dump_stats *stats,
		   int (*progress)(uint64_t done, uint64_t all))
{
	struct copier c = { .set = set, .stats = stats, .progress = progress, .next_pages_id = 1 };

	return copy_all(&c, m, false);
}

int capture_memory_running(struct model *m, struct image_set *set, struct dump_stats *stats,
			   int (*progress)(uint64_t done, uint64_t all))
{
	struct copier c = { .set = set, .stats = stats, .progress = progress, .next_pages_id = 1,
			    .keep_shared = m->mms.nr > 1, .running = true };

	return copy_all(&c, m, true);
}
