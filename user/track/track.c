/* Tracking: opening, the time before the stop, the cut, closing. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "sys/proc.h"
#include "sys/tracee.h"
#include "track/inner.h"
#include "track/steps.h"

static const struct track_ops *const backends[] = {
	&track_wp_cow_ops,
	&track_wp_async_ops,
	&track_soft_dirty_ops,
	&track_none_ops,
};
enum { NR_BACKENDS = sizeof(backends) / sizeof(backends[0]) };

enum {
	MIN_RING_BYTES = 32 << 20,
	MAX_RING_BYTES = 256 << 20,
	RESERVED_PATCHES = 16384,
	GROWTH_BYTES = 64 << 20, /* of one mapping between the look before the stop and the stop; more: look everywhere */
};

const struct track_ops *track_ops_at(size_t i)
{
	return i < NR_BACKENDS ? backends[i] : NULL;
}

int track_probe(const struct track_ops *ops, const char **why)
{
	int err = ops->probe(why);

	return err || !ops->saves ? err : cow_probe(why);
}

/* The one of that name, or the best there is; with the BPF program, if it needs that. */
static int choose_backend(struct tracker *t, const char *name, size_t ring_bytes)
{
	for (size_t i = 0; i < NR_BACKENDS; i++) {
		const struct track_ops *ops = backends[i];
		const char *why = NULL;

		if (name && strcmp(name, ops->name))
			continue;
		int err = ops->probe(&why);
		if (!err && ops->saves) {
			err = cow_open(ring_bytes, &why, &t->cow);
			if (err && !why)
				return err;
		}
		if (!err) {
			t->ops = ops;
			return 0;
		}
		if (name)
			return fail(err, "--track=%s: not on this machine (%s)", name, why ? why : "no reason known");
		log_info("not tracking memory by %s: %s", ops->name, why ? why : strerror(-err));
	}
	return fail(0, "--track=%s: there is no such way to track memory", name ? name : "");
}

const char *tracker_backend(const struct tracker *t)
{
	return t->ops->name;
}

const struct track_stats *tracker_stats(const struct tracker *t)
{
	return &t->stats;
}

void tracker_limit(struct tracker *t, uint64_t max_stop_bytes)
{
	t->env.max_stop_bytes = max_stop_bytes;
}

int tracker_hold(struct tracker *t, int (*then)(void *arg), void *arg)
{
	uint64_t begin_ns = ptrace_now_ns();
	int err = t->env.pause(t->env.arg, true);

	if (err) {
		t->stats.paused_us += (ptrace_now_ns() - begin_ns) / 1000;
		return err;
	}
	steps_stopped(true);
	err = then ? then(arg) : 0;
	steps_stopped(false);
	int go_err = t->env.pause(t->env.arg, false);
	t->stats.pauses++;
	t->stats.paused_us += (ptrace_now_ns() - begin_ns) / 1000;
	return err >= 0 && go_err ? go_err : err;
}

struct track_mm *tracker_find(const struct tracker *t, pid_t pid)
{
	VEC_FOREACH(tm, &t->mms)
		if ((*tm)->pid == pid)
			return *tm;
	return NULL;
}

void mm_unprotect(struct tracker *t, struct track_mm *tm)
{
	if (tm->uffd < 0)
		return;
	if (t->cow)
		cow_forget(t->cow, tm->nr);
	/* What tracker_release() has not let go of goes with it. */
	close(tm->uffd);
	tm->registered.nr = 0;
	tm->uffd = -1;
	tm->uffd_ident = 0;
}

void mm_retire(struct tracker *t, struct track_mm *tm)
{
	mm_unprotect(t, tm);
	if (tm->pagemap_fd >= 0)
		close(tm->pagemap_fd);
	if (tm->mem_fd >= 0)
		close(tm->mem_fd);
	tm->pagemap_fd = tm->mem_fd = -1;
	tm->blind = false;
	tm->vdso.nr = tm->shared.nr = tm->ranges.nr = tm->registered.nr = tm->seen.nr = tm->patches.nr = tm->copied.nr = tm->tracked.nr = 0;
	tm->pid = 0;
}

