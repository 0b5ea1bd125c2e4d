/* What is to become of timers that notify a thread that has ended. */
#include "observe/timers.h"

#include <signal.h>

#include "base/log.h"

static bool has_thread(const struct task *t, pid_t tid)
{
	VEC_FOREACH(th, &t->threads) {
		if (th->tid == tid)
			return true;
	}
	return false;
}

void observe_timers(struct task *t, bool stopped)
{
	VEC_FOREACH(timer, &t->timers) {
		if (!(timer->notify & SIGEV_THREAD_ID) || has_thread(t, timer->notify_tid))
			continue;
		if (stopped)
			log_warn("pid %d: its timer %d notifies thread %d, which has ended: restored as one that notifies nobody", t->pid,
				 timer->id, timer->notify_tid);
		timer->notify = SIGEV_NONE;
		timer->notify_tid = 0;
	}
}
