/* Realtime priority, and processors that do not doze, for the moments in which a target stands still. */
#ifndef BCR_SYS_PRIORITY_H
#define BCR_SYS_PRIORITY_H

#include <sched.h>
#include <stdbool.h>

/* How bcr itself is scheduled otherwise. Zero-initialised: nothing is raised. */
struct priority {
	bool raised;
	int policy;
	struct sched_param param;
	int awake_fd; /* owned; 0: not open (a process without standard input goes without) */
};

/*
 * Raises the calling thread, where that is allowed; a second call does nothing. Idle processors wait in a loop until
 * priority_restore(), where the kernel lets us ask for it: from their sleep they wake in 20 to 100 us, and a target is woken, or wakes
 * bcr, several times in one stop.
 */
void priority_raise(struct priority *p);

/* Puts it back, if it was raised; a failure is a warning. When bcr dies, the kernel does. */
void priority_restore(struct priority *p);

#endif
