/* Realtime priority for the moments in which bcr must not be preempted by what it stops and wakes. */
#ifndef BCR_SYS_PRIORITY_H
#define BCR_SYS_PRIORITY_H

#include <sched.h>
#include <stdbool.h>

/* How bcr itself is scheduled otherwise. Zero-initialised: nothing is raised. */
struct priority {
	bool raised;
	int policy;
	struct sched_param param;
};

/* Raises the calling thread, where that is allowed; a second call does nothing. */
void priority_raise(struct priority *p);

/* Puts it back, if it was raised; a failure is a warning. */
void priority_restore(struct priority *p);

#endif
