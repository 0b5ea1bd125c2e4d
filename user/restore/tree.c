/*
 * Sessions and process groups: who has to be forked when.
 *
 * A process gets its session at birth, from its parent, or makes one of its own with setsid(2). A child that is in another session than
 * its parent, and did not make it, was therefore born before the parent made its own. plan_tree() works this out for
 * the whole tree, or says what cannot be built.
 */
#include <errno.h>

#include "base/log.h"
#include "restore/plan.h"

static size_t index_of(const struct restore_plan *p, pid_t pid)
{
	for (size_t i = 0; i < p->tasks.nr; i++) {
		if (p->tasks.v[i].task->pid == pid)
			return i;
	}
	return SIZE_MAX;
}

static bool leads_session(const struct task *t)
{
	return t->sid == t->pid;
}

/* A session or group of somebody outside: with --shell-job the caller's own takes its place. 0: the caller's. */
static pid_t known_or_callers(const struct restore_plan *p, pid_t id)
{
	return index_of(p, id) == SIZE_MAX ? 0 : id;
}

/* Can a task have been born in the session of this leader? Only below it, unless the leader is outside the tree. */
static bool is_below(const struct restore_plan *p, const struct task_plan *tp, size_t leader)
{
	size_t i = tp - p->tasks.v;

	while (i && i != leader)
		i = p->tasks.v[i].parent;
	return leader == SIZE_MAX || i == leader;
}

/* The session in which a task must be born. Children come after their parents: walk backwards. */
static int find_birth_sessions(struct restore_plan *p)
{
	for (size_t i = p->tasks.nr; i-- > 0;) {
		struct task_plan *tp = &p->tasks.v[i];
		struct task_plan *parent = &p->tasks.v[tp->parent];

		if (!leads_session(tp->task))
			tp->birth_sid = tp->task->sid;
		if (tp == parent || !tp->birth_sid || tp->birth_sid == parent->task->sid)
			continue;
		if (!is_below(p, tp, index_of(p, tp->birth_sid)))
			return unsupported("pid %d: it is in session %d, but not below its leader any more (its first parent has "
					   "exited), which is not supported yet",
					   tp->task->pid, tp->birth_sid);
		/* Born before the parent left that session itself. */
		if (!leads_session(parent->task) || (parent->birth_sid && parent->birth_sid != tp->birth_sid))
			return unsupported("pid %d: its session %d cannot be made again below its parent %d",
					   tp->task->pid, tp->birth_sid, parent->task->pid);
		parent->birth_sid = tp->birth_sid;
		tp->early = true;
	}
	return 0;
}

static int check_task(const struct restore_plan *p, const struct task_plan *tp)
{
	const struct task *t = tp->task, *root = p->tasks.v[0].task;
	size_t leader = index_of(p, t->sid), group = index_of(p, t->pgid);

	if (leader == SIZE_MAX && t->sid != root->sid)
		return unsupported("pid %d: the leader of its session %d has exited, which is not supported yet", t->pid,
				   t->sid);
	if (group == SIZE_MAX && t->pgid != root->pgid)
		return unsupported("pid %d: the leader of its process group %d has exited, which is not supported yet",
				   t->pid, t->pgid);
	if (group != SIZE_MAX && p->tasks.v[group].task->sid != t->sid)
		return fail(0, "pid %d: its process group %d is in another session", t->pid, t->pgid);
	VEC_FOREACH(other, &p->tasks) {
		if (other->task == t)
			break;
		if ((t->mm_id && other->task->mm_id == t->mm_id) || (t->files_id && other->task->files_id == t->files_id) ||
		    (t->fs_id && other->task->fs_id == t->fs_id) ||
		    (t->sighand_id && other->task->sighand_id == t->sighand_id))
			return unsupported("pid %d shares memory, descriptors, directories or signal handlers with pid %d, "
					   "which is not supported yet",
					   t->pid, other->task->pid);
	}
	return 0;
}

int plan_tree(struct restore_plan *p)
{
	for (size_t i = 0; i < p->tasks.nr; i++) {
		struct task_plan *tp = &p->tasks.v[i];

		tp->parent = i ? index_of(p, tp->task->ppid) : 0;
		if (tp->parent == SIZE_MAX || (i && tp->parent >= i))
			return fail(0, "pid %d: its parent %d is not in the tree", tp->task->pid, tp->task->ppid);
	}
	int err = find_birth_sessions(p);
	if (err)
		return err;
	struct task_plan *root = &p->tasks.v[0];
	if (root->birth_sid && known_or_callers(p, root->birth_sid))
		return fail(0, "pid %d: the root of the tree cannot be born in its own session %d", root->task->pid,
			    root->birth_sid);
	VEC_FOREACH(tp, &p->tasks) {
		err = check_task(p, tp);
		if (err)
			return err;
	}
	return 0;
}
