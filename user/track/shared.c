/*
 * Shared memory (MAP_SHARED|MAP_ANONYMOUS): most of it is copied ahead, so that the stop has to copy only what was written since.
 *
 * Theory of operation. Such an object has no name: it can be written through the mappings it was made and inherited with, and in no
 * other way. When bcr knows all of them, and protects every page of each, there or not, then a page that is still protected in all of
 * them is what it was. Right before the stop everything is protected and copied; then, in rounds, what was written meanwhile. After
 * each protection the target is held for a moment: a direct read that took hold of pages before goes on writing them unseen, but no
 * longer than its call. Inside the stop, what is not protected is copied once more.
 *
 * bcr knows all mappings when there are as many as the object's file has references, no more, and nobody has opened it by a link in
 * /proc. It does not when somebody outside the tree has one; when one has gone since, for what it says of pages goes with it; and
 * when one has come, by fork(2) or mremap(2), for it is not protected. Of these, and of pages taken out of the object
 * (MADV_REMOVE), the BPF program knows, gone as they may be. Then all of it is copied inside the stop, as objects of other sorts are.
 */
#include <errno.h>
#include <linux/userfaultfd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "kinds/shmem.h"
#include "track/inner.h"

enum {
	MAX_ROUNDS = 3,
	FEW_PAGES = 64, /* are left to the stop, where they take less than holding the target does */
	MIN_BYTES = FEW_PAGES * MODEL_PAGE_SIZE, /* the same for an object */
	BYTES_PER_MAP = 32 << 10, /* of an object: with fewer, to ask about each mapping takes longer than to copy it */
	MEMORY_SHARE = 4, /* so much of the memory that is available may be taken for copies */
};

/* Of all objects. Page tables for so much take 32 MiB, and to ask what was written, 7 ms. */
static const uint64_t max_mapped_bytes = 16ull << 30;

static uint64_t available_bytes(void)
{
	_cleanup_fclose_ FILE *in = fopen("/proc/meminfo", "re");
	unsigned long long kib = 0;
	char line[128];

	while (in && fgets(line, sizeof(line), in))
		if (sscanf(line, "MemAvailable: %llu", &kib) == 1)
			break;
	return kib << 10;
}

static void forget_object(struct shared_object *o)
{
	VEC_FREE(&o->maps);
	VEC_FREE(&o->pieces);
	VEC_FREE(&o->written);
}

void shared_forget(struct tracker *t)
{
	shared_release(t);
	VEC_FOREACH(o, &t->shared)
		forget_object(o);
	VEC_FREE(&t->shared);
	VEC_FOREACH(tm, &t->mms)
		(*tm)->shared.nr = 0;
}

static struct shared_object *find(struct tracker *t, uint64_t ino)
{
	VEC_FOREACH(o, &t->shared)
		if (o->shmem.ino == ino)
			return o;
	return NULL;
}

static const struct shmem *shmem_of(const struct model *m, const struct vma *vma)
{
	VEC_FOREACH(s, &m->shmems)
		if ((*s)->id == vma->shmem_id)
			return *s;
	return NULL;
}

static int note_map(struct shared_object *o, struct track_mm *tm, const struct vma *vma)
{
	struct shared_map map = { .tm = tm, .start = vma->start, .end = vma->end, .offset_bytes = vma->pgoff };

	o->mapped_bytes += vma->end - vma->start;
	if (VEC_PUSH(&o->maps, map) || VEC_PUSH(&tm->shared, ((struct span){ vma->start, vma->end, 0 })))
		return fail(-ENOMEM, "pid %d: list its shared memory", tm->pid);
	return 0;
}

static int note_maps(struct tracker *t, const struct model *running)
{
	VEC_FOREACH(mm, &running->mms) {
		struct track_mm *tm = tracker_find(t, (*mm)->pid);

		VEC_FOREACH(vma, &(*mm)->vmas) {
			const struct shmem *s = vma->shmem_id ? shmem_of(running, vma) : NULL;
			struct shared_object *o = s ? find(t, s->ino) : NULL;

			if (!o)
				continue;
			o->usable = o->usable && tm && tm->uffd >= 0;
			int err = tm ? note_map(o, tm, vma) : 0;
			if (err)
				return err;
		}
	}
	return 0;
}

