/*
 * The part of the plan about signals and timers. Pure.
 *
 * A timer that fires while its signal is pending does not queue another one: it counts, and what it has counted is told with
 * the signal. This is between the kernel and its own queue entry, and a signal sent by hand is not one. So a timer whose
 * signal was pending is made to fire once more, in the place of its signal in the queue, by a date as long ago as it was when it
 * was dumped. Likewise for the count of the last signal that was delivered, timer_getoverrun(2): the timer is given a date
 * that many periods ago, and the signal is taken from the queue.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "model/timers.h"
#include "restore/plan_builder.h"
#include "sys/uapi.h"

enum { MAX_TIMER_GAP = 4096, SIGSET_BYTES = 8, FIRE_NS = 50000 };

/* --- the limit of pending signals --- */

void plan_room_for_signals(struct builder *b)
{
	uint64_t max = b->tp->task->rlimits[RLIMIT_SIGPENDING].max;
	struct rlimit_raw room = { max, max };
	const struct rlimit *own = &b->p->own.limits[RLIMIT_SIGPENDING];

	if (own->rlim_max > max)
		room.cur = room.max = own->rlim_max;
	CALL(b, "room for pending signals", SYS_prlimit64, 0, RLIMIT_SIGPENDING, put(b, &room, sizeof(room), 8), 0);
}

void plan_limit_of_signals(struct builder *b)
{
	CALL(b, "limit of pending signals", SYS_prlimit64, 0, RLIMIT_SIGPENDING,
	     put(b, &b->tp->task->rlimits[RLIMIT_SIGPENDING], sizeof(struct rlimit_raw), 8), 0);
}

/* --- timers --- */

static struct itimerval itimerval_of(const struct itimer *it)
{
	return (struct itimerval){
		.it_interval = { it->interval_us / 1000000, it->interval_us % 1000000 },
		.it_value = { it->value_us / 1000000, it->value_us % 1000000 },
	};
}

static struct timespec timespec_of(uint64_t ns)
{
	return (struct timespec){ ns / 1000000000, ns % 1000000000 };
}

/* Kernels without PR_TIMER_CREATE_RESTORE_IDS number timers from 0 on: make and delete up to the wanted number. */
static int plan_timer_gap(struct builder *b, int32_t *next, int32_t id)
{
	if (id - *next > MAX_TIMER_GAP)
		return unsupported("pid %d: its timer number %d cannot be made again on this kernel", b->tp->task->pid, id);
	for (; *next < id; ++*next) {
		int32_t place = 0;

		CALL(b, "timer to skip", SYS_timer_create, CLOCK_MONOTONIC, 0, put(b, &place, sizeof(place), 8));
		CALL(b, "delete timer to skip", SYS_timer_delete, *next);
	}
	++*next;
	return 0;
}

/* Sets the timer to a date: `from_now_ns` by its clock, at the time of the op. */
static void plan_set_to(struct builder *b, const char *what, const struct posix_timer *timer, int64_t from_now_ns)
{
	struct itimerspec its = { .it_interval = timespec_of(timer->interval_ns) };
	taddr_t at = put(b, &its, sizeof(its), 8);

	add(b, "date of a timer", (struct restorer_op){ .code = RESTORER_DATE,
							.args = { (uint64_t)(int64_t)timer->clockid, (uint64_t)from_now_ns,
								  at + offsetof(struct itimerspec, it_value) } });
	CALL(b, what, SYS_timer_settime, timer->id, TIMER_ABSTIME, at, 0);
}

static void plan_arm(struct builder *b, const struct posix_timer *timer)
{
	struct itimerspec its = { timespec_of(timer->interval_ns), timespec_of(timer->date_ns ? timer->date_ns : timer->value_ns) };

	CALL(b, "arm timer", SYS_timer_settime, timer->id, timer->date_ns ? TIMER_ABSTIME : 0, put(b, &its, sizeof(its), 8), 0);
}

/*
 * The signal is the kernel's own entry in the queue afterwards. That of a timer comes by an interrupt: a sleep, which ends by a
 * later one of the same queue, makes sure that it is there before the next.
 */
static void plan_fire(struct builder *b, const struct posix_timer *timer)
{
	struct timespec sleep = { .tv_nsec = FIRE_NS };

	if (timer->date_ns)
		plan_arm(b, timer);
	else if (timer->late_ns)
		plan_set_to(b, "fire timer", timer, -(int64_t)timer->late_ns);
	else /* it is not known for how long: since the last date it had */
		plan_set_to(b, "fire timer", timer, timer->interval_ns ? (int64_t)(timer->value_ns - timer->interval_ns) : -1);
	CALL_ANY(b, "let it fire", SYS_nanosleep, put(b, &sleep, sizeof(sleep), 8), 0);
}

/* Can its count be made again? The signal has to come to the leader, and the clock has to have run for that long. */
static bool wants_overrun(const struct task *t, const struct posix_timer *timer, int64_t *ret_from_now)
{
	int64_t span;
	bool to_leader = timer->notify == SIGEV_SIGNAL || ((timer->notify & SIGEV_THREAD_ID) && timer->notify_tid == t->pid);

	if (!timer->overrun || !to_leader || !timer->interval_ns || !timer->value_ns || timer_counts_cpu(timer) || timer_is_pending(t, timer) ||
	    timer->date_ns ||
	    __builtin_mul_overflow((int64_t)timer->interval_ns, (int64_t)timer->overrun + 1, &span))
		return false;
	*ret_from_now = (int64_t)timer->value_ns - span;
	return true;
}

