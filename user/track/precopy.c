/* Pre-copy: memory is copied in rounds while the target runs. The header tells how. */
#include "track/precopy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "track/inner.h"
#include "track/steps.h"

struct precopy_mm {
	pid_t pid;
	uint32_t pages_id;
	struct pages_draft *draft;
	spans written; /* by the round that is under way */
};

struct precopy {
	struct tracker *t; /* for the address spaces in it: nothing is kept in memory */
	struct image_set *set;
	struct precopy_stats stats;
	VEC(struct precopy_mm) mms;
	uint32_t next_pages_id;
	uint8_t *buf; /* PIECE_BYTES */
};

int precopy_probe(const char **why)
{
	return track_wp_async_ops.probe(why);
}

int precopy_open(const struct track_env *env, struct image_set *set, struct precopy **ret)
{
	struct precopy *p = calloc(1, sizeof(*p));
	struct tracker *t = calloc(1, sizeof(*t));
	uint8_t *buf = malloc(PIECE_BYTES);

	if (!p || !t || !buf) {
		free(p);
		free(t);
		free(buf);
		return fail(-ENOMEM, "copy memory ahead");
	}
	t->ops = &track_wp_async_ops;
	t->env = *env;
	pthread_mutex_init(&t->lock, NULL);
	*p = (struct precopy){ .t = t, .set = set, .next_pages_id = 1, .buf = buf };
	*ret = p;
	return 0;
}

const struct precopy_stats *precopy_stats(const struct precopy *p)
{
	return &p->stats;
}

static struct precopy_mm *find_mm(const struct precopy *p, pid_t pid)
{
	VEC_FOREACH(pm, &p->mms) {
		if (pm->pid == pid)
			return pm;
	}
	return NULL;
}

static int get_mm(struct precopy *p, pid_t pid, struct precopy_mm **ret)
{
	struct precopy_mm *pm = find_mm(p, pid);
	int err = 0;

	if (!pm) {
		pm = VEC_ADD(&p->mms);
		if (!pm)
			return fail(-ENOMEM, "pid %d: copy its memory ahead", pid);
		pm->pid = pid;
		pm->pages_id = p->next_pages_id++;
		err = pages_draft_open(p->set, pm->pages_id, pid, &pm->draft);
		if (err)
			p->mms.nr--;
	}
	*ret = pm;
	return err;
}

/* --- a round: protect and list --- */

struct listing {
	struct precopy_mm *pm;
	const struct vma *vma;
};

static int found_written(void *arg, const struct page_range *r)
{
	struct listing *l = arg;

	if (!page_is_wanted(l->vma, r->categories) || r->categories & PAGE_CAT_GUARD)
		return 0;
	return spans_add(&l->pm->written, r->start, r->end, 0);
}

/*
 * Mappings that cannot be registered, the vDSO for one, are copied inside the stop; they are copied ahead as
 * well, once, so that their pages have their places in the file.
 */
static int list_vma(const struct track_mm *tm, const struct vma *vma, bool first, struct precopy_mm *pm)
{
	struct listing l = { pm, vma };
	int err = 0;

	if (scan_is_registered(tm->pagemap_fd, vma->start))
		err = scan_take_written(tm->pagemap_fd, vma->start, vma->end, found_written, &l);
	else if (first)
		err = scan_pages(tm->pagemap_fd, vma->start, vma->end, 0, false, found_written, &l);
	return err ? fail(err, "pid %d mapping %llx-%llx: find what was written", tm->pid, (unsigned long long)vma->start,
			  (unsigned long long)vma->end) :
		     0;
}

static int list_mm(struct precopy *p, struct track_mm *tm, const struct mm *mm)
{
	struct precopy_mm *pm;
	bool first = !find_mm(p, mm->pid);
	int err = get_mm(p, mm->pid, &pm);

	VEC_FOREACH(vma, &mm->vmas) {
		if (!err && vma_has_own_pages(vma))
			err = list_vma(tm, vma, first, pm);
	}
	/* By a pin that is held now, pages are written past the protection: everything is copied inside the stop. */
	pinned_look(tm);
	return err;
}

