/*
 * After the stop: the pages of the moment of the cut → pages-N.img, while the target runs.
 *
 * Theory of operation. A thread keeps the ring of saved pages empty. The copier goes over the pages that existed at
 * the cut in pieces: it reads the piece from the target, asks the page map which of its pages are still protected,
 * and empties the ring; the order matters. A page that is still protected is what was read; another one is what the
 * record with the lowest number says; without one it is torn: somebody wrote it in a way no record tells of. Torn pages
 * cannot be had any more, and the cut has to be made again.
 *
 * Of a page that is still protected no record is believed: it may have been filled while the page was written by somebody whose own
 * record, with a lower number, was made after the ring had been emptied so far. Such a page of a file is torn: dropped and
 * touched again, it is protected from the beginning, and neither what was read nor the record is sure to be that of the cut.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "track/inner.h"

enum { PAUSE_PERCENT = 50 };

struct copier {
	struct tracker *t;
	struct image_set *set;
	struct dump_stats *stats;
	int (*progress)(uint64_t done, uint64_t all);
	uint64_t done_bytes, all_bytes;
	uint32_t next_pages_id;
	uint8_t *buf; /* PIECE_BYTES */
	/* The drainer. */
	pthread_t drainer;
	bool drainer_runs;
	int stop_fd;      /* eventfd: the drainer ends */
	int drain_err;    /* under t->lock */
};

static enum trace_kind kind_of(const struct track_record *r, const uint8_t *bytes)
{
	if (!bytes)
		return TRACE_UNREAD;
	if (!bytes[0] && !memcmp(bytes, bytes + 1, MODEL_PAGE_SIZE - 1))
		return TRACE_ZERO;
	return r->by_call ? TRACE_CALL : TRACE_FAULT;
}

/* A page, or pages, from the ring; under the lock. */
static int take_record(void *arg, const struct track_record *r, const void *bytes)
{
	struct tracker *t = arg;
	int err = 0;

	if (r->mm >= t->mms.nr)
		return fail(0, "a page was saved of an address space that is not tracked");
	struct track_mm *tm = t->mms.v[r->mm];
	for (uint64_t i = 0; !err && i < (bytes ? 1 : r->nr_unread); i++) {
		taddr_t addr = r->addr + i * MODEL_PAGE_SIZE;

		/* What is in the image already is not needed any more. */
		if (addr >= tm->copied_to)
			err = store_put(&t->store, r->mm, addr, r->seq, bytes);
		if (!err && !t->pages_exact)
			err = VEC_PUSH(&t->traces, ((struct trace){ addr | r->mm, r->seq, kind_of(r, bytes) }));
	}
	return err;
}

static int drain(struct copier *c, bool all)
{
	struct tracker *t = c->t;

	if (!t->cow)
		return 0;
	pthread_mutex_lock(&t->lock);
	int err = c->drain_err;
	if (!err)
		err = cow_drain(t->cow, all, take_record, t);
	if (err && !c->drain_err)
		c->drain_err = fail(err, "keep pages that were saved before a write");
	err = c->drain_err;
	pthread_mutex_unlock(&t->lock);
	return err;
}

static void *drainer_main(void *arg)
{
	struct copier *c = arg;
	struct pollfd fds[2] = {
		{ .fd = c->stop_fd, .events = POLLIN },
		{ .fd = cow_fd(c->t->cow), .events = POLLIN },
	};

	for (;;) {
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			break;
		if (fds[0].revents || drain(c, false))
			break;
	}
	return NULL;
}

static int drainer_start(struct copier *c)
{
	c->stop_fd = eventfd(0, EFD_CLOEXEC);
	if (c->stop_fd < 0)
		return fail(-errno, "start the thread that empties the ring");
	int err = pthread_create(&c->drainer, NULL, drainer_main, c);
	if (err)
		return fail(-err, "start the thread that empties the ring");
	c->drainer_runs = true;
	return 0;
}

static void drainer_stop(struct copier *c)
{
	uint64_t one = 1;

	if (c->drainer_runs) {
		if (write(c->stop_fd, &one, sizeof(one)) != sizeof(one))
			log_warn("stop the thread that empties the ring: %s", strerror(errno));
		pthread_join(c->drainer, NULL);
	}
	if (c->stop_fd >= 0)
		close(c->stop_fd);
}

static int drain_held(void *arg)
{
	return drain(arg, true);
}