/*
 * Could a mapping grow in place to pages of the object that nobody shows, and shrink again unseen? Not if it goes to the end, or another one
 * of the same process goes on there.
 */
static bool may_grow(const struct shared_object *o)
{
	for (size_t i = 0; i < o->maps.nr; i++) {
		const struct shared_map *map = &o->maps.v[i], *next = map + 1;
		uint64_t end_bytes = map->offset_bytes + (map->end - map->start);

		if (end_bytes < shmem_whole_bytes(&o->shmem) &&
		    (i + 1 == o->maps.nr || next->tm != map->tm || next->start != map->end || next->offset_bytes != end_bytes))
			return true;
	}
	return false;
}

int shared_collect(struct tracker *t, const struct model *running)
{
	uint64_t room = available_bytes() / MEMORY_SHARE, mapped_bytes = 0;

	shared_forget(t);
	if (!t->cow || !scan_tells_holes())
		return 0;
	VEC_FOREACH(s, &running->shmems) {
		struct shared_object o = { .shmem = **s, .usable = true };
		uint64_t bytes = shmem_whole_bytes(*s);

		if ((*s)->sort != SHMEM_ANON || (*s)->huge_bytes || !(*s)->start || bytes <= MIN_BYTES || bytes > room)
			continue;
		room -= bytes;
		memset(&o.shmem.pages, 0, sizeof(o.shmem.pages));
		o.shmem.name = NULL;
		if (VEC_PUSH(&t->shared, o))
			return fail(-ENOMEM, "pid %d: list its shared memory", (*s)->pid);
	}
	int err = note_maps(t, running);

	VEC_FOREACH(o, &t->shared) {
		mapped_bytes += o->mapped_bytes;
		o->usable = o->usable && o->maps.nr && mapped_bytes <= max_mapped_bytes && !may_grow(o) &&
			    shmem_whole_bytes(&o->shmem) / BYTES_PER_MAP > o->maps.nr;
	}
	return err;
}

/* Registers what is not, and protects it whole. */
static bool protect_map(const struct shared_map *map)
{
	struct uffdio_register reg = {
		.range = { .start = map->start, .len = map->end - map->start },
		.mode = UFFDIO_REGISTER_MODE_WP,
	};

	if (!scan_is_registered(map->tm->pagemap_fd, map->start) &&
	    (ioctl(map->tm->uffd, UFFDIO_REGISTER, &reg) || protect_note(map->tm, map->start, map->end, false)))
		return false;
	return !scan_arm_all(map->tm->pagemap_fd, map->start, map->end);
}

/* Has nobody else it than those with these mappings? */
static bool all_known(struct tracker *t, struct shared_object *o, size_t nr_maps)
{
	struct track_file_args args = { .pid = o->maps.v[0].tm->pid, .addr = o->maps.v[0].start };
	int err = cow_file_users(t->cow, &args);

	if (err || args.users != nr_maps || args.opens != 1 || (o->file && o->file != args.file)) {
		log_debug("pid %d: shared memory %u: %llu users of its file, opened %llu times, %zu mappings known", o->shmem.pid,
			  o->shmem.id, (unsigned long long)args.users, (unsigned long long)args.opens, nr_maps);
		return false;
	}
	o->file = args.file;
	return true;
}

static bool protect(struct tracker *t, struct shared_object *o)
{
	o->changes = cow_shared_changes(t->cow);
	o->file = 0;
	VEC_FOREACH(map, &o->maps)
		if (!protect_map(map))
			return false;
	return true;
}

/* --- copies --- */

static int add_piece(struct tracker *t, struct shared_object *o, int fd, uint64_t at, size_t nr)
{
	struct shmem_piece p = { .offset_bytes = at, .nr_pages = nr };
	uint8_t *room = store_room(&t->store, nr, &p.slot);

	if (!room || VEC_PUSH(&o->pieces, p))
		return fail(-ENOMEM, "pid %d: keep shared memory %u", o->shmem.pid, o->shmem.id);
	return shmem_read(&o->shmem, fd, at, room, nr * MODEL_PAGE_SIZE);
}

