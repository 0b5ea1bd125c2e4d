/*
 * Sessions, process groups and shared objects: who has to be forked when and by whom, and what cannot be built.
 *
 * Theory of operation. A process gets its session at birth, from its maker, or makes one of its own with setsid(2). A child that
 * is in another session than its parent, and did not make it, was born
 *
 * - before its parent made its own session (`early`), or
 * - below the leader of its session, by somebody who has exited since: its parent has adopted it (TREE_ORPHAN); or, the same to
 *   look at, by a sister with CLONE_PARENT (TREE_SISTER), which is the simpler way to make it again.
 *
 * A session or group whose leader has exited lives on under the leader's number as long as it has members. A helper takes
 * that number: it leads the session, makes those who cannot get into it otherwise, and is gone before the tree runs.
 *
 * Descriptors (CLONE_FILES), directories (CLONE_FS), memory (CLONE_VM) and signal handlers (CLONE_SIGHAND, which takes CLONE_VM) are
 * shared from birth on: by a child with its parent, or by two sisters, of which the first makes the second.
 */
#include "model/tree_check.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/ident.h"
#include "base/log.h"

struct checker {
	const struct model *m;
	bool shell_job;
	struct tree_births *b;
	struct tree_flaw *flaw;
	struct ident_map pids; /* pid → 1 + index of the task, or 1 + m->tasks.nr + index of the helper */
	bool refused;
};

__attribute__((format(printf, 3, 4))) static int flawed(struct checker *c, pid_t pid, const char *fmt, ...)
{
	va_list ap;

	c->flaw->pid = pid;
	va_start(ap, fmt);
	vsnprintf(c->flaw->text, sizeof(c->flaw->text), fmt, ap);
	va_end(ap);
	return -EUCLEAN;
}

/* A refusal is noted, and does not end the search for more. */
static int note(struct checker *c, int err)
{
	if (err != -EOPNOTSUPP)
		return err;
	c->refused = true;
	return 0;
}

void tree_births_deinit(struct tree_births *births)
{
	free(births->tasks);
	VEC_FREE(&births->helpers);
	births->tasks = NULL;
}

static size_t find(const struct checker *c, pid_t pid)
{
	uint32_t at = pid > 0 ? ident_map_find(&c->pids, (uint64_t)pid) : 0;

	return at ? at - 1 : SIZE_MAX;
}

static struct tree_helper *helper_at(const struct checker *c, size_t at)
{
	return at != SIZE_MAX && at >= c->m->tasks.nr ? &c->b->helpers.v[at - c->m->tasks.nr] : NULL;
}

static bool leads_session(const struct task *t)
{
	return t->sid == t->pid;
}

/* --- parents --- */

static int find_parents(struct checker *c)
{
	const struct model *m = c->m;

	for (size_t i = 0; i < m->tasks.nr; i++) {
		const struct task *t = &m->tasks.v[i];
		size_t parent = i ? find(c, t->ppid) : 0;

		/* Parents come first: whoever is its own parent, or a descendant's child, is found here as well. */
		if (i && parent >= i)
			return flawed(c, t->pid, "its parent %d is not in the tree", t->ppid);
		c->b->tasks[i] = (struct tree_birth){ .parent = parent, .maker = i ? parent : TREE_OUTSIDE };
		if (find(c, t->pid) == SIZE_MAX && t->pid > 0 && ident_map_add(&c->pids, (uint64_t)t->pid, i + 1))
			return -ENOMEM;
	}
	return 0;
}

/* Is `above` an ancestor of `at`, or the same? */
static bool is_above(const struct checker *c, size_t above, size_t at)
{
	while (at > above)
		at = c->b->tasks[at].parent;
	return at == above;
}

/* --- sessions and groups, and who leads them --- */

static int add_helper(struct checker *c, pid_t pid, pid_t sid, size_t parent)
{
	struct tree_helper *h = VEC_ADD(&c->b->helpers);

	if (!h)
		return -ENOMEM;
	*h = (struct tree_helper){ .pid = pid, .sid = sid, .parent = parent };
	return ident_map_add(&c->pids, (uint64_t)pid, c->m->tasks.nr + c->b->helpers.nr);
}

/* Sessions and groups that bcr's own take the place of; 0: one that is not visible in this pid namespace. */
static bool is_callers(const struct checker *c, pid_t id, pid_t roots)
{
	return id == roots && (c->shell_job || id <= 0) && find(c, id) == SIZE_MAX;
}

