/* How often memory is copied ahead before the last stop. */
#ifndef BCR_FLOW_ROUNDS_H
#define BCR_FLOW_ROUNDS_H

#include "track/precopy.h"

struct rounds_env {
	void *arg;
	/* A new observation of the running tree; *ret is borrowed until the next one. */
	int (*observe)(void *arg, const struct model **ret);
	int (*progress)(uint64_t done, uint64_t all); /* as in capture_memory() */
};

/*
 * Copies in rounds until another one would not pay, and leaves the files in order. `running` is an observation
 * of now. 0 or a reported negative errno.
 */
int rounds_run(struct precopy *p, const struct model *running, const struct rounds_env *env);

#endif