/* One place is kept for what the stop finds to be new. */
static bool is_room(const struct tracker *t)
{
	size_t used = 0;

	VEC_FOREACH(tm, &t->mms)
		used += (*tm)->pid != 0;
	return used + 1 < TRACK_NR_MMS;
}

static int watch_mm(struct precopy *p, const struct mm *mm, bool keep_shared, struct track_mm *tm)
{
	tm->keep_shared = keep_shared;
	int err = mm_reopen(tm);
	if (err)
		return err;
	/* What was copied of the older address space is found to be of no use inside the stop. */
	if (mm_replaced(tm, mm))
		mm_unprotect(p->t, tm);
	err = pages_set_ranges(tm, mm);
	if (!err)
		err = protect_register(p->t, tm, mm);
	if (err && err != -ESRCH) {
		log_warn("pid %d: its memory is copied inside the stop", mm->pid);
		mm_unprotect(p->t, tm);
		tm->blind = true;
		err = 0;
	}
	return err ? err : list_mm(p, tm, mm);
}

static int list_all(struct precopy *p, const struct model *running)
{
	VEC_FOREACH(mm, &running->mms) {
		struct track_mm *tm = tracker_find(p->t, (*mm)->pid);
		int err = 0;

		/* Address spaces that are left out are copied inside the stop. */
		if (!tm && is_room(p->t))
			err = mm_add(p->t, (*mm)->pid, &tm);
		if (!err && tm && !tm->blind)
			err = watch_mm(p, *mm, running->mms.nr > 1, tm);
		/* It has ended: the observation of the stop will not have it. */
		if (tm && (err == -ESRCH || err == -EAGAIN))
			mm_retire(p->t, tm);
		else if (err)
			return err;
	}
	return 0;
}

static int wait_for_calls(struct precopy *p)
{
	int err = tracker_hold(p->t, NULL, NULL);

	p->stats.paused_us = p->t->stats.paused_us;
	return err;
}

/* --- a round: copy --- */

/* Pages that went away are left out, unless all must be there; those were written when they come again. */
static int copy_piece(struct precopy *p, struct precopy_mm *pm, struct track_mm *tm, taddr_t addr, size_t nr, bool all)
{
	uint64_t got[PIECE_PAGES / 64];
	int err = 0;

	memset(got, 0xff, sizeof(got));
	if (now_read(tm, addr, nr, p->buf, got) < nr && all)
		return fail(-EIO, "pid %d: read its %zu pages at %llx", pm->pid, nr, (unsigned long long)addr);
	for (size_t i = 0; !err && i < nr;) {
		size_t n = 0;

		while (i + n < nr && got[(i + n) / 64] >> (i + n) % 64 & 1)
			n++;
		if (n)
			err = pages_draft_put(pm->draft, addr + i * MODEL_PAGE_SIZE, p->buf + i * MODEL_PAGE_SIZE, n);
		i += n + 1;
	}
	return err;
}

static int copy_range(struct precopy *p, struct precopy_mm *pm, struct track_mm *tm, taddr_t start, taddr_t end, bool all)
{
	while (start < end) {
		size_t nr = (end - start) / MODEL_PAGE_SIZE;

		if (nr > PIECE_PAGES)
			nr = PIECE_PAGES;
		int err = copy_piece(p, pm, tm, start, nr, all);
		if (err)
			return err;
		start += nr * MODEL_PAGE_SIZE;
	}
	return 0;
}

static uint64_t nr_written(const struct precopy *p)
{
	uint64_t bytes = 0;

	VEC_FOREACH(pm, &p->mms) {
		VEC_FOREACH(s, &pm->written)
			bytes += s->end - s->start;
	}
	return bytes / MODEL_PAGE_SIZE;
}

