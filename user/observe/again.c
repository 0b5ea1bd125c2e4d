/*
 * Once more, inside a stop: brings a model that was made right before up to date.
 *
 * Theory of operation. A stop leaves no time for paths, text, and objects of the model. Right before it everything is
 * observed as always; inside it the back end reads again, in bulk, what changes by itself (registers, signals,
 * timers, positions, counters), and whether the rest is the same: each process, its mappings, where each descriptor
 * leads. A few mappings and descriptors that are not are replaced in the model at once, and kinds that have to ask a
 * descriptor do so. The rest of the model is brought up to date from what was read, when the target runs again.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "observe/run.h"

/* The first descriptor of each file that has to be asked. */
static int note_asking(struct observer *o, const struct model *m)
{
	_cleanup_free_ bool *done = calloc(m->next_id + 1, sizeof(*done));

	o->asking.nr = 0;
	if (!done)
		return -ENOMEM;
	for (size_t i = 0; i < o->look.obs.fds.nr; i++) {
		uint32_t id = o->look.obs.fds.v[i].file_id;

		if (!done[id] && kind_of_type(model_find_file(m, id)->type)->asks && VEC_PUSH(&o->asking, i))
			return -ENOMEM;
		done[id] = true;
	}
	return 0;
}

/* What paths lead to now, for check_paths(). */
static void note_paths(struct run *r)
{
	VEC_FOREACH(of, &r->obs.others) {
		struct stat st;

		if (!of->path || of->path[0] != '/' || stat(of->path, &st))
			continue;
		of->stat_ino = st.st_ino;
		of->stat_dev = st.st_dev;
	}
}

int run_keep(struct observer *o, struct run *r, const struct model *m)
{
	if (!o->ops->read)
		return 0;
	note_paths(r);
	o->look = *r;
	memset(r, 0, sizeof(*r));
	o->look.obs.m = NULL;
	o->has_look = true;
	return note_asking(o, m);
}

void run_forget(struct observer *o)
{
	if (o->has_look)
		run_deinit(&o->look);
	memset(&o->look, 0, sizeof(o->look));
	o->has_look = false;
}

static int ask_again(struct observer *o)
{
	const struct collect_ctx ctx = run_collect_ctx(&o->look);

	for (size_t i = 0; i < o->asking.nr; i++) {
		struct observed_file *of = &o->look.obs.fds.v[o->asking.v[i]];
		struct file *f = model_find_file(o->look.m, of->file_id);
		int err = o->ops->descriptor(o->state, o->asking.v[i], of);

		if (err)
			return err;
		run_set_file(f, &of->rec);
		err = kind_of_type(f->type)->collect(&ctx, of, f);
		if (err)
			return err;
	}
	return 0;
}

/* Mappings and descriptors that are others now. */
static int absorb(struct observer *o)
{
	struct run *r = &o->look;
	int err = o->ops->parts(o->state, &r->obs);

	for (size_t i = 0; !err && i < r->m->tasks.nr; i++)
		err = r->obs.idents.v[i].remapped ? run_remap(r, i) : 0;
	if (!err)
		err = run_refile(r);
	return err ? err : note_asking(o, r->m);
}

int observer_read(struct observer *o, struct model *m, bool listed, bool *same)
{
	enum observe_change change = OBSERVE_OTHER;

	*same = false;
	if (!o->has_look)
		return -EOPNOTSUPP;
	int err = o->ops->read(o->state, listed ? OBSERVE_LISTED : OBSERVE_STOPPED, &change);
	if (err || change == OBSERVE_OTHER)
		return err;
	/* Whatever cannot be had in this way is for a whole observation to report. */
	o->look.m = o->look.obs.m = m;
	refusals_begin();
	if (change == OBSERVE_PARTS)
		err = absorb(o);
	o->look.stopped = true;
	if (!err)
		err = ask_again(o);
	refusals_discard();
	o->look.m = o->look.obs.m = NULL;
	*same = !err && !o->look.refused;
	return err == -EOPNOTSUPP || err == -EAGAIN ? 0 : err;
}

int observer_recheck(struct observer *o, bool *same)
{
	enum observe_change change = OBSERVE_OTHER;
	int err = o->has_look ? o->ops->read(o->state, OBSERVE_RUNNING, &change) : -EOPNOTSUPP;

	*same = !err && change == OBSERVE_SAME;
	return err;
}

/* A task as it was read takes the place of the older one; what names other objects stays. */
static void replace_task(struct task *old, struct task *new)
{
	struct task was = *old;

	new->mm_id = was.mm_id;
	new->files_id = was.files_id;
	new->fs_id = was.fs_id;
	new->sighand_id = was.sighand_id;
	new->ctty_id = was.ctty_id;
	*old = *new;
	*new = was;
}

/* Where code, heap and arguments lie, and flags: all but mappings and what is in them. */
static void replace_layout(struct mm *mm, struct mm *layout)
{
	struct mm was = *mm;

	*mm = *layout;
	mm->id = was.id;
	mm->pid = was.pid;
	mm->exe_file_id = was.exe_file_id;
	mm->pages_id = was.pages_id;
	memcpy(&mm->vmas, &was.vmas, sizeof(mm->vmas));
	memcpy(&mm->pages, &was.pages, sizeof(mm->pages));
	memset(layout, 0, sizeof(*layout));
	memcpy(&layout->auxv, &was.auxv, sizeof(layout->auxv));
}