static int compare_pieces(const void *a, const void *b)
{
	const struct shmem_piece *x = a, *y = b;

	return (x->offset_bytes > y->offset_bytes) - (x->offset_bytes < y->offset_bytes);
}

/* The piece that holds the page, among the first `nr`, which are in order. */
static const struct shmem_piece *piece_of(const struct shared_object *o, size_t nr, uint64_t at)
{
	size_t lo = 0, hi = nr;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		const struct shmem_piece *p = &o->pieces.v[mid];

		if (at < p->offset_bytes)
			hi = mid;
		else if (at >= p->offset_bytes + p->nr_pages * MODEL_PAGE_SIZE)
			lo = mid + 1;
		else
			return p;
	}
	return NULL;
}

/* Pages of [start, end), which have contents: over what is kept of them, or anew. `nr`: pieces that are in order. */
static int copy_range(struct tracker *t, struct shared_object *o, int fd, size_t nr, uint64_t start, uint64_t end)
{
	int err = 0;

	for (uint64_t at = start, next; at < end && !err; at = next) {
		const struct shmem_piece *p = piece_of(o, nr, at);

		if (p) {
			struct store_entry kept = { .slot = p->slot };
			uint64_t piece_end = p->offset_bytes + p->nr_pages * MODEL_PAGE_SIZE;

			next = piece_end < end ? piece_end : end;
			err = shmem_read(&o->shmem, fd, at, store_bytes(&t->store, &kept) + (at - p->offset_bytes), next - at);
			continue;
		}
		for (next = at + MODEL_PAGE_SIZE; next < end && next - at < PIECE_BYTES && !piece_of(o, nr, next);)
			next += MODEL_PAGE_SIZE;
		err = add_piece(t, o, fd, at, (next - at) / MODEL_PAGE_SIZE);
	}
	return err;
}

/*
 * The next piece at or behind *at, and before `end`, that begins with a page that has contents; 0: there is none. Where holes end is not
 * asked: the kernel would go over all pages until it finds one.
 */
static size_t next_piece(int fd, uint64_t *at, uint64_t end)
{
	off_t data = *at < end ? lseek(fd, (off_t)*at, SEEK_DATA) : -1;

	if (data < 0 || (uint64_t)data >= end)
		return 0;
	*at = (uint64_t)data / MODEL_PAGE_SIZE * MODEL_PAGE_SIZE;
	return end - *at < PIECE_BYTES ? end - *at : PIECE_BYTES;
}

/* What has contents of these places. */
static int copy_places(struct tracker *t, struct shared_object *o, const spans *places, bool in_stop)
{
	_cleanup_close_ int fd = -1;
	size_t nr = o->pieces.nr, bytes;
	int err = places->nr ? shmem_open(&o->shmem, &fd) : 0;

	for (size_t i = 0; i < places->nr && !err; i++) {
		for (uint64_t at = places->v[i].start; !err && (bytes = next_piece(fd, &at, places->v[i].end)); at += bytes) {
			if (in_stop)
				err = now_charge(t, bytes);
			if (!err)
				err = copy_range(t, o, fd, nr, at, at + bytes);
		}
	}
	if (o->pieces.nr > nr)
		qsort(o->pieces.v, o->pieces.nr, sizeof(*o->pieces.v), compare_pieces);
	return err;
}

/* --- what was written --- */

struct written {
	struct shared_object *o;
	const struct shared_map *map;
	size_t left; /* of the places that are listed; more: -EAGAIN */
};

static int found_written(void *arg, const struct page_range *r)
{
	struct written *w = arg;
	uint64_t from_start = w->map->offset_bytes - w->map->start;

	if (!w->left--)
		return -EAGAIN;
	return VEC_PUSH(&w->o->written, ((struct span){ r->start + from_start, r->end + from_start, 0 }));
}

