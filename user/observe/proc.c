/*
 * Observation by /proc and kcmp(2), without stopping the target: the fallback for kernels without BPF, and what the BPF
 * back end is compared with.
 *
 * What neither of them tells (sigactions, alternate stacks, siginfo of pending signals, clear_child_tid, rseq, itimers,
 * values of POSIX timers, registers) is read by ptrace once the target is stopped; see capture/capture.h.
 */
#include "observe/proc.h"

#include <errno.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"

struct proc_state {
	pid_t root;
	int root_dir;
};

int proc_fail(int err, pid_t pid, const char *what)
{
	switch (err) {
	case 0:
	case -ENOMEM:
	case -EAGAIN:
		return err;
	case -ENOENT:
	case -ESRCH:
	case -EBADF:
		return -EAGAIN;
	}
	return fail(err, "pid %d: %s", pid, what);
}

int proc_kcmp(pid_t a, pid_t b, int type, unsigned long ia, unsigned long ib, int *err)
{
	long order = syscall(SYS_kcmp, a, b, type, ia, ib);

	switch (order) {
	case 0:
		return 0;
	case 1:
		return -1;
	case 2:
		return 1;
	}
	if (!*err)
		*err = order < 0 ? -errno : -EPROTO;
	return 0;
}

static int proc_probe(const char **why)
{
	pid_t self = getpid();

	if (access("/proc/thread-self/children", R_OK) < 0) {
		*why = "the kernel has no /proc/PID/task/TID/children";
		return -errno;
	}
	if (syscall(SYS_kcmp, self, self, KCMP_VM, 0, 0) < 0) {
		*why = "kcmp(2) does not work";
		return -errno;
	}
	return 0;
}

static int proc_backend_open(pid_t root, void **ret)
{
	struct proc_state *st = malloc(sizeof(*st));

	if (!st)
		return fail(-ENOMEM, "pid %d: observe", root);
	st->root = root;
	int err = proc_open(root, &st->root_dir);
	if (err) {
		free(st);
		return err == -ENOENT ? fail(-ESRCH, "pid %d", root) : fail(err, "pid %d: open /proc/%d", root, root);
	}
	*ret = st;
	return 0;
}

static void proc_close(void *state)
{
	struct proc_state *st = state;

	close(st->root_dir);
	free(st);
}

/* --- the tree --- */

static int add_task(struct proc_run *r, pid_t pid)
{
	_cleanup_close_ int dir = -1;
	/* Memory, descriptors and directories are shown by a thread that lives; and all else as well. */
	int err = proc_open(proc_living(pid), &dir);

	if (err)
		return proc_fail(err, pid, "open /proc/PID");
	struct task *t = VEC_ADD(&r->o->m->tasks);
	struct task_idents *id = VEC_ADD(&r->o->idents);
	if (!t || !id || VEC_PUSH(&r->dirs, dir))
		return -ENOMEM;
	take_fd(&dir);
	t->pid = pid;
	return 0;
}

/* Children are listed by the thread that made them. */
static int add_children(struct proc_run *r, size_t at)
{
	proc_numbers tids = {};
	int dir = r->dirs.v[at];
	pid_t pid = r->o->m->tasks.v[at].pid;
	int err = proc_list(dir, "task", &tids);

	for (size_t i = 0; !err && i < tids.nr; i++) {
		_cleanup_free_ char *text = NULL;
		char name[48];

		snprintf(name, sizeof(name), "task/%d/children", tids.v[i]);
		err = proc_read(dir, name, &text, NULL);
		char *save = NULL;
		for (char *w = err ? NULL : strtok_r(text, " \n", &save); !err && w; w = strtok_r(NULL, " \n", &save))
			err = add_task(r, atoi(w));
	}
	VEC_FREE(&tids);
	return proc_fail(err, pid, "list its children");
}

/* Breadth first: parents come before children. */
static int run_tree(struct proc_run *r, pid_t root)
{
	int err = add_task(r, root);

	for (size_t at = 0; !err && at < r->o->m->tasks.nr; at++)
		err = add_children(r, at);
	for (size_t at = 0; !err && at < r->o->m->tasks.nr; at++)
		err = proc_task(r, at);
	return err;
}

