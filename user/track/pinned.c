/*
 * Pages pinned for long: registered io_uring buffers, RDMA. A device or another process writes to them by way of the
 * pin, past all protection. The kernel counts them per address space; while there are any, nothing in it is tracked,
 * all of it is copied inside the stop.
 *
 * An address space may have such pages although no task of the tree has a descriptor that says so: a ring may have
 * been handed to somebody else. Whoever pins a page finds it by a fault of its own, which lifts the protection: only
 * pages that are pinned when they are protected, or at the cut, matter.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "sys/proc.h"
#include "track/inner.h"

void pinned_look(struct track_mm *tm)
{
	_cleanup_close_ int dir = -1;
	_cleanup_free_ char *text = NULL;

	/* A process that has ended meanwhile is found by others. */
	if (!tm->pid || proc_open(proc_living(tm->pid), &dir) || proc_read(dir, "status", &text, NULL))
		return;
	if (proc_field_u64(text, "VmPin", 10, 0))
		tm->pinned = true;
}

/* Its mappings have been found tracked, before pages of it were pinned perhaps. */
static void untrack(struct track_mm *tm)
{
	log_debug("pid %d: pages of it are pinned for long: it is copied inside the stop", tm->pid);
	VEC_FOREACH(tracked, &tm->tracked)
		*tracked = false;
}

/* One question for all, as a rule: there are none. */
int pinned_ask(struct tracker *t)
{
	for (size_t nr = 0; nr < t->mms.nr; nr++) {
		int err = cow_next_pinned(t->cow, nr, t->mms.nr, &nr);

		if (err)
			return err == -ENOENT ? 0 : err;
		t->mms.v[nr]->pinned = true;
	}
	return 0;
}

int pinned_look_in_stop(struct tracker *t)
{
	int err = t->cow ? pinned_ask(t) : 0;

	VEC_FOREACH(tm, &t->mms) {
		if (!t->cow && t->ops->copies_ahead && (*tm)->present)
			pinned_look(*tm);
		if ((*tm)->pinned)
			untrack(*tm);
	}
	return err;
}
