/*
 * Identities of a run → objects of the model: mm, fs and signal handler tables, one for each identity, and the files
 * they hold by path (executables, directories, mappings), one for each path and access.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "kinds/kinds.h"
#include "observe/refuse.h"
#include "observe/run.h"

/* The id of the object with this identity, made by `add` when it is new (*is_new). 0: out of memory. */
#define OBJECT_ID(r, map, ident, add_expr, is_new)                                                 \
	({                                                                                         \
		uint32_t id_ = ident_map_find(&(r)->map, (ident));                                 \
		*(is_new) = !id_;                                                                  \
		if (!id_) {                                                                        \
			id_ = (add_expr);                                                          \
			if (id_ && ident_map_add(&(r)->map, (ident), id_))                         \
				id_ = 0;                                                           \
		}                                                                                  \
		id_;                                                                               \
	})

static uint32_t new_mm(struct model *m)
{
	struct mm *mm = model_add_mm(m, 0);

	return mm ? mm->id : 0;
}

static uint32_t new_fs(struct model *m)
{
	struct fs *fs = model_add_fs(m, 0);

	return fs ? fs->id : 0;
}

static uint32_t new_fdtable(struct model *m)
{
	struct fdtable *t = model_add_fdtable(m, 0);

	return t ? t->id : 0;
}

/* --- others: files known by path --- */

static uint64_t path_key(const struct observed_file *of, uint32_t flags)
{
	return ident_mix_string(ident_mix(ident_mix(of->rec.dev, of->rec.ino), flags), of->path);
}

uint32_t run_find_by_path(const struct run *r, const struct observed_file *of, uint32_t flags)
{
	return ident_map_find(&r->mapped, path_key(of, flags));
}

/*
 * The struct file for what is opened again by path with these flags. *ret_id stays 0 when the file was refused.
 */
static int other_file(struct run *r, struct observed_file *of, uint32_t flags, uint32_t *ret_id)
{
	uint64_t key = path_key(of, flags);

	*ret_id = ident_map_find(&r->mapped, key);
	if (*ret_id)
		return 0;

	of->rec.flags = flags;
	of->rec.pos = 0;
	const struct kind *kind = kind_match(&of->rec);
	if (kind != &reg_kind && kind != &memfd_kind)
		return unsupported("pid %u: %s is neither a file nor a directory, which is not supported", of->rec.tgid,
				   of->path ? of->path : of->rec.name);

	struct file *f = model_add_file(r->m, 0);
	if (!f)
		return -ENOMEM;
	f->type = kind->type;
	f->flags = flags;
	struct collect_ctx ctx = run_collect_ctx(r);
	int err = kind->collect(&ctx, of, f);
	if (err)
		return err;
	*ret_id = f->id;
	return ident_map_add(&r->mapped, key, f->id);
}

static struct observed_file *find_other(const struct run *r, uint64_t ident)
{
	uint32_t at = ident_map_find(&r->others, ident);

	return at ? &r->obs.others.v[at - 1] : NULL;
}

int run_index_others(struct run *r)
{
	for (size_t i = 0; i < r->obs.others.nr; i++) {
		uint64_t ident = r->obs.others.v[i].rec.file;

		if (ident_map_find(&r->others, ident))
			continue;
		if (ident_map_add(&r->others, ident, i + 1))
			return -ENOMEM;
	}
	return 0;
}

/* Executable, working directory or root: a path of a task, as a file id. `link` is its name below /proc/PID. */
static int task_path(struct run *r, pid_t pid, uint64_t ident, const char *link, const char *what, uint32_t *ret_id)
{
	struct observed_file *of = find_other(r, ident);

	*ret_id = 0;
	if (!of)
		return run_note(r, unsupported("pid %d: its %s is not known", pid, what));
	if (!*of->link) {
		snprintf(of->link, sizeof(of->link), "%s", link);
		of->rec.tgid = pid;
	}
	return run_note(r, other_file(r, of, O_RDONLY, ret_id));
}

/* --- mappings --- */

/* The memory object behind a mapping. */
static int vma_shmem(struct run *r, pid_t pid, struct vma *vma, const struct observed_file *of)
{
	bool sysv = vma->status & VMA_SYSVIPC;
	struct shmem *s = run_shmem(r, of, vma->status & VMA_MEMFD ? SHMEM_MEMFD : sysv ? SHMEM_SYSV : SHMEM_ANON, pid, vma);

	if (!s)
		return -ENOMEM;
	if (vma->status & VMA_MEMFD)
		return 0; /* which names it by the file */
	vma->shmem_id = s->id;
	return sysv ? run_sysv(r, s) : 0;
}

static int vma_file(struct run *r, pid_t pid, struct vma *vma, uint64_t ident)
{
	if (!(vma->status & (VMA_FILE_PRIVATE | VMA_FILE_SHARED | VMA_ANON_SHARED)))
		return 0;

	struct observed_file *of = find_other(r, ident);
	if (!of)
		return run_changed(r, pid, "the file of a mapping is not known");
	int err = refuse_mapped_file(pid, vma, of);
	if (err)
		return run_note(r, err);
	snprintf(of->link, sizeof(of->link), "map_files/%llx-%llx", (unsigned long long)vma->start, (unsigned long long)vma->end);
	of->rec.tgid = pid;
	err = vma->status & (VMA_ANON_SHARED | VMA_MEMFD) ? vma_shmem(r, pid, vma, of) : 0;
	if (err || vma->status & VMA_ANON_SHARED)
		return err;
	return run_note(r, other_file(r, of, vma->fdflags, &vma->file_id));
}

