/*
 * The list of a set's files with sizes and checksums (bcr-manifest.bcr). Of an incremental set, `parent` is in
 * it: with size and checksum of the parent's own list, so that a set that took the parent's place in its
 * directory is not taken for it.
 *
 * CRIU's format notices neither a file cut off between two records nor a changed byte. This list does. Page files have
 * only their size in it: they are read once, by the restore itself, and reading them for a checksum would double that.
 */
#include "image/manifest.h"

#include <errno.h>
#include <string.h>
#include <zlib.h>

#include "base/log.h"
#include "image/magic.h"
#include "image/names.h"
#include "image/parents.h"
#include "image/set.h"
#include "images/bcr-manifest.pb-c.h"

#define MANIFEST "bcr-manifest.bcr"
#define HOW_TO_ACCEPT "if it was changed on purpose, remove " MANIFEST

struct manifest {
	VEC(struct set_file) files; /* sorted by name */
	struct set_file parent;     /* name "": says nothing of a parent */
};

static int compare_names(const void *a, const void *b)
{
	return strcmp(((const struct set_file *)a)->name, ((const struct set_file *)b)->name);
}

/* Size and checksum of the list of a set; -ENOENT, not reported: it has none. */
static int identify(const struct image_source *src, struct set_file *ret)
{
	_cleanup_free_ uint8_t *data = NULL;
	size_t len;
	int err = src->read(src, MANIFEST, &data, &len);

	if (err)
		return err;
	strcpy(ret->name, IMAGE_PARENT);
	ret->size_bytes = len;
	ret->has_crc32 = true;
	ret->crc32 = crc32(0, data, len);
	return 0;
}

static int note_parent(struct image_set *set)
{
	const struct parents *p = image_set_parents(set);
	struct set_file f = {};
	int err = p ? identify(parents_at(p, 1), &f) : -ENOENT;

	if (err)
		return err == -ENOENT ? 0 : err;
	return image_set_note(set, f.name, f.size_bytes, &f.crc32);
}

int manifest_save(struct image_set *set)
{
	struct image_writer w;
	size_t nr;
	int err = note_parent(set);
	const struct set_file *files = image_set_noted(set, &nr);

	if (err)
		return err;

	writer_open(&w, set, MAGIC_COMMON, MAGIC_BCR_MANIFEST, MANIFEST);
	for (size_t i = 0; i < nr; i++) {
		BcrManifestEntry e = BCR_MANIFEST_ENTRY__INIT;

		e.name = (char *)files[i].name;
		e.size_bytes = files[i].size_bytes;
		e.has_crc32 = files[i].has_crc32;
		e.crc32 = files[i].crc32;
		writer_put(&w, &e.base);
	}
	return writer_close(&w);
}

static int load_entry(const struct image_source *src, const struct image_reader *r, const BcrManifestEntry *e,
		      struct manifest *m)
{
	struct set_file f = { .size_bytes = e->size_bytes, .has_crc32 = e->has_crc32, .crc32 = e->crc32 };
	uint64_t size = 0;
	int err;

	if (strlen(e->name) >= sizeof(f.name) || strchr(e->name, '/'))
		return bad_image(r, "a file name of %zu bytes or with a slash", strlen(e->name));
	strcpy(f.name, e->name);
	if (!strcmp(f.name, IMAGE_PARENT)) {
		m->parent = f;
		return 0;
	}
	err = src->size(src, f.name, &size);
	if (err == -ENOENT)
		return fail(0, "%s/%s: missing: the image set is not complete", src->path, f.name);
	if (err)
		return err;
	if (size != f.size_bytes)
		return fail(0, "%s/%s: has %llu bytes, %llu were written: cut off or damaged (" HOW_TO_ACCEPT ")",
			    src->path, f.name, (unsigned long long)size, (unsigned long long)f.size_bytes);
	return VEC_PUSH(&m->files, f) ? fail(-ENOMEM, "%s/%s: read", r->path, r->name) : 0;
}

static int load_entries(const struct image_source *src, struct image_reader *r, struct manifest *m)
{
	int err = 0;

	while (!err) {
		_cleanup_message_ BcrManifestEntry *e = NULL;
		int got = reader_next(r, &bcr_manifest_entry__descriptor, &e);

		if (got < 0)
			return got;
		if (!got)
			break;
		err = load_entry(src, r, e, m);
	}
	if (!err && !m->files.nr)
		return bad_file(r, "has no record: cut off");
	return err;
}

int manifest_load(const struct image_source *src, struct manifest **ret)
{
	_cleanup_reader_ struct image_reader r = {};
	int err = reader_open(&r, src, MAGIC_COMMON, MAGIC_BCR_MANIFEST, MANIFEST);
	struct manifest *m;

	if (err == -ENOENT)
		return 0;
	if (err)
		return err;
	m = calloc(1, sizeof(*m));
	if (!m)
		return fail(-ENOMEM, "%s/%s: read", r.path, r.name);
	err = load_entries(src, &r, m);
	if (err) {
		manifest_destroy(m);
		return err;
	}
	qsort(m->files.v, m->files.nr, sizeof(*m->files.v), compare_names);
	*ret = m;
	return 0;
}

void manifest_destroy(struct manifest *m)
{
	if (!m)
		return;
	VEC_FREE(&m->files);
	free(m);
}

int manifest_check(const struct manifest *m, const struct image_reader *r)
{
	struct set_file key = {};
	const struct set_file *f;

	strcpy(key.name, r->name);
	f = bsearch(&key, m->files.v, m->files.nr, sizeof(key), compare_names);
	if (!f)
		return bad_file(r, "does not belong to this image set (" HOW_TO_ACCEPT ")");
	if (f->size_bytes == r->len && (!f->has_crc32 || f->crc32 == crc32(0, r->data, r->len)))
		return 0;
	return bad_file(r, "damaged: its checksum is not that of what was written (" HOW_TO_ACCEPT ")");
}

int manifest_check_parent(const struct manifest *m, const struct image_source *parent)
{
	struct set_file is = {};

	if (!m || !m->parent.name[0])
		return 0;
	int err = identify(parent, &is);
	if (err && err != -ENOENT)
		return err;
	if (!err && is.size_bytes == m->parent.size_bytes && is.crc32 == m->parent.crc32)
		return 0;
	return fail(0, "%s: is not the image set that the one above it was made from: another dump has taken its place, or it was changed (if on "
		       "purpose, remove " MANIFEST " there and above)",
		    parent->path);
}