/* The ring fills faster than it is emptied: hold the target until it is empty. That is freeze time. */
static int relieve(struct copier *c)
{
	struct tracker *t = c->t;

	if (!t->cow || !t->env.pause || cow_fill(t->cow) < PAUSE_PERCENT)
		return 0;
	return tracker_hold(t, drain_held, c);
}

/* Pages of a piece, a bit each. */
struct piece {
	struct track_mm *tm;
	const struct vma *vma;
	taddr_t start;
	size_t nr;
	uint64_t got[PIECE_PAGES / 64];    /* read from the target */
	uint64_t intact[PIECE_PAGES / 64]; /* still protected after that */
};

static int found_state(void *arg, const struct page_range *r)
{
	struct piece *p = arg;
	uint64_t bad = PAGE_CAT_WRITTEN | PAGE_CAT_GUARD;

	if (p->vma->status & VMA_FILE_PRIVATE) {
		bad |= PAGE_CAT_FILE;
		/* Dropped, such a page leaves a mark that reads as swapped and protected. */
		if (!(r->categories & PAGE_CAT_PRESENT))
			return 0;
	}
	if (!(r->categories & PAGE_CAT_WPALLOWED) || r->categories & bad)
		return 0;
	for (taddr_t at = r->start; at < r->end; at += MODEL_PAGE_SIZE) {
		size_t i = (at - p->start) / MODEL_PAGE_SIZE;

		p->intact[i / 64] |= 1ull << i % 64;
	}
	return 0;
}

/* Is everything in the store already? */
static bool all_kept(struct copier *c, const struct piece *p)
{
	bool all = true;

	pthread_mutex_lock(&c->t->lock);
	for (size_t i = 0; i < p->nr && all; i++)
		all = store_find(&c->t->store, p->tm->nr, p->start + i * MODEL_PAGE_SIZE);
	pthread_mutex_unlock(&c->t->lock);
	return all;
}

static int read_piece(struct copier *c, struct piece *p)
{
	memset(p->got, 0, sizeof(p->got));
	memset(p->intact, 0, sizeof(p->intact));
	if (!c->t->cow)
		return 0;
	/* The lowest number of each is there when the ring has been emptied once more. */
	if (all_kept(c, p))
		return drain(c, true);
	memset(p->got, 0xff, sizeof(p->got));
	now_read(p->tm, p->start, p->nr, c->buf, p->got);
	/* A scan that fails finds nothing intact. */
	scan_pages(p->tm->pagemap_fd, p->start, p->start + p->nr * MODEL_PAGE_SIZE, 0, true, found_state, p);
	/* A page that was written before the scan has its record in the ring by now. */
	return drain(c, true);
}

/* Puts what is kept over what was read. Returns the number of torn pages. */
static size_t merge_piece(struct copier *c, const struct piece *p)
{
	struct tracker *t = c->t;
	size_t torn = 0;

	pthread_mutex_lock(&t->lock);
	for (size_t i = 0; i < p->nr; i++) {
		struct store_entry *e = store_find(&t->store, p->tm->nr, p->start + i * MODEL_PAGE_SIZE);
		uint64_t bit = 1ull << i % 64;
		bool kept = e && !e->unread && !e->taken, proven = p->got[i / 64] & p->intact[i / 64] & bit;
		bool doubted = kept && proven && e->seq; /* 0: it was copied inside the stop */

		if (kept && !doubted) {
			memcpy(c->buf + i * MODEL_PAGE_SIZE, store_bytes(&t->store, e), MODEL_PAGE_SIZE);
			t->stats.pages_saved += e->seq != 0;
			store_take(&t->store, e);
		} else if (doubted && !(p->vma->status & VMA_FILE_PRIVATE)) {
			store_take(&t->store, e);
		} else if (e || !proven) {
			log_trace("pid %d: page %llx is torn: %s", p->tm->pid,
				  (unsigned long long)(p->start + i * MODEL_PAGE_SIZE),
				  doubted ? "it is of a file, and was written or dropped just now" :
				  e ? "it was gone before it could be saved" : "it was written without a trace");
			torn++;
			/* Whoever did this does it again: next time the page is copied inside the stop. */
			if (t->cow && t->hot.nr < MAX_HOT_PAGES && !cow_lost(t->cow))
				(void)VEC_PUSH(&t->hot, (p->start + i * MODEL_PAGE_SIZE) | p->tm->nr);
		}
	}
	p->tm->copied_to = p->start + p->nr * MODEL_PAGE_SIZE;
	pthread_mutex_unlock(&t->lock);
	return torn;
}

