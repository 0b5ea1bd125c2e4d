/* The end of a dump: the set becomes valid, and the user is told what it took. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "flow/stages.h"
#include "flow/steps.h"

void step_gather_stats(struct flow *f)
{
	struct dump_stats *s = &f->stats;

	snprintf(s->observe, sizeof(s->observe), "%s", observer_backend(f->observer));
	if (!f->freeze)
		return; /* a pre-dump stops nobody */
	s->freezing_us = f->freezing_us;
	s->frozen_us = f->frozen_us;
	s->retakes = f->retakes;
	s->restops = f->all_restops;
	s->pages_copied_in_stop = s->pages_written + s->shpages_written;
	snprintf(s->freezer, sizeof(s->freezer), "%s", freeze_backend(f->freeze));
	if (f->precopy) {
		const struct precopy_stats *p = precopy_stats(f->precopy);

		s->frozen_us += p->paused_us;
		s->rounds = p->rounds;
		s->pages_copied_ahead = p->pages_ahead;
		s->pages_copied_in_stop = p->pages_in_stop + s->shpages_written;
		snprintf(s->track, sizeof(s->track), "wp-async");
	}
	if (!f->tracker)
		return;
	const struct track_stats *t = tracker_stats(f->tracker);

	s->frozen_us += t->paused_us;
	log_debug("the stop looked at %s (%llu hints); the target was held %llu times before it", t->cut_full ? "everything" : "hints",
		  (unsigned long long)t->cut_hints, (unsigned long long)t->holds);
	s->pages_saved = t->pages_saved;
	s->pages_copied_in_stop = t->cut_pages_copied;
	s->pages_torn = t->pages_torn;
	snprintf(s->track, sizeof(s->track), "%s", tracker_backend(f->tracker));
}

static void display_stats(const struct dump_stats *s)
{
	printf("Displaying dump stats:\n"
	       "Freezing time: %u us\n"
	       "Frozen time: %u us\n",
	       s->freezing_us, s->frozen_us);
	for (uint32_t i = 0; i < s->nr_stages; i++)
		printf("Frozen time, %s: %u us\n", s->stages[i].name, s->stages[i].us);
	printf("Memory dump time: %u us\n"
	       "Memory write time: %u us\n"
	       "Memory pages scanned: %llu\n"
	       "Memory pages skipped from parent: %llu\n"
	       "Memory pages written: %llu\n"
	       "Shared memory pages scanned: %llu\n"
	       "Shared memory pages skipped from parent: %llu\n"
	       "Shared memory pages written: %llu\n",
	       s->memdump_us, s->memwrite_us, (unsigned long long)s->pages_scanned,
	       (unsigned long long)s->pages_skipped_parent, (unsigned long long)s->pages_written,
	       (unsigned long long)s->shpages_scanned, (unsigned long long)s->shpages_skipped_parent,
	       (unsigned long long)s->shpages_written);
	printf("Observed by: %s\n"
	       "Stopped by: %s\n"
	       "Tracked by: %s\n"
	       "Rounds before the stop: %u\n"
	       "Pages copied before the stop: %llu\n"
	       "Pages copied before a write: %llu\n"
	       "Pages copied inside the stop: %llu\n"
	       "Pages torn: %llu\n"
	       "Stops made again: %u\n"
	       "Cuts made again: %u\n",
	       s->observe, s->freezer, *s->track ? s->track : "none", s->rounds,
	       (unsigned long long)s->pages_copied_ahead, (unsigned long long)s->pages_saved,
	       (unsigned long long)s->pages_copied_in_stop, (unsigned long long)s->pages_torn, s->restops,
	       s->retakes);
	fflush(stdout);
}

void step_report_stats(struct flow *f)
{
	const struct dump_stats *s = &f->stats;

	log_info("stopped in %u us, stood still for %u us, %llu pages written, %llu found in the parent set", s->freezing_us,
		 s->frozen_us, (unsigned long long)(s->pages_written + s->shpages_written),
		 (unsigned long long)(s->pages_skipped_parent + s->shpages_skipped_parent));
	if (f->req->display_stats)
		display_stats(s);
}

/* Cannot be undone: the set becomes valid, and a target that is not to go on is ended. */
int step_commit(struct flow *f)
{
	const struct dump_request *req = f->req;
	int err = image_set_commit(f->set);

	if (err)
		return err;
	image_set_close(f->set);
	f->set = NULL;
	if (!req->leave_running && !req->leave_stopped) {
		err = step_thaw(f, THAW_KILL);
		if (err)
			return err;
	}
	step_gather_stats(f);
	step_report_stats(f);
	if (req->stats)
		*req->stats = f->stats;
	return stats_write_dump(req->work_dirfd, &f->stats);
}
