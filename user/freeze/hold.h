/* What the freezer holds: the processes and threads of the tree, shared by its back ends. Private to freeze/. */
#ifndef BCR_FREEZE_HOLD_H
#define BCR_FREEZE_HOLD_H

#include <sched.h>

#include "freeze/freeze.h"

struct held_task {
	pid_t pid;
	int pidfd;        /* owned */
	int threads_fd;   /* owned; /proc/PID/task: a recycled pid is never looked at */
	bool was_stopped; /* by a signal, before bcr came */
	bool gone;        /* has exited; a zombie, or nothing any more */
};

struct held_thread {
	pid_t tid;
	size_t task;  /* index into freeze.tasks */
	bool stopped; /* seized and in a ptrace stop; otherwise seized, and its stop is awaited */
	bool gone;
};

struct cgroup_hold;

struct freeze {
	const struct freeze_ops *ops;
	pid_t root;
	unsigned timeout_s;
	uint64_t deadline_ns; /* of the stop under way */
	bool held;            /* between a successful stop and the thaw */
	VEC(struct held_task) tasks;
	VEC(struct held_thread) threads; /* those that ptrace holds */
	VEC(pid_t) pids;                 /* made for freeze_pids() */
	size_t find_hint;                /* where the last thread was found */
	struct cgroup_hold *cgroup;      /* of the cgroup back end; owned */
	uint64_t stop_begin_ns, stop_end_ns, thaw_end_ns;
};

struct freeze_ops {
	const char *name;
	/*
	 * Can it stop this tree? Prepares for it, or says why not (-EOPNOTSUPP); other failures have been reported.
	 * NULL: always.
	 */
	int (*probe)(struct freeze *f, const char **why);
	/* Stops the tree, or reports why not and holds nothing. */
	int (*stop)(struct freeze *f);
	/* Lets it go. Goes on after a failure, and returns the first. */
	int (*thaw)(struct freeze *f, enum thaw_mode mode);
	/* Makes every thread ptrace-stopped: registers can be set, system calls injected. */
	int (*need_ptrace)(struct freeze *f);
	/* Frees what the back end keeps in `f`; nothing is held any more. */
	void (*deinit)(struct freeze *f);
};

extern const struct freeze_ops freeze_ptrace_ops;
extern const struct freeze_ops freeze_cgroup_ops;

/* tree.c */

/* Adds a process if it is not known; *ret_new (may be NULL) says whether it was added. Gone ones are left out. */
int hold_add_task(struct freeze *f, pid_t pid, bool *ret_new);
/* Adds the children of all threads of a task. */
int hold_add_children(struct freeze *f, size_t task, bool *ret_new);
/* Calls `fn` for each thread of a task; a task that has exited has none and becomes `gone`. */
int hold_each_thread(struct freeze *f, size_t task,
		     int (*fn)(struct freeze *f, size_t task, pid_t tid, void *arg), void *arg);
/* NULL: not held. */
struct held_thread *hold_find_thread(struct freeze *f, pid_t tid);
/* Forgets all processes and threads. */
void hold_clear(struct freeze *f);

/* A word of /proc/TID/status as a number ("TracerPid"), or -1. */
long hold_status_number(pid_t tid, const char *field, int base);
/* The state letter of a thread, or 0 when it is gone. */
char hold_state(pid_t tid);

/* ptrace.c */

/* Seizes and stops every thread of the tree, also when the cgroup freezer stopped it already. */
int hold_by_ptrace(struct freeze *f);
/* Hides the stop from a thread whose call it broke off. Returns 0 or a negative errno. */
int hold_hide_stop(pid_t tid);
/* Detaches from every thread. */
void hold_detach(struct freeze *f, bool hide_stop);
int hold_thaw_by_ptrace(struct freeze *f, enum thaw_mode mode);
/* Sends a signal to every process. */
int hold_signal(struct freeze *f, int sig);
/* Sends SIGKILL, waits until every process is gone, and reaps what is ours. */
int hold_kill(struct freeze *f);
/* After SIGSTOP: waits until every thread is in state T. */
int hold_wait_stopped(struct freeze *f);

#endif
