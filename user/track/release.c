/*
 * Letting go of the memory of a target that runs on, without its standing still for it.
 *
 * Theory of operation. To unregister a mapping takes the lock of the address space for writing, and 22 ms per GiB for a look at each
 * page: mmap(2) and the like wait for it, and every fault. To unregister it part by part would make several mappings of it meanwhile,
 * and mremap(2) of all of it fail. So the protection of a long mapping is lifted in steps, which leave it whole, and then it
 * is unregistered by a way that does not look at pages. That one is not for a target that runs: for a moment, faults on pages that are
 * missing would be bcr's to answer. It is held for it, as it is to follow what it writes.
 */
#include "base/log.h"
#include "track/inner.h"

enum { MAX_LONG = 32 }; /* some 20 us each, of the hold */

/* Mappings that are not protected any more, and registered still. */
struct release {
	struct tracker *t;
	VEC(struct long_range {
		struct track_mm *tm;
		struct span at;
		bool left; /* could not be dropped */
	}) ranges;
};

/*
 * Without the part that has come to it since it was observed, it would be two mappings from then on, until that is let go of, too: with the
 * descriptor, which leaves mappings whole. `next`: the registered mapping behind it, or NULL.
 */
static bool has_grown(const struct track_mm *tm, const struct span *s, const struct span *next)
{
	return !(next && next->start == s->end) && scan_is_registered(tm->pagemap_fd, s->end);
}

static void lift_all(struct release *r, struct track_mm *tm, const spans *of)
{
	for (size_t i = 0; i < of->nr; i++) {
		const struct span *s = &of->v[i];
		const struct long_range range = { .tm = tm, .at = *s };

		if (r->ranges.nr < MAX_LONG && protect_lift(tm, s->start, s->end) && !VEC_PUSH(&r->ranges, range))
			continue;
		if (!has_grown(tm, s, i + 1 < of->nr ? s + 1 : NULL))
			protect_unregister(tm, s->start, s->end);
	}
}

/* While the target is held: what a mapping has grown by goes with the descriptor, before the target runs again. */
static int drop_long(void *arg)
{
	struct release *r = arg;
	bool left = false;

	VEC_FOREACH(range, &r->ranges) {
		range->left = !protect_drop(range->tm, range->at.start, range->at.end);
		left |= range->left;
	}
	VEC_FOREACH(range, &r->ranges) {
		if (!left)
			mm_unprotect(r->t, range->tm);
	}
	return 0;
}

void tracker_release(struct tracker *t)
{
	struct release r = { .t = t };

	VEC_FOREACH(tm, &t->mms) {
		if ((*tm)->uffd < 0)
			continue;
		lift_all(&r, *tm, &(*tm)->ranges);
		lift_all(&r, *tm, &(*tm)->shared);
	}
	bool held = r.ranges.nr && t->env.pause && !tracker_hold(t, drop_long, &r);
	VEC_FOREACH(range, &r.ranges) {
		if ((!held || range->left) && range->tm->uffd >= 0)
			protect_unregister(range->tm, range->at.start, range->at.end);
	}
	VEC_FOREACH(tm, &t->mms)
		mm_unprotect(t, *tm);
	log_debug("%zu long mappings let go of while the target was held", r.ranges.nr);
	VEC_FREE(&r.ranges);
}