static void mm_destroy(struct tracker *t, struct track_mm *tm)
{
	mm_retire(t, tm);
	VEC_FREE(&tm->shared);
	VEC_FREE(&tm->ranges);
	VEC_FREE(&tm->registered);
	VEC_FREE(&tm->seen);
	VEC_FREE(&tm->vdso);
	VEC_FREE(&tm->patches);
	VEC_FREE(&tm->copied);
	VEC_FREE(&tm->tracked);
	free(tm);
}

int mm_add(struct tracker *t, pid_t pid, struct track_mm **ret)
{
	VEC_FOREACH(unused, &t->mms) {
		if (!(*unused)->pid) {
			(*unused)->pid = pid;
			*ret = *unused;
			return 0;
		}
	}
	if (t->mms.nr == TRACK_NR_MMS)
		return fail(-E2BIG, "pid %d: more than %d address spaces cannot be tracked; use --track=none", pid,
			    TRACK_NR_MMS);
	struct track_mm *tm = calloc(1, sizeof(*tm));
	if (!tm)
		return fail(-ENOMEM, "pid %d: track its memory", pid);
	tm->nr = t->mms.nr;
	tm->pid = pid;
	tm->present = false;
	tm->uffd = tm->pagemap_fd = tm->mem_fd = -1;
	if (VEC_PUSH(&t->mms, tm)) {
		mm_destroy(t, tm);
		return fail(-ENOMEM, "pid %d: track its memory", pid);
	}
	*ret = tm;
	return 0;
}

int mm_reopen(struct track_mm *tm)
{
	int fd;
	int err = scan_open(tm->pid, &fd);

	/* It has ended meanwhile: a newer observation will not have it. */
	if (err == -ENOENT || err == -ESRCH)
		return -EAGAIN;
	if (err)
		return fail(err, "pid %d: open its page map", tm->pid);
	/* What was seen of another address space, of an earlier process with this number even, says nothing. */
	if (tm->pagemap_fd >= 0 && scan_has_ended(tm->pagemap_fd))
		tm->seen.nr = tm->patches.nr = 0;
	if (tm->pagemap_fd >= 0)
		close(tm->pagemap_fd);
	tm->pagemap_fd = fd;
	if (tm->mem_fd >= 0)
		close(tm->mem_fd);
	tm->mem_fd = -1;
	return 0;
}

bool mm_replaced(const struct track_mm *tm, const struct mm *mm)
{
	if (tm->uffd < 0)
		return false;
	VEC_FOREACH(vma, &mm->vmas)
		if (vma->status & (VMA_ANON_PRIVATE | VMA_FILE_PRIVATE) &&
		    scan_is_registered(tm->pagemap_fd, vma->start))
			return false;
	return true;
}

static int mm_watch(struct tracker *t, struct track_mm *tm, const struct mm *mm)
{
	int err = mm_reopen(tm);

	if (!err)
		err = pages_set_ranges(tm, mm);
	if (err || !t->ops->write_protects)
		return err;
	if (mm_replaced(tm, mm))
		mm_unprotect(t, tm);
	bool fresh = tm->uffd < 0;
	err = protect_mm(t, tm, mm);
	if (err || !fresh || !t->cow)
		return err;
	err = cow_add(t->cow, tm->pid, tm->nr);
	/* Had it called execve in between, BPF would watch an address space that no userfaultfd keeps. */
	if (!err)
		err = mm_reopen(tm);
	if (!err && mm_replaced(tm, mm))
		mm_unprotect(t, tm);
	return err;
}

static bool has_ended(int err)
{
	return err == -ESRCH || err == -EAGAIN;
}

/* Relatives may share pages copy-on-write, and should go on doing so. */
static void note_sharing(struct tracker *t, const struct model *m)
{
	VEC_FOREACH(tm, &t->mms)
		(*tm)->keep_shared = m->mms.nr > 1;
}

