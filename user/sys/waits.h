/*
 * Waits with a time limit that a stop has ended: when would they have been over? For calls that the kernel does not
 * restart, and for those of which it does not tell what is left. BPF sees to it (bpf/waits.bpf.c); where it cannot,
 * there is no `struct waits`, and nothing is known.
 */
#ifndef BCR_SYS_WAITS_H
#define BCR_SYS_WAITS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct waits;

struct ended_wait {
	int64_t expires_ns; /* CLOCK_MONOTONIC */
	int64_t left_ns;    /* when the stop came */
};

/*
 * NULL where BPF or the kernel's symbols are not to be had; why is said at level debug. Stops are those that this
 * process makes.
 */
struct waits *waits_open(void);

/* Accepts NULL, as all of these. */
void waits_close(struct waits *w);

/* A stop begins: what was known of the one before is forgotten. */
void waits_begin(struct waits *w);

/*
 * The stop is complete: limits that programs keep in memory are brought to what is left of them, while memory may be
 * written still. The kernel has written it where the program had it; where it could not, there is a place on the stack.
 */
void waits_settle(struct waits *w);

/*
 * A thread in a ptrace stop that is about to return EINTR because of the stop alone: the kernel is told to issue its call
 * again, which then waits for as long as it had left. Unless a signal handler is to run first: then the program sees
 * EINTR, as it would have without us. Returns 0 or a negative errno.
 */
int waits_hide_stop(const struct waits *w, pid_t tid);

/* Was the thread waiting, with a limit, when the last stop came? Also in a child of the process. */
bool waits_find(const struct waits *w, pid_t tid, struct ended_wait *ret);

#endif