static int check_session(struct checker *c, const struct task *t)
{
	size_t at = find(c, t->sid);

	if (is_callers(c, t->sid, model_root(c->m)->sid))
		return 0;
	if (t->sid <= 0) /* -1: the task was just being reaped */
		return flawed(c, t->pid, "its session or process group is not known");
	/* Where the helper belongs shows when its members are looked at. */
	if (at == SIZE_MAX)
		return add_helper(c, t->sid, t->sid, TREE_OUTSIDE);
	pid_t leaders = at < c->m->tasks.nr ? c->m->tasks.v[at].sid : helper_at(c, at)->sid;
	return leaders == t->sid ? 0 : flawed(c, t->pid, "pid %d does not lead its session", t->sid);
}

static int check_group(struct checker *c, const struct task *t)
{
	size_t at = find(c, t->pgid);

	if (is_callers(c, t->pgid, model_root(c->m)->pgid))
		return 0;
	if (t->pgid <= 0)
		return flawed(c, t->pid, "its session or process group is not known");
	if (at == SIZE_MAX)
		return add_helper(c, t->pgid, t->sid, t - c->m->tasks.v);
	pid_t sid = at < c->m->tasks.nr ? c->m->tasks.v[at].sid : helper_at(c, at)->sid;
	return sid == t->sid ? 0 : flawed(c, t->pid, "its process group %d is in another session", t->pgid);
}

/* --- the session of a birth --- */

/*
 * Born before its parent left session `sid`: then the parent was born in it too, and so on up to somebody who is still in it.
 * Notes so for all of them.
 */
static bool born_early(struct checker *c, size_t at, pid_t sid)
{
	struct tree_birth *births = c->b->tasks;
	const struct task *tasks = c->m->tasks.v;
	size_t a = births[at].parent;

	for (size_t up = a;; up = births[up].parent) {
		if (tasks[up].sid == sid || births[up].sid == sid)
			break;
		if (!up || !leads_session(&tasks[up]) || births[up].sid)
			return false;
	}
	births[at].sid = sid;
	births[at].early = tasks[a].sid != sid;
	for (; tasks[a].sid != sid && !births[a].sid; a = births[a].parent) {
		births[a].sid = sid;
		births[a].early = tasks[births[a].parent].sid != sid;
	}
	return true;
}

static int cannot_be_made(const struct task *t, pid_t sid, pid_t parent)
{
	return unsupported("pid %d: its session %d cannot be made again below its parent %d", t->pid, sid, parent);
}

/* The helper that leads the session becomes a child of the lowest of all who have to get children by it. */
static int place_helper(struct checker *c, struct tree_helper *h, size_t parent, const struct task *t)
{
	if (model_root(c->m)->sid == h->pid)
		return cannot_be_made(t, h->pid, t->ppid); /* it makes the root, so nobody's child but bcr's */
	if (h->parent == TREE_OUTSIDE || is_above(c, h->parent, parent))
		h->parent = parent;
	return is_above(c, parent, h->parent) ? 0 : cannot_be_made(t, h->pid, t->ppid);
}

/* Born below the leader of its session, where its parent is not. */
static int born_elsewhere(struct checker *c, size_t at, pid_t sid)
{
	const struct task *t = &c->m->tasks.v[at];
	struct tree_birth *birth = &c->b->tasks[at];
	size_t leader = find(c, sid);
	struct tree_helper *h = helper_at(c, leader);

	birth->sid = sid;
	birth->maker = leader;
	if (h)
		return place_helper(c, h, birth->parent, t);
	if (leader == SIZE_MAX || leader == birth->parent || !is_above(c, birth->parent, leader))
		return cannot_be_made(t, sid, t->ppid);
	return 0;
}

static int find_birth(struct checker *c, size_t at)
{
	const struct task *t = &c->m->tasks.v[at];
	struct tree_birth *birth = &c->b->tasks[at];
	size_t leader = find(c, t->sid);

	if (leads_session(t))
		return 0;
	if (at) {
		if (c->m->tasks.v[birth->parent].sid == t->sid)
			birth->sid = t->sid;
		else if (!born_early(c, at, t->sid))
			return born_elsewhere(c, at, t->sid);
		return 0;
	}
	birth->sid = t->sid;
	if (helper_at(c, leader))
		birth->maker = leader;
	else if (leader != SIZE_MAX)
		return flawed(c, t->pid, "the root of the tree cannot be born in its own session %d", t->sid);
	return 0;
}

/* --- the way to the parent, when that is not the maker --- */

