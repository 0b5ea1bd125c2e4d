/* Realtime priority, and processors that do not doze, for the moments in which a target stands still. */
#include "sys/priority.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

/* The request holds as long as the descriptor is open. Admin-guide/pm: the longest wake-up that is tolerated, in us. */
static int keep_awake(void)
{
	const int32_t none = 0;
	int fd = open("/dev/cpu_dma_latency", O_WRONLY | O_CLOEXEC);

	if (fd >= 0 && write(fd, &none, sizeof(none)) == sizeof(none))
		return fd;
	if (fd >= 0)
		close(fd);
	return 0;
}

/* A controller that is preempted by its own target turns a stop of 0.2 ms into tens of milliseconds. */
void priority_raise(struct priority *p)
{
	struct sched_param fifo = { .sched_priority = 1 };

	if (!p->awake_fd)
		p->awake_fd = keep_awake();
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
	if (p->awake_fd > 0)
		close(p->awake_fd);
	p->awake_fd = 0;
}