/* --- identities of tasks' objects --- */

struct kcmp_item {
	pid_t pid;
	size_t at;
};

struct kcmp_sort {
	int type;
	int err;
};

static int compare_items(const void *a, const void *b, void *arg)
{
	const struct kcmp_item *x = a, *y = b;
	struct kcmp_sort *s = arg;

	return proc_kcmp(x->pid, y->pid, s->type, 0, 0, &s->err);
}

static uint64_t *ident_of_type(struct task_idents *id, int type)
{
	switch (type) {
	case KCMP_VM:
		return &id->mm;
	case KCMP_FILES:
		return &id->files;
	case KCMP_FS:
		return &id->fs;
	default:
		return &id->sighand;
	}
}

/* Sorted by kcmp's order, tasks that share an object stand side by side. */
static int run_task_idents(struct proc_run *r, int type)
{
	size_t nr = 0;
	_cleanup_free_ struct kcmp_item *items = calloc(r->o->m->tasks.nr, sizeof(*items));
	struct kcmp_sort s = { .type = type };

	if (!items)
		return -ENOMEM;
	for (size_t at = 0; at < r->o->m->tasks.nr; at++) {
		const struct task *t = &r->o->m->tasks.v[at];

		if (t->state != TASK_ZOMBIE && !r->o->idents.v[at].kernel_thread)
			items[nr++] = (struct kcmp_item){ .pid = task_living(t)->tid, .at = at };
	}
	qsort_r(items, nr, sizeof(*items), compare_items, &s);
	uint64_t ident = 0;
	for (size_t i = 0; i < nr; i++) {
		if (!i || compare_items(&items[i - 1], &items[i], &s))
			ident++;
		*ident_of_type(&r->o->idents.v[items[i].at], type) = ident;
	}
	return s.err ? proc_fail(s.err, r->o->m->tasks.v[0].pid, "kcmp") : 0;
}

/* Those that a thread of a process can leave alone; for another mount namespace it needs directories of its own. */
static int thread_left_namespaces(int dir, const struct task *t, pid_t tid, bool *ret)
{
	const struct {
		const char *name;
		uint32_t leaders;
	} all[] = { { "uts", t->ns.uts }, { "net", t->ns.net }, { "ipc", t->ns.ipc }, { "cgroup", t->ns.cgroup } };

	*ret = false;
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		char path[48];
		struct stat st;

		snprintf(path, sizeof(path), "task/%d/ns/%s", tid, all[i].name);
		if (!fstatat(dir, path, &st, 0))
			*ret |= st.st_ino != all[i].leaders;
		else if (errno != ENOENT) /* no such kind of namespace, or the thread is about to end */
			return -errno;
	}
	return 0;
}

/* A thread with descriptors, directories or namespaces of its own (unshare(2)) has no place in the model. */
static int check_thread_sharing(struct proc_run *r, size_t at)
{
	const struct task *t = &r->o->m->tasks.v[at];
	struct task_idents *id = &r->o->idents.v[at];
	int err = 0;

	pid_t living = t->threads.nr ? task_living(t)->tid : t->pid;

	for (size_t i = 1; i < t->threads.nr && t->state != TASK_ZOMBIE && !id->kernel_thread; i++) {
		pid_t tid = t->threads.v[i].tid;
		const char *what = NULL;
		bool left_namespaces;

		if (!err)
			err = thread_left_namespaces(r->dirs.v[at], t, tid, &left_namespaces);
		if (err)
			break;
		if (left_namespaces && !id->refusal[0])
			snprintf(id->refusal, sizeof(id->refusal),
				 "its thread %d is in other namespaces than its process, which is not supported", tid);
		if (proc_kcmp(living, tid, KCMP_FILES, 0, 0, &err))
			what = "descriptors";
		else if (proc_kcmp(living, tid, KCMP_FS, 0, 0, &err))
			what = "working directory and umask";
		if (what && !id->refusal[0])
			snprintf(id->refusal, sizeof(id->refusal),
				 "its thread %d has %s of its own (unshare), which is not supported", tid, what);
	}
	return err ? proc_fail(err, t->pid, "compare its threads") : 0;
}

