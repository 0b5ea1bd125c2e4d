/* Realtime priority for the moments in which bcr must not be preempted by what it stops and wakes. */
#include "sys/priority.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"

/* A controller that is preempted by its own target turns a stop of 0.2 ms into tens of milliseconds. */
void priority_raise(struct priority *p)
{
	struct sched_param fifo = { .sched_priority = 1 };

	if (p->raised)
		return;
	p->policy = sched_getscheduler(0);
	p->raised = p->policy >= 0 && !(p->policy & ~SCHED_RESET_ON_FORK) && sched_getparam(0, &p->param) == 0 &&
		    sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &fifo) == 0;
}

void priority_restore(struct priority *p)
{
	/* Without CAP_SYS_NICE the flag cannot be taken back; for a normal policy it changes nothing but niceness of children. */
	if (p->raised && sched_setscheduler(0, p->policy, &p->param) != 0 &&
	    sched_setscheduler(0, p->policy | SCHED_RESET_ON_FORK, &p->param) != 0)
		log_warn("bcr keeps running with realtime priority: %s", strerror(errno));
	p->raised = false;
}
