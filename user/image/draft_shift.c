/*
 * Puts the pages of a draft in order without copying what does not change its place in the list.
 *
 * Theory of operation. Compared with the file, the list to be has pages that come between others and lacks
 * pages that are gone. Some file systems insert and remove ranges of a file by changing only what they know of
 * it (fallocate(2), ext4 and XFS): each such place costs about as much as writing a MiB, whatever is behind it.
 * The places are worked on from the end of the file to its beginning, so that offsets of those still to come
 * stay what they are.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "image/draft.h"
#include "image/set.h"

enum { MAX_PLACES = 256, MAX_LATE_BYTES = 64 << 20 };

/* At `offset` of the file as it is, `remove` bytes go and `insert` bytes come, which are at `from` in `late`. */
struct place {
	uint64_t offset, remove, insert, from;
};
typedef VEC(struct place) places;

static uint64_t in_order_bytes(const page_runs *runs)
{
	uint64_t bytes = 0;

	VEC_FOREACH(run, runs)
		bytes += run->flags & PAGES_PRESENT ? run->nr_pages * PAGE : 0;
	return bytes;
}

static struct place *place_at(places *list, uint64_t offset)
{
	struct place *last = list->nr ? &list->v[list->nr - 1] : NULL;

	if (last && last->offset + last->remove == offset)
		return last;
	if (VEC_PUSH(list, ((struct place){ .offset = offset })))
		return NULL;
	return &list->v[list->nr - 1];
}

/* What makes the file, whose first `base` bytes are in order, hold the pages of `out`. *ret_late: bytes that come. */
static int find_places(const page_runs *out, uint64_t base, places *ret, uint64_t *ret_late)
{
	uint64_t at = 0;

	*ret_late = 0;
	VEC_FOREACH(run, out) {
		uint64_t bytes = run->nr_pages * PAGE;
		struct place *p;

		if (!(run->flags & PAGES_PRESENT))
			continue;
		if (run->offset_bytes >= base) {
			p = place_at(ret, at);
			if (!p)
				return -ENOMEM;
			if (!p->insert)
				p->from = *ret_late;
			p->insert += bytes;
			*ret_late += bytes;
			continue;
		}
		if (run->offset_bytes > at) {
			p = place_at(ret, at);
			if (!p)
				return -ENOMEM;
			p->remove += run->offset_bytes - at;
		}
		at = run->offset_bytes + bytes;
	}
	if (at == base)
		return 0;
	struct place *p = place_at(ret, at);
	if (!p)
		return -ENOMEM;
	p->remove += base - at;
	return 0;
}

/* On a file of its own: no page may be lost by asking. */
static bool try_shift(const struct pages_draft *d)
{
	static const uint8_t pages[2 * PAGE];
	static const char name[] = "pages-0.img.try";
	_cleanup_close_ int fd = -1;

	if (image_set_open_raw(d->w->set, name, &fd))
		return false;
	bool can = pwrite(fd, pages, sizeof(pages), 0) == sizeof(pages) && !fallocate(fd, FALLOC_FL_INSERT_RANGE, PAGE, PAGE) &&
		   !fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, PAGE, PAGE);
	return !image_set_remove(d->w->set, name) && can;
}

bool draft_can_shift(struct pages_draft *d)
{
	if (d->can_shift == SHIFT_UNKNOWN)
		d->can_shift = try_shift(d) ? SHIFT_YES : SHIFT_NO;
	return d->can_shift == SHIFT_YES;
}

/* The pages that come, in the order of the list. */
static int read_late(const struct pages_draft *d, const page_runs *out, uint64_t base, uint8_t *buf)
{
	VEC_FOREACH(run, out) {
		size_t len = run->nr_pages * PAGE;

		if (!(run->flags & PAGES_PRESENT) || run->offset_bytes < base)
			continue;
		if (pread(d->w->fd, buf, len, run->offset_bytes) != (ssize_t)len)
			return image_set_io_error(d->w->set, d->w->name, "read back", -EIO);
		buf += len;
	}
	return 0;
}