static int run_idents(struct proc_run *r)
{
	static const int types[] = { KCMP_VM, KCMP_FILES, KCMP_FS, KCMP_SIGHAND };
	int err = 0;

	for (size_t i = 0; !err && i < sizeof(types) / sizeof(types[0]); i++)
		err = run_task_idents(r, types[i]);
	for (size_t at = 0; !err && at < r->o->m->tasks.nr; at++)
		err = check_thread_sharing(r, at);
	return err;
}

/* --- what the objects hold --- */

/* Is this task the first with its object? Idents of one type are small numbers from 1. */
static bool first_with(struct ident_map *seen, uint64_t ident, int *err)
{
	if (!ident || ident_map_find(seen, ident))
		return false;
	if (ident_map_add(seen, ident, 1))
		*err = -ENOMEM;
	return true;
}

static int task_links(struct proc_run *r, size_t at)
{
	struct task_idents *id = &r->o->idents.v[at];
	int err = proc_other(r, at, "exe", &id->exe);

	if (!err)
		err = proc_other(r, at, "cwd", &id->cwd);
	return err ? err : proc_other(r, at, "root", &id->root);
}

/* What is refused does not keep the rest from being observed: all refusals go into one list. */
static void note_refusal(int *err, bool *refused)
{
	if (*err != -EOPNOTSUPP)
		return;
	*refused = true;
	*err = 0;
}

static int run_objects(struct proc_run *r)
{
	struct ident_map mms = {}, tables = {};
	int err = 0;
	bool refused = false;

	for (size_t at = 0; !err && at < r->o->m->tasks.nr; at++) {
		const struct task_idents *id = &r->o->idents.v[at];

		if (!id->mm)
			continue;
		err = task_links(r, at);
		if (!err && first_with(&mms, id->mm, &err))
			err = proc_maps(r, at);
		note_refusal(&err, &refused);
		if (!err && first_with(&tables, id->files, &err))
			err = proc_fds(r, at);
		note_refusal(&err, &refused);
	}
	if (!err)
		err = proc_fd_idents(r);
	ident_map_deinit(&mms);
	ident_map_deinit(&tables);
	return err ? err : refused ? -EOPNOTSUPP : 0;
}

/* A pid that ended and came back as another process would show as a directory that answers ESRCH. */
static int check_alive(const struct proc_run *r)
{
	for (size_t at = 0; at < r->dirs.nr; at++) {
		struct proc_stat st;
		int err = proc_read_stat(r->dirs.v[at], "stat", &st);

		if (err)
			return proc_fail(err, r->o->m->tasks.v[at].pid, "read stat");
		/* Became a zombie or was reparented meanwhile: what was read before is no longer so. */
		if ((st.state == 'Z') != (r->o->m->tasks.v[at].state == TASK_ZOMBIE))
			return -EAGAIN;
	}
	return 0;
}

static int proc_backend_run(void *state, bool stopped, struct observation *o)
{
	struct proc_state *ps = state;
	struct proc_run r = { .o = o };
	struct proc_stat st;
	int err = proc_read_stat(ps->root_dir, "stat", &st);

	if (err)
		return fail(err, "pid %d: has ended", ps->root);
	err = run_tree(&r, ps->root);
	if (!err)
		err = run_idents(&r);
	if (!err)
		err = run_objects(&r);
	bool refused = err == -EOPNOTSUPP;
	/* How many have something is not shown. */
	o->outsiders = true;
	if (!err || refused)
		err = check_alive(&r);
	VEC_FOREACH(dir, &r.dirs)
		close(*dir);
	VEC_FREE(&r.dirs);
	ident_map_deinit(&r.others);
	if (err == -EAGAIN && stopped)
		return fail(-ESRCH, "pid %d: a process of its tree ended while the tree was stopped", ps->root);
	return err ? err : refused ? -EOPNOTSUPP : 0;
}

const struct observe_ops observe_proc_ops = {
	.name = "proc",
	.probe = proc_probe,
	.open = proc_backend_open,
	.run = proc_backend_run,
	.close = proc_close,
};