static int compare_spans(const void *a, const void *b)
{
	const struct span *x = a, *y = b;

	return (x->start > y->start) - (x->start < y->start);
}

/* Sorts them, and makes one of those that meet. Returns their pages. */
static uint64_t merge(spans *s)
{
	size_t nr = 0;
	uint64_t bytes = 0;

	if (s->nr)
		qsort(s->v, s->nr, sizeof(*s->v), compare_spans);
	VEC_FOREACH(i, s) {
		if (nr && i->start <= s->v[nr - 1].end)
			s->v[nr - 1].end = i->end > s->v[nr - 1].end ? i->end : s->v[nr - 1].end;
		else
			s->v[nr++] = *i;
	}
	s->nr = nr;
	VEC_FOREACH(i, s)
		bytes += i->end - i->start;
	return bytes / MODEL_PAGE_SIZE;
}

/*
 * Where it is not protected in some mapping, as offsets into the object; with `protect`, it is from then on. *ret: how many pages.
 * -EAGAIN: more than `limit` places of one mapping.
 */
static int find_written(struct shared_object *o, bool protect, size_t limit, uint64_t *ret)
{
	int err = 0;

	o->written.nr = 0;
	for (size_t i = 0; i < o->maps.nr && !err; i++) {
		struct written w = { o, &o->maps.v[i], limit };
		int pagemap = w.map->tm->pagemap_fd;

		err = protect ? scan_protect_written(pagemap, w.map->start, w.map->end, found_written, &w) :
				scan_written(pagemap, w.map->start, w.map->end, found_written, &w);
	}
	*ret = merge(&o->written);
	return err;
}

/* --- before the stop --- */

/* Whoever has pages pinned for long afterwards writes them unseen, and may have let go of them by the stop: it is known then. */
static int hold(struct tracker *t)
{
	int err = t->env.pause ? tracker_hold(t, NULL, NULL) : 0;

	return err ? err : pinned_ask(t);
}

/* A failure makes the object one that is copied inside the stop: there it will be met again, and reported. */
static void give_up(struct shared_object *o, const char *what)
{
	log_debug("pid %d: shared memory %u is copied inside the stop: %s", o->shmem.pid, o->shmem.id, what);
	o->good = false;
}

/* So that what the stop copies finds memory that is there already. Without it, it takes longer. */
static void reserve(struct tracker *t)
{
	if (t->env.max_stop_bytes)
		(void)store_reserve(&t->store, t->env.max_stop_bytes / MODEL_PAGE_SIZE);
}

int shared_begin(struct tracker *t)
{
	size_t nr = 0;

	VEC_FOREACH(o, &t->shared) {
		o->pieces.nr = 0;
		o->good = o->usable && protect(t, o);
		nr += o->good;
	}
	int err = nr ? hold(t) : 0;
	VEC_FOREACH(o, &t->shared) {
		const spans all = { .v = &(struct span){ 0, shmem_whole_bytes(&o->shmem), 0 }, .nr = 1 };

		if (err || !o->good)
			continue;
		/* Whoever has come before changes were counted shows now, or has written all it will. */
		if (!all_known(t, o, o->maps.nr))
			give_up(o, "it is not known who has it");
		else if (copy_places(t, o, &all, false))
			give_up(o, "it could not be copied ahead");
	}
	if (nr)
		reserve(t);
	return err;
}

static uint64_t find_all_written(struct tracker *t, bool protect)
{
	uint64_t all = 0, pages;

	VEC_FOREACH(o, &t->shared) {
		if (o->good && find_written(o, protect, SIZE_MAX, &pages))
			give_up(o, "what was written could not be found");
		all += o->good ? pages : 0;
	}
	return all;
}

int shared_follow(struct tracker *t)
{
	uint64_t before = UINT64_MAX;

	for (int round = 0; round < MAX_ROUNDS; round++) {
		uint64_t pages = find_all_written(t, false);

		if (pages <= FEW_PAGES || pages > before / 2)
			return 0;
		before = find_all_written(t, true);
		int err = hold(t);
		if (err)
			return err;
		VEC_FOREACH(o, &t->shared)
			if (o->good && copy_places(t, o, &o->written, false))
				give_up(o, "what was written could not be copied");
		reserve(t);
	}
	return 0;
}

