/*
 * Pages on their way into pages-N.img that may be put again, and in any order.
 *
 * Theory of operation. The format wants pages in ascending order without gaps. The first time around they come
 * in order and are written so; `runs` says where each is. A page that is put again is written over its own
 * place. One that has no place yet goes to the end of the file and is noted in `late`; of several notes of an
 * address the last counts. Settling merges both lists, leaves out what is not to be kept, and, if the file does
 * not hold exactly that, copies it. What is settled for good is settled inside a stop: there pages are moved
 * instead, where the file system can do that (draft_shift.c); a copy takes longer, but stays in memory, where a
 * restore finds it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "image/draft.h"
#include "image/set.h"

int pages_draft_open(struct image_set *set, uint32_t pages_id, pid_t pid, struct pages_draft **ret)
{
	struct pages_draft *d = calloc(1, sizeof(*d));
	int err;

	if (!d)
		return fail(-ENOMEM, "pages-%u.img: create", pages_id);
	err = pages_writer_open(set, pages_id, &d->w);
	if (!err)
		err = pages_writer_compare_mm(d->w, pid);
	if (err) {
		pages_draft_drop(d);
		return err;
	}
	*ret = d;
	return 0;
}

size_t pages_draft_nr_late(const struct pages_draft *d)
{
	return d->late.nr;
}

static int out_of_memory(const struct pages_draft *d)
{
	return fail(-ENOMEM, "%s: list its pages", d->w->name);
}

/* --- putting --- */