/* Registers and protects everything in the model that is not yet. */
static int watch_all(struct tracker *t, const struct model *running)
{
	VEC_FOREACH(mm, &running->mms) {
		struct track_mm *tm = tracker_find(t, (*mm)->pid);
		int err = tm ? 0 : mm_add(t, (*mm)->pid, &tm);

		if (!err && VEC_RESERVE(&tm->patches, RESERVED_PATCHES))
			err = fail(-ENOMEM, "pid %d: track its memory", tm->pid);
		if (!err)
			err = mm_watch(t, tm, *mm);
		/* The observation of the stop will not have it. */
		if (has_ended(err))
			mm_retire(t, tm);
		else if (err)
			return err;
	}
	note_sharing(t, running);
	return shared_collect(t, running);
}

static uint64_t pages_of(const struct model *m)
{
	uint64_t pages = 0;

	VEC_FOREACH(mm, &m->mms) {
		char path[48];
		unsigned long size, resident;

		snprintf(path, sizeof(path), "/proc/%d/statm", proc_living((*mm)->pid));
		_cleanup_fclose_ FILE *in = fopen(path, "re");
		if (in && fscanf(in, "%lu %lu", &size, &resident) == 2)
			pages += resident;
	}
	return pages;
}

/* A ring that holds a quarter of what there is: it is emptied while it fills. */
static size_t ring_size(const struct tracker *t, uint64_t nr_pages)
{
	size_t bytes = MIN_RING_BYTES, want = t->env.ring_bytes ? t->env.ring_bytes : nr_pages * MODEL_PAGE_SIZE / 4;

	if (t->env.ring_bytes)
		bytes = MODEL_PAGE_SIZE;
	while (bytes < want && bytes < MAX_RING_BYTES)
		bytes *= 2;
	return bytes;
}

int tracker_open(const char *backend, const struct model *running, const struct track_env *env, struct tracker **ret)
{
	struct tracker *t = calloc(1, sizeof(*t));

	*ret = NULL;
	if (!t)
		return fail(-ENOMEM, "track memory");
	t->env = *env;
	pthread_mutex_init(&t->lock, NULL);

	uint64_t nr_pages = t->nr_pages = pages_of(running);
	size_t ring_bytes = ring_size(t, nr_pages);
	int err = choose_backend(t, backend, ring_bytes);
	if (err) {
		tracker_close(t);
		return err;
	}
	err = store_init(&t->store, t->ops->saves ? ring_bytes / MODEL_PAGE_SIZE : nr_pages);
	if (err)
		err = fail(err, "memory for the pages that are kept");
	if (!err && t->ops->saves) {
		t->sorted = calloc(TRACK_NR_HINTS, sizeof(*t->sorted));
		err = t->sorted ? 0 : fail(-ENOMEM, "memory for hints");
	}
	if (!err)
		err = watch_all(t, running);
	if (err) {
		tracker_close(t);
		return err;
	}
	log_debug("tracking memory by %s: %zu address spaces, %llu pages", t->ops->name, t->mms.nr,
		  (unsigned long long)nr_pages);
	*ret = t;
	return 0;
}

static int copy_ahead(struct tracker *t, struct track_mm *tm)
{
	VEC_FOREACH(s, &tm->seen) {
		if (s->categories & (PAGE_CAT_FILE | PAGE_CAT_PFNZERO | PAGE_CAT_GUARD))
			continue;
		int err = now_copy(t, tm, s->start, s->end);
		if (err)
			return err;
	}
	return 0;
}

static int clear_soft_dirty(const struct track_mm *tm)
{
	char path[48];

	snprintf(path, sizeof(path), "/proc/%d/clear_refs", proc_living(tm->pid));
	_cleanup_fclose_ FILE *out = fopen(path, "we");
	bool done = out && fputs("4", out) >= 0 && !fflush(out);
	/* One that has ended meanwhile will not be in the observation of the stop. */
	if (!done && errno != ENOENT && errno != ESRCH)
		return fail(-errno, "pid %d: forget which pages were written", tm->pid);
	return 0;
}

/* A failure here is that of a process that has ended, or the stop will meet it again. */
static void look_before(struct tracker *t, struct track_mm *tm)
{
	int err = pages_look_everywhere(t, tm, t->ops->write_protects);

	tm->blind = false;
	if (!err)
		return;
	log_debug("pid %d: pages not found before the stop: %s", tm->pid, strerror(-err));
	tm->seen.nr = 0;
	tm->blind = true;
}