/* --- inside the stop --- */

/* Is the mapping one that was protected, or a part of one? Most likely the one at *at, or behind it. */
static bool is_protected(const struct shared_object *o, const struct track_mm *tm, const struct vma *vma, size_t *at)
{
	for (size_t i = 0; i < o->maps.nr; i++, *at = (*at + 1) % o->maps.nr) {
		const struct shared_map *map = &o->maps.v[*at];

		if (map->tm == tm && map->start <= vma->start && vma->end <= map->end &&
		    vma->pgoff - map->offset_bytes == vma->start - map->start)
			return scan_is_registered(tm->pagemap_fd, vma->start);
	}
	return false;
}

/* Are the mappings of now those that were protected, all of them? */
static bool same_maps(struct tracker *t, const struct shared_object *o, const struct model *m, uint32_t shmem_id, size_t *ret_nr)
{
	uint64_t bytes = 0;
	size_t at = 0;

	*ret_nr = 0;
	VEC_FOREACH(mm, &m->mms) {
		const struct track_mm *tm = tracker_find(t, (*mm)->pid);

		VEC_FOREACH(vma, &(*mm)->vmas) {
			if (vma->shmem_id != shmem_id)
				continue;
			if (!tm || tm->uffd < 0 || tm->pinned || !is_protected(o, tm, vma, &at))
				return false;
			bytes += vma->end - vma->start;
			++*ret_nr;
		}
	}
	return bytes == o->mapped_bytes;
}

static bool is_as_copied(struct tracker *t, struct shared_object *o, const struct model *m, const struct shmem *s)
{
	size_t nr_maps;

	return s->size_bytes == o->shmem.size_bytes && cow_shared_changes(t->cow) == o->changes && same_maps(t, o, m, s->id, &nr_maps) &&
	       all_known(t, o, nr_maps);
}

/* -EAGAIN: more than the limit; other failures are not reported. */
static int copy_rest(struct tracker *t, struct shared_object *o, const struct shmem *s, size_t index)
{
	size_t limit = t->env.max_stop_bytes ? t->env.max_stop_bytes / MODEL_PAGE_SIZE : SIZE_MAX;
	uint64_t pages;
	int err = find_written(o, false, limit, &pages);

	/* Where it is to be found now: a mapping may have been split. */
	o->shmem.pid = s->pid;
	o->shmem.start = s->start;
	o->shmem.map_files_end = s->map_files_end;
	if (!err)
		err = copy_places(t, o, &o->written, true);
	for (size_t i = 0; i < o->pieces.nr && !err; i++) {
		o->pieces.v[i].shmem = index;
		err = VEC_PUSH(&t->shmem_pieces, o->pieces.v[i]);
	}
	return err;
}

int shared_cut(struct tracker *t, const struct model *m, size_t index)
{
	const struct shmem *s = m->shmems.v[index];
	struct shared_object *o = s->sort == SHMEM_ANON ? find(t, s->ino) : NULL;
	size_t nr_pieces = t->shmem_pieces.nr;

	if (o && o->good && !is_as_copied(t, o, m, s))
		give_up(o, "it is not known who has it, or what was taken out of it");
	if (!o || !o->good)
		return now_copy_shmem(t, m, index);
	int err = copy_rest(t, o, s, index);
	t->stats.cut_shared_ahead += !err;
	if (!err || err == -EAGAIN)
		return err;
	give_up(o, strerror(-err));
	t->shmem_pieces.nr = nr_pieces;
	return now_copy_shmem(t, m, index);
}

void shared_release(struct tracker *t)
{
	VEC_FOREACH(o, &t->shared) {
		VEC_FOREACH(map, &o->maps) {
			if (map->tm->uffd >= 0 && !protect_lift(map->tm, map->start, map->end))
				protect_unregister(map->tm, map->start, map->end);
		}
	}
}
