/* A thread on its way out of the restorer: traced, stopped, run call by call. Private to restore/resume.c and stops.c. */
#ifndef BCR_RESTORE_LEAVING_H
#define BCR_RESTORE_LEAVING_H

#include "restore/plan.h"
#include "sys/tracee.h"

struct leaving {
	struct restore *r;
	size_t task; /* index in the plan */
	const struct task_plan *tp;
	const struct thread_plan *th;
	pid_t tid;
	struct cpu_regs regs; /* of the image, as the kernel has taken them */
	bool restart;         /* regs are those of a call with a restart block */
	bool in_trap;         /* it is in a stop on whose way out the kernel looks at a restart code: in no other kind it does */
	const int64_t *go_ns; /* CLOCK_MONOTONIC: when threads will be let go, and remaining times begin to run */
};

/* Reports what could not be done to the thread. */
int leaving_fail(const struct leaving *l, int err, const char *what);

/* The next stop that means something. `go` resumes the thread each time; NULL: it runs already. */
int leaving_next_stop(struct leaving *l, int (*go)(pid_t tid, int sig), struct ptrace_stop *stop);

/* Sets the registers for a call by the restorer's instruction. */
int leaving_prepare_call(struct leaving *l, uint64_t nr, const uint64_t args[6]);

/* Makes the thread issue a call. *ret is its result. */
int leaving_call(struct leaving *l, uint64_t nr, const uint64_t args[6], int64_t *ret);

/*
 * Stops the processes that were stopped by a signal, by that signal, and those that had gone on since, which then go on: what their parents had been told of, they are told again, and
 * take notice of; what they were still to be told of stays so. `all`: the threads of all tasks, in the order of the plan.
 */
int leaving_stop_tasks(struct restore *r, struct leaving *all, size_t nr);

#endif