static int copy_written(struct precopy *p, uint64_t all_pages, int (*progress)(uint64_t done, uint64_t all))
{
	uint64_t done = 0;

	VEC_FOREACH(pm, &p->mms) {
		struct track_mm *tm = tracker_find(p->t, pm->pid);

		VEC_FOREACH(s, &pm->written) {
			for (taddr_t at = s->start; tm && at < s->end; at += PIECE_BYTES) {
				taddr_t end = s->end - at < PIECE_BYTES ? s->end : at + PIECE_BYTES;
				int err = copy_range(p, pm, tm, at, end, false);

				done += end - at;
				if (!err)
					err = progress(done, all_pages * MODEL_PAGE_SIZE);
				if (err)
					return err;
			}
		}
		pm->written.nr = 0;
	}
	return 0;
}

int precopy_round(struct precopy *p, const struct model *running, uint64_t *ret_pages,
		  int (*progress)(uint64_t done, uint64_t all))
{
	int err = list_all(p, running);

	if (!err)
		err = wait_for_calls(p);
	*ret_pages = nr_written(p);
	if (!err)
		err = copy_written(p, *ret_pages, progress);
	p->stats.rounds++;
	p->stats.pages_ahead += *ret_pages;
	return err;
}

int precopy_settle(struct precopy *p)
{
	VEC_FOREACH(pm, &p->mms) {
		int err = pages_draft_nr_late(pm->draft) ? pages_draft_settle(pm->draft, NULL, NULL) : 0;

		if (!err)
			err = pages_draft_sync(pm->draft);
		if (err)
			return err;
	}
	return 0;
}

/* --- inside the stop --- */

struct finishing {
	struct precopy *p;
	struct precopy_mm *pm;
	struct track_mm *tm;
	const struct vma *vma;
	bool protected;   /* the mapping is: pages that were not written have been copied */
	page_runs exist, guards;
};

static int add_run(page_runs *runs, taddr_t start, taddr_t end, uint32_t flags)
{
	struct page_run *last = runs->nr ? &runs->v[runs->nr - 1] : NULL;
	uint64_t nr = (end - start) / MODEL_PAGE_SIZE;

	if (last && last->start + last->nr_pages * MODEL_PAGE_SIZE == start) {
		last->nr_pages += nr;
		return 0;
	}
	return VEC_PUSH(runs, ((struct page_run){ .start = start, .nr_pages = nr, .flags = flags }));
}

/*
 * Has the page been copied as it is? One of a private file mapping that was dropped leaves a mark that reads as
 * swapped and protected: the page is the file's again.
 */
static bool is_unchanged(const struct finishing *f, uint64_t categories)
{
	if (f->vma->status & VMA_FILE_PRIVATE && !(categories & PAGE_CAT_PRESENT))
		return false;
	return f->protected && categories & PAGE_CAT_WPALLOWED && !(categories & PAGE_CAT_WRITTEN);
}

static int found_existing(void *arg, const struct page_range *r)
{
	struct finishing *f = arg;

	if (r->categories & PAGE_CAT_GUARD)
		return add_run(&f->guards, r->start, r->end, PAGES_GUARD);
	if (!page_is_wanted(f->vma, r->categories))
		return 0;
	int err = add_run(&f->exist, r->start, r->end, PAGES_PRESENT);
	if (err || is_unchanged(f, r->categories))
		return err;
	f->p->stats.pages_in_stop += (r->end - r->start) / MODEL_PAGE_SIZE;
	return copy_range(f->p, f->pm, f->tm, r->start, r->end, true);
}

static int copy_changed(struct finishing *f, const struct mm *mm)
{
	VEC_FOREACH(vma, &mm->vmas) {
		if (!vma_has_own_pages(vma))
			continue;
		f->vma = vma;
		f->protected = f->tm->uffd >= 0 && !f->tm->pinned && scan_is_registered(f->tm->pagemap_fd, vma->start);
		int err = scan_pages(f->tm->pagemap_fd, vma->start, vma->end, 0, true, found_existing, f);
		if (err)
			return fail(err, "pid %d mapping %llx-%llx: copy its pages", mm->pid, (unsigned long long)vma->start,
				    (unsigned long long)vma->end);
	}
	return 0;
}