static void plan_overrun(struct builder *b, const struct posix_timer *timer)
{
	const struct timespec patience = { .tv_sec = 1 };
	int64_t from_now;

	if (!wants_overrun(b->tp->task, timer, &from_now))
		return;
	uint64_t set = 1ULL << (timer->signo - 1);
	plan_set_to(b, "fire timer for its count", timer, from_now);
	CALL(b, "take its signal", SYS_rt_sigtimedwait, put(b, &set, sizeof(set), 8), 0, put(b, &patience, sizeof(patience), 8),
	     SIGSET_BYTES);
}

static void plan_timer(struct builder *b, const struct posix_timer *timer)
{
	struct sigevent ev = { .sigev_notify = timer->notify, .sigev_signo = timer->signo };
	int32_t id = timer->id;

	ev.sigev_value.sival_ptr = (void *)(uintptr_t)timer->sigval;
	if (timer->notify & SIGEV_THREAD_ID)
		ev._sigev_un._tid = timer->notify_tid;
	CALL(b, "timer", SYS_timer_create, (uint64_t)(int64_t)timer->clockid, put(b, &ev, sizeof(ev), 8), put(b, &id, sizeof(id), 8));
	plan_overrun(b, timer);
}

static int compare_ids(const void *x, const void *y)
{
	const struct posix_timer *a = x, *b = y;

	return (a->id > b->id) - (a->id < b->id);
}

int plan_timers(struct builder *b)
{
	const struct task *t = b->tp->task;
	bool ids = b->p->own.can_set_timer_ids;
	_cleanup_free_ struct posix_timer *sorted = calloc(t->timers.nr + 1, sizeof(*sorted));
	int32_t next = 0;

	if (!sorted)
		return fail(-ENOMEM, "pid %d: plan", t->pid);
	if (!t->timers.nr)
		return 0;
	/* Where numbers cannot be asked for, they have to come in their order. */
	memcpy(sorted, t->timers.v, t->timers.nr * sizeof(*sorted));
	qsort(sorted, t->timers.nr, sizeof(*sorted), compare_ids);
	if (ids)
		CALL(b, "timer numbers on", SYS_prctl, BCR_PR_TIMER_CREATE_RESTORE_IDS, BCR_PR_TIMER_CREATE_RESTORE_IDS_ON);
	for (size_t i = 0; i < t->timers.nr; i++) {
		int err = ids ? 0 : plan_timer_gap(b, &next, sorted[i].id);

		if (err)
			return err;
		plan_timer(b, &sorted[i]);
	}
	if (ids)
		CALL(b, "timer numbers off", SYS_prctl, BCR_PR_TIMER_CREATE_RESTORE_IDS, BCR_PR_TIMER_CREATE_RESTORE_IDS_OFF);
	return 0;
}

/* --- pending signals --- */

void plan_pending(struct builder *b, const struct thread *th, bool leader)
{
	const struct task *t = b->tp->task;
	const struct posix_timer *timer;
	int signo;

	VEC_FOREACH(info, &th->pending) {
		memcpy(&signo, info->bytes, sizeof(signo));
		timer = timer_of_signal(t, info);
		if (!timer)
			CALL(b, "pending signal of the thread", SYS_rt_tgsigqueueinfo, t->pid, th->tid, signo,
			     put(b, info, sizeof(*info), 8));
		else if (leader) /* other threads may be here before their timers: plan_start_timers() */
			plan_fire(b, timer);
	}
	if (!leader)
		return;
	VEC_FOREACH(info, &t->pending) {
		memcpy(&signo, info->bytes, sizeof(signo));
		timer = timer_of_signal(t, info);
		if (timer)
			plan_fire(b, timer);
		else
			CALL(b, "pending signal of the process", SYS_rt_sigqueueinfo, t->pid, signo, put(b, info, sizeof(*info), 8));
	}
}

/* --- last --- */

static void plan_itimers(struct builder *b)
{
	const struct task *t = b->tp->task;

	for (int i = 0; i < 3; i++) {
		struct itimer it = t->itimers[i];
		struct itimerval itv;

		/* Between its signal and the time that is taken, ITIMER_REAL shows nothing as remaining. */
		if (!it.value_us)
			it.value_us = it.interval_us;
		itv = itimerval_of(&it);
		if (it.value_us)
			CALL(b, "interval timer", SYS_setitimer, i, put(b, &itv, sizeof(itv), 8), 0);
	}
}

void plan_start_timers(struct builder *b)
{
	const struct task *t = b->tp->task;
	int64_t unused;

	if (b->tp->threads.nr > 1)
		add(b, "wait for the other threads", (struct restorer_op){ .code = RESTORER_AWAIT });
	for (size_t i = 1; i < t->threads.nr; i++) {
		VEC_FOREACH(info, &t->threads.v[i].pending) {
			const struct posix_timer *timer = timer_of_signal(t, info);

			if (timer)
				plan_fire(b, timer);
		}
	}
	VEC_FOREACH(timer, &t->timers) {
		if (!timer_is_pending(t, timer) && (timer->value_ns || timer->date_ns) && !wants_overrun(t, timer, &unused))
			plan_arm(b, timer);
	}
	plan_itimers(b);
}
