/*
 * Stopping and resuming a process tree. Whatever happens, the tree is let go: closing, failing, or dying.
 */
#ifndef BCR_FREEZE_FREEZE_H
#define BCR_FREEZE_FREEZE_H

#include "model/model.h"

struct freeze;

enum thaw_mode {
	THAW_RUN,  /* go on running; calls that the stop broke off are hidden from the program */
	THAW_STOP, /* leave every thread in state T, as SIGSTOP does */
	THAW_KILL, /* SIGKILL, and wait until every process is gone (or a zombie of somebody else's) */
};

/* Chooses the back end: "ptrace", "cgroup" or NULL (cgroup when the tree has a v2 cgroup of its own). */
int freeze_create(const char *backend, pid_t root, unsigned timeout_s, struct freeze **ret);

const char *freeze_backend(const struct freeze *f);

/* Stops every thread of the tree; processes and threads that appear meanwhile included. */
int freeze_stop(struct freeze *f);

/* Was this task stopped by a signal (SIGSTOP, ...) before bcr stopped it? Valid after freeze_stop(). */
bool freeze_was_stopped(const struct freeze *f, pid_t pid);

/* The pids (thread group ids) that freeze_stop() stopped. */
size_t freeze_pids(const struct freeze *f, const pid_t **ret);

/* Reads registers and FPU state of every thread of the model by ptrace (for --observe=proc); threads are stopped. */
int freeze_read_cpu(struct freeze *f, struct model *m);

/*
 * Lets the tree go. `m` (may be NULL) tells which threads were in a call that must be hidden.
 * Idempotent; a second call does nothing.
 */
int freeze_thaw(struct freeze *f, enum thaw_mode mode, const struct model *m);

/* Thaws with THAW_RUN if nobody has, and frees. Accepts NULL. */
void freeze_destroy(struct freeze *f);

/* How long the stop took, and how long the tree stood still, microseconds. */
uint32_t freeze_freezing_us(const struct freeze *f);
uint32_t freeze_frozen_us(const struct freeze *f);

#endif