/* What is protected and was never copied: it could not be read when it was listed. */
static int copy_missing(struct finishing *f, const page_runs *missing)
{
	VEC_FOREACH(run, missing) {
		int err = copy_range(f->p, f->pm, f->tm, run->start, run->start + run->nr_pages * MODEL_PAGE_SIZE, true);

		f->p->stats.pages_in_stop += run->nr_pages;
		if (err)
			return err;
	}
	return 0;
}

static int settle(struct finishing *f)
{
	page_runs missing = {};
	int err = pages_draft_settle(f->pm->draft, &f->exist, &missing);

	if (!err && missing.nr) {
		err = copy_missing(f, &missing);
		missing.nr = 0;
		if (!err)
			err = pages_draft_settle(f->pm->draft, &f->exist, &missing);
	}
	VEC_FREE(&missing);
	return err;
}

static int compare_runs(const void *a, const void *b)
{
	const struct page_run *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

static int take_pages(struct finishing *f, struct mm *mm, struct dump_stats *stats)
{
	struct pages_draft *draft = f->pm->draft;

	f->pm->draft = NULL;
	mm->pages_id = f->pm->pages_id;
	VEC_FREE(&mm->pages);
	int err = pages_draft_finish(draft, &mm->pages);
	VEC_FOREACH(run, &mm->pages) {
		uint64_t *count = run->flags & PAGES_PRESENT ? &stats->pages_written : &stats->pages_skipped_parent;

		*count += run->nr_pages;
		stats->pages_scanned += run->nr_pages;
	}
	VEC_FOREACH(run, &f->guards) {
		if (!err && VEC_PUSH(&mm->pages, *run))
			err = fail(-ENOMEM, "pid %d: list its pages", mm->pid);
	}
	if (f->guards.nr)
		qsort(mm->pages.v, mm->pages.nr, sizeof(*mm->pages.v), compare_runs);
	return err;
}

static int finish_tracked(struct finishing *f, struct mm *mm, struct dump_stats *stats)
{
	int err = mm_reopen(f->tm);

	if (err)
		return err == -EAGAIN ? fail(-ESRCH, "pid %d: open its page map", mm->pid) : err;
	err = get_mm(f->p, mm->pid, &f->pm);
	if (!err)
		err = copy_changed(f, mm);
	if (!err)
		err = settle(f);
	return err ? err : take_pages(f, mm, stats);
}

static int finish_mm(struct precopy *p, struct mm *mm, bool keep_shared, struct dump_stats *stats)
{
	struct finishing f = { .p = p, .tm = tracker_find(p->t, mm->pid) };
	bool is_new = !f.tm;
	int err = is_new ? mm_add(p->t, mm->pid, &f.tm) : 0;

	if (err)
		return err;
	f.tm->keep_shared = keep_shared;
	pinned_look(f.tm);
	err = finish_tracked(&f, mm, stats);
	if (is_new)
		mm_retire(p->t, f.tm);
	VEC_FREE(&f.exist);
	VEC_FREE(&f.guards);
	return err;
}

/* Of processes that have ended meanwhile. */
static void drop_drafts(struct precopy *p)
{
	VEC_FOREACH(pm, &p->mms) {
		pages_draft_drop(pm->draft);
		pm->draft = NULL;
	}
}

int precopy_finish(struct precopy *p, struct model *stopped, struct dump_stats *stats)
{
	int err = 0;

	steps_stopped(true);
	VEC_FOREACH(mm, &stopped->mms) {
		if (!err)
			err = finish_mm(p, *mm, stopped->mms.nr > 1, stats);
	}
	steps_stopped(false);
	if (!err)
		drop_drafts(p);
	return err;
}

void precopy_close(struct precopy *p)
{
	if (!p)
		return;
	drop_drafts(p);
	VEC_FOREACH(pm, &p->mms)
		VEC_FREE(&pm->written);
	VEC_FREE(&p->mms);
	tracker_close(p->t);
	free(p->buf);
	free(p);
}
