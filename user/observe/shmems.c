/*
 * Memory that is an object of its own: one struct shmem for each, whatever shows it (mappings of one or several
 * tasks, descriptors). And files that have been unlinked.
 */
#include <errno.h>
#include <linux/mman.h>
#include <stdio.h>
#include <sys/mman.h>

#include "base/log.h"
#include "kinds/shmem.h"
#include "observe/run.h"

/* The numbers of inodes are counted separately for each sort: those of System V segments are their ids. */
static uint64_t shmem_key(const struct observed_file *of, enum shmem_sort sort)
{
	return ident_mix(ident_mix(of->rec.dev, of->rec.ino), sort);
}

static void place_by_mapping(struct shmem *s, pid_t pid, const struct vma *vma)
{
	s->pid = pid;
	s->start = vma->start;
	s->map_files_end = vma->end;
}

static void place_by_descriptor(struct shmem *s, pid_t pid, int fd)
{
	s->pid = pid;
	s->fd = fd;
	s->start = s->map_files_end = 0;
}

struct shmem *run_shmem(struct run *r, const struct observed_file *of, enum shmem_sort sort, pid_t pid, const struct vma *vma)
{
	uint64_t key = shmem_key(of, sort);
	uint32_t id = ident_map_find(&r->shmems, key);
	struct shmem *s = id ? model_find_shmem(r->m, id) : NULL;

	if (s)
		return s;
	s = model_add_shmem(r->m, 0);
	if (!s || ident_map_add(&r->shmems, key, s->id))
		return NULL;
	s->sort = sort;
	s->size_bytes = of->rec.size;
	s->ino = of->rec.ino;
	if (sort == SHMEM_SYSV)
		s->sysv.id = of->rec.ino;
	if (vma)
		place_by_mapping(s, pid, vma);
	else
		place_by_descriptor(s, pid, of->rec.fd);
	if (vma && vma->flags & MAP_HUGETLB)
		s->huge_bytes = 1ULL << (vma->flags >> MAP_HUGE_SHIFT & MAP_HUGE_MASK);
	return s;
}

struct ghost *run_ghost(struct run *r, const struct observed_file *of)
{
	uint64_t key = ident_mix(of->rec.dev, of->rec.ino);
	uint32_t id = ident_map_find(&r->ghosts, key);
	struct ghost *g = id ? model_find_ghost(r->m, id) : NULL;

	if (!g) {
		g = model_add_ghost(r->m, 0);
		if (!g || ident_map_add(&r->ghosts, key, g->id))
			return NULL;
	}
	/* Whoever was seen last may live longest. */
	g->dev = of->rec.dev;
	g->ino = of->rec.ino;
	g->pid = of->rec.tgid;
	if (of->rec.fd >= 0)
		snprintf(g->link, sizeof(g->link), "fd/%d", of->rec.fd);
	else
		snprintf(g->link, sizeof(g->link), "%s", of->link);
	return g;
}

int run_sysv(struct run *r, struct shmem *s)
{
	int err = shmem_look(s);

	return err == -ENOENT ? run_changed(r, s->pid, "a System V segment has gone") : err;
}

/* How many mappings of each object the tree has; the kernel counts each piece of an attachment. */
static uint64_t count_mappings(const struct model *m, uint32_t shmem_id)
{
	uint64_t nr = 0;

	VEC_FOREACH(mm, &m->mms)
		VEC_FOREACH(vma, &(*mm)->vmas)
			nr += vma->shmem_id == shmem_id;
	return nr;
}

/* A segment that others use as well cannot be given a copy to: they would go on with the first one. */
int run_foreign_shmems(struct run *r)
{
	VEC_FOREACH(p, &r->m->shmems) {
		const struct shmem *s = *p;
		uint64_t ours = s->sort == SHMEM_SYSV ? count_mappings(r->m, s->id) : 0;

		if (s->sort != SHMEM_SYSV || shmem_nr_attached(s) <= ours)
			continue;
		/* Somebody of the tree may just have attached it. */
		if (!r->stopped && !r->last_try)
			return -EAGAIN;
		int err = run_note(r, unsupported("pid %d mapping %llx-%llx: System V segment %d is attached by processes outside the "
						  "tree as well; end those, or dump them too",
						  s->pid, (unsigned long long)s->start, (unsigned long long)s->map_files_end,
						  s->sysv.id));
		if (err)
			return err;
	}
	return 0;
}

/* --- after a look: who has it, now? --- */

static uint32_t vma_object(const struct model *m, const struct vma *vma)
{
	const struct file *f = vma->status & VMA_MEMFD ? model_find_file(m, vma->file_id) : NULL;

	return f ? f->memfd.shmem_id : vma->shmem_id;
}

static bool place_mapped(const struct model *m, struct shmem *s)
{
	VEC_FOREACH(mm, &m->mms) {
		VEC_FOREACH(vma, &(*mm)->vmas) {
			if (vma_object(m, vma) != s->id)
				continue;
			place_by_mapping(s, (*mm)->pid, vma);
			return true;
		}
	}
	return false;
}

static void place_open(const struct model *m, struct shmem *s)
{
	VEC_FOREACH(t, &m->tasks) {
		const struct fdtable *table = t->files_id ? model_find_fdtable(m, t->files_id) : NULL;

		for (size_t i = 0; table && i < table->fds.nr; i++) {
			const struct file *f = model_find_file(m, table->fds.v[i].file_id);

			if (!f || f->type != FILE_MEMFD || f->memfd.shmem_id != s->id)
				continue;
			place_by_descriptor(s, t->pid, table->fds.v[i].fd);
			return;
		}
	}
}

void run_place_shmems(struct run *r)
{
	VEC_FOREACH(s, &r->m->shmems) {
		if (!place_mapped(r->m, *s))
			place_open(r->m, *s);
	}
}
