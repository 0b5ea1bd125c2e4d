/* The plan of a restore as a whole. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/log.h"
#include "restore/plan.h"

/* Room for descriptors that kinds hold for a moment while they make others. */
enum { FD_SLACK = 64 };

/* Numbers above all that a task or bcr uses, in the order in which they are closed (restore/files.c). */
static void plan_fds(struct restore_plan *p)
{
	int max = p->own.max_fd;

	VEC_FOREACH(table, &p->m->fdtables) {
		VEC_FOREACH(fd, &(*table)->fds) {
			if (fd->fd > max)
				max = fd->fd;
		}
	}
	p->fd_log = max + FD_SLACK;
	p->fd_err = p->fd_log + 1;
	p->fd_exe = p->fd_log + 2;
	p->fd_files = p->fd_exe + 1;
	/* Whoever shares a table of descriptors has its executable there at the same time as the others. */
	VEC_FOREACH(tp, &p->tasks) {
		tp->fd_exe = p->fd_exe;
		if (tp->birth.with_files)
			tp->fd_exe = p->fd_files++;
	}
	p->fd_objects = p->fd_files + (int)p->m->files.nr;
	p->fd_ghosts = p->fd_objects + (int)p->m->shmems.nr;
	p->nr_fds = (int)(p->m->files.nr + p->m->shmems.nr + p->m->ghosts.nr);
}

static int plan_threads(struct restore_plan *p, struct task_plan *tp)
{
	VEC_FOREACH(th, &tp->task->threads) {
		struct thread_plan *thp = VEC_ADD(&tp->threads);

		p->has_seccomp |= th->seccomp_mode != 0;

		if (!thp)
			return fail(-ENOMEM, "pid %d: plan", tp->task->pid);
		thp->thread = th;
		thp->slot = p->nr_slots++;
	}
	return 0;
}

static int plan_task(struct restore_plan *p, const struct task *t)
{
	struct task_plan *tp = VEC_ADD(&p->tasks);

	if (!tp)
		return fail(-ENOMEM, "pid %d: plan", t->pid);
	tp->task = t;
	if (t->state == TASK_ZOMBIE)
		return 0;
	tp->mm = model_find_mm(p->m, t->mm_id);
	if (!tp->mm || !t->threads.nr || t->threads.v[0].tid != t->pid)
		return fail(0, "pid %d: its memory or its main thread is not in the images", t->pid);
	return plan_threads(p, tp);
}

static int plan_all(struct restore_plan *p, bool shell_job)
{
	int err = own_layout_read(&p->own);

	if (err)
		return err;
	if (!p->m->tasks.nr)
		return fail(0, "the images hold no task");
	VEC_FOREACH(t, &p->m->tasks) {
		err = plan_task(p, t);
		if (err)
			return err;
	}
	if (!p->tasks.v[0].mm)
		return unsupported("pid %d: the root of the tree has ended already", p->tasks.v[0].task->pid);
	err = plan_tree(p, shell_job);
	if (err)
		return err;
	plan_fds(p);
	err = plan_kin(p);
	if (!err)
		err = plan_addresses(p);
	VEC_FOREACH(tp, &p->tasks) {
		if (!err && tp->mm)
			err = plan_task_ops(p, tp);
	}
	return err;
}

int restore_plan_create(const struct model *m, bool shell_job, struct restore_plan **ret)
{
	struct restore_plan *p = calloc(1, sizeof(*p));

	if (!p)
		return fail(-ENOMEM, "restore plan");
	p->m = m;
	int err = plan_all(p, shell_job);
	if (err) {
		restore_plan_destroy(p);
		return err;
	}
	*ret = p;
	return 0;
}

void restore_plan_destroy(struct restore_plan *p)
{
	if (!p)
		return;
	VEC_FOREACH(tp, &p->tasks) {
		VEC_FOREACH(th, &tp->threads)
			VEC_FREE(&th->ops);
		VEC_FREE(&tp->threads);
		VEC_FREE(&tp->late);
		VEC_FREE(&tp->area);
	}
	VEC_FREE(&p->tasks);
	free(p->helpers);
	VEC_FREE(&p->staged);
	VEC_FREE(&p->shmems);
	own_layout_deinit(&p->own);
	free(p);
}
