/*
 * The image sets that an incremental set builds on.
 *
 * Theory of operation. `parent` in a set's directory leads to the set before it. A page map says of a page only
 * that it is "in the parent"; the parent's page map of the same name says where, or that it is in the parent's
 * parent. The chain is followed when a set is loaded, so that a restore knows for each page the one file that
 * has it. Sets are followed by their directories, not by a path with many links in it.
 */
#include "image/parents.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "image/image.h"
#include "image/manifest.h"
#include "image/names.h"
#include "image/pagemap.h"
#include "image/set.h"

enum { PAGE = MODEL_PAGE_SIZE };

struct parent_set {
	struct image_source src;
	struct manifest *manifest;
};

struct parents {
	struct stat child; /* the directory of the set itself */
	VEC(struct parent_set *) sets; /* [0] is level 1 */
};

static bool is_same_dir(const struct stat *st, int dirfd)
{
	struct stat other;

	return dirfd >= 0 && !fstat(dirfd, &other) && st->st_dev == other.st_dev && st->st_ino == other.st_ino;
}

/* Is the directory one that was met already? */
static bool is_met(const struct parents *p, int dirfd)
{
	struct stat st;

	if (dirfd < 0 || fstat(dirfd, &st))
		return false;
	if (is_same_dir(&p->child, dirfd))
		return true;
	for (size_t i = 0; i + 1 < p->sets.nr; i++) {
		if (is_same_dir(&st, p->sets.v[i]->src.dirfd))
			return true;
	}
	return false;
}

/* Takes over `src`. `child` is the manifest of the set whose parent it is; NULL: none, or that set is not made yet. */
static int add_set(struct parents *p, struct image_source *src, const struct manifest *child)
{
	struct parent_set *s = calloc(1, sizeof(*s));
	uint64_t size;

	if (!s || VEC_PUSH(&p->sets, s)) {
		free(s);
		image_source_close(src);
		return fail(-ENOMEM, "follow the chain of image sets");
	}
	s->src = *src;
	if (is_met(p, s->src.dirfd))
		return fail(0, "%s: the parents of this image set lead back to itself", s->src.path);
	if (p->sets.nr > IMAGE_PARENTS_MAX)
		return fail(0, "%s: a chain of more than %d image sets; make a complete dump once in a while",
			    s->src.path, IMAGE_PARENTS_MAX);
	int err = s->src.size(&s->src, "inventory.img", &size);
	if (err == -ENOENT)
		return fail(0, "%s/inventory.img: missing: the parent image set is not there, or not complete", s->src.path);
	if (!err)
		err = manifest_check_parent(child, &s->src);
	if (!err)
		err = manifest_load(&s->src, &s->manifest);
	s->src.manifest = s->manifest;
	return err;
}

/* Follows the links from the last set on. */
static int add_further(struct parents *p)
{
	for (;;) {
		const struct parent_set *last = p->sets.v[p->sets.nr - 1];
		struct image_source src = { .dirfd = -1 };
		int err = last->src.parent ? last->src.parent(&last->src, &src) : -ENOENT;

		if (err == -ENOENT)
			return 0;
		if (!err)
			err = add_set(p, &src, last->manifest);
		if (err)
			return err;
	}
}

static int open_chain(int child_dirfd, struct image_source *first, const struct manifest *manifest, struct parents **ret)
{
	struct parents *p = calloc(1, sizeof(*p));
	int err;

	if (!p) {
		image_source_close(first);
		return fail(-ENOMEM, "follow the chain of image sets");
	}
	if (child_dirfd >= 0 && fstat(child_dirfd, &p->child)) {
		image_source_close(first);
		free(p);
		return fail(-errno, "images directory: stat");
	}
	err = add_set(p, first, manifest);
	if (!err)
		err = add_further(p);
	if (err) {
		parents_close(p);
		return err;
	}
	*ret = p;
	return 0;
}

int parents_open(const struct image_source *src, const struct manifest *manifest, struct parents **ret)
{
	struct image_source first = { .dirfd = -1 };
	int err = src->parent ? src->parent(src, &first) : -ENOENT;

	return err ? err : open_chain(src->dirfd, &first, manifest, ret);
}

