/* Work on an address space in steps. */
#include "track/steps.h"

#include <time.h>

#include "sys/tracee.h"

enum {
	STEP_BYTES = 16 << 20, /* 0.4 ms, when all of it is there */
	MAX_BYTES = 128 << 20, /* a step this long may come upon memory, once: 3 ms */
	QUICK_NS = 50000,
	REST_NS = 30000, /* and the slack of timers; a waiter has to be woken, and who asks for the lock before that gets it again */
};

static bool nobody_waits;

void steps_stopped(bool stopped)
{
	nobody_waits = stopped;
}

struct steps steps_over(uint64_t start, uint64_t end)
{
	return (struct steps){ .end = start, .until = end, .bytes = STEP_BYTES };
}

/* After a step of so many nanoseconds. */
static void rest(struct steps *s, uint64_t took_ns)
{
	const struct timespec pause = { .tv_nsec = REST_NS };

	if (took_ns <= QUICK_NS) {
		s->bytes = s->bytes < MAX_BYTES ? 2 * s->bytes : s->bytes;
		return;
	}
	s->bytes = STEP_BYTES;
	nanosleep(&pause, NULL);
}

bool steps_next(struct steps *s)
{
	if (s->end >= s->until)
		return false;
	if (s->begin_ns)
		rest(s, ptrace_now_ns() - s->begin_ns);
	s->begin_ns = ptrace_now_ns();
	s->start = s->end;
	s->end = (s->start + s->bytes) & ~(uint64_t)(STEP_BYTES - 1);
	if (s->end > s->until || nobody_waits)
		s->end = s->until;
	return true;
}