static int set_way(struct checker *c, size_t at)
{
	const struct task *t = &c->m->tasks.v[at];
	struct tree_birth *birth = &c->b->tasks[at];
	struct tree_helper *h = helper_at(c, birth->maker);
	size_t parent = at ? birth->parent : TREE_OUTSIDE, makers_parent;
	int32_t exit_signal;

	if (birth->maker == parent)
		return 0;
	if (h && !h->exit_signal)
		h->exit_signal = t->exit_signal;
	makers_parent = h ? h->parent : c->b->tasks[birth->maker].parent;
	exit_signal = h ? h->exit_signal : c->m->tasks.v[birth->maker].exit_signal;
	/* CLONE_PARENT makes the exit signal that of the maker, an adoption makes it SIGCHLD. */
	if (makers_parent == parent && exit_signal == t->exit_signal) {
		birth->way = TREE_SISTER;
		return 0;
	}
	if (!at || t->exit_signal != SIGCHLD)
		return cannot_be_made(t, birth->sid, t->ppid);
	birth->way = TREE_ORPHAN;
	c->b->tasks[parent].adopts = true;
	return 0;
}

/* Whoever adopts is the nearest above the maker that adopts at all. */
static int check_adoption(const struct checker *c, size_t at)
{
	const struct tree_birth *birth = &c->b->tasks[at];
	const struct tree_helper *h = helper_at(c, birth->maker);
	size_t up = h ? h->parent : birth->maker;

	if (birth->way != TREE_ORPHAN)
		return 0;
	while (up != birth->parent && !c->b->tasks[up].adopts)
		up = c->b->tasks[up].parent;
	return up == birth->parent ? 0 : cannot_be_made(&c->m->tasks.v[at], birth->sid, c->m->tasks.v[at].ppid);
}

/* Nobody can be made, not even in a roundabout way, by who descends from it. */
static int check_order(struct checker *c)
{
	size_t nr = c->m->tasks.nr, all = nr + c->b->helpers.nr;
	_cleanup_free_ uint8_t *made = calloc(all, 1);

	if (!made)
		return -ENOMEM;
	for (size_t i = 0; i < nr; i++) {
		size_t steps = 0;

		for (size_t at = i; at != TREE_OUTSIDE && !made[at]; steps++) {
			if (steps > all)
				return flawed(c, c->m->tasks.v[i].pid, "it would have to be made by a descendant of its own");
			at = at < nr ? c->b->tasks[at].maker : helper_at(c, at)->parent;
		}
		for (size_t at = i; at != TREE_OUTSIDE && !made[at];) {
			made[at] = 1;
			at = at < nr ? c->b->tasks[at].maker : helper_at(c, at)->parent;
		}
	}
	return 0;
}

/* --- what is shared --- */

enum shared { SHARED_FILES, SHARED_FS, SHARED_VM, SHARED_SIGHAND, NR_SHARED };

static const char *const shared_names[NR_SHARED] = {
	"descriptors (CLONE_FILES)", "working directory (CLONE_FS)", "memory (CLONE_VM)", "signal handlers (CLONE_SIGHAND)",
};

static uint32_t shared_id(const struct task *t, size_t what)
{
	const uint32_t ids[NR_SHARED] = { t->files_id, t->fs_id, t->mm_id, t->sighand_id };

	return ids[what];
}

/* Tasks by what they have: the first one of all, and the first child of each parent. */
struct sharers {
	struct ident_map first[NR_SHARED], first_child[NR_SHARED];
};

static void sharers_deinit(struct sharers *s)
{
	for (size_t i = 0; i < NR_SHARED; i++) {
		ident_map_deinit(&s->first[i]);
		ident_map_deinit(&s->first_child[i]);
	}
}

static uint64_t child_key(uint32_t id, size_t parent)
{
	return ident_mix(ident_mix(1, id), parent);
}

static int add_sharer(struct sharers *s, const struct task *t, size_t at, size_t parent)
{
	for (size_t i = 0; i < NR_SHARED; i++) {
		uint32_t id = shared_id(t, i);

		if (id && !ident_map_find(&s->first[i], id) && ident_map_add(&s->first[i], id, at + 1))
			return -ENOMEM;
		if (id && at && !ident_map_find(&s->first_child[i], child_key(id, parent)) &&
		    ident_map_add(&s->first_child[i], child_key(id, parent), at + 1))
			return -ENOMEM;
	}
	return 0;
}

/*
 * What the task shares with those before it, and a birth by `maker` does not bring: the first such thing, or NR_SHARED. (The kernel
 * gives nobody the same handlers in other memory.)
 */
static enum shared find_missing(const struct checker *c, size_t maker, const struct task *t, const uint32_t others[NR_SHARED])
{
	const struct task *m = maker < c->m->tasks.nr ? &c->m->tasks.v[maker] : NULL;