static int add_guards(struct mm *mm, taddr_t start, size_t nr)
{
	struct page_run *last = mm->pages.nr ? &mm->pages.v[mm->pages.nr - 1] : NULL;

	if (last && last->flags == PAGES_GUARD && last->start + last->nr_pages * MODEL_PAGE_SIZE == start) {
		last->nr_pages += nr;
		return 0;
	}
	return VEC_PUSH(&mm->pages, ((struct page_run){ .start = start, .nr_pages = nr, .flags = PAGES_GUARD }));
}

static int put(struct copier *c, struct pages_writer *w, taddr_t addr, const uint8_t *bytes, size_t nr, page_runs *runs)
{
	int err = pages_writer_put(w, addr, bytes, nr, runs);

	if (err)
		return err;
	c->done_bytes += nr * MODEL_PAGE_SIZE;
	return c->progress ? c->progress(c->done_bytes, c->all_bytes) : 0;
}

static int copy_piece(struct copier *c, struct mm *mm, struct piece *p, struct pages_writer *w)
{
	int err = relieve(c);

	if (!err)
		err = read_piece(c, p);
	if (err)
		return err;
	size_t torn = merge_piece(c, p);
	if (torn || (c->t->cow && cow_lost(c->t->cow))) {
		c->t->stats.pages_torn += torn;
		return -EAGAIN;
	}
	return put(c, w, p->start, c->buf, p->nr, &mm->pages);
}

static int copy_span(struct copier *c, struct track_mm *tm, struct mm *mm, const struct vma *vma, taddr_t start,
		     taddr_t end, uint64_t categories, struct pages_writer *w)
{
	c->stats->pages_scanned += (end - start) / MODEL_PAGE_SIZE;
	if (categories & PAGE_CAT_GUARD)
		return add_guards(mm, start, (end - start) / MODEL_PAGE_SIZE);
	if (!page_is_wanted(vma, categories))
		return 0;
	for (taddr_t at = start; at < end;) {
		struct piece p = { .tm = tm, .vma = vma, .start = at, .nr = (end - at) / MODEL_PAGE_SIZE };

		if (p.nr > PIECE_PAGES)
			p.nr = PIECE_PAGES;
		int err = copy_piece(c, mm, &p, w);
		if (err)
			return err;
		at += p.nr * MODEL_PAGE_SIZE;
	}
	return 0;
}

/* Calls `each` for the part of every span that lies in the mapping; *i is the first span that may. */
static int copy_vma(struct copier *c, struct track_mm *tm, struct mm *mm, const struct vma *vma, const spans *from,
		    size_t *i, struct pages_writer *w)
{
	while (*i < from->nr && from->v[*i].end <= vma->start)
		(*i)++;
	for (size_t at = *i; at < from->nr && from->v[at].start < vma->end; at++) {
		const struct span *s = &from->v[at];
		int err = copy_span(c, tm, mm, vma, s->start > vma->start ? s->start : vma->start,
				    s->end < vma->end ? s->end : vma->end, s->categories, w);

		if (err)
			return err;
	}
	return 0;
}

static int copy_vmas(struct copier *c, struct track_mm *tm, struct mm *mm, struct pages_writer *w)
{
	size_t seen = 0, copied = 0, vdso = 0;

	for (size_t i = 0; i < mm->vmas.nr; i++) {
		const struct vma *vma = &mm->vmas.v[i];
		int err;

		if (!vma_has_own_pages(vma))
			continue;
		if (tm->tracked.v[i])
			err = copy_vma(c, tm, mm, vma, &tm->seen, &seen, w);
		else if (vma->status & VMA_VDSO && tm->vdso.nr)
			err = copy_vma(c, tm, mm, vma, &tm->vdso, &vdso, w);
		else
			err = copy_vma(c, tm, mm, vma, &tm->copied, &copied, w);
		if (err)
			return err;
	}
	return 0;
}

static int copy_mm(struct copier *c, struct mm *mm)
{
	struct track_mm *tm = tracker_find(c->t, mm->pid);
	struct pages_writer *w;

	if (!tm || tm->tracked.nr != mm->vmas.nr)
		return fail(0, "pid %d: its mappings are not those of the cut", mm->pid);
	mm->pages.nr = 0;
	mm->pages_id = c->next_pages_id++;
	int err = pages_writer_open(c->set, mm->pages_id, &w);
	if (err)
		return err;
	err = pages_writer_compare_mm(w, mm->pid);
	if (!err)
		err = copy_vmas(c, tm, mm, w);
	c->stats->pages_written += pages_writer_written(w);
	c->stats->pages_skipped_parent += pages_writer_in_parent(w);
	pthread_mutex_lock(&c->t->lock);
	tm->copied_to = UINT64_MAX;
	pthread_mutex_unlock(&c->t->lock);
	int close_err = pages_writer_close(w);
	return err ? err : close_err;
}

