/* The parts of the /proc back end. Internal to user/observe/proc*.c. */
#ifndef BCR_OBSERVE_PROC_H
#define BCR_OBSERVE_PROC_H

#include "base/ident.h"
#include "observe/observe.h"
#include "sys/proc.h"

struct proc_run {
	struct observation *o;
	struct ident_map others; /* idents in o->others */
	VEC(int) dirs;           /* /proc/PID of each task of the model */
};

/*
 * All return 0, -EAGAIN when something went away meanwhile, or a negative errno that has been reported; -ENOMEM is
 * reported by the caller.
 */

/* Turns what a failed look into /proc/PID means into such a code: a task that is gone is -EAGAIN. */
int proc_fail(int err, pid_t pid, const char *what);

/* proc_tasks.c: fills the task at `at` of the model, its threads, and its identities apart from kcmp's. */
int proc_task(struct proc_run *r, size_t at);

/*
 * proc_attrs.c: attributes that few programs have, of a thread with these PF_* flags and this status, and of a process.
 * The first returns errors unreported.
 */
int proc_thread_attrs(struct thread *th, uint64_t flags, const char *status);
int proc_process_attrs(struct task *t, struct task_idents *id, int dir);

/* proc_maps.c: mappings and auxiliary vector of the task at `at`. */
int proc_maps(struct proc_run *r, size_t at);

/* proc_files.c: the descriptors of the table that the task at `at` is the first to have. */
int proc_fds(struct proc_run *r, size_t at);

/* proc_files.c: gives equal open file descriptions equal idents, and finds what epoll sets watch. */
int proc_fd_idents(struct proc_run *r);

/* proc_files.c: adds what the link `name` below the task's directory leads to to `others`; *ret is its ident, 0: none. */
int proc_other(struct proc_run *r, size_t at, const char *name, uint64_t *ret);

/* Compares by kcmp(2): -1, 0, 1, or sets *err. `type` is enum kcmp_type. */
int proc_kcmp(pid_t a, pid_t b, int type, unsigned long ia, unsigned long ib, int *err);

#endif
