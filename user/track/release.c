/*
 * Letting go of the memory of a target that runs on, without its standing still for it.
 *
 * Theory of operation. To unregister a mapping takes the lock of the address space for writing, and 22 ms per GiB for a look at each
 * page: mmap(2) and the like wait for it, and every fault. To unregister it part by part would make several mappings of it meanwhile,
 * and mremap(2) of all of it fail. So the protection of a long mapping is lifted in steps, which leave it whole, and then it
 * is unregistered by a way that does not look at pages. That one is not for a target that runs: for a moment, faults on pages that are
 * missing would be bcr's to answer. It is held for it, as it is to follow what it writes.
 */
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "sys/tracee.h"
#include "sys/uapi.h"
#include "track/inner.h"

enum { MAX_HOLDS = 16 };

static const uint64_t hold_ns = 250000;

struct release {
	struct tracker *t;
	VEC(struct release_mapping {
		struct track_mm *tm;
		struct span at;
		bool lifted; /* no page of it is protected any more, and it is long */
		bool gone;   /* from the userfaultfd */
	}) mappings;
	const struct track_mm *maps_of; /* whose maps_fd is, or NULL */
	int maps_fd;
	size_t next;  /* for the holds */
	bool stopped; /* in the last of them */
};

/* /proc/PID/maps, if the process has that address space still: another one (execve) has nothing registered there. Or -1. */
static int open_maps(const struct release_mapping *m)
{
	int fd = scan_open_maps(m->tm->pid);
	_cleanup_close_ int pagemap = -1;

	if (fd >= 0 && (scan_open(m->tm->pid, &pagemap) || !scan_is_registered(pagemap, m->at.start))) {
		close(fd);
		fd = -1;
	}
	return fd;
}

/*
 * What the mapping is now: it may have grown, and to take away less would leave two of it. Before Linux 6.11 nobody tells: the rest goes
 * with the descriptor, a moment later.
 */
static void make_whole(struct release *r, struct release_mapping *m)
{
	struct bcr_procmap_query q = { .size = sizeof(q), .query_addr = m->at.start };

	if (r->maps_of != m->tm) {
		if (r->maps_of)
			close(r->maps_fd);
		r->maps_fd = open_maps(m);
		r->maps_of = r->maps_fd < 0 ? NULL : m->tm;
	}
	if (!ioctl(r->maps_fd, BCR_PROCMAP_QUERY, &q) && q.vma_start <= m->at.start && q.vma_end >= m->at.end) {
		m->at.start = q.vma_start;
		m->at.end = q.vma_end;
	}
}

/* While the target is held, not for longer than that may take. */
static int drop_some(void *arg)
{
	struct release *r = arg;
	struct tracker *t = r->t;
	uint64_t until_ns = ptrace_now_ns() + hold_ns;

	r->stopped = true;
	log_failures_matter(true);
	for (; r->next < r->mappings.nr && ptrace_now_ns() < until_ns; r->next++) {
		struct release_mapping *m = &r->mappings.v[r->next];

		if (!m->lifted || !t->env.holds || !t->env.holds(t->env.arg, m->tm->pid))
			continue;
		/* By what it has grown since it was lifted, there may be protected pages: it may be one with its neighbour by now. */
		struct span lifted = m->at;

		make_whole(r, m);
		if (m->at.start == lifted.start && m->at.end == lifted.end)
			m->gone = protect_drop(m->tm, m->at.start, m->at.end);
	}
	return 0;
}

/* What is short, or cannot be dropped: each mapping in one piece. */
static void unregister_rest(struct release *r)
{
	VEC_FOREACH(m, &r->mappings) {
		if (m->gone)
			continue;
		make_whole(r, m);
		protect_unregister(m->tm, m->at.start, m->at.end);
	}
}

static int list(struct release *r)
{
	VEC_FOREACH(tm, &r->t->mms) {
		VEC_FOREACH(s, &(*tm)->registered) {
			struct release_mapping m = { .tm = *tm, .at = *s };

			if ((*tm)->uffd >= 0 && VEC_PUSH(&r->mappings, m))
				return -ENOMEM;
		}
	}
	return 0;
}

int tracker_release(struct tracker *t)
{
	struct release r = { .t = t };
	size_t nr_lifted = 0;
	int err = 0;

	/* What is not in the list goes with the descriptor. */
	if (list(&r))
		log_info("no memory to list what is protected: it is let go of in one piece");
	VEC_FOREACH(m, &r.mappings) {
		make_whole(&r, m);
		m->lifted = !m->at.categories && protect_lift(m->tm, m->at.start, m->at.end);
		nr_lifted += m->lifted;
	}
	/* Whoever cannot be stopped for it, or has ended, is let go of otherwise. */
	for (int i = 0; i < MAX_HOLDS && nr_lifted && t->env.pause && !err && r.next < r.mappings.nr; i++) {
		r.stopped = false;
		log_failures_matter(false);
		err = tracker_hold(t, drop_some, &r);
		log_failures_matter(true);
	}
	if (err && !r.stopped)
		err = 0;
	unregister_rest(&r);
	VEC_FOREACH(tm, &t->mms)
		mm_unprotect(t, *tm);
	log_debug("%zu mappings let go of, %zu of them long", r.mappings.nr, nr_lifted);
	if (r.maps_of)
		close(r.maps_fd);
	VEC_FREE(&r.mappings);
	return err;
}