int parents_open_for_new(int dirfd, const char *path, const char *prev, struct parents **ret)
{
	int fd = openat(dirfd, prev, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char *name;

	if (fd < 0)
		return fail(-errno, "--prev-images-dir %s: open it (a path that does not begin with / begins at %s)", prev,
			    path);
	if (asprintf(&name, "%s%s%s", *prev == '/' ? "" : path, *prev == '/' ? "" : "/", prev) < 0) {
		close(fd);
		return fail(-ENOMEM, "--prev-images-dir %s: open", prev);
	}

	struct image_source first = image_source_dir(fd, name);
	int err = image_set_recover(fd, name);

	if (err) {
		image_source_close(&first);
		return err;
	}
	return open_chain(dirfd, &first, NULL, ret);
}

void parents_close(struct parents *p)
{
	if (!p)
		return;
	VEC_FOREACH(s, &p->sets) {
		image_source_close(&(*s)->src);
		manifest_destroy((*s)->manifest);
		free(*s);
	}
	VEC_FREE(&p->sets);
	free(p);
}

const struct image_source *parents_at(const struct parents *p, uint32_t level)
{
	return &p->sets.v[level - 1]->src;
}

/* --- finding pages --- */

static taddr_t run_end(const struct page_run *run)
{
	return run->start + run->nr_pages * PAGE;
}

static bool is_open(const struct page_run *run)
{
	return run->flags & PAGES_PARENT && !run->level;
}

static bool any_open(const page_runs *runs)
{
	VEC_FOREACH(run, runs) {
		if (is_open(run))
			return true;
	}
	return false;
}

/* The part of `have`, a run of a set at `level`, that begins at `at`; found there, or in a set further down. */
static struct page_run part_of(const struct page_run *have, taddr_t at, taddr_t end, uint32_t level, uint32_t pages_id)
{
	struct page_run part = { .start = at, .nr_pages = (end - at) / PAGE, .flags = PAGES_PARENT };

	if (have->flags & PAGES_PRESENT) {
		part.level = level;
		part.pages_id = pages_id;
		part.offset_bytes = have->offset_bytes + (at - have->start);
	}
	return part;
}

/* Replaces the run by what the page map `have` says of its pages; *i is the first run of it that may matter. */
static int resolve_run(const struct image_source *src, const char *name, const struct page_run *run, const page_runs *have,
		       size_t *i, uint32_t level, uint32_t pages_id, page_runs *out)
{
	taddr_t at = run->start, end = run_end(run);

	while (at < end) {
		while (*i < have->nr && run_end(&have->v[*i]) <= at)
			++*i;
		if (*i == have->nr || have->v[*i].start > at)
			return fail(0, "%s/%s: has no page at 0x%llx, but the image set that builds on it needs it", src->path,
				    name, (unsigned long long)at);
		taddr_t to = run_end(&have->v[*i]) < end ? run_end(&have->v[*i]) : end;
		if (VEC_PUSH(out, part_of(&have->v[*i], at, to, level, pages_id)))
			return fail(-ENOMEM, "%s/%s: read", src->path, name);
		at = to;
	}
	return 0;
}

/* One level: what is still open is found in this set, or said by it to be in its parent. */
static int resolve_level(const struct parents *p, uint32_t level, const char *name, uint64_t end_max, page_runs *runs)
{
	const struct image_source *src = parents_at(p, level);
	page_runs have = {}, out = {};
	uint32_t pages_id = 0;
	size_t i = 0;
	int err = pagemap_image_load(src, name, end_max, &pages_id, &have);

	if (err == -ENOENT)
		err = fail(0, "%s/%s: missing: the image set that builds on it needs it", src->path, name);
	VEC_FOREACH(run, runs) {
		if (err)
			break;
		if (is_open(run))
			err = resolve_run(src, name, run, &have, &i, level, pages_id, &out);
		else if (VEC_PUSH(&out, *run))
			err = fail(-ENOMEM, "%s/%s: read", src->path, name);
	}
	VEC_FREE(&have);
	if (err) {
		VEC_FREE(&out);
		return err;
	}
	VEC_FREE(runs);
	*runs = out;
	return 0;
}

static int resolve_from(const struct parents *p, uint32_t level, const char *name, uint64_t end_max, page_runs *runs)
{
	for (; any_open(runs); level++) {
		if (level > p->sets.nr)
			return fail(0, "%s/%s: says that pages are in a parent image set, but has no link to one",
				    parents_at(p, level - 1)->path, name);
		int err = resolve_level(p, level, name, end_max, runs);
		if (err)
			return err;
	}
	return 0;
}

int parents_resolve(const struct parents *p, const char *name, uint64_t end_max, page_runs *runs)
{
	return resolve_from(p, 1, name, end_max, runs);
}

int parents_find(const struct parents *p, const char *name, uint64_t end_max, page_runs *ret)
{
	const struct image_source *src = parents_at(p, 1);
	uint32_t pages_id = 0;
	int err = pagemap_image_load(src, name, end_max, &pages_id, ret);

	if (err)
		return err == -ENOENT ? 0 : err;
	/* As the set to be made sees them. */
	VEC_FOREACH(run, ret) {
		if (run->flags & PAGES_PRESENT) {
			run->flags = PAGES_PARENT;
			run->level = 1;
			run->pages_id = pages_id;
		}
	}
	return resolve_from(p, 2, name, end_max, ret);
}