static int write_at(struct pages_draft *d, const uint8_t *buf, size_t len, uint64_t offset)
{
	while (len) {
		ssize_t n = pwrite(d->w->fd, buf, len, offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return image_set_io_error(d->w->set, d->w->name, "write", -errno);
		buf += n;
		len -= n;
		offset += n;
	}
	return 0;
}

/* At most PIECE_PAGES pages that have no place in the file. */
static int put_late(struct pages_draft *d, taddr_t addr, const uint8_t *buf, size_t nr)
{
	bool equal[PIECE_PAGES] = {};
	int err = pages_find_equal(d->w, addr, buf, nr, equal);

	for (size_t i = 0; !err && i < nr; i++) {
		struct late_page page = { addr + i * PAGE, d->w->offset_bytes, equal[i] ? PAGES_PARENT : PAGES_PRESENT,
					  d->late.nr };

		if (!equal[i])
			err = pages_writer_append(d->w, buf + i * PAGE, PAGE);
		if (!err && VEC_PUSH(&d->late, page))
			err = out_of_memory(d);
	}
	return err;
}

static size_t pages_between(taddr_t from, taddr_t to, size_t max)
{
	return to <= from ? 0 : (to - from) / PAGE < max ? (to - from) / PAGE : max;
}

int pages_draft_put(struct pages_draft *d, taddr_t addr, const void *bytes, size_t nr)
{
	const uint8_t *buf = bytes;

	if (!d->late.nr && (!d->runs.nr || page_run_end(&d->runs.v[d->runs.nr - 1]) <= addr))
		return pages_writer_put(d->w, addr, buf, nr, &d->runs);
	while (nr) {
		size_t i = pages_first_run(&d->runs, addr), n;
		const struct page_run *run = i < d->runs.nr ? &d->runs.v[i] : NULL;
		int err;

		if (run && run->start <= addr && run->flags & PAGES_PRESENT) {
			n = pages_between(addr, page_run_end(run), nr);
			err = write_at(d, buf, n * PAGE, run->offset_bytes + (addr - run->start));
		} else {
			taddr_t to = !run ? UINT64_MAX : run->start <= addr ? page_run_end(run) : run->start;

			n = pages_between(addr, to, nr < PIECE_PAGES ? nr : PIECE_PAGES);
			err = put_late(d, addr, buf, n);
		}
		if (err)
			return err;
		addr += n * PAGE;
		buf += n * PAGE;
		nr -= n;
	}
	return 0;
}

/* --- settling --- */

static int compare_late(const void *a, const void *b)
{
	const struct late_page *x = a, *y = b;

	if (x->addr != y->addr)
		return x->addr < y->addr ? -1 : 1;
	return x->order < y->order ? -1 : 1;
}

/* Ascending, one for each address: the last. */
static void sort_late(struct pages_draft *d)
{
	size_t nr = 0;

	if (!d->late.nr)
		return;
	qsort(d->late.v, d->late.nr, sizeof(*d->late.v), compare_late);
	VEC_FOREACH(page, &d->late) {
		if (nr && d->late.v[nr - 1].addr == page->addr)
			nr--;
		d->late.v[nr] = *page;
		/* Those that come are behind all that are there. */
		d->late.v[nr].order = nr;
		nr++;
	}
	d->late.nr = nr;
}

/* The part of the run in [from, to). */
static int add_part(page_runs *out, const struct page_run *run, taddr_t from, taddr_t to)
{
	if (from >= to)
		return 0;
	return pages_add_run(out, from, (to - from) / PAGE, run->flags,
			     run->flags & PAGES_PRESENT ? run->offset_bytes + (from - run->start) : 0);
}

/* All pages there are, with their places in the file; a late page takes the place of one in a run (that of the parent). */
static int merge(const struct pages_draft *d, page_runs *out)
{
	size_t i = 0;
	int err = 0;

	VEC_FOREACH(run, &d->runs) {
		taddr_t at = run->start, end = page_run_end(run);

		for (; !err && i < d->late.nr && d->late.v[i].addr < end; i++) {
			const struct late_page *page = &d->late.v[i];

			err = add_part(out, run, at, page->addr);
			if (!err)
				err = pages_add_run(out, page->addr, 1, page->flags, page->offset_bytes);
			if (page->addr >= at)
				at = page->addr + PAGE;
		}
		if (!err)
			err = add_part(out, run, at, end);
	}
	for (; !err && i < d->late.nr; i++)
		err = pages_add_run(out, d->late.v[i].addr, 1, d->late.v[i].flags, d->late.v[i].offset_bytes);
	return err;
}

/* The pages of `all` that are in `keep`, and those of `keep` that are not in `all`. */
static int select_kept(const page_runs *all, const page_runs *keep, page_runs *out, page_runs *missing)
{
	size_t i = 0;
	int err = 0;

	VEC_FOREACH(k, keep) {
		taddr_t at = k->start, end = page_run_end(k);

		while (i < all->nr && page_run_end(&all->v[i]) <= at)
			i++;
		for (size_t n = i; !err && n < all->nr && all->v[n].start < end; n++) {
			const struct page_run *run = &all->v[n];
			taddr_t from = run->start > at ? run->start : at, to = page_run_end(run) < end ? page_run_end(run) : end;

			if (from > at)
				err = pages_add_run(missing, at, (from - at) / PAGE, 0, 0);
			if (!err)
				err = add_part(out, run, from, to);
			at = to;
		}
		if (!err && at < end)
			err = pages_add_run(missing, at, (end - at) / PAGE, 0, 0);
	}
	return err;
}

static bool is_in_order(const struct pages_draft *d, const page_runs *runs)
{
	uint64_t bytes = 0;

	VEC_FOREACH(run, runs) {
		if (!(run->flags & PAGES_PRESENT))
			continue;
		if (run->offset_bytes != bytes)
			return false;
		bytes += run->nr_pages * PAGE;
	}
	return bytes == d->w->offset_bytes;
}

static int copy_bytes(const struct pages_draft *d, int to_fd, uint64_t offset, uint64_t len)
{
	off_t from = offset;
	int err = 0;

	while (!err && len) {
		ssize_t n = copy_file_range(d->w->fd, &from, to_fd, NULL, len, 0);

		if (n > 0) {
			len -= n;
			continue;
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EXDEV && errno != EINVAL && errno != EOPNOTSUPP && errno != ENOSYS)
			return image_set_io_error(d->w->set, d->w->name, "put its pages in order", -errno);

		/* Some file systems cannot. */
		uint8_t buf[16 * PAGE];
		size_t part = len < sizeof(buf) ? len : sizeof(buf);

		n = pread(d->w->fd, buf, part, from);
		if (n <= 0)
			return image_set_io_error(d->w->set, d->w->name, "read back", n ? -errno : -EIO);
		err = image_set_write(d->w->set, d->w->name, to_fd, buf, n);
		from += n;
		len -= n;
	}
	return err;
}

/* Makes a file that holds the present pages of `runs` in their order, and nothing else; `ret` says where they are in it. */
static int rewrite(struct pages_draft *d, const page_runs *runs, page_runs *ret)
{
	char name[IMAGE_NAME_MAX + 8];
	_cleanup_close_ int fd = -1;
	uint64_t bytes = 0;

	snprintf(name, sizeof(name), "%s.new", d->w->name);
	int err = image_set_open_raw(d->w->set, name, &fd);
	VEC_FOREACH(run, runs) {
		bool present = run->flags & PAGES_PRESENT;

		if (!err && present)
			err = copy_bytes(d, fd, run->offset_bytes, run->nr_pages * PAGE);
		if (!err && pages_add_run(ret, run->start, run->nr_pages, run->flags, present ? bytes : 0))
			err = out_of_memory(d);
		bytes += present ? run->nr_pages * PAGE : 0;
	}
	if (!err)
		err = image_set_replace(d->w->set, name, d->w->name);
	if (err)
		return err;
	log_debug("%s: pages came or went: %llu MiB were copied", d->w->name, (unsigned long long)(bytes >> 20));
	close(d->w->fd);
	d->w->fd = take_fd(&fd);
	d->w->offset_bytes = bytes;
	return 0;
}

static void take_runs(struct pages_draft *d, page_runs *runs)
{
	VEC_FREE(&d->runs);
	d->runs = *runs;
	*runs = (page_runs){};
	d->late.nr = 0;
}

int pages_draft_settle(struct pages_draft *d, const page_runs *keep, page_runs *missing)
{
	page_runs all = {}, kept = {}, written = {};

	sort_late(d);
	int err = merge(d, &all);
	if (!err && keep)
		err = select_kept(&all, keep, &kept, missing);
	if (err)
		err = out_of_memory(d);

	page_runs *out = keep ? &kept : &all;

	if (!err && (!keep || !missing->nr)) {
		if (is_in_order(d, out)) {
			take_runs(d, out);
		} else {
			err = keep ? draft_shift(d, out, &written) : -EOPNOTSUPP;
			if (err == -EOPNOTSUPP)
				err = rewrite(d, out, &written);
			if (!err)
				take_runs(d, &written);
		}
	}
	VEC_FREE(&all);
	VEC_FREE(&kept);
	VEC_FREE(&written);
	return err;
}

int pages_draft_sync(struct pages_draft *d)
{
	/* Asked now, there is an answer when it is needed. */
	draft_can_shift(d);
	return fdatasync(d->w->fd) ? image_set_io_error(d->w->set, d->w->name, "sync", -errno) : 0;
}

static void free_draft(struct pages_draft *d)
{
	VEC_FREE(&d->runs);
	VEC_FREE(&d->late);
	free(d);
}

int pages_draft_finish(struct pages_draft *d, page_runs *ret)
{
	int err = pages_writer_close(d->w);

	*ret = d->runs;
	d->runs = (page_runs){};
	free_draft(d);
	return err;
}

void pages_draft_drop(struct pages_draft *d)
{
	if (!d)
		return;
	if (d->w)
		pages_writer_drop(d->w);
	free_draft(d);
}
