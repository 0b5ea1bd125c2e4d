/*
 * Page contents: pages-N.img, raw pages and nothing else.
 *
 * In an incremental set, each page is compared with what the parent set holds of the same address: equal ones
 * are not written again. The bytes are the proof: whatever the parent's pages are, of whatever process and
 * moment, a page that is found there is the page.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "image/image.h"
#include "image/io.h"
#include "image/names.h"
#include "image/pages.h"
#include "image/parents.h"
#include "image/parts.h"
#include "image/set.h"

int pages_writer_open(struct image_set *set, uint32_t pages_id, struct pages_writer **ret)
{
	_cleanup_free_ struct pages_writer *w = calloc(1, sizeof(*w));
	int err;

	if (!w)
		return fail(-ENOMEM, "pages-%u.img: create", pages_id);
	w->set = set;
	snprintf(w->name, sizeof(w->name), "pages-%u.img", pages_id);
	err = image_set_open_raw(set, w->name, &w->fd);
	if (err)
		return err;
	*ret = take_ptr(w);
	return 0;
}

int pages_writer_append(struct pages_writer *w, const void *buf, size_t len)
{
	if (w->err)
		return w->err;
	if (len % PAGE) {
		w->err = fail(0, "%s: %zu bytes are not whole pages", w->name, len);
		return w->err;
	}
	w->err = image_set_write(w->set, w->name, w->fd, buf, len);
	if (!w->err) {
		w->offset_bytes += len;
		w->nr_written += len / PAGE;
	}
	return w->err;
}

uint64_t pages_writer_offset(const struct pages_writer *w)
{
	return w->offset_bytes;
}

uint64_t pages_writer_written(const struct pages_writer *w)
{
	return w->nr_written;
}

uint64_t pages_writer_in_parent(const struct pages_writer *w)
{
	return w->nr_in_parent;
}

/* --- comparing with the parent --- */

static int compare_with(struct pages_writer *w, const char *pagemap)
{
	const struct parents *p = image_set_parents(w->set);

	if (!p || w->err)
		return w->err;
	w->err = parents_find(p, pagemap, IMAGE_USER_END, &w->parent);
	if (w->err || w->buf)
		return w->err;
	w->buf = malloc(PIECE_PAGES * PAGE);
	if (!w->buf)
		w->err = fail(-ENOMEM, "%s: compare with the parent image set", w->name);
	return w->err;
}

int pages_writer_compare_mm(struct pages_writer *w, pid_t pid)
{
	char name[IMAGE_NAME_MAX];

	return compare_with(w, image_name_pagemap(name, pid));
}

int pages_writer_compare_shmem(struct pages_writer *w, uint32_t shmem_id)
{
	char name[IMAGE_NAME_MAX];

	return compare_with(w, image_name_pagemap_shmem(name, shmem_id));
}

