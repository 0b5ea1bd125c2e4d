/* Processes outside the tree that share memory, descriptors or directories with one inside, which a restore could not give back. */
#include <dirent.h>
#include <errno.h>
#include <linux/kcmp.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/ident.h"
#include "base/log.h"
#include "observe/refuse.h"
#include "sys/proc.h"

static const struct {
	int type; /* enum kcmp_type */
	const char *name;
} shared[] = {
	{ KCMP_VM, "memory (CLONE_VM)" },
	{ KCMP_FILES, "descriptors (CLONE_FILES)" },
	{ KCMP_FS, "working directory (CLONE_FS)" },
};

/* A task for each object of the tree, and a thread of it that lives. */
struct owner {
	pid_t pid, living;
};

struct owners {
	VEC(struct owner) all; /* in the order of kcmp(2) */
	int type;
	bool gone; /* one could not be compared: it, or the other, has ended meanwhile */
};

static uint64_t ident_of(const struct task_idents *id, int type)
{
	return type == KCMP_VM ? id->mm : type == KCMP_FILES ? id->files : id->fs;
}

static int compare(const void *a, const void *b, void *arg)
{
	const struct owner *x = a, *y = b;
	struct owners *o = arg;
	long order = syscall(SYS_kcmp, x->living, y->living, o->type, 0, 0);

	o->gone |= order < 0;
	return order == 1 ? -1 : order != 0;
}

static int find_owners(const struct observation *obs, struct owners *o)
{
	struct ident_map seen = {};
	int err = 0;

	for (size_t i = 0; i < obs->m->tasks.nr && !err; i++) {
		const struct task *t = &obs->m->tasks.v[i];
		uint64_t ident = ident_of(&obs->idents.v[i], o->type);

		if (!ident || !t->threads.nr || ident_map_find(&seen, ident))
			continue;
		err = ident_map_add(&seen, ident, i + 1);
		if (!err)
			err = VEC_PUSH(&o->all, ((struct owner){ t->pid, task_living(t)->tid }));
	}
	ident_map_deinit(&seen);
	if (!err && o->all.nr)
		qsort_r(o->all.v, o->all.nr, sizeof(*o->all.v), compare, o);
	return err;
}

static const struct owner *find_owner(struct owners *o, pid_t outsider)
{
	const struct owner key = { outsider, proc_living(outsider) };
	size_t lo = 0, hi = o->all.nr;

	o->gone = false;
	while (lo < hi && !o->gone) {
		size_t mid = lo + (hi - lo) / 2;
		int order = compare(&key, &o->all.v[mid], o);

		if (!order)
			return &o->all.v[mid];
		if (order < 0)
			hi = mid;
		else
			lo = mid + 1;
	}
	return NULL;
}

static int refuse_one(const struct observation *obs, size_t what)
{
	_cleanup_closedir_ DIR *dir = opendir("/proc");
	struct owners o = { .type = shared[what].type };
	int err = dir ? find_owners(obs, &o) : fail(-errno, "/proc: list all processes"), refused = 0;
	struct dirent *de;

	while (!err && (de = readdir(dir))) {
		pid_t pid = atoi(de->d_name);
		const struct owner *owner = pid > 0 && !model_find_task(obs->m, pid) ? find_owner(&o, pid) : NULL;

		if (owner)
			refused = unsupported("pid %d: shares its %s with pid %d, which is outside the tree; dump a tree with both of "
					      "them in it, or end that one first",
					      owner->pid, shared[what].name, pid);
	}
	VEC_FREE(&o.all);
	return err ? err : refused;
}

int refuse_outsiders(const struct observation *obs)
{
	int refused = 0;

	for (size_t what = 0; what < sizeof(shared) / sizeof(shared[0]); what++) {
		int err = refuse_one(obs, what);

		if (err && err != -EOPNOTSUPP)
			return err;
		refused = err ? err : refused;
	}
	return refused;
}
