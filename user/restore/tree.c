/* Who is made by whom, and when. What can be built, and how, is said by model/tree_check.h. */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "model/tree_check.h"
#include "restore/plan.h"

/* Helpers are planned as tasks that have nothing but a number. */
static int add_helpers(struct restore_plan *p, const struct tree_births *births)
{
	p->nr_helpers = births->helpers.nr;
	p->helpers = calloc(p->nr_helpers + 1, sizeof(*p->helpers));
	if (!p->helpers)
		return -ENOMEM;
	for (size_t i = 0; i < p->nr_helpers; i++) {
		const struct tree_helper *h = &births->helpers.v[i];
		struct task_plan *tp = VEC_ADD(&p->tasks);

		if (!tp)
			return -ENOMEM;
		p->helpers[i] = (struct task){
			.pid = h->pid, .pgid = h->pid, .sid = h->sid, .state = TASK_DEAD, .exit_signal = h->exit_signal,
			.ppid = h->parent == TREE_OUTSIDE ? 0 : p->m->tasks.v[h->parent].pid,
		};
		tp->task = &p->helpers[i];
		tp->birth = (struct tree_birth){ .parent = h->parent, .maker = h->parent };
		tp->is_helper = true;
	}
	return 0;
}

static int take_births(struct restore_plan *p, const struct tree_births *births)
{
	for (size_t i = 0; i < p->tasks.nr; i++) {
		struct task_plan *tp = &p->tasks.v[i];

		tp->birth = births->tasks[i];
		tp->mm_first = i;
		if (tp->birth.with_vm) {
			/* Makers come first. */
			tp->mm_first = p->tasks.v[tp->birth.maker].mm_first;
			p->tasks.v[tp->mm_first].nr_sharers++;
		}
		p->waits_for_all |= births->tasks[i].with_files || births->tasks[i].with_fs;
	}
	p->tasks.v[0].birth.parent = TREE_OUTSIDE;
	p->waits_for_all |= births->helpers.nr > 0;
	return add_helpers(p, births);
}

static void find_max_id(struct restore_plan *p)
{
	VEC_FOREACH(tp, &p->tasks) {
		p->max_id = tp->task->pid > p->max_id ? tp->task->pid : p->max_id;
		VEC_FOREACH(th, &tp->task->threads)
			p->max_id = th->tid > p->max_id ? th->tid : p->max_id;
	}
}

int plan_tree(struct restore_plan *p, bool shell_job)
{
	struct tree_births births = {};
	struct tree_flaw flaw;
	int err = tree_check(p->m, shell_job, NULL, &births, &flaw);

	if (!err)
		err = take_births(p, &births);
	tree_births_deinit(&births);
	if (err == -EUCLEAN)
		return fail(0, "pid %d: %s", flaw.pid, flaw.text);
	if (err)
		return err == -ENOMEM ? fail(err, "restore plan") : err;
	find_max_id(p);
	return 0;
}
