/* Copy-before-write by BPF: hints before the cut, saved pages after it. */
#ifndef BCR_TRACK_COW_H
#define BCR_TRACK_COW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "bpf/track.h"

struct cow;

/* Can this machine do it? As cow_open(), but nothing stays. */
int cow_probe(const char **why);

/*
 * Loads and attaches; nothing happens to the target yet. `ring_bytes`: a power of two. Failure has been reported, but when
 * this machine cannot do it: *why says why then.
 */
int cow_open(size_t ring_bytes, const char **why, struct cow **ret);

/* Accepts NULL. */
void cow_close(struct cow *c);

/*
 * From now on the address space that process `pid` has now is number `mm`. -ESRCH (not reported): it has ended; other
 * failures have been reported.
 */
int cow_add(struct cow *c, pid_t pid, uint32_t mm);

/* It is no more. To be called before the userfaultfd, which keeps its kernel address from being used again, is closed. */
void cow_forget(struct cow *c, uint32_t mm);

/*
 * The first of the address spaces [from, to) that has pages pinned for long: 0 and *ret, -ENOENT when none has, or a
 * reported negative errno.
 */
int cow_next_pinned(struct cow *c, size_t from, size_t to, size_t *ret);

/*
 * Of the file that the process has mapped at this address: args->file, users and opens. -ENOENT (not reported): it cannot be told;
 * other failures have been reported.
 */
int cow_file_users(struct cow *c, struct track_file_args *args);

/* Grows with every change of what processes share that no page table tells of (track_control.shared_changes). */
uint64_t cow_shared_changes(const struct cow *c);

/* Begins to collect hints, from none. */
void cow_begin_hints(struct cow *c);

/* How many hints have come so far. SIZE_MAX: look everywhere, something happened that no hint tells of. */
size_t cow_nr_hints(const struct cow *c);

/* Copies the hints from number `from` to before number `to`. False: so many are not kept, or not any more. */
bool cow_copy_hints(const struct cow *c, size_t from, size_t to, struct track_hint ret[TRACK_NR_HINTS]);

/* While the target is stopped: saves pages from now on; what the ring holds is forgotten. */
void cow_begin_saving(struct cow *c);

void cow_stop(struct cow *c);

/* Writes that could not be saved. */
uint64_t cow_lost(const struct cow *c);

/* Share of the ring that is filled, percent. */
unsigned cow_fill(const struct cow *c);

/*
 * Hands over what lies in the ring, in order; with `all`, everything whose reservation had begun, waiting for those
 * being written. `bytes` is NULL where the record says that pages were not read. One caller at a time.
 * Returns 0 or what `take` returned.
 */
int cow_drain(struct cow *c, bool all, int (*take)(void *arg, const struct track_record *r, const void *bytes),
	      void *arg);

/* Becomes readable when the ring is a quarter full. */
int cow_fd(const struct cow *c);

#endif
