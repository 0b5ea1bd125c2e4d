/* Can a process tree be built again? Decided on the model alone: by dump before it touches the target, by restore for its plan. */
#ifndef BCR_MODEL_TREE_CHECK_H
#define BCR_MODEL_TREE_CHECK_H

#include "model/model.h"

/* How a task has to be born. */
struct tree_birth {
	size_t parent; /* index in model.tasks; itself for the root */
	pid_t sid;     /* session it must be forked in; 0: any */
	bool early;    /* forked before its parent becomes a session leader */
};

/* What no tree can look like: images are damaged, or a running tree has changed while it was observed. */
struct tree_flaw {
	pid_t pid;
	char text[96]; /* goes on after "pid N: " */
};

/*
 * Sessions and process groups. Fills `births`, parallel to m->tasks. What cannot be built is given to unsupported(), all of it.
 * Returns 0; -EOPNOTSUPP; -EUCLEAN when the tree contradicts itself, with *flaw set and nothing reported about it.
 */
int tree_check(const struct model *m, struct tree_birth *births, struct tree_flaw *flaw);

/*
 * Refuses processes that share memory, descriptors, directories or signal handlers. `waiting`, parallel to m->tasks or NULL, is
 * not 0 for tasks that wait for a vfork child: they do not share with it for long. Returns 0, -EOPNOTSUPP or -ENOMEM.
 */
int tree_check_sharing(const struct model *m, const uint8_t *waiting);

#endif
