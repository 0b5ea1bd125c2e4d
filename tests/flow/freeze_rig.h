/* What the tests of the freezer share: checks that are counted, and a lister made from /proc. */
#ifndef BCR_TESTS_FREEZE_RIG_H
#define BCR_TESTS_FREEZE_RIG_H

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "freeze/freeze.h"
#include "state.h"

static int failures;

static inline void check(bool ok, const char *what)
{
	if (ok)
		return;
	printf("wrong: %s\n", what);
	failures++;
}

/* struct freeze_lister, with a tongue of its own: the first `again` calls say -EAGAIN half-way, or all fail with `err`. */
struct proc_lister {
	struct freeze_lister lister;
	pid_t root;
	int again, err;
	int nr_calls;
	bool in_stop, stood; /* the last call was made inside a stop; everybody stood still by ptrace already */
};

static inline int list_process(struct proc_lister *p, pid_t pid, int (*add)(void *ctx, pid_t pid, pid_t tid), void *ctx)
{
	char path[64];
	int err = 0, child;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	DIR *dir = opendir(path);
	for (struct dirent *e; dir && !err && (e = readdir(dir));) {
		pid_t tid = atoi(e->d_name);
		char state = tid > 0 ? state_of(tid) : 'X';

		p->stood = p->stood && strchr("tZX", state);
		/* Gone while we look, and perhaps there again under another number. */
		if (!state)
			err = -EAGAIN;
		else if (!strchr("ZX", state))
			err = add(ctx, pid, tid);
	}
	if (dir)
		rewinddir(dir);
	for (struct dirent *e; dir && !err && (e = readdir(dir));) {
		snprintf(path, sizeof(path), "/proc/%d/task/%d/children", pid, atoi(e->d_name));
		FILE *in = fopen(path, "r");
		while (in && !err && fscanf(in, "%d", &child) == 1)
			err = list_process(p, child, add, ctx);
		if (in)
			fclose(in);
	}
	if (dir)
		closedir(dir);
	return err;
}

static inline int list_by_proc(void *arg, bool stopping, int (*add)(void *ctx, pid_t pid, pid_t tid), void *ctx)
{
	struct proc_lister *p = arg;

	p->nr_calls++;
	p->in_stop = p->stood = stopping;
	if (p->err)
		return p->err;
	if (p->again) {
		p->again--;
		int err = add(ctx, p->root, p->root);

		return err ? err : -EAGAIN;
	}
	return list_process(p, p->root, add, ctx);
}

static inline struct proc_lister proc_lister(pid_t root)
{
	return (struct proc_lister){ .lister = { .list = list_by_proc }, .root = root };
}

/* The argument is the lister itself: call it where it has come to stay. */
static inline void use_lister(struct freeze *f, struct proc_lister *p)
{
	p->lister.arg = p;
	freeze_set_lister(f, &p->lister);
}

static inline bool holds_pid(const struct freeze *f, pid_t pid)
{
	const pid_t *pids;
	size_t nr = freeze_pids(f, &pids);

	for (size_t i = 0; i < nr; i++)
		if (pids[i] == pid)
			return true;
	return false;
}

#endif
