/* POSIX timers and the signals they have sent. */
#include "model/timers.h"

#include <signal.h>
#include <string.h>
#include <time.h>

const struct posix_timer *timer_of_signal(const struct task *t, const struct siginfo_raw *info)
{
	siginfo_t si;

	memcpy(&si, info->bytes, sizeof(si));
	if (si.si_code != SI_TIMER)
		return NULL;
	VEC_FOREACH(timer, &t->timers) {
		/* The number may have been given to another timer since. */
		if (timer->id == si.si_timerid && timer->signo == si.si_signo && timer->notify != SIGEV_NONE &&
		    timer->sigval == (uint64_t)(uintptr_t)si.si_value.sival_ptr)
			return timer;
	}
	return NULL;
}

bool timer_is_pending(const struct task *t, const struct posix_timer *timer)
{
	VEC_FOREACH(info, &t->pending) {
		if (timer_of_signal(t, info) == timer)
			return true;
	}
	VEC_FOREACH(th, &t->threads) {
		VEC_FOREACH(info, &th->pending) {
			if (timer_of_signal(t, info) == timer)
				return true;
		}
	}
	return false;
}

bool timer_counts_cpu(const struct posix_timer *timer)
{
	return timer->clockid < 0 || timer->clockid == CLOCK_PROCESS_CPUTIME_ID || timer->clockid == CLOCK_THREAD_CPUTIME_ID;
}

/* include/linux/posix-timers_types.h: the task, inverted, above three bits for the kind of the clock. */
enum { CPUCLOCK_SCHED = 2, CPUCLOCK_PERTHREAD_MASK = 4, CPUCLOCK_BITS = 3 };

bool clock_is_of_thread_itself(int32_t clockid)
{
	return clockid == CLOCK_THREAD_CPUTIME_ID ||
	       (clockid < 0 && clockid & CPUCLOCK_PERTHREAD_MASK && clockid >> CPUCLOCK_BITS == ~0);
}

int32_t clock_of_thread(int32_t clockid, pid_t tid)
{
	uint32_t kind = clockid < 0 ? clockid & ((1 << CPUCLOCK_BITS) - 1) : CPUCLOCK_SCHED | CPUCLOCK_PERTHREAD_MASK;

	return (int32_t)(~(uint32_t)tid << CPUCLOCK_BITS | kind);
}
