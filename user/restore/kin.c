/*
 * Pages that relatives have in common, but not with those in between: when who has to hold which contents.
 *
 * Theory of operation. A page can be shared by two processes only when it goes through the hands of everyone between them: it has
 * to be there whenever the next one down is forked. So, for each hint of the images (struct kin_run: `d` has the same pages as
 * `o`), on the way from `o` down to `d`:
 *
 *   - whoever is strictly between leaves the pages as they were inherited until the next one down is forked;
 *   - where the ways to `o` and to `d` part, in a common ancestor of theirs, it takes the contents from o's images before the
 *     first of the two is forked, and keeps them until the second one is.
 *
 * Everyone then puts its own contents there. Pure.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/ident.h"
#include "base/log.h"
#include "restore/plan.h"

enum { MAX_PIECES = 1 << 20 };

uint64_t plan_fork_order(const struct restore_plan *p, size_t index)
{
	return p->tasks.v[index].birth.early ? index : p->tasks.nr + index;
}

static size_t maker_of(const struct restore_plan *p, size_t index)
{
	size_t maker = p->tasks.v[index].birth.maker;

	return maker < p->tasks.nr && maker != index ? maker : SIZE_MAX;
}

static size_t depth_of(const struct restore_plan *p, size_t index)
{
	size_t depth = 0;

	for (; index != SIZE_MAX && depth <= p->tasks.nr; index = maker_of(p, index))
		depth++;
	return depth;
}

static int add_late(struct restore_plan *p, size_t who, const struct kin_run *run, const struct mm *source, uint64_t first,
		    uint64_t last)
{
	struct late_range late = {
		.start = run->start, .end = run->start + run->nr_pages * MODEL_PAGE_SIZE, .source = source,
		.first = first < last ? first : last, .last = first < last ? last : first,
	};

	return p->tasks.v[who].mm ? VEC_PUSH(&p->tasks.v[who].late, late) : 0;
}

/* Where the ways up from both meet; SIZE_MAX: nowhere. */
static size_t common_maker(const struct restore_plan *p, size_t a, size_t b)
{
	size_t depth_a = depth_of(p, a), depth_b = depth_of(p, b);

	while (a != b && a != SIZE_MAX && b != SIZE_MAX) {
		bool up_a = depth_a >= depth_b, up_b = depth_b >= depth_a;

		a = up_a ? maker_of(p, a) : a;
		b = up_b ? maker_of(p, b) : b;
		depth_a -= up_a;
		depth_b -= up_b;
	}
	return a == b ? a : SIZE_MAX;
}

static int plan_run(struct restore_plan *p, size_t d, size_t o, const struct kin_run *run)
{
	size_t meet = common_maker(p, d, o);

	if (meet == SIZE_MAX || meet == d)
		return 0;
	for (; maker_of(p, d) != meet; d = maker_of(p, d)) {
		int err = add_late(p, maker_of(p, d), run, NULL, plan_fork_order(p, d), plan_fork_order(p, d));
		if (err)
			return err;
	}
	if (meet == o)
		return 0;
	const struct mm *source = p->tasks.v[o].mm;
	while (maker_of(p, o) != meet)
		o = maker_of(p, o);
	return add_late(p, meet, run, source, plan_fork_order(p, o), plan_fork_order(p, d));
}

static int by_address(const void *a, const void *b)
{
	const taddr_t x = *(const taddr_t *)a, y = *(const taddr_t *)b;

	return x < y ? -1 : x > y;
}

static int by_piece(const void *a, const void *b)
{
	const struct late_range *x = a, *y = b;

	if (x->start != y->start)
		return x->start < y->start ? -1 : 1;
	if (x->source != y->source)
		return (uintptr_t)x->source < (uintptr_t)y->source ? -1 : 1;
	return x->first < y->first ? -1 : x->first > y->first;
}

/* Index of the first bound that is not below. */
static size_t find_bound(const taddr_t *bounds, size_t nr, taddr_t addr)
{
	size_t lo = 0, hi = nr;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (bounds[mid] < addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* Cuts ranges where others begin or end, so that two of them are equal or apart, and joins those that are for the same. */
static int cut_to_pieces(struct task_plan *tp)
{
	size_t nr = tp->late.nr, nr_pieces = 0;
	_cleanup_free_ taddr_t *bounds = calloc(2 * nr + 1, sizeof(*bounds));
	late_ranges pieces = {};

	if (!bounds)
		return -ENOMEM;
	for (size_t i = 0; i < nr; i++) {
		bounds[2 * i] = tp->late.v[i].start;
		bounds[2 * i + 1] = tp->late.v[i].end;
	}
	qsort(bounds, 2 * nr, sizeof(*bounds), by_address);
	VEC_FOREACH(late, &tp->late) {
		size_t i = find_bound(bounds, 2 * nr, late->start);

		for (taddr_t at = late->start; at < late->end; at = bounds[i]) {
			struct late_range piece = *late;

			while (bounds[i] <= at)
				i++;
			piece.start = at;
			piece.end = bounds[i];
			/* Too intricate to be worth it. */
			if (pieces.nr == MAX_PIECES || VEC_PUSH(&pieces, piece)) {
				VEC_FREE(&pieces);
				tp->late.nr = 0;
				return 0;
			}
		}
	}
	if (pieces.nr)
		qsort(pieces.v, pieces.nr, sizeof(*pieces.v), by_piece);
	VEC_FOREACH(piece, &pieces) {
		struct late_range *last = nr_pieces ? &pieces.v[nr_pieces - 1] : NULL;

		if (last && last->start == piece->start && last->source == piece->source) {
			if (piece->last > last->last)
				last->last = piece->last;
			continue;
		}
		pieces.v[nr_pieces++] = *piece;
	}
	pieces.nr = nr_pieces;
	VEC_FREE(&tp->late);
	tp->late = pieces;
	return 0;
}

static int plan_task_kin(struct restore_plan *p, const struct ident_map *by_pid, size_t index)
{
	const struct mm *mm = p->tasks.v[index].mm;

	VEC_FOREACH(run, &mm->kin) {
		uint32_t holder = run->pid > 0 ? ident_map_find(by_pid, run->pid) : 0;

		/* Of whom the images know nothing there is nothing to share. */
		if (!holder || holder - 1 == index || !p->tasks.v[holder - 1].mm)
			continue;
		int err = plan_run(p, index, holder - 1, run);
		if (err)
			return err;
	}
	return 0;
}

int plan_kin(struct restore_plan *p)
{
	struct ident_map by_pid = {};
	int err = 0;

	for (size_t i = 0; i < p->m->tasks.nr && !err; i++)
		err = ident_map_add(&by_pid, p->tasks.v[i].task->pid, i + 1);
	for (size_t i = 0; i < p->m->tasks.nr && !err; i++) {
		const struct mm *mm = p->tasks.v[i].mm;

		/* Tasks that share an address space are one. */
		if (mm && mm->pid == p->tasks.v[i].task->pid)
			err = plan_task_kin(p, &by_pid, i);
	}
	VEC_FOREACH(tp, &p->tasks) {
		if (!err && tp->late.nr)
			err = cut_to_pieces(tp);
	}
	ident_map_deinit(&by_pid);
	return err ? fail(err, "restore plan") : 0;
}
