/*
 * Observation, the part common to all back ends: what a back end saw becomes a model.
 *
 * Theory of operation. A run takes these steps, in this order:
 *
 *   back end     tasks, identities, mappings and file records
 *   objects      one mm, fs, signal handler table and descriptor table for each identity: equal ids are shared objects
 *   files        pass one gives every open file description its id, pass two lets its kind collect it: by then an
 *                epoll set finds the id of whatever it watches
 *   others       executables, working and root directories, mapped files: opened by path, so two of them are one
 *                file when device, inode, path and access are equal
 *   terminals    controlling terminals are found among those that the tree has open
 *   refusals     whatever cannot be carried is said, all of it, before anything is done to the target
 */
#include "observe/observe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "kinds/kinds.h"
#include "observe/ident.h"
#include "observe/refuse.h"

/* How often a running tree may change under an observation before bcr gives up. */
enum { OBSERVE_TRIES = 50 };

static const struct observe_ops *const backends[] = { &observe_bpf_ops, &observe_proc_ops };

struct observer {
	pid_t root;
	struct observe_options opts;
	const struct observe_ops *ops;
	void *state;
	uint32_t root_ns[8];
};

/* One run. The maps take identities to ids, `others` to the index + 1 in obs.others. */
struct run {
	const struct observer *o;
	struct observation obs;
	struct model *m;
	bool stopped;
	bool refused;
	struct ident_map mms, fss, sighands, tables, files, others, mapped, shmems;
};

static void observed_file_deinit(struct observed_file *of)
{
	free(of->path);
	VEC_FREE(&of->epoll_items);
}

void observation_deinit(struct observation *obs)
{
	VEC_FOREACH(id, &obs->idents) {
		VEC_FREE(&id->layout.auxv);
		VEC_FREE(&id->layout.vmas);
		VEC_FREE(&id->layout.pages);
		VEC_FREE(&id->vma_files);
	}
	VEC_FOREACH(of, &obs->fds)
		observed_file_deinit(of);
	VEC_FOREACH(of, &obs->others)
		observed_file_deinit(of);
	VEC_FREE(&obs->idents);
	VEC_FREE(&obs->fds);
	VEC_FREE(&obs->others);
}

static void run_deinit(struct run *r)
{
	observation_deinit(&r->obs);
	model_destroy(r->m);
	ident_map_deinit(&r->mms);
	ident_map_deinit(&r->fss);
	ident_map_deinit(&r->sighands);
	ident_map_deinit(&r->tables);
	ident_map_deinit(&r->files);
	ident_map_deinit(&r->others);
	ident_map_deinit(&r->mapped);
	ident_map_deinit(&r->shmems);
}

/* A refusal is remembered and the run goes on, so that the user sees all of them; other failures end it. */
static int run_note(struct run *r, int err)
{
	if (err != -EOPNOTSUPP)
		return err;
	r->refused = true;
	return 0;
}

/* What does not fit together on a running tree is seen again; on a stopped one it is a failure. */
static int run_changed(const struct run *r, pid_t pid, const char *what)
{
	return r->stopped ? fail(-ESTALE, "pid %d: %s", pid, what) : -EAGAIN;
}

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

/*
 * The struct file for what is opened again by path with these flags. *ret_id stays 0 when the file was refused.
 */
