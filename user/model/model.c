/* The model's containers: creation, lookup, destruction. */
#include "model/model.h"

#include <assert.h>
#include <stdlib.h>

struct model *model_create(void)
{
	return calloc(1, sizeof(struct model));
}

uint32_t model_new_id(struct model *m)
{
	return ++m->next_id;
}

/*
 * Ids are handed out in ascending order and images mostly list them so: the object with the highest id is the
 * last one, and a binary search finds the others. Images in another order are sorted by the loader's insertion.
 */
#define DEFINE_OBJECTS(noun, vec)                                                                  \
	struct noun *model_find_##noun(const struct model *m, uint32_t id)                         \
	{                                                                                          \
		size_t lo = 0, hi = m->vec.nr;                                                     \
                                                                                                   \
		while (lo < hi) {                                                                  \
			size_t mid = lo + (hi - lo) / 2;                                           \
                                                                                                   \
			if (m->vec.v[mid]->id < id)                                                \
				lo = mid + 1;                                                      \
			else                                                                       \
				hi = mid;                                                          \
		}                                                                                  \
		return lo < m->vec.nr && m->vec.v[lo]->id == id ? m->vec.v[lo] : NULL;             \
	}                                                                                          \
                                                                                                   \
	struct noun *model_add_##noun(struct model *m, uint32_t id)                                \
	{                                                                                          \
		struct noun *o = calloc(1, sizeof(*o));                                            \
                                                                                                   \
		if (!o || VEC_PUSH(&m->vec, o)) {                                                  \
			free(o);                                                                   \
			return NULL;                                                               \
		}                                                                                  \
		o->id = id ? id : model_new_id(m);                                                 \
		if (o->id > m->next_id)                                                            \
			m->next_id = o->id;                                                        \
		size_t at = m->vec.nr - 1;                                                         \
		while (at && m->vec.v[at - 1]->id > o->id) {                                       \
			m->vec.v[at] = m->vec.v[at - 1];                                           \
			at--;                                                                      \
		}                                                                                  \
		m->vec.v[at] = o;                                                                  \
		return o;                                                                          \
	}

DEFINE_OBJECTS(mm, mms)
DEFINE_OBJECTS(shmem, shmems)
DEFINE_OBJECTS(ghost, ghosts)
DEFINE_OBJECTS(fs, fss)
DEFINE_OBJECTS(fdtable, fdtables)
DEFINE_OBJECTS(file, files)
DEFINE_OBJECTS(pipe, pipes)
DEFINE_OBJECTS(tty, ttys)

struct task *model_find_task(const struct model *m, pid_t pid)
{
	VEC_FOREACH(t, &m->tasks) {
		if (t->pid == pid)
			return t;
	}
	return NULL;
}

struct thread *task_living(const struct task *t)
{
	VEC_FOREACH(th, &t->threads)
		if (!th->exited)
			return th;
	assert(!"a task without living threads");
	return NULL;
}

struct task *model_root(const struct model *m)
{
	assert(m->tasks.nr > 0);
	return &m->tasks.v[0];
}

bool vma_has_own_pages(const struct vma *vma)
{
	if (vma->status & (VMA_VVAR | VMA_VSYSCALL))
		return false;
	if (vma->status & VMA_VDSO)
		return true;
	if (vma->status & VMA_FILE_PRIVATE)
		return vma->has_anon;
	return vma->status & VMA_ANON_PRIVATE;
}

size_t model_nr_threads(const struct model *m)
{
	size_t nr = 0;

	VEC_FOREACH(t, &m->tasks)
		nr += t->threads.nr;
	return nr;
}

void thread_deinit(struct thread *th)
{
	free(th->cpu.fpu.xsave);
	VEC_FREE(&th->pending);
	VEC_FREE(&th->creds.groups);
}

static void task_deinit(struct task *t)
{
	VEC_FOREACH(th, &t->threads)
		thread_deinit(th);
	VEC_FREE(&t->threads);
	VEC_FREE(&t->pending);
	VEC_FREE(&t->timers);
}

static void pipe_destroy(struct pipe *p)
{
	VEC_FREE(&p->files);
	free(p->data);
	free(p);
}

static void file_destroy(struct file *f)
{
	if (f->type == FILE_EPOLL)
		VEC_FREE(&f->epoll.items);
	if (f->type == FILE_UNIX)
		free(f->unix_sk.data);
	free(f->path);
	free(f);
}

static void shmem_destroy(struct shmem *s)
{
	VEC_FREE(&s->pages);
	free(s->name);
	free(s);
}