/* The first task of each mm brings its layout and mappings. */
static int task_mm(struct run *r, struct task *t, struct task_idents *id)
{
	bool is_new;

	if (!id->mm)
		return 0;
	t->mm_id = OBJECT_ID(r, mms, id->mm, new_mm(r->m), &is_new);
	if (!t->mm_id)
		return -ENOMEM;
	if (!is_new)
		return 0;

	struct mm *mm = model_find_mm(r->m, t->mm_id);
	uint32_t mm_id = mm->id;
	*mm = id->layout;
	memset(&id->layout, 0, sizeof(id->layout));
	mm->id = mm_id;
	mm->pid = t->pid;
	if (id->vma_files.nr != mm->vmas.nr)
		return fail(0, "pid %d: %zu mappings, but files of %zu", t->pid, mm->vmas.nr, id->vma_files.nr);
	for (size_t i = 0; i < mm->vmas.nr; i++) {
		int err = vma_file(r, t->pid, &mm->vmas.v[i], id->vma_files.v[i]);
		if (err)
			return err;
	}
	return task_path(r, t->pid, id->exe, "exe", "executable", &mm->exe_file_id);
}

static int task_fs(struct run *r, struct task *t, const struct task_idents *id)
{
	bool is_new;

	if (!id->fs)
		return 0;
	t->fs_id = OBJECT_ID(r, fss, id->fs, new_fs(r->m), &is_new);
	if (!t->fs_id)
		return -ENOMEM;
	if (!is_new)
		return 0;

	struct fs *fs = model_find_fs(r->m, t->fs_id);
	fs->pid = t->pid;
	fs->umask = id->umask;
	int err = task_path(r, t->pid, id->cwd, "cwd", "working directory", &fs->cwd_file_id);
	return err ? err : task_path(r, t->pid, id->root, "root", "root directory", &fs->root_file_id);
}

static int task_objects(struct run *r, struct task *t, struct task_idents *id)
{
	bool is_new;

	if (id->sighand) {
		t->sighand_id = OBJECT_ID(r, sighands, id->sighand, model_new_id(r->m), &is_new);
		if (!t->sighand_id)
			return -ENOMEM;
	}
	if (id->files) {
		t->files_id = OBJECT_ID(r, tables, id->files, new_fdtable(r->m), &is_new);
		if (!t->files_id)
			return -ENOMEM;
	}
	int err = task_mm(r, t, id);
	return err ? err : task_fs(r, t, id);
}

/*
 * As sigaltstack(2) says it: no stack is a disabled one, whatever the flags in the kernel are. And a thread that has exited is scheduled no more.
 */
void run_normalise_task(struct task *t)
{
	VEC_FOREACH(th, &t->threads) {
		if (!th->altstack.size_bytes)
			th->altstack.flags = SS_DISABLE;
		if (!th->exited)
			continue;
		th->timer_slack_ns = 0;
		memset(th->affinity, 0, sizeof(th->affinity));
	}
}

int run_objects(struct run *r)
{
	if (r->obs.idents.nr != r->m->tasks.nr)
		return fail(0, "%s: %zu tasks, but identities of %zu", r->o->ops->name, r->m->tasks.nr,
			    r->obs.idents.nr);
	for (size_t i = 0; i < r->m->tasks.nr; i++) {
		run_normalise_task(&r->m->tasks.v[i]);
		int err = task_objects(r, &r->m->tasks.v[i], &r->obs.idents.v[i]);
		if (err)
			return err;
	}
	return 0;
}

/* Files of the new mappings were noted last; an identity that was there before may be another file now. */
static int find_new_others(struct run *r)
{
	ident_map_deinit(&r->others);
	for (size_t i = r->obs.others.nr; i-- > 0;) {
		uint64_t ident = r->obs.others.v[i].rec.file;

		if (!ident_map_find(&r->others, ident) && ident_map_add(&r->others, ident, i + 1))
			return -ENOMEM;
	}
	return 0;
}

int run_remap(struct run *r, size_t at)
{
	struct task_idents *id = &r->obs.idents.v[at];
	const struct task *t = &r->m->tasks.v[at];
	struct mm *mm = model_find_mm(r->m, t->mm_id);

	if (!mm || id->vma_files.nr != id->layout.vmas.nr)
		return -EOPNOTSUPP;
	int err = find_new_others(r);

	VEC_FREE(&mm->vmas);
	memcpy(&mm->vmas, &id->layout.vmas, sizeof(mm->vmas));
	memset(&id->layout.vmas, 0, sizeof(id->layout.vmas));
	mm->remapped = true;
	for (size_t i = 0; i < mm->vmas.nr && !err; i++)
		err = vma_file(r, t->pid, &mm->vmas.v[i], id->vma_files.v[i]);
	return err;
}