static int copy_shmem(struct copier *c, struct model *m, size_t index)
{
	struct shmem *s = m->shmems.v[index];
	struct pages_writer *w;

	s->pages.nr = 0;
	s->pages_id = c->next_pages_id++;
	int err = pages_writer_open(c->set, s->pages_id, &w);
	if (err)
		return err;
	err = pages_writer_compare_shmem(w, s->id);
	VEC_FOREACH(p, &c->t->shmem_pieces) {
		struct store_entry at = { .slot = p->slot };

		if (err)
			break;
		if (p->shmem != index)
			continue;
		c->stats->shpages_scanned += p->nr_pages;
		err = put(c, w, p->offset_bytes, store_bytes(&c->t->store, &at), p->nr_pages, &s->pages);
	}
	c->stats->shpages_written += pages_writer_written(w);
	c->stats->shpages_skipped_parent += pages_writer_in_parent(w);
	int close_err = pages_writer_close(w);
	return err ? err : close_err;
}

static uint64_t span_bytes(const spans *s)
{
	uint64_t bytes = 0;

	VEC_FOREACH(i, s)
		bytes += i->end - i->start;
	return bytes;
}

static int begin(struct copier *c, const struct model *m)
{
	VEC_FOREACH(tm, &c->t->mms) {
		(*tm)->copied_to = (*tm)->present ? 0 : UINT64_MAX;
		int err = (*tm)->present ? pages_apply_patches(*tm) : 0;
		if (err)
			return err;
		if ((*tm)->present)
			c->all_bytes += span_bytes(&(*tm)->seen) + span_bytes(&(*tm)->copied);
	}
	VEC_FOREACH(p, &c->t->shmem_pieces)
		c->all_bytes += p->nr_pages * MODEL_PAGE_SIZE;
	return c->t->cow ? drainer_start(c) : 0;
}

static int copy_all(struct copier *c, struct model *m)
{
	int err = begin(c, m);

	VEC_FOREACH(mm, &m->mms) {
		if (err)
			return err;
		err = copy_mm(c, *mm);
	}
	for (size_t i = 0; !err && i < m->shmems.nr; i++)
		err = copy_shmem(c, m, i);
	bool strays = c->t->cow && !c->t->pages_exact;
	if (!err && strays)
		err = strays_collect(c->t, m);
	/* Whatever was written before that has its record in the ring by now. */
	if (!err)
		err = drain(c, true);
	if (!err && strays) {
		pthread_mutex_lock(&c->t->lock);
		err = strays_check(c->t, m);
		pthread_mutex_unlock(&c->t->lock);
	}
	if (!err && c->t->cow && cow_lost(c->t->cow))
		err = -EAGAIN;
	return err;
}

int tracker_copy(struct tracker *t, struct model *m, struct image_set *set, struct dump_stats *stats,
		 int (*progress)(uint64_t done, uint64_t all))
{
	struct copier c = { .t = t, .set = set, .stats = stats, .progress = progress, .next_pages_id = 1, .stop_fd = -1 };
	struct dump_stats before = *stats;

	if (!t->cut)
		return fail(0, "memory was not cut");
	_cleanup_free_ uint8_t *buf = malloc(PIECE_BYTES);
	if (!buf)
		return fail(-ENOMEM, "buffer for memory contents");
	c.buf = buf;
	tracker_resumed(t);
	int err = copy_all(&c, m);
	if (t->cow)
		cow_stop(t->cow);
	drainer_stop(&c);
	t->cut = false;
	if (err == -EAGAIN) {
		log_debug("the cut has to be made again: %llu pages torn so far, %llu lost in it",
			  (unsigned long long)t->stats.pages_torn,
			  (unsigned long long)(t->cow ? cow_lost(t->cow) : 0));
		/* Hints may have been what misled the cut: the next one does without. */
		t->look_everywhere = true;
		t->stats.retaken++;
		*stats = before;
	} else {
		t->look_everywhere = false;
	}
	return err;
}
