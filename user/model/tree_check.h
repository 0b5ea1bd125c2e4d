/* Can a process tree be built again, and how? Decided on the model alone: by dump before it touches the target, by restore for its plan. */
#ifndef BCR_MODEL_TREE_CHECK_H
#define BCR_MODEL_TREE_CHECK_H

#include "model/model.h"

/* In the place of a task's index: bcr itself. */
#define TREE_OUTSIDE SIZE_MAX

/* How a process comes to its parent. */
enum tree_way {
	TREE_CHILD,  /* its parent forks it */
	TREE_SISTER, /* a sister of it does, with CLONE_PARENT */
	TREE_ORPHAN, /* a descendant of its parent does, by somebody who ends at once: its parent adopts it */
};

/* How a task has to be born. */
struct tree_birth {
	size_t parent; /* index in model.tasks; itself for the root */
	size_t maker;  /* who forks it: index in model.tasks, model.tasks.nr + index of a helper, or TREE_OUTSIDE */
	enum tree_way way;
	pid_t sid;     /* session it must be forked in; 0: any */
	bool early;    /* forked before its maker becomes a session leader */
	bool adopts;   /* some task is TREE_ORPHAN of it */
	/* Shares them with its maker, who has them from its own birth: CLONE_FILES, CLONE_FS, CLONE_VM, CLONE_SIGHAND. */
	bool with_files, with_fs, with_vm, with_sighand;
};

/* A process that only lends its number to a session or a group whose leader has exited, and ends before the tree runs. */
struct tree_helper {
	pid_t pid;
	pid_t sid;     /* its own number: it leads a session */
	size_t parent; /* index in model.tasks, or TREE_OUTSIDE */
	int32_t exit_signal; /* that of the tasks it makes */
};

struct tree_births {
	struct tree_birth *tasks; /* parallel to model.tasks */
	VEC(struct tree_helper) helpers;
};

/* Frees what tree_check() has put there; all zeroes are fine. */
void tree_births_deinit(struct tree_births *births);

/* What no tree can look like: images are damaged, or a running tree has changed while it was observed. */
struct tree_flaw {
	pid_t pid;
	char text[96]; /* goes on after "pid N: " */
};

/*
 * Sessions, process groups, and what processes share: descriptors, directories, memory, signal handlers. With `shell_job` the session and the group of the
 * root, when their leaders are not in the tree, are those of whoever restores. `waiting`, parallel to m->tasks or NULL, is
 * not 0 for tasks that wait for a vfork child: what they share with it counts for nothing. Fills *ret (to be zero before, and
 * freed by the caller in any case). What cannot be built is given to unsupported(), all of it. Returns 0; -ENOMEM; -EOPNOTSUPP;
 * -EUCLEAN when the tree contradicts itself, with *flaw set and nothing reported about it.
 */
int tree_check(const struct model *m, bool shell_job, const uint8_t *waiting, struct tree_births *ret, struct tree_flaw *flaw);

#endif
