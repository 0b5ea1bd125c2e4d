/*
 * Tracking: a consistent copy of the memory of a tree that stands still only for a moment (docs/freeze.md).
 *
 * Theory of operation. tracker_open() prepares everything while the target runs. tracker_precut() is called right before
 * the target is stopped, tracker_cut() while it is, tracker_copy() after it goes on: the pages written then are
 * those of the moment of the cut. Back ends differ in what the stop costs: with copy-before-write (wp-cow) only what was
 * written since tracker_precut() is looked at; with wp-async and soft-dirty what was written since then is copied
 * inside the stop; with none everything is.
 *
 * Nothing is left behind in the target: the write protection belongs to descriptors of this process, and the kernel lifts
 * it when they are closed, however this process ends.
 */
#ifndef BCR_TRACK_TRACK_H
#define BCR_TRACK_TRACK_H

#include "image/image.h"
#include "model/model.h"

struct tracker;

/* What the tracker needs from the layers beside it. */
struct track_env {
	void *arg;
	/*
	 * Has process `pid`, which runs, call userfaultfd(2) (close on exec, user mode only), and brings the
	 * descriptor here; the target keeps none. 0 with *ret_fd owned by the caller, -ESRCH (not reported) when it
	 * has ended, or a reported negative errno. capture_userfaultfd() does it.
	 */
	int (*userfaultfd)(void *arg, pid_t pid, int *ret_fd);
	/*
	 * Stops the whole tree, or lets it go on, in tracker_follow(), tracker_copy() and tracker_release(). NULL: cannot. 0 or a
	 * reported negative errno.
	 */
	int (*pause)(void *arg, bool stop);
	/*
	 * While it is stopped by that: is everybody held who has the memory of process `pid`? One of the tree whose parent has ended may have
	 * left it, and run. For tracker_release(); NULL: not known.
	 */
	bool (*holds)(void *arg, pid_t pid);
	/*
	 * For tracker_cut(same): calls fn for each thread of the stopped tree; returns what fn returned first that
	 * was not 0.
	 */
	int (*each_thread)(void *arg, int (*fn)(void *ctx, pid_t pid, pid_t tid, const struct cpu_regs *regs), void *ctx);
	uint64_t max_stop_bytes; /* more than these are not copied inside the stop (-EAGAIN); 0: no limit */
	uint64_t ring_bytes;     /* for pages saved before a write; 0: as memory asks for */
	uint32_t hold_above;     /* the target is held before the stop while more places are left to it; 0: as suits the stop */
};

/* Of everything since tracker_open(); the `cut_` ones are of the last cut. */
struct track_stats {
	uint64_t pages_saved;   /* copied before the target wrote them */
	uint64_t pages_torn;    /* written after the cut without having been saved */
	uint64_t cuts, retaken; /* cuts made; of these, cuts that had to be made again */
	uint64_t pauses, paused_us; /* the target was held to be copied, followed or let go of: this is freeze time */
	uint64_t holds;         /* of these, to follow what it had written before the stop */
	uint64_t cut_us;        /* inside the stop */
	uint64_t cut_pages_copied; /* inside the stop */
	uint64_t cut_shared_ahead; /* shared objects that had been copied ahead: only the rest was inside the stop */
	uint64_t cut_hints;     /* places that had to be looked at */
	bool cut_full;          /* everything had to be looked at */
};

struct track_ops {
	const char *name; /* as in --track=NAME */
	const char *what; /* in words, what the stop costs */
	/* Has this machine what it needs, BPF aside? 0 or a negative errno, nothing reported; *why says what is missing. */
	int (*probe)(const char **why);
	bool write_protects; /* needs a userfaultfd of the target */
	bool saves;          /* pages are saved before they are written: copied after the stop */
	bool copies_ahead;   /* pages are copied before the stop, and once more inside it when they were written meanwhile */
};

/* Back ends, the best first; NULL behind the last. */
const struct track_ops *track_ops_at(size_t i);

/* Can this machine do it? The same, with BPF: programs are loaded and thrown away again. */
int track_probe(const struct track_ops *ops, const char **why);

/*
 * Prepares to track the tree of `running`, an observation of the running target. `backend`: the name of one, or NULL
 * for the best that works. `env` is copied. Returns 0 or a reported negative errno.
 */
int tracker_open(const char *backend, const struct model *running, const struct track_env *env,
		 struct tracker **ret);

const char *tracker_backend(const struct tracker *t);
const struct track_stats *tracker_stats(const struct tracker *t);

/* Changes the limit of track_env. */
void tracker_limit(struct tracker *t, uint64_t max_stop_bytes);

/*
 * Right before the stop, while the target runs. `running` (may be NULL) is a newer observation: what is new in it
 * is tracked too. Returns 0 or a reported negative errno.
 */
int tracker_precut(struct tracker *t, const struct model *running);

/*
 * After that: `look` is an observation made since, most likely what the stop will find. What depends on mappings is made
 * ready by it. May be left out. Returns as tracker_precut().
 */
int tracker_ready(struct tracker *t, const struct model *look);

/*
 * After that, as the last thing before the stop: pages written so far are protected again, in rounds while the target
 * runs, or, when it writes faster than that goes, while it is held by env.pause for moments of half a millisecond. What is
 * written after the last of them is left to the stop. Returns as tracker_precut().
 */
int tracker_follow(struct tracker *t);

/*
 * Inside the stop. `stopped` is the observation of the stopped target; or, with `same`, what tracker_ready() was
 * given: processes are still those, mappings too, but for those of mm.remapped, and registers come from
 * track_env.each_thread(). -EAGAIN (not reported): too much has changed since tracker_precut() to be copied now; let
 * the target go and begin again there. Other failures have been reported.
 */
int tracker_cut(struct tracker *t, const struct model *stopped, bool same);

/* As the first thing after the stop: what needs no protection any more loses it. May be left out. */
void tracker_resumed(struct tracker *t);

/*
 * After the stop, the target may run: writes the pages of the moment of the cut into the set and fills mm.pages and
 * shmem.pages of `m`, which must be what tracker_cut() was given (or equal to it). -EAGAIN (not reported): pages were
 * torn or lost, the cut must be made again, into a new set of page files; tracker_stats() counts them. `progress` as
 * in capture_memory().
 */
int tracker_copy(struct tracker *t, struct model *m, struct image_set *set, struct dump_stats *stats,
		 int (*progress)(uint64_t done, uint64_t all));

/*
 * Before tracker_close(), of a target that runs on: lifts all protections so that nobody waits for it for long; it may be held by env.pause for
 * that. What cannot be done so is done otherwise. Fails, reported, only when it was stopped and could not be let go.
 */
int tracker_release(struct tracker *t);

/* Ends the tracking: protections are lifted, in one piece for each address space: 22 ms per GiB, in which faults wait. Accepts NULL. */
void tracker_close(struct tracker *t);

#endif
