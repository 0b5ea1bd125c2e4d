/*
 * Pre-copy: memory of a tree that is going to be ended is copied in rounds while it runs, so that its last stop
 * copies only what was written since.
 *
 * Theory of operation. A round protects what was written since the round before (at first: everything) and
 * lists it, in one atomic step; waits for system calls that may have been writing into such pages by a
 * reference taken earlier (a direct read) by stopping the tree for a moment; and copies what is listed. A page
 * written after that is unprotected, and so found by the next round, or inside the last stop. Pages go straight
 * to the pages file, into the place they had there before (struct pages_draft).
 */
#ifndef BCR_TRACK_PRECOPY_H
#define BCR_TRACK_PRECOPY_H

#include "image/image.h"
#include "model/model.h"
#include "track/track.h"

struct precopy;

struct precopy_stats {
	unsigned rounds;
	uint64_t pages_ahead;   /* copied while the target ran; a page may count in several rounds */
	uint64_t pages_in_stop; /* copied inside the last stop: address spaces only */
	uint64_t paused_us;     /* stopped between listing and copying, all rounds: freeze time */
};

/* Can this machine do it? 0 or a negative errno, nothing reported; *why says what is missing. */
int precopy_probe(const char **why);

/* Of `env`, userfaultfd and pause are needed. Pages go into `set`, which is borrowed. Failure is reported. */
int precopy_open(const struct track_env *env, struct image_set *set, struct precopy **ret);

/*
 * One round. `running` is a new observation of the running tree: processes and mappings new in it are taken in.
 * *ret_pages: how many were copied. `progress` as in capture_memory(). 0 or a reported negative errno.
 */
int precopy_round(struct precopy *p, const struct model *running, uint64_t *ret_pages,
		  int (*progress)(uint64_t done, uint64_t all));

/* Puts the files in order, when a round left them out of it, and has the disk take them: less to do inside the stop. */
int precopy_settle(struct precopy *p);

/*
 * Inside the stop: copies what is missing or was written since, and fills mm.pages of `stopped`, the
 * observation of the stopped tree. Shared memory is not touched: capture_shmems().
 */
int precopy_finish(struct precopy *p, struct model *stopped, struct dump_stats *stats);

const struct precopy_stats *precopy_stats(const struct precopy *p);

/* Ends protection; files that have not been finished are removed from the set. Accepts NULL. */
void precopy_close(struct precopy *p);

#endif
