/*
 * Strays: pages that existed at the cut and are not in the list, because the fault that brought them had begun before
 * hints were collected and ended after their place had been looked at.
 *
 * Such a page is not protected, so nothing tells of a write to it. It is still there and has no trace; or it was
 * dropped by a call, and the first trace of it says that it had contents. A page that came later has a first trace
 * that says that it did not exist, or was all zero. When a stray is found, or cannot be told from a page that came
 * later, the cut is made again, with a look at everything inside the stop.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "track/inner.h"

struct stray_walk {
	struct tracker *t;
	struct track_mm *tm;
	const struct vma *vma;
	size_t span; /* first of tm->seen that may reach to what is looked at */
	size_t nr;
};

static int order_traces(const void *a, const void *b)
{
	const struct trace *x = a, *y = b;

	if (x->page != y->page)
		return x->page < y->page ? -1 : 1;
	return x->seq < y->seq ? -1 : x->seq > y->seq;
}

/* The first trace at or behind `page`. */
static size_t find_trace(const struct tracker *t, uint64_t page)
{
	size_t low = 0, high = t->traces.nr;

	while (low < high) {
		size_t mid = (low + high) / 2;

		if (t->traces.v[mid].page < page)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* Does this, the first trace of a page, say that the page came after the cut? */
static bool came_later(const struct vma *vma, const struct trace *first)
{
	/* The first write to a page of a file: it was the file's. */
	if (vma->status & VMA_FILE_PRIVATE && first->kind == TRACE_FAULT)
		return true;
	return first->kind == TRACE_UNREAD || first->kind == TRACE_ZERO;
}

/* One fault may bring a huge page, where nothing existed. */
static bool came_with_huge_page(const struct stray_walk *w, taddr_t addr)
{
	taddr_t chunk = addr & ~(taddr_t)(CHUNK_BYTES - 1);

	for (size_t i = find_trace(w->t, chunk); i < w->t->traces.nr && w->t->traces.v[i].page < chunk + CHUNK_BYTES; i++)
		if ((w->t->traces.v[i].page & (MODEL_PAGE_SIZE - 1)) == w->tm->nr && w->t->traces.v[i].kind == TRACE_UNREAD)
			return true;
	return false;
}

static bool has_trace(const struct stray_walk *w, taddr_t addr, bool huge)
{
	size_t i = find_trace(w->t, addr | w->tm->nr);

	/* What the trace says is looked at by check_traces(). */
	if (i < w->t->traces.nr && w->t->traces.v[i].page == (addr | w->tm->nr))
		return true;
	return huge && came_with_huge_page(w, addr);
}

static bool was_seen(struct stray_walk *w, taddr_t addr)
{
	const spans *seen = &w->tm->seen;

	while (w->span < seen->nr && seen->v[w->span].end <= addr)
		w->span++;
	return w->span < seen->nr && seen->v[w->span].start <= addr &&
	       page_is_wanted(w->vma, seen->v[w->span].categories);
}

static int found_written(void *arg, const struct page_range *r)
{
	struct stray_walk *w = arg;
	uint64_t kind = (r->categories & PAGE_CAT_HUGE) | (uint64_t)w->tm->nr << 32;

	if (!page_is_wanted(w->vma, r->categories) || r->categories & PAGE_CAT_GUARD)
		return 0;
	for (taddr_t at = r->start; at < r->end; at += MODEL_PAGE_SIZE) {
		int err = was_seen(w, at) ? 0 : spans_add(&w->t->candidates, at, at + MODEL_PAGE_SIZE, kind);

		if (err)
			return err;
	}
	return 0;
}

static void check_candidate(struct stray_walk *w, const struct span *s)
{
	w->tm = w->t->mms.v[s->categories >> 32];
	for (taddr_t at = s->start; at < s->end; at += MODEL_PAGE_SIZE) {
		if (has_trace(w, at, s->categories & PAGE_CAT_HUGE))
			continue;
		log_trace("pid %d: page %llx came without a trace", w->tm->pid, (unsigned long long)at);
		w->nr++;
	}
}

/* Traces of pages that are not in the list: do they say that the page came after the cut? */
static void check_traces(struct stray_walk *w)
{
	struct tracker *t = w->t;
	uint64_t last = 0;

	for (size_t i = find_trace(t, w->vma->start); i < t->traces.nr && t->traces.v[i].page < w->vma->end; i++) {
		const struct trace *tr = &t->traces.v[i];

		if ((tr->page & (MODEL_PAGE_SIZE - 1)) != w->tm->nr || tr->page == last)
			continue;
		last = tr->page;
		if (came_later(w->vma, tr) || was_seen(w, tr->page & ~(uint64_t)(MODEL_PAGE_SIZE - 1)))
			continue;
		log_trace("pid %d: page %llx existed and was not seen", w->tm->pid, (unsigned long long)tr->page);
		w->nr++;
	}
}

/* Calls `each` for every mapping that is tracked. */
static int each_tracked(struct stray_walk *w, const struct model *m, int (*each)(struct stray_walk *w))
{
	VEC_FOREACH(mm, &m->mms) {
		w->tm = tracker_find(w->t, (*mm)->pid);
		w->span = 0;
		for (size_t i = 0; i < (*mm)->vmas.nr; i++) {
			w->vma = &(*mm)->vmas.v[i];
			int err = w->tm->tracked.v[i] && vma_has_own_pages(w->vma) ? each(w) : 0;
			if (err)
				return err;
		}
	}
	return 0;
}

static int collect_vma(struct stray_walk *w)
{
	int err = scan_pages(w->tm->pagemap_fd, w->vma->start, w->vma->end, PAGE_CAT_WRITTEN | PAGE_CAT_WPALLOWED, true,
			     found_written, w);

	if (!err)
		return 0;
	log_debug("pid %d: it cannot be looked at any more: %s", w->tm->pid, strerror(-err));
	return -EAGAIN;
}

static int check_vma(struct stray_walk *w)
{
	check_traces(w);
	return 0;
}

int strays_collect(struct tracker *t, const struct model *m)
{
	struct stray_walk w = { .t = t };

	t->candidates.nr = 0;
	return each_tracked(&w, m, collect_vma);
}

int strays_check(struct tracker *t, const struct model *m)
{
	struct stray_walk w = { .t = t };

	if (t->traces.nr)
		qsort(t->traces.v, t->traces.nr, sizeof(*t->traces.v), order_traces);
	each_tracked(&w, m, check_vma);
	VEC_FOREACH(s, &t->candidates)
		check_candidate(&w, s);
	t->stats.pages_torn += w.nr;
	return w.nr ? -EAGAIN : 0;
}
