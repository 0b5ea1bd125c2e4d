/*
 * Memory objects ↔ memfd.img, bcr-objects.bcr, pagemap-shmem-N.img.
 *
 * CRIU's format has memory files in memfd.img; of shared anonymous memory it says nothing but what is mapped, and System V
 * segments only as part of an IPC namespace: bcr-objects.bcr has those.
 */
#include <linux/memfd.h>
#include <linux/mman.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/log.h"
#include "image/magic.h"
#include "image/names.h"
#include "image/pagemap.h"
#include "image/parts.h"
#include "images/memfd.pb-c.h"

enum {
	HUGE_SHIFT_MIN = 16, HUGE_SHIFT_MAX = 34, /* 64 KiB to 16 GiB */
	MODE_SYSV = 03777,                        /* with SHM_DEST 01000 and SHM_LOCKED 02000 */
	MEMFD_NAME_MAX = 249,
};

/* --- saving --- */

static bool has_memfds(const struct model *m)
{
	VEC_FOREACH(s, &m->shmems) {
		if ((*s)->sort == SHMEM_MEMFD)
			return true;
	}
	return false;
}

static int save_memfds(struct save *s)
{
	struct image_writer w;

	if (!has_memfds(s->m))
		return 0;
	writer_open(&w, s->set, MAGIC_COMMON, MAGIC_MEMFD, "memfd.img");
	VEC_FOREACH(p, &s->m->shmems) {
		const struct shmem *shmem = *p;
		MemfdInodeEntry e = MEMFD_INODE_ENTRY__INIT;

		if (shmem->sort != SHMEM_MEMFD)
			continue;
		e.name = shmem->name;
		e.uid = shmem->uid;
		e.gid = shmem->gid;
		e.size = shmem->size_bytes;
		e.shmid = e.inode_id = shmem->id;
		e.seals = shmem->seals;
		e.has_hugetlb_flag = shmem->huge_bytes != 0;
		if (shmem->huge_bytes)
			e.hugetlb_flag = MFD_HUGETLB | (uint32_t)__builtin_ctzll(shmem->huge_bytes) << MAP_HUGE_SHIFT;
		e.has_mode = true;
		e.mode = shmem->mode;
		writer_put(&w, &e.base);
	}
	return writer_close(&w);
}

int save_shmems(struct save *s)
{
	int err = s->memory_only ? 0 : save_memfds(s);

	VEC_FOREACH(p, &s->m->shmems) {
		const struct shmem *shmem = *p;
		uint32_t pages_id = shmem->pages_id ? shmem->pages_id : ++s->next_id;
		char name[IMAGE_NAME_MAX];

		if (!err)
			err = pagemap_image_save(s->set, image_name_pagemap_shmem(name, shmem->id), pages_id, &shmem->pages);
	}
	return err;
}

static BcrSysvEntry *save_sysv(struct arena *a, const struct shmem *s)
{
	BcrSysvEntry *e = arena_alloc(a, sizeof(*e));

	if (!e)
		return NULL;
	bcr_sysv_entry__init(e);
	e->id = s->sysv.id;
	e->key = s->sysv.key;
	e->uid = s->uid;
	e->gid = s->gid;
	e->cuid = s->sysv.cuid;
	e->cgid = s->sysv.cgid;
	e->mode = s->mode;
	return e;
}

int fill_shmem_objects(struct arena *a, const struct model *m, BcrObjectsEntry *msg)
{
	msg->shmems = arena_alloc(a, m->shmems.nr * sizeof(*msg->shmems));
	if (!msg->shmems)
		return -ENOMEM;
	VEC_FOREACH(p, &m->shmems) {
		const struct shmem *s = *p;
		BcrShmemEntry *e = s->sort == SHMEM_MEMFD ? NULL : arena_alloc(a, sizeof(*e));

		if (s->sort == SHMEM_MEMFD)
			continue;
		if (!e)
			return -ENOMEM;
		bcr_shmem_entry__init(e);
		e->id = s->id;
		e->size_bytes = s->size_bytes;
		e->has_huge_bytes = s->huge_bytes != 0;
		e->huge_bytes = s->huge_bytes;
		if (s->sort == SHMEM_SYSV && !(e->sysv = save_sysv(a, s)))
			return -ENOMEM;
		msg->shmems[msg->n_shmems++] = e;
	}
	return 0;
}

/* --- loading --- */

static bool huge_shift_is_right(uint32_t shift)
{
	return shift >= HUGE_SHIFT_MIN && shift <= HUGE_SHIFT_MAX;
}

static int load_memfd(struct load *l, const struct image_reader *r, const MemfdInodeEntry *e)
{
	uint32_t shift = e->hugetlb_flag >> MAP_HUGE_SHIFT & MAP_HUGE_MASK;

	if (!e->shmid || model_find_shmem(l->m, e->shmid))
		return bad_image(r, "shmid %u is 0 or there twice", e->shmid);
	if (e->inode_id > UINT32_MAX || e->size > INT64_MAX || e->mode > 07777 || strlen(e->name) > MEMFD_NAME_MAX)
		return bad_image(r, "memory file %u: its number, size, mode or name is damaged", e->shmid);
	if (e->hugetlb_flag && !huge_shift_is_right(shift))
		return bad_image(r, "memory file %u: huge pages 0x%x", e->shmid, e->hugetlb_flag);

	struct shmem *s = model_add_shmem(l->m, e->shmid);

	if (s)
		s->name = strdup(e->name);
	if (!s || !s->name)
		return fail(-ENOMEM, "%s/%s: read", r->path, r->name);
	s->sort = SHMEM_MEMFD;
	s->size_bytes = e->size;
	s->huge_bytes = e->hugetlb_flag ? 1ULL << shift : 0;
	s->seals = e->seals;
	s->uid = e->uid;
	s->gid = e->gid;
	s->mode = e->has_mode ? e->mode : 0777;
	s->ino = e->inode_id;
	return 0;
}