static int copy_all_ahead(struct tracker *t)
{
	/* A direct read that was under way when pages were protected. */
	int err = t->env.pause ? tracker_hold(t, NULL, NULL) : 0;

	VEC_FOREACH(tm, &t->mms) {
		if (err || !(*tm)->pid)
			continue;
		/* What is written to such a page between the two looks must not be missed by what is copied ahead. */
		pinned_look(*tm);
		err = copy_ahead(t, *tm);
	}
	return err;
}

int tracker_precut(struct tracker *t, const struct model *running)
{
	int err = running ? watch_all(t, running) : 0;

	t->cut = t->ready = false;
	VEC_FOREACH(tm, &t->mms)
		(*tm)->vdso.nr = 0;
	t->precut = true;
	store_clear(&t->store);
	t->shmem_pieces.nr = 0;
	t->traces.nr = 0;
	t->hints_taken = 0;
	if (!err && t->cow)
		cow_begin_hints(t->cow);
	if (t->ops == &track_none_ops)
		return err;
	VEC_FOREACH(tm, &t->mms) {
		if (err)
			return err;
		if (!(*tm)->pid)
			continue;
		if (t->ops == &track_soft_dirty_ops)
			err = clear_soft_dirty(*tm);
		if (!err && t->cow)
			protect_barrier(*tm);
		if (!err)
			look_before(t, *tm);
		(*tm)->pinned = false;
	}
	if (!err && t->cow)
		err = shared_begin(t);
	return !err && t->ops->copies_ahead ? copy_all_ahead(t) : err;
}

/*
 * A registered mapping that has grown (a stack, mremap) since the look before the stop: its new part is looked at
 * now. *first is the first range that may matter; mappings come in order. 0, a negative errno, or 1: too much, look
 * everywhere.
 */
static int look_at_growth(struct track_mm *tm, const struct vma *vma, size_t *first)
{
	taddr_t at = vma->start;

	while (*first < tm->ranges.nr && tm->ranges.v[*first].end <= at)
		(*first)++;
	for (size_t i = *first; i < tm->ranges.nr && tm->ranges.v[i].start < vma->end; i++) {
		const struct span *r = &tm->ranges.v[i];

		if (r->start > at) {
			if (r->start - at > GROWTH_BYTES)
				return 1;
			int err = pages_look_again(tm, at, r->start);
			if (err)
				return err;
		}
		at = r->end;
	}
	if (at >= vma->end)
		return 0;
	return vma->end - at > GROWTH_BYTES ? 1 : pages_look_again(tm, at, vma->end);
}

/* `same`: only those that are not as tracker_ready() saw them. */
static int look_at_all_growth(struct tracker *t, const struct model *stopped, bool same)
{
	VEC_FOREACH(mm, &stopped->mms) {
		struct track_mm *tm = tracker_find(t, (*mm)->pid);
		size_t first = 0;

		if (same && !(*mm)->remapped)
			continue;
		for (size_t i = 0; i < (*mm)->vmas.nr; i++) {
			int err = tm->tracked.v[i] ? look_at_growth(tm, &(*mm)->vmas.v[i], &first) : 0;

			if (err)
				return err;
		}
	}
	return 0;
}

/* Pages of tracked mappings, as they are at the cut. */
static int look_in_stop(struct tracker *t, const struct model *stopped, bool same)
{
	size_t nr = t->cow ? cow_nr_hints(t->cow) : SIZE_MAX;
	int err = 0;

	t->pages_exact = nr == SIZE_MAX || t->look_everywhere;
	VEC_FOREACH(tm, &t->mms)
		t->pages_exact |= (*tm)->present && (*tm)->blind;
	if (!t->pages_exact) {
		err = hints_follow(t, t->hints_taken, nr, true);
		if (!err)
			err = look_at_all_growth(t, stopped, same);
		t->pages_exact = err == 1;
		if (err < 0)
			return err;
	}
	t->stats.cut_hints = t->pages_exact ? 0 : nr - t->hints_taken;
	t->stats.cut_full = t->pages_exact;
	if (!t->pages_exact)
		return 0;
	VEC_FOREACH(mm, &stopped->mms) {
		struct track_mm *tm = tracker_find(t, (*mm)->pid);

		err = pages_set_ranges(tm, *mm);
		if (err)
			return err;
		err = pages_look_everywhere(t, tm, t->cow != NULL);
		if (err)
			return fail(err, "pid %d: find its pages", tm->pid);
	}
	return 0;
}