size_t pages_first_run(const page_runs *runs, taddr_t addr)
{
	size_t lo = 0, hi = runs->nr;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (runs->v[mid].start + runs->v[mid].nr_pages * PAGE <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static int open_parent_file(struct pages_writer *w, const struct page_run *run, int *ret)
{
	VEC_FOREACH(f, &w->parent_files) {
		if (f->level == run->level && f->pages_id == run->pages_id) {
			*ret = f->fd;
			return 0;
		}
	}

	struct pages_file f = { run->level, run->pages_id, -1 };
	int err = images_open_pages(parents_at(image_set_parents(w->set), run->level)->dirfd, run->pages_id, &f.fd);

	if (err)
		return err;
	if (VEC_PUSH(&w->parent_files, f)) {
		close(f.fd);
		return fail(-ENOMEM, "%s: compare with the parent image set", w->name);
	}
	*ret = f.fd;
	return 0;
}

static int read_exact(int fd, void *buf, size_t len, uint64_t offset)
{
	for (size_t done = 0; done < len;) {
		ssize_t got = pread(fd, (uint8_t *)buf + done, len - done, offset + done);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got ? -errno : -ENODATA;
		done += got;
	}
	return 0;
}

int pages_find_equal(struct pages_writer *w, taddr_t addr, const uint8_t *buf, size_t nr, bool *equal)
{
	taddr_t end = addr + nr * PAGE;

	for (size_t i = pages_first_run(&w->parent, addr); i < w->parent.nr && w->parent.v[i].start < end; i++) {
		const struct page_run *run = &w->parent.v[i];
		taddr_t from = run->start > addr ? run->start : addr, to = run->start + run->nr_pages * PAGE;
		int fd = -1;
		int err = open_parent_file(w, run, &fd);

		if (to > end)
			to = end;
		if (!err)
			err = read_exact(fd, w->buf, to - from, run->offset_bytes + (from - run->start));
		if (err)
			return fail(err, "%s/pages-%u.img: compare its pages",
				    parents_at(image_set_parents(w->set), run->level)->path, run->pages_id);
		for (taddr_t at = from; at < to; at += PAGE)
			equal[(at - addr) / PAGE] = !memcmp(buf + (at - addr), w->buf + (at - from), PAGE);
	}
	return 0;
}

int pages_add_run(page_runs *runs, taddr_t addr, size_t nr, uint32_t flags, uint64_t offset_bytes)
{
	struct page_run *last = runs->nr ? &runs->v[runs->nr - 1] : NULL;

	if (last && last->flags == flags && last->start + last->nr_pages * PAGE == addr &&
	    (!(flags & PAGES_PRESENT) || last->offset_bytes + last->nr_pages * PAGE == offset_bytes)) {
		last->nr_pages += nr;
		return 0;
	}
	return VEC_PUSH(runs, ((struct page_run){ .start = addr, .nr_pages = nr, .flags = flags, .offset_bytes = offset_bytes }));
}

static int put_alike(struct pages_writer *w, taddr_t addr, const uint8_t *buf, size_t nr, bool in_parent, page_runs *runs)
{
	uint64_t at = w->offset_bytes;

	if (in_parent)
		w->nr_in_parent += nr;
	else
		pages_writer_append(w, buf, nr * PAGE);
	if (!w->err && pages_add_run(runs, addr, nr, in_parent ? PAGES_PARENT : PAGES_PRESENT, in_parent ? 0 : at))
		w->err = fail(-ENOMEM, "%s: list its pages", w->name);
	return w->err;
}

static int put_piece(struct pages_writer *w, taddr_t addr, const uint8_t *buf, size_t nr, page_runs *runs)
{
	bool equal[PIECE_PAGES] = {};

	w->err = pages_find_equal(w, addr, buf, nr, equal);
	for (size_t i = 0; !w->err && i < nr;) {
		size_t n = 1;

		while (i + n < nr && equal[i + n] == equal[i])
			n++;
		put_alike(w, addr + i * PAGE, buf + i * PAGE, n, equal[i], runs);
		i += n;
	}
	return w->err;
}

int pages_writer_put(struct pages_writer *w, taddr_t addr, const void *buf, size_t nr, page_runs *runs)
{
	const uint8_t *from = buf;

	if (!w->parent.nr)
		return w->err ? w->err : put_alike(w, addr, from, nr, false, runs);
	for (size_t i = 0; !w->err && i < nr; i += PIECE_PAGES)
		put_piece(w, addr + i * PAGE, from + i * PAGE, nr - i < PIECE_PAGES ? nr - i : PIECE_PAGES, runs);
	return w->err;
}

static void free_writer(struct pages_writer *w)
{
	VEC_FOREACH(f, &w->parent_files)
		close(f->fd);
	VEC_FREE(&w->parent_files);
	VEC_FREE(&w->parent);
	free(w->buf);
	free(w);
}

int pages_writer_close(struct pages_writer *w)
{
	if (!w)
		return 0;
	/* Network file systems and quotas report a full disk only here. */
	if (close(w->fd) && !w->err)
		w->err = image_set_io_error(w->set, w->name, "close", -errno);

	int err = w->err ? w->err : image_set_note(w->set, w->name, w->offset_bytes, NULL);

	free_writer(w);
	return err;
}

void pages_writer_drop(struct pages_writer *w)
{
	close(w->fd);
	/* What is left after a failure goes with the whole set. */
	(void)image_set_remove(w->set, w->name);
	free_writer(w);
}

/* --- reading --- */

int images_open_pages(int dirfd, uint32_t pages_id, int *ret_fd)
{
	char name[IMAGE_NAME_MAX];

	snprintf(name, sizeof(name), "pages-%u.img", pages_id);

	int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	if (fd < 0)
		return fail(-errno, "%s: open", name);
	*ret_fd = fd;
	return 0;
}

/* Follows the link `level` times, directory by directory: the chain has been checked when the set was loaded. */
static int open_level(int dirfd, uint32_t level, uint32_t pages_id, int *ret)
{
	_cleanup_close_ int dir = -1;

	for (uint32_t i = 0; i < level; i++) {
		int fd = openat(i ? dir : dirfd, IMAGE_PARENT, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

		if (fd < 0)
			return fail(-errno, "open the parent image set, %u back", i + 1);
		cleanup_close(&dir);
		dir = fd;
	}
	return images_open_pages(level ? dir : dirfd, pages_id, ret);
}

static int reader_fd(struct pages_reader *r, const struct page_run *run, int *ret)
{
	struct pages_file want = { run->level, run->level ? run->pages_id : r->pages_id, -1 };

	VEC_FOREACH(f, &r->files) {
		if (f->level == want.level && f->pages_id == want.pages_id) {
			*ret = f->fd;
			return 0;
		}
	}
	int err = open_level(r->dirfd, want.level, want.pages_id, &want.fd);
	if (err)
		return err;
	if (VEC_PUSH(&r->files, want)) {
		close(want.fd);
		return fail(-ENOMEM, "pages-%u.img: open", want.pages_id);
	}
	*ret = want.fd;
	return 0;
}

int pages_reader_read(struct pages_reader *r, const struct page_run *run, uint64_t skip, void *buf, size_t len)
{
	int fd = -1;
	int err = reader_fd(r, run, &fd);

	if (err)
		return err;
	err = read_exact(fd, buf, len, run->offset_bytes + skip);
	return err ? fail(err, "pages-%u.img, %u parents back: read its pages", run->level ? run->pages_id : r->pages_id,
			  run->level) :
		     0;
}

void pages_reader_close(struct pages_reader *r)
{
	VEC_FOREACH(f, &r->files)
		close(f->fd);
	VEC_FREE(&r->files);
}
