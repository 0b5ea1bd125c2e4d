/*
 * Sessions and process groups: who has to be forked when, and what cannot be built.
 *
 * A process gets its session at birth, from its parent, or makes one of its own with setsid(2). A child that is in another
 * session than its parent, and did not make it, was therefore born before the parent made its own. tree_check() works this
 * out for the whole tree, or says what cannot be built.
 */
#include "model/tree_check.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/log.h"

__attribute__((format(printf, 3, 4))) static int flawed(struct tree_flaw *flaw, pid_t pid, const char *fmt, ...)
{
	va_list ap;

	flaw->pid = pid;
	va_start(ap, fmt);
	vsnprintf(flaw->text, sizeof(flaw->text), fmt, ap);
	va_end(ap);
	return -EUCLEAN;
}

static size_t index_of(const struct model *m, pid_t pid)
{
	const struct task *t = model_find_task(m, pid);

	return t ? (size_t)(t - m->tasks.v) : SIZE_MAX;
}

static bool leads_session(const struct task *t)
{
	return t->sid == t->pid;
}

static int find_parents(const struct model *m, struct tree_birth *births, struct tree_flaw *flaw)
{
	for (size_t i = 0; i < m->tasks.nr; i++) {
		const struct task *t = &m->tasks.v[i];

		births[i] = (struct tree_birth){ .parent = i ? index_of(m, t->ppid) : 0 };
		/* Parents come first: whoever is its own parent, or a descendant's child, is found here as well. */
		if (i && births[i].parent >= i)
			return flawed(flaw, t->pid, "its parent %d is not in the tree", t->ppid);
	}
	return 0;
}

/* Can a task have been born in the session of this leader? Only below it, unless the leader is outside the tree. */
static bool is_below(const struct tree_birth *births, size_t at, size_t leader)
{
	while (at && at != leader)
		at = births[at].parent;
	return leader == SIZE_MAX || at == leader;
}

/* The session in which a task must be born. */
static int find_birth_session(const struct model *m, struct tree_birth *births, size_t at)
{
	const struct task *t = &m->tasks.v[at];
	struct tree_birth *birth = &births[at], *parent = &births[birth->parent];
	const struct task *parent_task = &m->tasks.v[birth->parent];

	if (!leads_session(t))
		birth->sid = t->sid;
	if (!at || !birth->sid || birth->sid == parent_task->sid)
		return 0;
	if (!is_below(births, at, index_of(m, birth->sid)))
		return unsupported("pid %d: it is in session %d, but not below its leader any more (its first parent has exited), "
				   "which is not supported yet",
				   t->pid, birth->sid);
	/* Born before the parent left that session itself. */
	if (!leads_session(parent_task) || (parent->sid && parent->sid != birth->sid))
		return unsupported("pid %d: its session %d cannot be made again below its parent %d", t->pid, birth->sid,
				   parent_task->pid);
	parent->sid = birth->sid;
	birth->early = true;
	return 0;
}

static int check_membership(const struct model *m, const struct task *t, struct tree_flaw *flaw)
{
	const struct task *root = model_root(m);
	const struct task *group = model_find_task(m, t->pgid);
	int err = 0;

	/* 0: it is not visible in this pid namespace; -1: the task was just being reaped. */
	if ((t->sid <= 0 && t->sid != root->sid) || (t->pgid <= 0 && t->pgid != root->pgid))
		return flawed(flaw, t->pid, "its session or process group is not known");
	/* The session and the group of the root may be those of somebody outside: --shell-job puts the caller's in their place. */
	if (t->sid != root->sid && !model_find_task(m, t->sid))
		err = unsupported("pid %d: the leader of its session %d has exited, which is not supported yet", t->pid, t->sid);
	if (t->pgid != root->pgid && !group)
		err = unsupported("pid %d: the leader of its process group %d has exited, which is not supported yet", t->pid,
				  t->pgid);
	if (!err && group && group->sid != t->sid)
		return flawed(flaw, t->pid, "its process group %d is in another session", t->pgid);
	return err;
}

int tree_check(const struct model *m, struct tree_birth *births, struct tree_flaw *flaw)
{
	int refused = 0, err = find_parents(m, births, flaw);

	if (err)
		return err;
	for (size_t i = 0; i < m->tasks.nr; i++) {
		err = check_membership(m, &m->tasks.v[i], flaw);
		if (err && err != -EOPNOTSUPP)
			return err;
		refused = err ? err : refused;
	}
	/* A session without a leader has been refused: nothing more can be said of who is born into it. */
	if (refused)
		return refused;
	/* Children come after their parents: walk backwards. */
	for (size_t i = m->tasks.nr; i-- > 0;) {
		err = find_birth_session(m, births, i);
		refused = err ? err : refused;
	}
	if (!refused && m->tasks.nr && births[0].sid && model_find_task(m, births[0].sid))
		return flawed(flaw, m->tasks.v[0].pid, "the root of the tree cannot be born in its own session %d", births[0].sid);
	return refused;
}

/* What of a task may be shared, side by side: all pairs are looked at, and it may be inside a stop. */
struct shared_ids {
	uint32_t mm, files, fs, sighand;
};

static bool share(const struct shared_ids *a, const struct shared_ids *b)
{
	return (a->mm && a->mm == b->mm) || (a->files && a->files == b->files) || (a->fs && a->fs == b->fs) ||
	       (a->sighand && a->sighand == b->sighand);
}

int tree_check_sharing(const struct model *m, const uint8_t *waiting)
{
	_cleanup_free_ struct shared_ids *ids = calloc(m->tasks.nr, sizeof(*ids));
	int err = 0;

	if (m->tasks.nr && !ids)
		return -ENOMEM;
	for (size_t i = 0; i < m->tasks.nr; i++) {
		const struct task *t = &m->tasks.v[i];
		size_t other = 0;

		ids[i] = (struct shared_ids){ t->mm_id, t->files_id, t->fs_id, t->sighand_id };
		while (other < i && ((waiting && waiting[other]) || !share(&ids[other], &ids[i])))
			other++;
		if (other < i)
			err = unsupported("pid %d shares memory, descriptors, directories or signal handlers with pid %d, which is "
					  "not supported yet",
					  t->pid, m->tasks.v[other].pid);
	}
	return err;
}