void ghost_clear(struct ghost *g)
{
	VEC_FOREACH(piece, &g->pieces)
		free(piece->data);
	VEC_FREE(&g->pieces);
}

static void ghost_destroy(struct ghost *g)
{
	ghost_clear(g);
	free(g);
}

static void mark_files(const struct model *m, bool *used)
{
	VEC_FOREACH(t, &m->fdtables)
		VEC_FOREACH(fd, &(*t)->fds)
			used[fd->file_id] = true;
	VEC_FOREACH(mm, &m->mms) {
		used[(*mm)->exe_file_id] = true;
		VEC_FOREACH(vma, &(*mm)->vmas)
			used[vma->file_id] = used[vma->shmem_id] = true;
	}
	VEC_FOREACH(fs, &m->fss)
		used[(*fs)->cwd_file_id] = used[(*fs)->root_file_id] = true;
}

/* What is above a directory that is used. No circles: as many steps as there are ghosts end each way up. */
static void mark_parents(const struct model *m, bool *used)
{
	VEC_FOREACH(p, &m->ghosts) {
		const struct ghost *g = *p;

		for (size_t i = 0; g && used[(*p)->id] && i < m->ghosts.nr; i++) {
			used[g->id] = true;
			g = g->parent_id ? model_find_ghost(m, g->parent_id) : NULL;
		}
	}
}

int model_prune_files(struct model *m)
{
	bool *used = calloc(m->next_id + 1, sizeof(*used));
	size_t nr = 0;

	if (!used)
		return -ENOMEM;
	mark_files(m, used);
	VEC_FOREACH(f, &m->files) {
		if (!used[(*f)->id]) {
			file_destroy(*f);
			continue;
		}
		if ((*f)->type == FILE_PIPE || (*f)->type == FILE_FIFO)
			used[(*f)->pipe.pipe_id] = true;
		if ((*f)->type == FILE_MEMFD)
			used[(*f)->memfd.shmem_id] = true;
		if ((*f)->type == FILE_REG)
			used[(*f)->reg.ghost_id] = true;
		m->files.v[nr++] = *f;
	}
	m->files.nr = nr;
	nr = 0;
	VEC_FOREACH(s, &m->shmems) {
		if (used[(*s)->id])
			m->shmems.v[nr++] = *s;
		else
			shmem_destroy(*s);
	}
	m->shmems.nr = nr;
	mark_parents(m, used);
	nr = 0;
	VEC_FOREACH(g, &m->ghosts) {
		if (used[(*g)->id])
			m->ghosts.v[nr++] = *g;
		else
			ghost_destroy(*g);
	}
	m->ghosts.nr = nr;
	nr = 0;
	VEC_FOREACH(p, &m->pipes) {
		if (used[(*p)->id]) {
			m->pipes.v[nr++] = *p;
			continue;
		}
		pipe_destroy(*p);
	}
	m->pipes.nr = nr;
	free(used);
	return 0;
}

void model_destroy(struct model *m)
{
	if (!m)
		return;
	VEC_FOREACH(t, &m->tasks)
		task_deinit(t);
	VEC_FOREACH(mm, &m->mms) {
		VEC_FREE(&(*mm)->auxv);
		VEC_FREE(&(*mm)->vmas);
		VEC_FREE(&(*mm)->pages);
		VEC_FREE(&(*mm)->kin);
		free(*mm);
	}
	VEC_FOREACH(s, &m->shmems)
		shmem_destroy(*s);
	VEC_FOREACH(g, &m->ghosts)
		ghost_destroy(*g);
	VEC_FOREACH(fs, &m->fss)
		free(*fs);
	VEC_FOREACH(t, &m->fdtables) {
		VEC_FREE(&(*t)->fds);
		free(*t);
	}
	VEC_FOREACH(f, &m->files)
		file_destroy(*f);
	VEC_FOREACH(p, &m->pipes)
		pipe_destroy(*p);
	ident_map_deinit(&m->rings);
	VEC_FOREACH(t, &m->ttys)
		free(*t);
	VEC_FOREACH(f, &m->seccomp_filters)
		free(f->insns);
	VEC_FREE(&m->seccomp_filters);
	VEC_FREE(&m->tasks);
	VEC_FREE(&m->mms);
	VEC_FREE(&m->shmems);
	VEC_FREE(&m->ghosts);
	VEC_FREE(&m->fss);
	VEC_FREE(&m->fdtables);
	VEC_FREE(&m->files);
	VEC_FREE(&m->pipes);
	VEC_FREE(&m->ttys);
	free(m);
}
