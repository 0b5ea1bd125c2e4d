/* How the files that make the plan add operations, and put data for them into the area. Private to restore/plan_*.c. */
#ifndef BCR_RESTORE_PLAN_BUILDER_H
#define BCR_RESTORE_PLAN_BUILDER_H

#include <string.h>

#include "restore/plan.h"

/* Where ops go, and the data they point to. */
struct builder {
	struct restore_plan *p;
	struct task_plan *tp;
	struct thread_plan *th;
	taddr_t groups_at; /* supplementary groups of the leader, in the area */
	bool failed;       /* out of memory: checked once at the end */
};

/* Puts data into the area; returns its address in the target. */
static inline taddr_t put(struct builder *b, const void *data, size_t len, size_t align)
{
	size_t at = (b->tp->area.nr + align - 1) & ~(align - 1);

	if (VEC_RESERVE(&b->tp->area, at + len)) {
		b->failed = true;
		return 0;
	}
	if (at > b->tp->area.nr)
		memset(b->tp->area.v + b->tp->area.nr, 0, at - b->tp->area.nr);
	if (len)
		memcpy(b->tp->area.v + at, data, len);
	b->tp->area.nr = at + len;
	return b->tp->area_at + at;
}

static inline void add(struct builder *b, const char *what, struct restorer_op op)
{
	struct plan_op po = { op, what };

	if (VEC_PUSH(&b->th->ops, po))
		b->failed = true;
}

#define CALL(b, what, number, ...)                                                                 \
	add((b), (what), (struct restorer_op){ .nr = (number), .args = { __VA_ARGS__ } })
/* The result must be the address in argument `arg`. */
#define CALL_AT(b, what, number, arg, ...)                                                         \
	add((b), (what),                                                                           \
	    (struct restorer_op){ .nr = (number),                                                  \
				  .expect = RESTORER_SAME,                                         \
				  .expect_arg = (arg),                                             \
				  .args = { __VA_ARGS__ } })
#define CALL_ANY(b, what, number, ...)                                                             \
	add((b), (what),                                                                           \
	    (struct restorer_op){ .nr = (number), .expect = RESTORER_ANY, .args = { __VA_ARGS__ } })

/* plan_attrs.c: what of a process and its threads is neither memory nor signals nor timers. */
void plan_mm_attrs(struct builder *b, const struct mm *mm);
void plan_process_attrs(struct builder *b, const struct task *t);
int plan_limits(struct builder *b, const struct task *t);
void plan_sched(struct builder *b, const struct thread *th);
void plan_thread_attrs(struct builder *b, const struct thread *th);
int plan_creds(struct builder *b, const struct thread *th);

/* --- plan_signals.c --- */

/* The limit of pending signals, as high as it may be: signals and timers count. */
void plan_room_for_signals(struct builder *b);
/* And then as it was; no more signals come. */
void plan_limit_of_signals(struct builder *b);

/* Makes the POSIX timers, which stand still. Failure has been reported. */
int plan_timers(struct builder *b);

/* Signals pending for the thread; in the leader for the process, too. */
void plan_pending(struct builder *b, const struct thread *th, bool leader);

/* In the leader, last: waits for the other threads, then lets all timers run. */
void plan_start_timers(struct builder *b);

/* plan_seccomp.c: filters and strict mode, and the meetings that a tree with any needs. In every thread of it, before privileges go. */
void plan_seccomp(struct builder *b, const struct thread *th, bool leader);

#endif
