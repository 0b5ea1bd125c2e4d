/*
 * Following hints: the places where the target wrote are protected again, and what exists there is noted, until so few
 * are left that the stop can do the rest.
 *
 * Theory of operation. To protect a page takes 0.7 us while the target is stopped, and 16 us while it runs, because all its
 * processors have to be told. A target that writes slowly is followed while it runs. One that makes more places meanwhile
 * than are dealt with is held for moments that are no longer than the stop itself is to be.
 */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "sys/tracee.h"
#include "track/inner.h"

enum {
	FEW_HINTS = 16,    /* no further round for so few */
	HOLD_ABOVE = 256,  /* so many hints are left to the stop, 0.2 ms */
	HOLD_STEP = 64,    /* hints are followed in such portions while the target is held, until the time is over */
	MAX_HOLDS = 24,    /* what then is left makes the stop longer */
	MANY_HINTS = 512,  /* a look at everything costs as much as these, in a small process */
};

static const uint64_t hold_ns = 250000;

static int order_hints(const void *a, const void *b)
{
	const struct track_hint *x = a, *y = b;

	if (x->mm != y->mm)
		return x->mm < y->mm ? -1 : 1;
	return x->addr < y->addr ? -1 : x->addr > y->addr;
}

static int found_written(void *arg, const struct page_range *r)
{
	struct track_mm *tm = arg;
	int err = 0;

	for (taddr_t at = r->start; !err && at < r->end; at += MODEL_PAGE_SIZE)
		err = VEC_PUSH(&tm->patches, ((struct patch){ at, page_kept(r->categories) }));
	return err;
}

/* Pages close to each other are one look: a call costs more than some pages more. */
enum { CLOSE_BYTES = 8 * MODEL_PAGE_SIZE };

static int found_unprotected(void *arg, const struct page_range *r)
{
	spans *found = arg;
	struct span *last = found->nr ? &found->v[found->nr - 1] : NULL;

	if (last && r->start <= last->end + CLOSE_BYTES) {
		last->end = r->end;
		return 0;
	}
	return VEC_PUSH(found, ((struct span){ r->start, r->end, 0 }));
}

/*
 * To protect a place of a running target takes 16 us, for the processors have to be told, and a look at every page 20
 * ns for each: many places are one look at everything.
 */
static bool look_at_places(const struct tracker *t, const spans *found, bool stopped)
{
	return stopped || found->nr <= t->nr_pages / 800 + 16;
}

static int take_written_of(struct tracker *t, struct track_mm *tm, bool stopped)
{
	int err = 0;

	t->found.nr = 0;
	for (size_t i = 0; !err && i < tm->ranges.nr; i++)
		err = scan_written(tm->pagemap_fd, tm->ranges.v[i].start, tm->ranges.v[i].end, found_unprotected, &t->found);

	const spans *places = look_at_places(t, &t->found, stopped) ? &t->found : &tm->ranges;
	for (size_t i = 0; !err && i < places->nr; i++)
		err = scan_take_written(tm->pagemap_fd, places->v[i].start, places->v[i].end, found_written, tm);
	return err ? fail(err, "pid %d: find the pages that it has written", tm->pid) : 0;
}

/* Every fault has left a page that counts as written: a quick question for where they are, then a look there. */
static int take_written(struct tracker *t, bool stopped)
{
	int err = 0;

	for (size_t i = 0; !err && i < t->mms.nr; i++)
		if (t->mms.v[i]->pid && t->mms.v[i]->uffd >= 0)
			err = take_written_of(t, t->mms.v[i], stopped);
	return err;
}

/*
 * To ask for all that was written takes 0.4 ms per GiB and then as long as the places that are found; to follow a hint, 0.7 us
 * while the target is stopped, and as long as look_at_places() says while it runs.
 */
static size_t many_hints(const struct tracker *t, bool stopped)
{
	return stopped ? MANY_HINTS + t->nr_pages / 256 : 64 + t->nr_pages / 2048;
}