/*
 * Learns, before the stop, by which identity the kernel's own records name our userfaultfd: no question is needed
 * then.
 */
static bool is_tracked(const struct tracker *t, struct track_mm *tm, const struct vma *vma)
{
	if (!t->ops->write_protects)
		return t->ops->copies_ahead && !(vma->status & VMA_VDSO) && !(vma->flags & MAP_HUGETLB);
	if (tm->uffd < 0)
		return false;
	if (tm->uffd_ident)
		return vma->uffd == tm->uffd_ident;
	bool registered = scan_is_registered(tm->pagemap_fd, vma->start);
	if (registered)
		tm->uffd_ident = vma->uffd;
	return registered;
}

/* Which of these mappings are protected. */
static int note_tracked(struct tracker *t, struct track_mm *tm, const struct mm *mm)
{
	tm->tracked.nr = 0;
	VEC_FOREACH(vma, &mm->vmas) {
		bool tracked = vma_has_own_pages(vma) && is_tracked(t, tm, vma);

		if (VEC_PUSH(&tm->tracked, tracked))
			return fail(-ENOMEM, "pid %d: list its mappings", tm->pid);
	}
	return 0;
}

/*
 * The vDSO cannot be tracked, and is not written either: it is copied before the stop, for whoever has hundreds of
 * processes. Whoever changes its code by force (a debugger) does not do so in the millisecond in between.
 */
static int copy_vdso(struct tracker *t, struct track_mm *tm, const struct mm *mm)
{
	int err = 0;

	tm->copied.nr = tm->vdso.nr = 0;
	VEC_FOREACH(vma, &mm->vmas)
		if (!err && vma->status & VMA_VDSO)
			err = now_copy_vma(t, tm, vma);
	for (size_t i = 0; i < tm->copied.nr && !err; i++)
		err = VEC_PUSH(&tm->vdso, tm->copied.v[i]);
	tm->copied.nr = 0;
	/* The stop will do it. */
	if (err)
		tm->vdso.nr = 0;
	return err == -ENOMEM ? fail(err, "pid %d: copy its vDSO", tm->pid) : 0;
}

static int copy_vdsos(struct tracker *t, const struct model *look)
{
	int err = 0;

	for (size_t i = 0; !err && i < look->mms.nr; i++)
		err = copy_vdso(t, tracker_find(t, look->mms.v[i]->pid), look->mms.v[i]);
	return err;
}

static int cut_mm(struct tracker *t, struct track_mm *tm, const struct mm *mm, bool same)
{
	tm->copied.nr = 0;
	if (!same || mm->remapped)
		tm->vdso.nr = 0;
	for (size_t i = 0; i < mm->vmas.nr; i++) {
		const struct vma *vma = &mm->vmas.v[i];
		int err = 0;

		if (!vma_has_own_pages(vma) || (vma->status & VMA_VDSO && tm->vdso.nr))
			continue;
		if (!tm->tracked.v[i])
			err = now_copy_vma(t, tm, vma);
		else if (t->ops->copies_ahead)
			err = now_copy_written(t, tm, vma);
		if (err)
			return err == -EAGAIN ? err : fail(err, "pid %d mapping %llx-%llx: copy its pages", tm->pid,
							   (unsigned long long)vma->start,
							   (unsigned long long)vma->end);
	}
	return 0;
}

