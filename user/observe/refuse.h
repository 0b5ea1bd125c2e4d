/* What bcr does not do, found in an observation: each thing is given to unsupported() with what it is and where. */
#ifndef BCR_OBSERVE_REFUSE_H
#define BCR_OBSERVE_REFUSE_H

#include "model/tree_check.h"
#include "observe/observe.h"

/* All return 0, or -EOPNOTSUPP when something was refused, or another negative errno that has been reported. */

/* State of one task that cannot be carried. Passing states (vfork) count only when it is not looked at again. */
int refuse_task(const struct model *m, const struct task *t, const struct task_idents *id, bool final);

/*
 * Namespaces that only the children of the task will be in (unshare(2), setns(2)). By /proc, at a cost of two lookups
 * for each task: for running targets.
 */
int refuse_children_namespaces(const struct task *t);

/* Labels of security modules that confine a thread of the task. By /proc, for running targets, where there are labels. */
int refuse_labels(const struct task *t);

/* 32-bit programs. */
int refuse_programs(const struct model *m);

/* A session of the root that others are in, or a foreground group outside the tree, without --shell-job. Terminals have been collected. */
int refuse_sessions(const struct model *m, bool shell_job);

/*
 * A tree that restore could not build: sessions that cannot be made again, processes that share what is one
 * process's own. -EUCLEAN: the tree contradicts itself, with *flaw set and nothing reported about it.
 */
int refuse_tree(const struct observation *obs, bool shell_job, struct tree_flaw *flaw);

/*
 * outsiders.c: memory, descriptors or directories that somebody outside the tree has as well. By kcmp(2) with all processes, for
 * running targets.
 */
int refuse_outsiders(const struct observation *obs);

/* A descriptor that no kind knows. */
int refuse_descriptor(const struct observed_file *of);

/* A mapping of `of` (not NULL) by task `pid`. */
int refuse_mapped_file(pid_t pid, const struct vma *vma, const struct observed_file *of);

/* Locks (POSIX, flock, OFD, leases) on files that the tree has open. */
int refuse_locks(const struct observation *obs, bool file_locks);

/* Did the kernel print the path of a file that has been unlinked, or does its inode have no name left? */
bool observed_file_deleted(const struct observed_file *of);

#endif