static int other_file(struct run *r, struct observed_file *of, uint32_t flags, uint32_t *ret_id)
{
	uint64_t key = ident_mix(ident_mix(of->rec.dev, of->rec.ino), flags);

	key = ident_mix_string(key, of->path);
	*ret_id = ident_map_find(&r->mapped, key);
	if (*ret_id)
		return 0;

	of->rec.flags = flags;
	of->rec.pos = 0;
	const struct kind *kind = kind_match(&of->rec);
	if (kind != &reg_kind)
		return unsupported("pid %u: %s is neither a file nor a directory, which is not supported", of->rec.tgid,
				   of->path ? of->path : of->rec.name);

	struct file *f = model_add_file(r->m, 0);
	if (!f)
		return -ENOMEM;
	f->type = FILE_REG;
	f->flags = flags;
	struct collect_ctx ctx = { .m = r->m, .stopped = r->stopped };
	int err = reg_kind.collect(&ctx, of, f);
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

static int index_others(struct run *r)
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

/* Executable, working directory or root: a path of a task, as a file id. */
static int task_path(struct run *r, pid_t pid, uint64_t ident, const char *what, uint32_t *ret_id)
{
	struct observed_file *of = find_other(r, ident);

	*ret_id = 0;
	if (!of)
		return run_note(r, unsupported("pid %d: its %s is not known", pid, what));
	if (observed_file_deleted(of))
		return run_note(r, unsupported("pid %d: its %s %s has been deleted, which is not supported yet", pid,
					       what, of->path ? of->path : ""));
	return run_note(r, other_file(r, of, O_RDONLY, ret_id));
}

/* --- mappings --- */

/* The shared anonymous object behind a mapping. */
static int vma_shmem(struct run *r, pid_t pid, struct vma *vma, const struct observed_file *of)
{
	uint64_t key = ident_mix(ident_mix(of->rec.dev, of->rec.ino), 0);

	vma->shmem_id = ident_map_find(&r->shmems, key);
	if (vma->shmem_id)
		return 0;
	struct shmem *s = model_add_shmem(r->m, 0);
	if (!s)
		return -ENOMEM;
	s->size_bytes = of->rec.size;
	s->ino = of->rec.ino;
	s->pid = pid;
	s->start = vma->start;
	s->map_files_end = vma->end;
	vma->shmem_id = s->id;
	return ident_map_add(&r->shmems, key, s->id);
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
	if (vma->status & VMA_ANON_SHARED)
		return vma_shmem(r, pid, vma, of);
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
	return task_path(r, t->pid, id->exe, "executable", &mm->exe_file_id);
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
	int err = task_path(r, t->pid, id->cwd, "working directory", &fs->cwd_file_id);
	return err ? err : task_path(r, t->pid, id->root, "root directory", &fs->root_file_id);
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

static int run_objects(struct run *r)
{
	if (r->obs.idents.nr != r->m->tasks.nr)
		return fail(0, "%s: %zu tasks, but identities of %zu", r->o->ops->name, r->m->tasks.nr,
			    r->obs.idents.nr);
	for (size_t i = 0; i < r->m->tasks.nr; i++) {
		int err = task_objects(r, &r->m->tasks.v[i], &r->obs.idents.v[i]);
		if (err)
			return err;
	}
	return 0;
}

/* --- descriptors --- */

/* The struct file of a descriptor: new for the first descriptor of each open file description. */
static int descriptor_file(struct run *r, struct observed_file *of)
{
	const struct file_record *rec = &of->rec;

	of->file_id = ident_map_find(&r->files, rec->file);
	if (of->file_id)
		return 0;
	const struct kind *kind = kind_match(rec);
	if (!kind)
		return run_note(r, refuse_descriptor(of));

	struct file *f = model_add_file(r->m, 0);
	if (!f)
		return -ENOMEM;
	f->type = kind->type;
	f->flags = rec->flags & ~O_CLOEXEC;
	f->pos = rec->pos;
	f->fown = (struct fown){ .uid = rec->fown_uid,
				 .euid = rec->fown_euid,
				 .signum = rec->fown_signum,
				 .pid_type = rec->fown_type,
				 .pid = rec->fown_pid };
	of->file_id = f->id;
	return ident_map_add(&r->files, rec->file, f->id);
}

static int install_descriptor(struct run *r, const struct observed_file *of)
{
	struct fdtable *table = model_find_fdtable(r->m, ident_map_find(&r->tables, of->rec.files));
	struct fd fd = { .fd = of->rec.fd, .file_id = of->file_id, .cloexec = of->rec.cloexec };

	if (!table)
		return run_changed(r, of->rec.tgid, "a descriptor belongs to no table that is known");
	return VEC_PUSH(&table->fds, fd);
}

static int compare_fds(const void *a, const void *b)
{
	const struct fd *x = a, *y = b;

	return (x->fd > y->fd) - (x->fd < y->fd);
}

static uint32_t run_find_file(const struct collect_ctx *ctx, uint64_t ident)
{
	const struct run *r = ctx->arg;

	return ident_map_find(&r->files, ident);
}

/* Pass two. A file is collected through the first descriptor that showed it: ids and descriptors ascend together. */
static int collect_files(struct run *r)
{
	const struct collect_ctx ctx = {
		.m = r->m,
		.shell_job = r->o->opts.shell_job,
		.tcp_established = r->o->opts.tcp_established,
		.ext_unix_sk = r->o->opts.ext_unix_sk,
		.find_file = run_find_file,
		.arg = r,
		.stopped = r->stopped,
	};
	uint32_t done = 0;

	VEC_FOREACH(of, &r->obs.fds) {
		if (of->file_id <= done)
			continue;
		done = of->file_id;
		struct file *f = model_find_file(r->m, of->file_id);
		int err = run_note(r, kind_of_type(f->type)->collect(&ctx, of, f));
		if (err)
			return err;
	}
	return 0;
}

static int run_files(struct run *r)
{
	VEC_FOREACH(of, &r->obs.fds) {
		int err = descriptor_file(r, of);
		if (!err)
			err = install_descriptor(r, of);
		if (err)
			return err;
	}
	VEC_FOREACH(t, &r->m->fdtables)
		if ((*t)->fds.nr)
			qsort((*t)->fds.v, (*t)->fds.nr, sizeof(struct fd), compare_fds);
	return collect_files(r);
}

/* --- terminals --- */

static const struct tty *find_tty(const struct model *m, uint32_t rdev)
{
	enum { UNIX98_PTY_SLAVE_MAJOR = 136 };
	uint32_t major = rdev >> 20, minor = rdev & 0xfffff;

	VEC_FOREACH(p, &m->ttys) {
		const struct tty *tty = *p;

		if (tty->type == TTY_PTY && major == UNIX98_PTY_SLAVE_MAJOR && tty->index == minor)
			return tty;
		if (tty->type != TTY_PTY && (tty->rdev == rdev || tty->rdev == makedev(major, minor)))
			return tty;
	}
	return NULL;
}

static int run_terminals(struct run *r)
{
	for (size_t i = 0; i < r->m->tasks.nr; i++) {
		struct task *t = &r->m->tasks.v[i];
		uint32_t rdev = r->obs.idents.v[i].ctty_rdev;
		const struct tty *tty = rdev ? find_tty(r->m, rdev) : NULL;

		if (tty)
			t->ctty_id = tty->id;
		/* A session from outside brings its terminal along by itself; one from inside is made again, with it. */
		if (!rdev || tty || !model_find_task(r->m, t->sid))
			continue;
		int err = run_note(r, unsupported("pid %d: its controlling terminal (device %u:%u) is not open in the tree, which is not supported",
						  t->pid, rdev >> 20, rdev & 0xfffff));
		if (err)
			return err;
	}
	return 0;
}

/* --- refusals --- */

static int run_refusals(struct run *r)
{
	for (size_t i = 0; i < r->m->tasks.nr; i++) {
		int err = run_note(r, refuse_task(r->m, &r->m->tasks.v[i], &r->obs.idents.v[i], r->stopped));
		if (err)
			return err;
	}
	int err = run_note(r, refuse_sessions(r->m, r->o->opts.shell_job));
	return err ? err : run_note(r, refuse_locks(&r->obs, r->o->opts.file_locks));
}

/* One observation; r->m is the model, which the caller takes. */
static int run_once(struct run *r)
{
	static int (*const steps[])(struct run *r) = {
		index_others, run_objects, run_files, run_terminals, run_refusals,
	};

	r->m = r->obs.m = model_create();
	if (!r->m)
		return -ENOMEM;
	memcpy(r->m->root_ns, r->o->root_ns, sizeof(r->m->root_ns));
	int err = run_note(r, r->o->ops->run(r->o->state, r->stopped, &r->obs));
	if (!err && !r->m->tasks.nr)
		err = run_changed(r, r->o->root, "is gone");
	for (size_t i = 0; !err && i < sizeof(steps) / sizeof(steps[0]); i++)
		err = steps[i](r);
	return err;
}

int observer_run(struct observer *o, bool stopped, struct model **ret)
{
	*ret = NULL;
	for (int i = 0; i < OBSERVE_TRIES; i++) {
		struct run r = { .o = o, .stopped = stopped };
		int err = run_once(&r);

		if (!err) {
			*ret = take_ptr(r.m);
			err = r.refused ? -EOPNOTSUPP : 0;
		}
		run_deinit(&r);
		if (err == -ENOMEM)
			return fail(err, "pid %d: observe", o->root);
		if (err != -EAGAIN)
			return err;
		log_debug("pid %d: the tree changed while it was observed, once more", o->root);
	}
	return fail(-EAGAIN, "pid %d: its process tree changes too fast to be observed (%d tries)", o->root,
		    OBSERVE_TRIES);
}

/* --- opening --- */

static int read_own_namespaces(uint32_t root_ns[8])
{
	static const char *const names[] = { "pid", "net", "ipc", "uts", "mnt", "user", "cgroup", "time" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		char path[32];
		struct stat st;

		snprintf(path, sizeof(path), "/proc/self/ns/%s", names[i]);
		/* A kernel built without this kind of namespace has only one of them: nothing to compare. */
		if (!stat(path, &st))
			root_ns[i] = st.st_ino;
		else if (errno != ENOENT)
			return fail(-errno, "%s", path);
	}
	return 0;
}

static const struct observe_ops *find_backend(const char *name)
{
	for (size_t i = 0; i < sizeof(backends) / sizeof(backends[0]); i++)
		if (!strcmp(backends[i]->name, name))
			return backends[i];
	return NULL;
}

/* The back end asked for, or the first that this machine can do. */
static int choose_backend(const char *name, const struct observe_ops **ret)
{
	const char *why = NULL;

	if (name) {
		*ret = find_backend(name);
		if (!*ret)
			return fail(0, "--observe=%s: there is no such way to observe; use bpf or proc", name);
		int err = (*ret)->probe(&why);
		return err ? fail(err, "--observe=%s: not on this machine (%s)", name, why ? why : "no reason known") :
			     0;
	}
	for (size_t i = 0; i < sizeof(backends) / sizeof(backends[0]); i++) {
		int err = backends[i]->probe(&why);

		*ret = backends[i];
		if (!err)
			return 0;
		if (i + 1 == sizeof(backends) / sizeof(backends[0]))
			return fail(err, "this machine can observe by no means bcr has (%s)",
				    why ? why : "no reason known");
		log_info("observing by %s instead of %s: %s", backends[i + 1]->name, backends[i]->name,
			 why ? why : strerror(-err));
	}
	return -ENODEV;
}

int observer_open(pid_t root, const struct observe_options *opts, struct observer **ret)
{
	_cleanup_free_ struct observer *o = calloc(1, sizeof(*o));

	*ret = NULL;
	if (!o)
		return fail(-ENOMEM, "pid %d: observe", root);
	o->root = root;
	o->opts = *opts;
	int err = choose_backend(opts->backend, &o->ops);
	if (!err)
		err = read_own_namespaces(o->root_ns);
	if (!err)
		err = o->ops->open(root, &o->state);
	if (err)
		return err;
	*ret = take_ptr(o);
	return 0;
}

const char *observer_backend(const struct observer *o)
{
	return o->ops->name;
}

void observer_close(struct observer *o)
{
	if (!o)
		return;
	o->ops->close(o->state);
	free(o);
}