static int find_mms(struct tracker *t, const struct model *stopped)
{
	VEC_FOREACH(tm, &t->mms)
		(*tm)->present = false;
	VEC_FOREACH(mm, &stopped->mms) {
		struct track_mm *tm = tracker_find(t, (*mm)->pid);
		int err = tm ? 0 : mm_add(t, (*mm)->pid, &tm);

		if (!err)
			err = mm_reopen(tm);
		if (err)
			return err;
		tm->present = true;
	}
	VEC_FOREACH(tm, &t->mms)
		if (!(*tm)->present && (*tm)->pid)
			mm_retire(t, *tm);
	return 0;
}

/* Brings what is known of address spaces and mappings up to this model. */
static int take_mappings(struct tracker *t, const struct model *m)
{
	int err = find_mms(t, m);

	for (size_t i = 0; !err && i < m->mms.nr; i++)
		err = note_tracked(t, tracker_find(t, m->mms.v[i]->pid), m->mms.v[i]);
	return err;
}

/* The same address spaces, some with other mappings. */
static int take_remapped(struct tracker *t, const struct model *m)
{
	int err = 0;

	for (size_t i = 0; !err && i < m->mms.nr; i++)
		if (m->mms.v[i]->remapped)
			err = note_tracked(t, tracker_find(t, m->mms.v[i]->pid), m->mms.v[i]);
	return err;
}

int tracker_ready(struct tracker *t, const struct model *look)
{
	int err = take_mappings(t, look);

	t->ready = !err;
	if (has_ended(err))
		return 0; /* the stop will find other mappings, and look for itself */
	if (err || !t->cow)
		return err;
	err = copy_vdsos(t, look);
	if (err)
		return err;
	err = look_at_all_growth(t, look, false);
	t->look_everywhere |= err == 1;
	return err < 0 ? err : 0;
}

static int cut(struct tracker *t, const struct model *stopped, bool same)
{
	same = same && t->ready;

	int err = same ? take_remapped(t, stopped) : take_mappings(t, stopped);

	if (!err)
		err = pinned_look_in_stop(t);
	/* Without protection, what was written has to be copied before the look, which forgets it. */
	VEC_FOREACH(mm, &stopped->mms) {
		if (err)
			return err;
		err = cut_mm(t, tracker_find(t, (*mm)->pid), *mm, same);
	}
	if (!err && t->cow)
		err = now_copy_pages(t, t->hot.v, t->hot.nr);
	if (!err && t->cow)
		err = now_copy_futexes(t, stopped, same);
	if (!err)
		err = look_in_stop(t, stopped, same);
	for (size_t i = 0; !err && i < stopped->shmems.nr; i++)
		err = shared_cut(t, stopped, i);
	if (!err && t->cow)
		cow_begin_saving(t->cow);
	return err;
}

int tracker_cut(struct tracker *t, const struct model *stopped, bool same)
{
	uint64_t begin_ns = ptrace_now_ns();

	/* What was seen before an earlier cut says nothing about this one. */
	if (!t->precut)
		return fail(0, "memory is cut without tracker_precut()");
	t->precut = false;
	t->stop_bytes = 0;
	t->stats.cut_pages_copied = 0;
	t->stats.cut_shared_ahead = 0;
	t->stats.cuts++;
	note_sharing(t, stopped);
	steps_stopped(true);
	int err = cut(t, stopped, same);
	steps_stopped(false);
	if (err && t->cow)
		cow_stop(t->cow);
	if (err == -EAGAIN)
		t->stats.retaken++;
	t->cut = !err;
	t->stats.cut_us = (ptrace_now_ns() - begin_ns) / 1000;
	return err;
}

void tracker_resumed(struct tracker *t)
{
	shared_release(t);
}

void tracker_close(struct tracker *t)
{
	if (!t)
		return;
	shared_forget(t);
	VEC_FOREACH(tm, &t->mms)
		mm_destroy(t, *tm);
	cow_close(t->cow);
	VEC_FREE(&t->mms);
	VEC_FREE(&t->shmem_pieces);
	VEC_FREE(&t->traces);
	VEC_FREE(&t->hot);
	VEC_FREE(&t->candidates);
	VEC_FREE(&t->found);
	free(t->sorted);
	store_deinit(&t->store);
	pthread_mutex_destroy(&t->lock);
	free(t);
}
