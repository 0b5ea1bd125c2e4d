/*
 * Unlinked files and directories ↔ remap-fpath.img (which file of files.img is which) and ghost-file-N.img (what is in it); and
 * bcr-objects.bcr, where it says which removed directory was in which other one.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "image/magic.h"
#include "image/parts.h"
#include "images/ghost-file.pb-c.h"
#include "images/remap-file-path.pb-c.h"

enum { US_PER_S = 1000000 };

/* --- saving --- */

/* All of it in one piece, as long as the file: then it needs no chunks. */
static bool is_plain(const struct ghost *g)
{
	uint64_t len = g->pieces.nr ? g->pieces.v[0].len_bytes : 0;

	return g->pieces.nr <= 1 && len == g->size_bytes && (!g->pieces.nr || !g->pieces.v[0].offset_bytes);
}

static int save_ghost(struct save *s, const struct ghost *g)
{
	GhostFileEntry e = GHOST_FILE_ENTRY__INIT;
	Timeval atim = TIMEVAL__INIT, mtim = TIMEVAL__INIT;
	struct image_writer w;

	writer_open(&w, s->set, MAGIC_COMMON, MAGIC_GHOST_FILE, "ghost-file-%x.img", g->id);
	e.uid = g->uid;
	e.gid = g->gid;
	e.mode = g->mode;
	e.has_dev = e.has_ino = e.has_size = true;
	e.dev = g->dev;
	e.ino = g->ino;
	e.size = g->size_bytes;
	atim.tv_sec = g->atime_us / US_PER_S;
	atim.tv_usec = g->atime_us % US_PER_S;
	mtim.tv_sec = g->mtime_us / US_PER_S;
	mtim.tv_usec = g->mtime_us % US_PER_S;
	e.atim = &atim;
	e.mtim = &mtim;
	e.has_chunks = e.chunks = !is_plain(g);
	writer_put(&w, &e.base);
	VEC_FOREACH(piece, &g->pieces) {
		GhostChunkEntry chunk = GHOST_CHUNK_ENTRY__INIT;

		chunk.len = piece->len_bytes;
		chunk.off = piece->offset_bytes;
		if (e.chunks)
			writer_put(&w, &chunk.base);
		writer_put_bytes(&w, piece->data, piece->len_bytes);
	}
	return writer_close(&w);
}

int save_ghosts(struct save *s)
{
	struct image_writer w;
	int err = 0;

	if (!s->m->ghosts.nr)
		return 0;
	for (size_t i = 0; !err && i < s->m->ghosts.nr; i++)
		err = save_ghost(s, s->m->ghosts.v[i]);
	if (err)
		return err;
	writer_open(&w, s->set, MAGIC_COMMON, MAGIC_REMAP_FPATH, "remap-fpath.img");
	VEC_FOREACH(f, &s->m->files) {
		RemapFilePathEntry e = REMAP_FILE_PATH_ENTRY__INIT;

		if ((*f)->type != FILE_REG || !(*f)->reg.ghost_id)
			continue;
		e.orig_id = (*f)->id;
		e.remap_id = (*f)->reg.ghost_id;
		e.has_remap_type = true;
		e.remap_type = REMAP_TYPE__GHOST;
		writer_put(&w, &e.base);
	}
	return writer_close(&w);
}

int fill_removed(struct arena *a, const struct model *m, BcrObjectsEntry *msg)
{
	msg->removed = arena_alloc(a, m->ghosts.nr * sizeof(*msg->removed));
	if (!msg->removed)
		return -ENOMEM;
	VEC_FOREACH(g, &m->ghosts) {
		BcrRemovedEntry *e = (*g)->parent_id ? arena_alloc(a, sizeof(*e)) : NULL;

		if (!(*g)->parent_id)
			continue;
		if (!e)
			return -ENOMEM;
		bcr_removed_entry__init(e);
		e->id = (*g)->id;
		e->parent = (*g)->parent_id;
		msg->removed[msg->n_removed++] = e;
	}
	return 0;
}

/* --- loading --- */

static int load_piece(struct image_reader *r, struct ghost *g, uint64_t offset, uint64_t len)
{
	uint64_t behind = g->pieces.nr ? g->pieces.v[g->pieces.nr - 1].offset_bytes + g->pieces.v[g->pieces.nr - 1].len_bytes : 0;
	struct ghost_piece piece = { offset, len, NULL };
	const uint8_t *data;

	if (offset < behind || offset > g->size_bytes || len > g->size_bytes - offset)
		return bad_image(r, "%llu bytes at %llu do not go into a file of %llu bytes, or overlap", (unsigned long long)len,
				 (unsigned long long)offset, (unsigned long long)g->size_bytes);
	int err = reader_payload(r, len, &data);
	if (err || !len)
		return err;
	piece.data = malloc(len);
	if (!piece.data || VEC_PUSH(&g->pieces, piece)) {
		free(piece.data);
		return fail(-ENOMEM, "%s/%s: read", r->path, r->name);
	}
	memcpy(piece.data, data, len);
	return 0;
}

static int load_chunks(struct image_reader *r, struct ghost *g)
{
	for (;;) {
		_cleanup_message_ GhostChunkEntry *e = NULL;
		int got = reader_next(r, &ghost_chunk_entry__descriptor, &e);

		if (got > 0)
			got = load_piece(r, g, e->off, e->len) ? -EINVAL : 1;
		if (got <= 0)
			return got;
	}
}

