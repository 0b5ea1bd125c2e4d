/* Barriers between the coordinator and the tasks: futexes in a mapping that all share. */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "pie/syscall-x86_64.h"
#include "restore/plan.h"

/* How long either side sleeps at most before it looks whether the other one has died without a word. */
enum { LOOK_NS = 50 * 1000 * 1000 };

static void futex_wake(uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void control_arrive(struct restorer_control *c)
{
	__atomic_add_fetch(&c->arrived, 1, __ATOMIC_RELEASE);
	futex_wake(&c->arrived);
}

void control_set_phase(struct restorer_control *c, uint32_t phase)
{
	__atomic_store_n(&c->phase, phase, __ATOMIC_RELEASE);
	futex_wake(&c->phase);
}

/*
 * Processes that share memory share bcr's code and all its data in it, `errno` included: one of them runs it at a time.
 * Whoever waits touches none of it, and so does without the C library.
 */
static long wait_for_word(uint32_t *word, uint32_t now)
{
	const struct timespec look = { .tv_nsec = LOOK_NS };

	return pie_syscall4(SYS_futex, word, FUTEX_WAIT, now, &look);
}

void control_take_turn(const struct restore *r)
{
	while (r->turn && __atomic_exchange_n(r->turn, 1, __ATOMIC_ACQUIRE)) {
		/* Whoever has it may have been ended. */
		if (wait_for_word(r->turn, 1) == -ETIMEDOUT && __atomic_load_n(&r->control->failed, __ATOMIC_ACQUIRE))
			pie_syscall1(SYS_exit_group, 1);
	}
}

void control_give_turn(const struct restore *r)
{
	if (!r->turn)
		return;
	__atomic_store_n(r->turn, 0, __ATOMIC_RELEASE);
	pie_syscall3(SYS_futex, r->turn, FUTEX_WAKE, 1);
}

void control_end_task(const struct restore *r)
{
	control_give_turn(r);
	_exit(1);
}

/* Has the coordinator ended? With --restore-sibling no death of a parent tells. */
static bool coordinator_ended(const struct restore *r)
{
	_cleanup_close_ int fd = syscall(SYS_pidfd_open, r->coordinator, 0);
	struct pollfd pfd = { .fd = fd, .events = POLLIN };

	return fd < 0 ? errno == ESRCH : poll(&pfd, 1, 0) > 0;
}

void control_wait_phase(struct restore *r, uint32_t phase)
{
	struct restorer_control *c = r->control;

	for (;;) {
		uint32_t now = __atomic_load_n(&c->phase, __ATOMIC_ACQUIRE);

		if (now >= phase)
			return;
		if (__atomic_load_n(&c->failed, __ATOMIC_ACQUIRE))
			control_end_task(r);
		control_give_turn(r);
		long err = wait_for_word(&c->phase, now);
		control_take_turn(r);
		/* A descriptor for a look would come between those that another puts in place; but then that one looks. */
		if (err == -ETIMEDOUT && !r->shares_table && coordinator_ended(r))
			control_end_task(r);
	}
}

struct restorer_slot *task_slot(const struct restore *r, size_t index)
{
	return &r->control->slots[r->plan->nr_slots + index];
}

/* What the restorer of a thread has reported, in one sentence. */
static void report_slots(const struct restore *r)
{
	VEC_FOREACH(tp, &r->plan->tasks) {
		VEC_FOREACH(th, &tp->threads) {
			const struct restorer_slot *slot = &r->control->slots[th->slot];
			const char *what = "an operation";

			if (slot->status != RESTORER_FAILED)
				continue;
			if (slot->op < th->ops.nr)
				what = th->ops.v[slot->op].what;
			fail(slot->error, "pid %d thread %d: restorer operation %llu (%s)", tp->task->pid,
			     th->thread->tid, (unsigned long long)slot->op, what);
		}
	}
}

int control_wait_arrivals(struct restore *r, uint32_t nr)
{
	struct restorer_control *c = r->control;
	const struct timespec look = { .tv_nsec = LOOK_NS };

	for (;;) {
		uint32_t now = __atomic_load_n(&c->arrived, __ATOMIC_ACQUIRE);

		if (__atomic_load_n(&c->failed, __ATOMIC_ACQUIRE)) {
			report_slots(r);
			return -ECANCELED;
		}
		if (now >= nr) {
			__atomic_store_n(&c->arrived, 0, __ATOMIC_RELEASE);
			return 0;
		}
		if (r->opts.progress)
			r->opts.progress(__atomic_load_n(&c->bytes_done, __ATOMIC_RELAXED), r->all_bytes);
		if (syscall(SYS_futex, &c->arrived, FUTEX_WAIT, now, &look, NULL, 0) && errno == ETIMEDOUT) {
			int err = trace_look(r);
			if (err)
				return err;
		}
	}
}