/* A page that was there before its fault needs one question: if it has changed, it counts as written. */
static int take_written_at(void *arg, struct track_mm *tm, taddr_t start, taddr_t end)
{
	(void)arg;
	return scan_take_written(tm->pagemap_fd, start, end, found_written, tm);
}

static int follow_hints(struct track_mm *tm, taddr_t start, taddr_t end, bool chunk)
{
	if (chunk)
		return pages_look_again(tm, start, end);
	int err = pages_each_unshared(tm, start, end, take_written_at, NULL);

	return err ? fail(err, "pid %d: look at its pages %llx-%llx", tm->pid, (unsigned long long)start,
			  (unsigned long long)end) : 0;
}

int hints_follow(struct tracker *t, size_t from, size_t to, bool stopped)
{
	struct track_hint *sorted = t->sorted;
	size_t nr = to - from;
	int err = 0;

	if (!nr)
		return 0;
	if (nr > many_hints(t, stopped) || !cow_copy_hints(t->cow, from, to, sorted))
		return take_written(t, stopped);
	for (size_t i = 0; i < nr; i++)
		if (sorted[i].chunk)
			sorted[i].addr &= ~(uint64_t)(CHUNK_BYTES - 1);
	qsort(sorted, nr, sizeof(*sorted), order_hints);
	for (size_t i = 0; i < nr && !err;) {
		uint32_t mm = sorted[i].mm;
		taddr_t start = sorted[i].addr, end = start;
		bool chunk = false;

		for (; i < nr && sorted[i].mm == mm && sorted[i].addr <= end + CLOSE_BYTES; i++) {
			taddr_t this_end = sorted[i].addr + (sorted[i].chunk ? CHUNK_BYTES : MODEL_PAGE_SIZE);

			if (this_end > end)
				end = this_end;
			chunk |= sorted[i].chunk;
		}
		if (mm < t->mms.nr && t->mms.v[mm]->uffd >= 0)
			err = follow_hints(t->mms.v[mm], start, end, chunk);
	}
	return err;
}

/* Rounds while it runs, as long as each leaves half of what the one before had left. 0, a negative errno, or 1: look everywhere. */
static int follow_running(struct tracker *t)
{
	for (size_t left = SIZE_MAX;;) {
		size_t nr = cow_nr_hints(t->cow), before = left;

		if (nr == SIZE_MAX)
			return 1;
		left = nr - t->hints_taken;
		int err = hints_follow(t, t->hints_taken, nr, false);
		/*
		 * A hint comes when a fault begins, its effect a moment later: what the last round followed is followed
		 * again inside the stop.
		 */
		if (err || left <= FEW_HINTS || left > before / 2)
			return err;
		t->hints_taken = nr;
	}
}

/* Follows the eldest hints while the target is held: no fault is under way then, so this is for good. Returns as the above. */
static int follow_held(void *arg)
{
	struct tracker *t = arg;
	uint64_t until_ns = ptrace_now_ns() + hold_ns;
	size_t nr = cow_nr_hints(t->cow);
	int err = 0;

	if (nr == SIZE_MAX)
		return 1;
	while (!err && t->hints_taken < nr && ptrace_now_ns() < until_ns) {
		size_t to = t->hints_taken + HOLD_STEP;

		if (to > nr || nr - t->hints_taken > TRACK_NR_HINTS)
			to = nr; /* those that are not kept any more: by a look at everything */
		err = hints_follow(t, t->hints_taken, to, true);
		if (!err)
			t->hints_taken = to;
	}
	return err;
}

int tracker_follow(struct tracker *t)
{
	size_t enough = t->env.hold_above ? t->env.hold_above : HOLD_ABOVE;
	int err = shared_follow(t);

	if (!err)
		err = t->cow ? follow_running(t) : 1;

	for (int i = 0; !err && t->env.pause && i < MAX_HOLDS; i++) {
		size_t nr = cow_nr_hints(t->cow);

		if (nr == SIZE_MAX || nr - t->hints_taken <= enough)
			return 0;
		err = tracker_hold(t, follow_held, t);
		t->stats.holds++;
	}
	/* 1: the stop will look everywhere. */
	return err < 0 ? err : 0;
}
