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

/*
 * Can the tree of `root` be stopped by the freezer of its cgroup? 0, -EOPNOTSUPP with the reason in *why (static
 * text), or another negative errno that has been reported.
 */
int freeze_probe_cgroup(pid_t root, const char **why);

const char *freeze_backend(const struct freeze *f);

/*
 * A quicker way than /proc to list the tree. list() calls add() for every live thread below the root (parents before
 * children, leaders first, zombies left out) until add() returns something else than 0, which it passes on. It returns 0;
 * -EAGAIN when the tree changed under it, to be asked again; -EOPNOTSUPP, unreported, when it cannot: /proc is listed
 * then; or another negative errno that has been reported. It is called while the target runs, and, with `stopping`, inside a
 * stop: there more than once, until all of the tree is known to stand still.
 */
struct freeze_lister {
	void *arg;
	int (*list)(void *arg, bool stopping, int (*add)(void *ctx, pid_t pid, pid_t tid), void *ctx);
};

/* The lister must live until it is replaced, or `f` is destroyed. NULL: /proc is listed. */
void freeze_set_lister(struct freeze *f, const struct freeze_lister *lister);

struct waits;

/*
 * Who knows how long calls that a stop breaks off had to wait yet; it must live until it is replaced, or `f` is destroyed.
 * NULL: nobody does.
 */
void freeze_set_waits(struct freeze *f, struct waits *waits);

/*
 * The stop is to be short: bcr keeps the realtime priority it has around a stop and a thaw in between as well. Not
 * for whoever copies gigabytes inside it.
 */
void freeze_set_short(struct freeze *f, bool is_short);

/*
 * Does everything for the next stop that can be done while the target runs: lists the tree, opens descriptors,
 * allocates. What is new since then is found inside the stop, at a price. freeze_stop() does it when nobody has.
 */
int freeze_prepare(struct freeze *f);

/*
 * Stops every thread of the tree; processes and threads that appear meanwhile included. After a thaw with
 * THAW_RUN the tree can be stopped again.
 */
int freeze_stop(struct freeze *f);

/*
 * Inside the stop: has everything that is held stood still since before the lister was called for the last time? What it
 * has seen is the stopped tree then, and all of it.
 */
bool freeze_was_listed(const struct freeze *f);

/*
 * Was this task stopped by a signal (SIGSTOP, ...) before bcr stopped it? Valid from freeze_stop() on, also after the
 * thaw, until the next freeze_prepare() or freeze_stop().
 */
bool freeze_was_stopped(const struct freeze *f, pid_t pid);

/* The pids (thread group ids) that freeze_stop() stopped. */
size_t freeze_pids(const struct freeze *f, const pid_t **ret);

/* Puts every thread into a stop of ptrace, however the tree was stopped. Failure has been reported. */
int freeze_need_ptrace(struct freeze *f);

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