	for (size_t i = 0; i < NR_SHARED; i++) {
		if (others[i] && (!m || shared_id(m, i) != shared_id(t, i)))
			return i;
	}
	return others[SHARED_SIGHAND] && !others[SHARED_VM] ? SHARED_SIGHAND : NR_SHARED;
}

/* Can a sister that is made already make this task, in the session where it has to be born? */
static bool made_by_sister(struct checker *c, size_t at, size_t sister)
{
	const struct task *t = &c->m->tasks.v[at], *s = &c->m->tasks.v[sister];
	struct tree_birth *birth = &c->b->tasks[at];

	if (birth->maker != birth->parent || s->exit_signal != t->exit_signal)
		return false;
	birth->early = birth->sid && birth->sid != s->sid;
	if (birth->early && c->b->tasks[sister].sid != birth->sid)
		return false;
	birth->maker = sister;
	birth->way = TREE_SISTER;
	return true;
}

/* By the first child of its parent that has one of the things which it shares, and then all of them. */
static bool find_sister(struct checker *c, const struct sharers *s, size_t at, const uint32_t others[NR_SHARED])
{
	const struct task *t = &c->m->tasks.v[at];

	for (size_t i = 0; i < NR_SHARED; i++) {
		uint64_t key = child_key(shared_id(t, i), c->b->tasks[at].parent);
		uint32_t sister = others[i] ? ident_map_find(&s->first_child[i], key) : 0;

		if (sister && find_missing(c, sister - 1, t, others) == NR_SHARED && made_by_sister(c, at, sister - 1))
			return true;
	}
	return false;
}

static int check_sharing(struct checker *c, struct sharers *s, size_t at)
{
	const struct task *t = &c->m->tasks.v[at];
	struct tree_birth *birth = &c->b->tasks[at];
	uint32_t others[NR_SHARED];

	for (size_t i = 0; i < NR_SHARED; i++)
		others[i] = shared_id(t, i) ? ident_map_find(&s->first[i], shared_id(t, i)) : 0;
	/* Whoever comes in between to make an orphan has nothing to share, and ends. */
	enum shared missing = find_missing(c, birth->way == TREE_ORPHAN ? TREE_OUTSIDE : birth->maker, t, others);
	if (missing != NR_SHARED && !find_sister(c, s, at, others))
		return unsupported("pid %d: shares its %s with pid %d, but not so with its parent or a sister that it could "
				   "have been made by; such a process cannot be made again",
				   t->pid, shared_names[missing], c->m->tasks.v[others[missing] - 1].pid);
	birth->with_files = others[SHARED_FILES];
	birth->with_fs = others[SHARED_FS];
	birth->with_vm = others[SHARED_VM];
	birth->with_sighand = others[SHARED_SIGHAND];
	return 0;
}

static int check_all_sharing(struct checker *c, const uint8_t *waiting)
{
	struct sharers s = {};
	int err = 0;

	for (size_t i = 0; i < c->m->tasks.nr && !err; i++) {
		err = note(c, check_sharing(c, &s, i));
		if (!err && !(waiting && waiting[i]))
			err = add_sharer(&s, &c->m->tasks.v[i], i, c->b->tasks[i].parent);
	}
	sharers_deinit(&s);
	return err;
}

/* --- all of it --- */

static int check_births(struct checker *c)
{
	int err = 0;

	for (size_t i = 0; i < c->m->tasks.nr && !err; i++)
		err = note(c, find_birth(c, i));
	for (size_t i = 0; i < c->m->tasks.nr && !err && !c->refused; i++)
		err = note(c, set_way(c, i));
	for (size_t i = 0; i < c->m->tasks.nr && !err && !c->refused; i++)
		err = note(c, check_adoption(c, i));
	return err;
}

static int check(struct checker *c, const uint8_t *waiting)
{
	int err = find_parents(c);

	for (size_t i = 0; i < c->m->tasks.nr && !err; i++) {
		err = check_session(c, &c->m->tasks.v[i]);
		if (!err)
			err = check_group(c, &c->m->tasks.v[i]);
	}
	if (!err)
		err = check_births(c);
	if (!err)
		err = check_all_sharing(c, waiting);
	if (!err && !c->refused)
		err = check_order(c);
	return err ? err : c->refused ? -EOPNOTSUPP : 0;
}

int tree_check(const struct model *m, bool shell_job, const uint8_t *waiting, struct tree_births *ret, struct tree_flaw *flaw)
{
	struct checker c = { .m = m, .shell_job = shell_job, .b = ret, .flaw = flaw };

	ret->tasks = calloc(m->tasks.nr + 1, sizeof(*ret->tasks));
	if (!ret->tasks)
		return -ENOMEM;
	int err = check(&c, waiting);
	ident_map_deinit(&c.pids);
	return err;
}