static int load_memfds(struct load *l)
{
	_cleanup_reader_ struct image_reader r = {};
	int err = reader_open(&r, l->src, MAGIC_COMMON, MAGIC_MEMFD, "memfd.img");

	if (err == -ENOENT)
		return 0;
	while (!err) {
		_cleanup_message_ MemfdInodeEntry *e = NULL;
		int got = reader_next(&r, &memfd_inode_entry__descriptor, &e);

		if (got < 0)
			return got;
		if (!got)
			break;
		err = load_memfd(l, &r, e);
	}
	return err;
}

static struct shmem *find_sysv(const struct model *m, int32_t id)
{
	VEC_FOREACH(s, &m->shmems) {
		if ((*s)->sort == SHMEM_SYSV && (*s)->sysv.id == id)
			return *s;
	}
	return NULL;
}

static int load_object(struct load *l, const BcrShmemEntry *e)
{
	struct image_reader r = { .path = l->src->path, .name = "bcr-objects.bcr", .nr_records = 1 };
	const BcrSysvEntry *sysv = e->sysv;

	if (!e->id || model_find_shmem(l->m, e->id))
		return bad_image(&r, "shared memory %u is 0 or there twice", e->id);
	if (e->size_bytes >= IMAGE_USER_END || (!sysv && e->size_bytes % MODEL_PAGE_SIZE))
		return bad_image(&r, "shared memory %u has %llu bytes", e->id, (unsigned long long)e->size_bytes);
	if (e->huge_bytes && (e->huge_bytes & (e->huge_bytes - 1) || !huge_shift_is_right(__builtin_ctzll(e->huge_bytes))))
		return bad_image(&r, "shared memory %u: huge pages of %llu bytes", e->id, (unsigned long long)e->huge_bytes);
	if (sysv && (sysv->id < 0 || sysv->mode & ~MODE_SYSV || !e->size_bytes || find_sysv(l->m, sysv->id)))
		return bad_image(&r, "System V segment %d, mode 0%o, of %llu bytes, or it is there twice", sysv->id, sysv->mode,
				 (unsigned long long)e->size_bytes);

	struct shmem *s = model_add_shmem(l->m, e->id);

	if (!s)
		return fail(-ENOMEM, "%s/%s: read", r.path, r.name);
	s->size_bytes = e->size_bytes;
	s->huge_bytes = e->huge_bytes;
	if (!sysv)
		return 0;
	s->sort = SHMEM_SYSV;
	s->sysv.id = sysv->id;
	s->sysv.key = sysv->key;
	s->sysv.cuid = sysv->cuid;
	s->sysv.cgid = sysv->cgid;
	s->uid = sysv->uid;
	s->gid = sysv->gid;
	s->mode = sysv->mode;
	return 0;
}

int load_shmem_objects(struct load *l)
{
	int err = load_memfds(l);

	for (size_t i = 0; !err && l->objects && i < l->objects->n_shmems; i++)
		err = load_object(l, l->objects->shmems[i]);
	return err;
}

int load_vma_shmem(struct load *l, const struct image_reader *r, const VmaEntry *e, struct vma *vma)
{
	bool sysv = e->status & VMA_SYSVIPC;
	struct shmem *s = sysv ? find_sysv(l->m, e->shmid) : model_find_shmem(l->m, e->shmid);

	if (!s && sysv)
		return unsupported("%s/%s: mapping at 0x%llx: System V segment %llu, of which the set does not say what it was",
				   r->path, r->name, (unsigned long long)e->start, (unsigned long long)e->shmid);
	if (s && s->sort != (sysv ? SHMEM_SYSV : SHMEM_ANON))
		return bad_image(r, "mapping at 0x%llx: its shared memory %llu is of another sort", (unsigned long long)e->start,
				 (unsigned long long)e->shmid);
	if (!s && l->objects)
		return bad_image(r, "mapping at 0x%llx: its shared memory %llu is not in bcr-objects.bcr",
				 (unsigned long long)e->start, (unsigned long long)e->shmid);
	if (!s)
		s = model_add_shmem(l->m, e->shmid);
	if (!s)
		return fail(-ENOMEM, "%s/%s: read", r->path, r->name);
	vma->shmem_id = s->id;
	uint64_t huge_bytes = e->flags & MAP_HUGETLB ? 1ULL << (e->flags >> MAP_HUGE_SHIFT & MAP_HUGE_MASK) : 0;
	if (l->objects)
		return s->huge_bytes == huge_bytes ? 0 :
						     bad_image(r, "mapping at 0x%llx: its pages are not of the size of its object's",
							       (unsigned long long)e->start);
	/* CRIU's sets do not say how large the object is: it holds what is mapped of it. */
	s->huge_bytes = huge_bytes;
	if (s->size_bytes < e->pgoff + (e->end - e->start))
		s->size_bytes = e->pgoff + (e->end - e->start);
	return 0;
}

int load_shmems(struct load *l)
{
	VEC_FOREACH(p, &l->m->shmems) {
		struct shmem *s = *p;
		char name[IMAGE_NAME_MAX];
		/* CRIU restores zeros when the file is missing: that is data lost. */
		int err = load_pages(l, image_name_pagemap_shmem(name, s->id), shmem_whole_bytes(s), &s->pages_id, &s->pages);

		if (err)
			return err;
	}
	return 0;
}
