/*
 * Page indexes ↔ pagemap-N.img, pagemap-shmem-N.img.
 *
 * The format has no offsets: the pages of the present runs stand in the pages file in the order of the runs,
 * without gaps. Of pages in the parent set it says no more than that they are there; parents.c finds them.
 */
#include "image/pagemap.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "base/log.h"
#include "image/magic.h"
#include "image/set.h"
#include "images/pagemap.pb-c.h"

enum { PAGE = MODEL_PAGE_SIZE, WIRE_FLAGS = PAGES_PARENT | PAGES_LAZY | PAGES_PRESENT };

/* --- saving --- */

static int save_run(struct image_writer *w, const struct page_run *run)
{
	PagemapEntry e = PAGEMAP_ENTRY__INIT;

	e.vaddr = run->start;
	/* Readers before CRIU 4 know this field only. */
	e.compat_nr_pages = run->nr_pages <= UINT32_MAX ? run->nr_pages : 0;
	e.has_nr_pages = true;
	e.nr_pages = run->nr_pages;
	e.has_flags = true;
	e.flags = run->flags & WIRE_FLAGS;
	return writer_put(w, &e.base);
}

static int check_runs(const struct image_set *set, const char *name, const page_runs *runs, uint64_t *ret_bytes)
{
	uint64_t next = 0, bytes = 0;

	VEC_FOREACH(run, runs) {
		if (run->start < next || !run->nr_pages)
			return fail(0, "%s: pages at 0x%llx are out of order", name, (unsigned long long)run->start);
		next = run->start + run->nr_pages * PAGE;
		if (run->flags & PAGES_PARENT && (run->flags & PAGES_PRESENT || !image_set_parents(set)))
			return fail(0, "%s: pages at 0x%llx are in a parent, which the set does not have", name,
				    (unsigned long long)run->start);
		if (!(run->flags & PAGES_PRESENT))
			continue;
		if (run->offset_bytes != bytes)
			return fail(0, "%s: pages at 0x%llx are at offset %llu of the pages file instead of %llu", name,
				    (unsigned long long)run->start, (unsigned long long)run->offset_bytes,
				    (unsigned long long)bytes);
		bytes += run->nr_pages * PAGE;
	}
	*ret_bytes = bytes;
	return 0;
}

/* The pages file must hold what the runs say; one without pages is made here, because readers want it. */
static int check_pages_file(struct image_set *set, uint32_t pages_id, uint64_t bytes)
{
	char name[IMAGE_NAME_MAX];
	uint64_t size = 0;
	int err, fd;

	snprintf(name, sizeof(name), "pages-%u.img", pages_id);
	err = image_set_size(set, name, &size);
	if (err == -ENOENT && !bytes) {
		err = image_set_open_raw(set, name, &fd);
		if (err)
			return err;
		close(fd);
		return image_set_note(set, name, 0, NULL);
	}
	if (err && err != -ENOENT)
		return err;
	if (size != bytes)
		return fail(0, "%s: has %llu bytes of pages instead of %llu", name, (unsigned long long)size,
			    (unsigned long long)bytes);
	return 0;
}

int pagemap_image_save(struct image_set *set, const char *name, uint32_t pages_id, const page_runs *runs)
{
	PagemapHead head = PAGEMAP_HEAD__INIT;
	struct image_writer w;
	uint64_t bytes = 0;
	int err = check_runs(set, name, runs, &bytes);

	if (!err)
		err = check_pages_file(set, pages_id, bytes);
	if (err)
		return err;
	writer_open(&w, set, MAGIC_COMMON, MAGIC_PAGEMAP, "%s", name);
	head.pages_id = pages_id;
	writer_put(&w, &head.base);
	VEC_FOREACH(run, runs) {
		if (run->flags & WIRE_FLAGS)
			save_run(&w, run);
	}
	return writer_close(&w);
}

/* --- loading --- */

int pagemap_check_run(const struct image_reader *r, taddr_t start, uint64_t nr_pages, uint64_t end_max)
{
	if (start % PAGE || start >= end_max || !nr_pages || nr_pages > (end_max - start) / PAGE)
		return bad_image(r, "%llu pages at 0x%llx", (unsigned long long)nr_pages, (unsigned long long)start);
	return 0;
}

