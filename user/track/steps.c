/* Work on an address space in steps. */
#include "track/steps.h"

#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>

#include "sys/pagemap.h"
#include "sys/tracee.h"
#include "sys/uapi.h"

enum {
	STEP_BYTES = 16 << 20, /* 0.4 ms, when all of it is there */
	QUICK_NS = 50000,
	REST_NS = 30000, /* a waiter has to be woken, and who asks for the lock before that gets it again */
};

static bool nobody_waits;

void steps_stopped(bool stopped)
{
	nobody_waits = stopped;
}

struct steps steps_over(int pagemap_fd, uint64_t start, uint64_t end)
{
	return (struct steps){ .end = start, .until = end, .pagemap_fd = pagemap_fd };
}

/* The first page from s->start on that exists, or marks a place: s->until when there is none, or nobody can tell. */
static uint64_t first_page(const struct steps *s)
{
	struct bcr_pm_page_region page;
	struct bcr_pm_scan_arg arg = {
		.size = sizeof(arg),
		.start = s->start,
		.end = s->until,
		.vec = (uintptr_t)&page,
		.vec_len = 1,
		.max_pages = 1,
		.category_anyof_mask = PAGE_CAT_PRESENT | PAGE_CAT_SWAPPED,
		.return_mask = PAGE_CAT_PRESENT,
	};

	return ioctl(s->pagemap_fd, BCR_PAGEMAP_SCAN, &arg) == 1 ? page.start : s->until;
}

/* Not longer: timers of normal threads may be late by a slack of 50 us, of which a fast writer makes much. 0 is the default again. */
static void rest(void)
{
	const struct timespec pause = { .tv_nsec = REST_NS };

	prctl(PR_SET_TIMERSLACK, 1);
	nanosleep(&pause, NULL);
	prctl(PR_SET_TIMERSLACK, 0);
}

bool steps_next(struct steps *s)
{
	if (s->end >= s->until)
		return false;
	if (s->begin_ns && ptrace_now_ns() - s->begin_ns > QUICK_NS)
		rest();
	s->begin_ns = ptrace_now_ns();
	s->start = s->end;
	s->end = s->until;
	if (nobody_waits)
		return true;
	uint64_t end = (first_page(s) + STEP_BYTES) & ~(uint64_t)(STEP_BYTES - 1);
	if (end < s->end)
		s->end = end;
	return true;
}