static uint64_t load_time(const Timeval *t)
{
	return t && t->tv_usec < US_PER_S && t->tv_sec < INT64_MAX / US_PER_S ? t->tv_sec * US_PER_S + t->tv_usec : 0;
}

static int load_ghost(struct load *l, uint32_t id)
{
	_cleanup_reader_ struct image_reader r = {};
	_cleanup_message_ GhostFileEntry *e = NULL;
	struct ghost *g;
	int err = reader_open_needed(&r, l->src, MAGIC_GHOST_FILE, "ghost-file-%x.img", id);

	if (err)
		return err;
	int got = reader_next(&r, &ghost_file_entry__descriptor, &e);
	if (got <= 0)
		return got ? got : bad_file(&r, "has no record: cut off");
	if (!S_ISREG(e->mode) && !S_ISDIR(e->mode))
		return unsupported("%s/%s: an unlinked file of mode 0%o, which is neither a regular one nor a directory", r.path, r.name,
				   e->mode);
	g = model_add_ghost(l->m, id);
	if (!g)
		return fail(-ENOMEM, "%s/%s: read", r.path, r.name);
	g->uid = e->uid;
	g->gid = e->gid;
	g->mode = e->mode;
	g->dev = e->dev;
	g->ino = e->ino;
	g->atime_us = load_time(e->atim);
	g->mtime_us = load_time(e->mtim);
	/* What file systems take for a directory itself may be said, but is not there. */
	if (S_ISDIR(e->mode))
		return 0;
	g->size_bytes = e->has_size ? e->size : r.len - r.pos;
	if (g->size_bytes > INT64_MAX)
		return bad_image(&r, "a file of %llu bytes", (unsigned long long)g->size_bytes);
	if (e->chunks)
		return load_chunks(&r, g);
	if (r.len - r.pos != g->size_bytes)
		return bad_image(&r, "%zu bytes are there of a file of %llu", r.len - r.pos, (unsigned long long)g->size_bytes);
	return load_piece(&r, g, 0, g->size_bytes);
}

static int load_remap(struct load *l, const struct image_reader *r, const RemapFilePathEntry *e)
{
	struct file *f = model_find_file(l->m, e->orig_id);

	/* What is not said is what old versions of CRIU wrote: a ghost. */
	if (e->has_remap_type && e->remap_type != REMAP_TYPE__GHOST)
		return unsupported("%s/%s: file %u has lost its path and is %s", r->path, r->name, e->orig_id,
				   e->remap_type == REMAP_TYPE__LINKED ? "to be found under another name (--link-remap)" :
									 "that of a process that had ended");
	if (!f || f->type != FILE_REG || f->reg.ghost_id)
		return bad_image(r, "file %u is no regular file of files.img, or is there twice", e->orig_id);
	if (!e->remap_id)
		return bad_image(r, "remap_id is 0");
	f->reg.ghost_id = e->remap_id;
	return model_find_ghost(l->m, e->remap_id) ? 0 : load_ghost(l, e->remap_id);
}

/* Is `id` below itself? As many steps as there are ghosts end each way up that is none. */
static bool is_circle(const struct model *m, const struct ghost *g)
{
	for (size_t i = 0; g && i <= m->ghosts.nr; i++)
		g = g->parent_id ? model_find_ghost(m, g->parent_id) : NULL;
	return g;
}

/* From a directory that has been removed to the one above it, which nobody may have in use. */
static int load_removed(struct load *l, const BcrRemovedEntry *e)
{
	struct ghost *g = model_find_ghost(l->m, e->id), *parent = model_find_ghost(l->m, e->parent);
	int err = e->parent && !parent ? load_ghost(l, e->parent) : 0;

	if (!err && e->id && !g)
		err = load_ghost(l, e->id);
	if (err)
		return err;
	g = model_find_ghost(l->m, e->id);
	parent = model_find_ghost(l->m, e->parent);
	if (!g || !parent || !S_ISDIR(parent->mode) || !S_ISDIR(g->mode) || g->parent_id)
		return fail(0, "%s/bcr-objects.bcr: removed directory %u in %u: damaged", l->src->path, e->id, e->parent);
	g->parent_id = e->parent;
	if (is_circle(l->m, g))
		return fail(0, "%s/bcr-objects.bcr: removed directory %u is inside itself", l->src->path, e->id);
	return 0;
}

static int load_all_removed(struct load *l)
{
	int err = 0;

	for (size_t i = 0; l->objects && !err && i < l->objects->n_removed; i++)
		err = load_removed(l, l->objects->removed[i]);
	return err;
}

int load_ghosts(struct load *l)
{
	_cleanup_reader_ struct image_reader r = {};
	int err = reader_open(&r, l->src, MAGIC_COMMON, MAGIC_REMAP_FPATH, "remap-fpath.img");

	if (err == -ENOENT)
		return 0;
	while (!err) {
		_cleanup_message_ RemapFilePathEntry *e = NULL;
		int got = reader_next(&r, &remap_file_path_entry__descriptor, &e);

		if (got < 0)
			return got;
		if (!got)
			break;
		err = load_remap(l, &r, e);
	}
	return err ? err : load_all_removed(l);
}