static void refresh_shared(struct model *m, const struct task *t, struct task_idents *id)
{
	struct mm *mm = t->mm_id ? model_find_mm(m, t->mm_id) : NULL;
	struct fs *fs = t->fs_id ? model_find_fs(m, t->fs_id) : NULL;

	if (mm && mm->pid == t->pid)
		replace_layout(mm, &id->layout);
	if (fs && fs->pid == t->pid)
		fs->umask = id->umask;
}

static int refresh_tasks(struct observer *o, struct model *m)
{
	struct observation obs = { .m = model_create() };
	int err = obs.m ? o->ops->tasks(o->state, &obs) : -ENOMEM;

	/* It is the same tree, read inside a stop: anything else has no explanation. */
	if (!err && obs.m->tasks.nr != m->tasks.nr)
		err = -EPROTO;
	for (size_t i = 0; !err && i < m->tasks.nr; i++) {
		struct task *t = &m->tasks.v[i];

		replace_task(t, &obs.m->tasks.v[i]);
		run_normalise_task(t);
		refresh_shared(m, t, &obs.idents.v[i]);
	}
	if (!err) {
		/* Whatever is against a task is judged by what was read last. */
		__typeof__(obs.idents) was;

		memcpy(&was, &o->look.obs.idents, sizeof(was));
		memcpy(&o->look.obs.idents, &obs.idents, sizeof(was));
		memcpy(&obs.idents, &was, sizeof(was));
	}
	model_destroy(obs.m);
	obs.m = NULL;
	observation_deinit(&obs);
	return err ? fail(err == -EAGAIN ? -EPROTO : err, "pid %d: bring its processes up to date", o->root) : 0;
}

static int compare_fd(const void *key, const void *fd)
{
	int32_t a = *(const int32_t *)key, b = ((const struct fd *)fd)->fd;

	return (a > b) - (a < b);
}

static int refresh_descriptor(const struct collect_ctx *ctx, struct observer *o, size_t i)
{
	struct observed_file *of = &o->look.obs.fds.v[i];
	struct file *f = model_find_file(ctx->m, of->file_id);
	const struct kind *kind = kind_of_type(f->type);
	struct fdtable *table = model_find_fdtable(ctx->m, ident_map_find(&o->look.tables, of->rec.files));
	int err = o->ops->descriptor(o->state, i, of);

	if (err)
		return fail(err, "pid %u fd %d: bring it up to date", of->rec.tgid, of->rec.fd);
	struct fd *fd = bsearch(&of->rec.fd, table->fds.v, table->fds.nr, sizeof(*fd), compare_fd);
	if (fd)
		fd->cloexec = of->rec.cloexec;
	run_set_file(f, &of->rec);
	return kind->refresh ? kind->refresh(ctx, of, f) : 0;
}

/* The model's file for what is known by path, opened with these flags. */
static void set_size(struct run *r, const struct observed_file *of, uint32_t flags, uint64_t size_bytes)
{
	struct file *f = model_find_file(r->m, run_find_by_path(r, of, flags));

	if (f)
		f->reg.size_bytes = size_bytes;
}

/*
 * Programs, directories and mapped files have no descriptor that would tell: is what the path led to at the look
 * still there? -EAGAIN: not all of it.
 */
static int check_paths(struct run *r)
{
	VEC_FOREACH(of, &r->obs.others) {
		struct stat st;

		/* Devices and numbers of some file systems are their own: those were judged by other means. */
		if (!of->path || of->path[0] != '/' || of->stat_ino == 0)
			continue;
		if (stat(of->path, &st) || st.st_ino != of->stat_ino || st.st_dev != of->stat_dev)
			return -EAGAIN;
		if (!S_ISREG(st.st_mode))
			continue;
		set_size(r, of, O_RDONLY, st.st_size);
		set_size(r, of, O_RDWR, st.st_size);
	}
	return 0;
}

static int refresh_all(struct observer *o)
{
	const struct collect_ctx ctx = run_collect_ctx(&o->look);
	int err = refresh_tasks(o, ctx.m);

	for (size_t i = 0; !err && i < o->look.obs.fds.nr; i++)
		err = run_note(&o->look, refresh_descriptor(&ctx, o, i));
	if (!err)
		err = check_paths(&o->look);
	if (!err)
		err = run_finish_kinds(&o->look);
	if (!err)
		err = run_refusals(&o->look);
	return err ? err : o->look.refused ? -EOPNOTSUPP : 0;
}

int observer_refresh(struct observer *o, struct model *m)
{
	if (!o->has_look)
		return fail(0, "pid %d: a model is brought up to date that was not observed", o->root);
	o->look.m = o->look.obs.m = m;
	o->look.stopped = true;
	int err = refresh_all(o);
	o->look.m = o->look.obs.m = NULL;
	run_forget(o);
	return err;
}

int observer_each_thread(struct observer *o,
			 int (*fn)(void *ctx, pid_t pid, pid_t tid, const struct cpu_regs *regs), void *ctx)
{
	return o->ops->threads ? o->ops->threads(o->state, fn, ctx) : 0;
}

struct adder {
	int (*add)(void *ctx, pid_t pid, pid_t tid);
	void *ctx;
};

static int add_thread(void *ctx, pid_t pid, pid_t tid, const struct cpu_regs *regs)
{
	const struct adder *a = ctx;

	(void)regs;
	return a->add(a->ctx, pid, tid);
}

int observer_list(void *observer, bool stopping, int (*add)(void *ctx, pid_t pid, pid_t tid), void *ctx)
{
	struct observer *o = observer;
	struct adder a = { add, ctx };

	if (!o->ops->list)
		return -EOPNOTSUPP;
	int err = o->ops->list(o->state, stopping);
	return err ? err : o->ops->threads(o->state, add_thread, &a);
}
