/* The plan of a restore: made in one go, printable. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/log.h"
#include "restore/plan.h"

enum { FD_LOWEST = 32 };

static int plan_threads(struct restore_plan *p, struct task_plan *tp)
{
	VEC_FOREACH(th, &tp->task->threads) {
		struct thread_plan *plan = VEC_ADD(&tp->threads);

		if (!plan)
			return fail(-ENOMEM, "plan of threads");
		plan->thread = th;
		plan->slot = p->nr_slots++;
	}
	return tp->threads.nr ? 0 : fail(0, "pid %d: it has no threads in the images", tp->task->pid);
}

static int plan_tasks(struct restore_plan *p)
{
	VEC_FOREACH(t, &p->m->tasks) {
		struct task_plan *tp = VEC_ADD(&p->tasks);

		if (!tp)
			return fail(-ENOMEM, "plan of tasks");
		tp->task = t;
		if (t->state == TASK_ZOMBIE)
			continue;
		tp->mm = model_find_mm(p->m, t->mm_id);
		if (!tp->mm)
			return fail(0, "pid %d: its memory is not in the images", t->pid);
		int err = plan_threads(p, tp);
		if (err)
			return err;
	}
	if (!p->tasks.nr || p->tasks.v[0].task->state == TASK_ZOMBIE)
		return fail(0, "the root of the tree is not a living process");
	return 0;
}

static void plan_numbers(struct restore_plan *p)
{
	int above = FD_LOWEST;

	VEC_FOREACH(table, &p->m->fdtables) {
		if ((*table)->fds.nr && (*table)->fds.v[(*table)->fds.nr - 1].fd >= above)
			above = (*table)->fds.v[(*table)->fds.nr - 1].fd + 1;
	}
	p->fd_log = above;
	p->fd_err = above + 1;
	p->fd_exe = above + 2;
	p->fd_pages = above + 3;
	p->fd_files = above + 4;
}

/* Everything but bcr's own layout, which is in p->own already. */
static int make_plan(struct restore_plan *p)
{
	int err = plan_tasks(p);

	if (!err)
		err = plan_tree(p);
	if (err)
		return err;
	plan_numbers(p);
	err = plan_addresses(p);
	VEC_FOREACH(tp, &p->tasks) {
		if (!err && tp->mm)
			err = plan_task_ops(p, tp);
	}
	return err;
}

int restore_plan_create(const struct model *m, struct restore_plan **ret)
{
	struct restore_plan *p = calloc(1, sizeof(*p));

	if (!p)
		return fail(-ENOMEM, "plan");
	p->m = m;
	int err = own_layout_read(&p->own);
	if (!err)
		err = make_plan(p);
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
		VEC_FREE(&tp->area);
	}
	own_layout_deinit(&p->own);
	VEC_FREE(&p->tasks);
	VEC_FREE(&p->staged);
	VEC_FREE(&p->shmem_at);
	free(p);
}

/* --- printing --- */

static void print_op(const struct plan_op *po, size_t i, FILE *out)
{
	const struct restorer_op *op = &po->op;
	int last = 5;

	fprintf(out, "    %4zu  %-32s", i, po->what);
	if (op->code == RESTORER_CLONE) {
		fprintf(out, " number %llu\n", op->args[0]);
		return;
	}
	while (last >= 0 && !op->args[last])
		last--;
	fprintf(out, " call %u(", op->nr);
	for (int a = 0; a <= last; a++)
		fprintf(out, "%s%#llx", a ? ", " : "", op->args[a]);
	fputs(")\n", out);
}

static void print_task(const struct restore_plan *p, const struct task_plan *tp, FILE *out)
{
	const struct task *t = tp->task;

	fprintf(out, "pid %d: parent %d, session %d, group %d", t->pid, t->ppid, t->sid, t->pgid);
	if (tp->early)
		fputs(", forked before its parent's own session", out);
	if (!tp->mm) {
		fprintf(out, ", zombie with status %#x\n", t->exit_code);
		return;
	}
	fprintf(out, "\n  memory: %zu mappings, %zu runs of pages", tp->mm->vmas.nr, tp->mm->pages.nr);
	size_t staged = 0;
	VEC_FOREACH(vma, &tp->mm->vmas)
		staged += !(vma->status & (VMA_VDSO | VMA_VVAR)) && plan_vma_at(p, vma) != vma->start;
	fprintf(out, ", %zu mapped elsewhere at first\n", staged);
	VEC_FOREACH(th, &tp->threads) {
		fprintf(out, "  thread %d (%.16s)\n", th->thread->tid, th->thread->comm);
		for (size_t i = 0; i < th->ops.nr; i++)
			print_op(&th->ops.v[i], i, out);
	}
}

void restore_plan_print(const struct restore_plan *p, FILE *out)
{
	fprintf(out, "%zu tasks, %u threads; the restorer works at %#" PRIx64 "-%#" PRIx64 "\n", p->tasks.nr, p->nr_slots,
		p->hole.start, p->hole.end);
	VEC_FOREACH(tp, &p->tasks)
		print_task(p, tp, out);
}
