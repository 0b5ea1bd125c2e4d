/*
 * Restore: model → running process tree.
 *
 * Theory of operation. restore_plan() is pure: it decides, per process, which list of operations the restorer blob
 * executes. restore_run() opens the files every task inherits, creates the tree with clone3(set_tid), lets each
 * process install its descriptors and memory, and lets the blob execute its list, which ends in rt_sigreturn. The coordinator traces
 * every thread meanwhile (PTRACE_O_EXITKILL): if anything fails, or bcr dies, no process is left behind.
 */
#ifndef BCR_RESTORE_RESTORE_H
#define BCR_RESTORE_RESTORE_H

#include <stdio.h>

#include "image/image.h"
#include "model/model.h"

struct restore_options {
	int images_dirfd;     /* borrowed */
	bool shell_job;
	bool sibling;         /* root becomes a child of bcr's parent */
	bool leave_stopped;
	const char *fail_at;  /* a stage of restore_stages(), or NULL */
	void (*progress)(uint64_t done, uint64_t all); /* bytes of memory; may be NULL */
};

struct restore_plan;

/* Makes the plan; with `shell_job` the root is put into the session and group of bcr. Failure has been reported. */
int restore_plan_create(const struct model *m, bool shell_job, struct restore_plan **ret);
void restore_plan_destroy(struct restore_plan *p);
void restore_plan_print(const struct restore_plan *p, FILE *out);

struct restore; /* a restore under way */

/* The stages, in order; each returns 0 or a reported negative errno. restore_abort() ends every process made. */
int restore_create(const struct model *m, const struct restore_options *opts, struct restore **ret);
int restore_check(struct restore *r);   /* pids free, files there and unchanged; nothing made yet */
int restore_files(struct restore *r);   /* open what all tasks inherit */
int restore_fork(struct restore *r);    /* the process tree, sessions and groups */
int restore_tasks(struct restore *r);   /* descriptors, memory, restorer blobs up to their last barrier */
int restore_resume(struct restore *r, struct restore_stats *stats); /* registers, final system calls, let go */
void restore_abort(struct restore *r);
/* pid of the root task, after restore_fork(). */
pid_t restore_root_pid(const struct restore *r);
void restore_destroy(struct restore *r);

#endif