static int load_run(const struct image_reader *r, const PagemapEntry *e, uint64_t end_max, struct page_run *to)
{
	uint64_t nr = e->has_nr_pages && e->nr_pages ? e->nr_pages : e->compat_nr_pages;
	uint32_t flags = e->flags;

	if (e->compat_nr_pages && e->compat_nr_pages != nr)
		return bad_image(r, "nr_pages %llu and compat_nr_pages %u differ", (unsigned long long)nr,
				 e->compat_nr_pages);
	/* Sets written before the field was there. */
	if (!e->has_flags)
		flags = e->in_parent ? PAGES_PARENT : PAGES_PRESENT;
	if (flags & ~WIRE_FLAGS)
		return bad_image(r, "flags 0x%x, which this version of bcr does not know", flags);
	if (flags & PAGES_PARENT && flags & PAGES_PRESENT)
		return bad_image(r, "pages at 0x%llx are in this set and in its parent", (unsigned long long)e->vaddr);
	if (!(flags & (PAGES_PRESENT | PAGES_PARENT)))
		return unsupported("%s/%s: pages at 0x%llx were left with a page server", r->path, r->name,
				   (unsigned long long)e->vaddr);
	to->start = e->vaddr;
	to->nr_pages = nr;
	to->flags = flags & (PAGES_PRESENT | PAGES_PARENT);
	return pagemap_check_run(r, e->vaddr, nr, end_max);
}

static int check_pages_size(const struct image_source *src, const struct image_reader *r, uint32_t pages_id, uint64_t bytes)
{
	char name[IMAGE_NAME_MAX];
	uint64_t size = 0;
	int err;

	snprintf(name, sizeof(name), "pages-%u.img", pages_id);
	err = src->size(src, name, &size);
	if (err == -ENOENT)
		return fail(0, "%s/%s: missing: %s refers to it", r->path, name, r->name);
	if (err)
		return err;
	if (size != bytes)
		return fail(0, "%s/%s: has %llu bytes, %s says %llu: cut off or damaged", r->path, name,
			    (unsigned long long)size, r->name, (unsigned long long)bytes);
	return 0;
}

static int load_runs(struct image_reader *r, uint64_t end_max, page_runs *runs, uint64_t *ret_bytes)
{
	for (;;) {
		_cleanup_message_ PagemapEntry *e = NULL;
		struct page_run *last = runs->nr ? &runs->v[runs->nr - 1] : NULL;
		struct page_run run = { .offset_bytes = *ret_bytes };
		int got = reader_next(r, &pagemap_entry__descriptor, &e);

		if (got <= 0)
			return got;
		int err = load_run(r, e, end_max, &run);
		if (err)
			return err;
		if (last && run.start < last->start + last->nr_pages * PAGE)
			return bad_image(r, "pages at 0x%llx are not behind those in front of them",
					 (unsigned long long)run.start);
		/* Cannot overflow: runs do not overlap and lie below end_max. */
		if (run.flags & PAGES_PRESENT)
			*ret_bytes += run.nr_pages * PAGE;
		if (VEC_PUSH(runs, run))
			return fail(-ENOMEM, "%s/%s: read", r->path, r->name);
	}
}

int pagemap_image_load(const struct image_source *src, const char *name, uint64_t end_max, uint32_t *pages_id, page_runs *ret)
{
	_cleanup_reader_ struct image_reader r = {};
	_cleanup_message_ PagemapHead *head = NULL;
	uint64_t bytes = 0;
	int got = reader_open(&r, src, MAGIC_COMMON, MAGIC_PAGEMAP, "%s", name);

	if (got)
		return got;
	got = reader_next(&r, &pagemap_head__descriptor, &head);
	if (!got)
		return bad_file(&r, "has no record: cut off");
	if (got < 0)
		return got;
	int err = load_runs(&r, end_max, ret, &bytes);
	if (err)
		return err;
	*pages_id = bytes ? head->pages_id : 0;
	if (bytes && !head->pages_id)
		return bad_file(&r, "pages_id is 0");
	return check_pages_size(src, &r, head->pages_id, bytes);
}