/* Pages that go make room for pages that come, as far as they do; the rest of the file moves by the difference. */
static int work_on(const struct pages_draft *d, const struct place *p, const uint8_t *late)
{
	uint64_t both = p->remove < p->insert ? p->remove : p->insert;
	int err = 0;

	if (p->insert > both)
		err = fallocate(d->w->fd, FALLOC_FL_INSERT_RANGE, p->offset + both, p->insert - both);
	else if (p->remove > both)
		err = fallocate(d->w->fd, FALLOC_FL_COLLAPSE_RANGE, p->offset + both, p->remove - both);
	if (!err && p->insert)
		err = pwrite(d->w->fd, late + p->from, p->insert, p->offset) == (ssize_t)p->insert ? 0 : -1;
	return err ? image_set_io_error(d->w->set, d->w->name, "put its pages in order", errno ? -errno : -EIO) : 0;
}

static int work_on_all(const struct pages_draft *d, const places *list, const uint8_t *late, uint64_t bytes)
{
	for (size_t i = list->nr; i-- > 0;) {
		int err = work_on(d, &list->v[i], late);

		if (err)
			return err;
	}
	/* What was written late is behind the list now. */
	if (ftruncate(d->w->fd, bytes) || lseek(d->w->fd, bytes, SEEK_SET) < 0)
		return image_set_io_error(d->w->set, d->w->name, "put its pages in order", -errno);
	return 0;
}

static int set_offsets(const page_runs *out, page_runs *ret)
{
	uint64_t bytes = 0;

	VEC_FOREACH(run, out) {
		bool present = run->flags & PAGES_PRESENT;

		if (pages_add_run(ret, run->start, run->nr_pages, run->flags, present ? bytes : 0))
			return -ENOMEM;
		bytes += present ? run->nr_pages * PAGE : 0;
	}
	return 0;
}

static int shift(struct pages_draft *d, const page_runs *out, const places *list, uint64_t late_bytes, page_runs *ret)
{
	uint64_t base = in_order_bytes(&d->runs), bytes = in_order_bytes(out);
	_cleanup_free_ uint8_t *late = malloc(late_bytes + 1);

	/* The end of the list must be behind the last place: removing up to the end of a file is not allowed. */
	if (!late || set_offsets(out, ret))
		return fail(-ENOMEM, "%s: put its pages in order", d->w->name);
	int err = read_late(d, out, base, late);
	if (!err && d->w->offset_bytes == base && ftruncate(d->w->fd, base + PAGE))
		err = image_set_io_error(d->w->set, d->w->name, "put its pages in order", -errno);
	if (!err)
		err = work_on_all(d, list, late, bytes);
	if (err)
		return err;
	d->w->offset_bytes = bytes;
	return 0;
}

/* The same runs, none of which is partly in the ordered part of the file and partly behind it. */
static int split_runs(const page_runs *runs, uint64_t base, page_runs *ret)
{
	VEC_FOREACH(run, runs) {
		struct page_run first = *run, second = *run;
		uint64_t nr = run->flags & PAGES_PRESENT && run->offset_bytes < base ? (base - run->offset_bytes) / PAGE : 0;

		if (nr && nr < run->nr_pages) {
			first.nr_pages = nr;
			second.start += nr * PAGE;
			second.offset_bytes += nr * PAGE;
			second.nr_pages -= nr;
			if (VEC_PUSH(ret, first))
				return -ENOMEM;
		}
		if (VEC_PUSH(ret, second))
			return -ENOMEM;
	}
	return 0;
}

int draft_shift(struct pages_draft *d, const page_runs *runs, page_runs *ret)
{
	uint64_t base = in_order_bytes(&d->runs), late_bytes = 0;
	page_runs out = {};
	places list = {};
	int err = split_runs(runs, base, &out);

	if (!err)
		err = find_places(&out, base, &list, &late_bytes);
	if (err)
		err = fail(err, "%s: put its pages in order", d->w->name);
	else if (list.nr > MAX_PLACES || late_bytes > MAX_LATE_BYTES || !draft_can_shift(d))
		err = -EOPNOTSUPP;
	else
		err = shift(d, &out, &list, late_bytes, ret);
	if (!err)
		log_debug("%s: pages came or went in %zu places: those behind them were moved", d->w->name, list.nr);
	VEC_FREE(&list);
	VEC_FREE(&out);
	return err;
}
