/* What the files of track/ share. */
#ifndef BCR_TRACK_INNER_H
#define BCR_TRACK_INNER_H

#include <pthread.h>

#include "track/cow.h"
#include "track/scan.h"
#include "track/store.h"
#include "track/track.h"

/* Pages copied inside each stop because they were torn before. */
enum { MAX_HOT_PAGES = 1024 };

enum { PIECE_PAGES = 512, PIECE_BYTES = PIECE_PAGES * MODEL_PAGE_SIZE, CHUNK_BYTES = 2 << 20 };

/* Existing pages of the same categories (enum page_category). */
struct span {
	taddr_t start, end;
	uint64_t categories;
};
typedef VEC(struct span) spans;

/* What a later look at one page said; categories 0: it does not exist. */
struct patch {
	taddr_t addr;
	uint64_t categories;
};

/* An address space. */
struct track_mm {
	uint32_t nr;     /* for BPF and the store */
	pid_t pid;       /* a process that has it; 0: this one is unused */
	int uffd;        /* -1: none, nothing in it is protected */
	uint64_t uffd_ident; /* of it, as struct vma names it; 0: not known */
	int pagemap_fd;  /* bound to it */
	int mem_fd;      /* -1: not opened yet */
	bool keep_shared; /* pages may be shared copy-on-write with others of the tree */
	bool present;    /* in the model of the stop */
	bool blind;      /* the look before the stop failed */
	bool pinned;     /* pages of it are pinned for long: nothing in it is tracked this time */
	spans shared;    /* mappings of shared memory that is copied ahead: nobody but shared.c protects in them */
	spans ranges;    /* private mappings, the ones to look at: those that lie side by side are one */
	spans registered; /* mappings, each as it was registered; some may have gone. categories: FILE, or 0 */
	spans seen;      /* by the scan before the stop, or inside it when everything had to be looked at */
	VEC(struct patch) patches; /* in the order they were made: the last says what is so */
	spans vdso;      /* pages of it, copied before the stop; none: they are in `copied` */
	spans copied;    /* pages of mappings that are not tracked: copied inside the stop */
	VEC(bool) tracked; /* parallel to the mappings of the stopped model: its pages are in `seen`, not in `copied` */
	taddr_t copied_to; /* during tracker_copy(): pages below are in the image */
};

/* Pages of a shared object, copied ahead or inside the stop: they lie in the store, in a row. */
struct shmem_piece {
	uint32_t shmem; /* index in model.shmems */
	uint64_t offset_bytes, nr_pages;
	uint32_t slot;
};

struct shared_map {
	struct track_mm *tm;
	taddr_t start, end;
	uint64_t offset_bytes; /* of `start` in the object */
};

/* Shared memory that may be copied ahead (shared.c). */
struct shared_object {
	struct shmem shmem;     /* as it was observed; without pages */
	uint64_t file;          /* identity of the file behind it; 0: not known yet */
	uint64_t changes;       /* cow_shared_changes() when it was protected */
	uint64_t mapped_bytes;  /* of all mappings */
	bool usable;            /* nothing that was observed speaks against it */
	bool good;              /* it has been protected and copied */
	VEC(struct shared_map) maps;
	VEC(struct shmem_piece) pieces; /* ascending; their `shmem` is set at the cut */
	spans written;          /* offsets */
};

/* What one record says of a page, for the search for strays. */
enum trace_kind {
	TRACE_UNREAD, /* it did not exist */
	TRACE_ZERO,   /* it was all zero: as good as a hole */
	TRACE_FAULT,  /* it existed when it was written */
	TRACE_CALL,   /* it existed when it was dropped */
};

struct trace {
	uint64_t page; /* address | number of the address space */
	uint64_t seq;
	enum trace_kind kind;
};

struct tracker {
	const struct track_ops *ops;
	struct track_env env;
	struct track_stats stats;
	VEC(struct track_mm *) mms;
	struct cow *cow;          /* NULL: the back end does not save */
	struct track_hint *sorted; /* room for TRACK_NR_HINTS; with cow */
	struct store store;
	VEC(struct shmem_piece) shmem_pieces;
	VEC(struct shared_object) shared;
	pthread_mutex_t lock;     /* of the store and the ring, during tracker_copy() */
	uint64_t nr_pages;        /* resident when it was opened */
	bool look_everywhere;     /* hints were not enough the last time */
	bool pages_exact;         /* the pages that existed at the cut are known from a scan inside the stop */
	size_t hints_taken;       /* hints before this one have been followed for good */
	uint64_t stop_bytes;      /* copied inside the stop, so far */
	VEC(struct trace) traces; /* of pages since the cut, while pages_exact is false; under the lock */
	spans found;              /* places of written pages, while they are looked for */
	spans candidates;         /* for strays: written, and not in the list; categories | number of the address space << 32 */
	bool precut, ready, cut;  /* tracker_precut(), tracker_ready(), tracker_cut() have been done */
	VEC(uint64_t) hot;        /* address | number of the address space: pages that were torn, to be copied inside the stop */
};

/* track.c */

struct track_mm *tracker_find(const struct tracker *t, pid_t pid);

/*
 * Stops the target by env.pause (which must be there), calls `then` unless it is NULL, and lets the target go on. Whoever was
 * in a direct read has left it: such a call takes hold of pages once, and then writes into them unseen, protected or not; one that
 * begins later takes hold of them for writing, which lifts the protection. Returns what then() did, or a reported failure.
 */
int tracker_hold(struct tracker *t, int (*then)(void *arg), void *arg);

/* A new one for this process. 0 or a reported failure. */
int mm_add(struct tracker *t, pid_t pid, struct track_mm **ret);

/*
 * Opens the address space the process has now: descriptors of an earlier one (execve) do not count any more.
 * -EAGAIN, not reported: the process has ended.
 */
int mm_reopen(struct track_mm *tm);

/* Was it registered, and is the process in another address space since? Then what we have belongs to nobody. */
bool mm_replaced(const struct track_mm *tm, const struct mm *mm);

/* Lifts the protection. */
void mm_unprotect(struct tracker *t, struct track_mm *tm);

/* Its process has ended: the number is free for another one. */
void mm_retire(struct tracker *t, struct track_mm *tm);

/* protect.c */

/* Registers the mappings of `mm` that can be and are not yet; protects nothing. */
int protect_register(struct tracker *t, struct track_mm *tm, const struct mm *mm);

/* Registers the mappings of `mm` that can be and are not yet, and protects their pages. */
int protect_mm(struct tracker *t, struct track_mm *tm, const struct mm *mm);

/*
 * Waits until whoever holds the lock of the address space has let go: calls that drop or move pages and began before
 * hints were collected have ended then.
 */
void protect_barrier(const struct track_mm *tm);

/* Takes [start, end) from the userfaultfd (there is one), with the protection of its pages, in one piece: 22 ms per GiB. */
void protect_unregister(const struct track_mm *tm, uint64_t start, uint64_t end);

/*
 * Lifts the protection of [start, end), in steps, for the target runs; it stays registered. False: it is so short that it is
 * better unregistered, or part of it has gone, and some of it is protected still.
 */
bool protect_lift(const struct track_mm *tm, uint64_t start, uint64_t end);

/* Notes that this mapping has been registered. 0 or -ENOMEM. */
int protect_note(struct track_mm *tm, uint64_t start, uint64_t end, bool is_file);

/*
 * Takes [start, end), of which no page is protected, from the userfaultfd at once. Every thread that has the address space must be
 * stopped. False: there is a mapping in it that this cannot be done to (one of a file), and it is registered still.
 */
bool protect_drop(const struct track_mm *tm, uint64_t start, uint64_t end);

/* pages.c */

/* Is a page of these categories in this mapping for the image? */
bool page_is_wanted(const struct vma *vma, uint64_t categories);

/* Of the categories of a page, those that tell pages apart here; HUGE and the like would only break spans. */
uint64_t page_kept(uint64_t categories);

/* Appends to spans what a scan found. 0 or -ENOMEM. */
int spans_add(spans *s, taddr_t start, taddr_t end, uint64_t categories);

/* Puts the patches into `seen`, and forgets them. */
int pages_apply_patches(struct track_mm *tm);

/* Looks at [start, end) again, and protects what was written: the result goes to the patches. */
int pages_look_again(struct track_mm *tm, taddr_t start, taddr_t end);

/* Calls `fn` for those parts of [start, end) that are not in tm->shared, until it returns something else than 0. */
int pages_each_unshared(struct track_mm *tm, taddr_t start, taddr_t end,
			int (*fn)(void *arg, struct track_mm *tm, taddr_t start, taddr_t end), void *arg);

/* Takes the mappings of `mm` whose pages may be tracked as the ones to look at. */
int pages_set_ranges(struct track_mm *tm, const struct mm *mm);

/*
 * Looks at all pages of these mappings that are tracked; with `protect`, protects first what was written. 0 or a negative
 * errno, not reported.
 */
int pages_look_everywhere(const struct tracker *t, struct track_mm *tm, bool protect);

/* hints.c */

/* Protects again and notes what was written according to hints number `from` to before `to`. 0 or a reported failure. */
int hints_follow(struct tracker *t, size_t from, size_t to, bool stopped);

/*
 * pinned.c: sets tm->pinned where pages are pinned for long. Inside the stop, for all, and nothing of such an address
 * space is tracked any more: 0 or a reported negative errno.
 */
void pinned_look(struct track_mm *tm);
int pinned_ask(struct tracker *t); /* the same for all, by BPF */
int pinned_look_in_stop(struct tracker *t);

/* now.c: copying now, ahead or inside the stop. */

/* Reads pages [start, end) into the store. Those that cannot be read are kept as such. */
int now_copy(struct tracker *t, struct track_mm *tm, taddr_t start, taddr_t end);

/* All wanted pages of a mapping. -EAGAIN: more than the limit. */
int now_copy_vma(struct tracker *t, struct track_mm *tm, const struct vma *vma);

/* Pages of protected mappings that were written since they were protected. */
int now_copy_written(struct tracker *t, struct track_mm *tm, const struct vma *vma);

/* Those of these pages (address | number of the address space) that exist. */
int now_copy_pages(struct tracker *t, const uint64_t *pages, size_t nr);

/* Pages that a thread will pin for writing as soon as it goes on, without a fault: shared futexes it waits on. */
int now_copy_futexes(struct tracker *t, const struct model *m, bool same);

/* All of an object. -EAGAIN: more than the limit, or it has another size. */
int now_copy_shmem(struct tracker *t, const struct model *m, size_t shmem);

/* Counts what is copied inside the stop. -EAGAIN: more than the limit. */
int now_charge(struct tracker *t, uint64_t bytes);

/*
 * shared.c: which objects may be copied ahead; protect and copy them; in rounds, what was written since; inside the stop, what is
 * left, or all of an object; afterwards, lift the protection. 0 or a reported failure; shared_cut() also as now_copy_shmem().
 */
int shared_collect(struct tracker *t, const struct model *running);
int shared_begin(struct tracker *t);
int shared_follow(struct tracker *t);
int shared_cut(struct tracker *t, const struct model *m, size_t shmem);
void shared_release(struct tracker *t);
void shared_forget(struct tracker *t);

/*
 * Reads `nr` pages at `addr` into `buf`; clears the bit in `got` (a bit per page, set before) of those that cannot be
 * read. Returns how many were read.
 */
size_t now_read(struct track_mm *tm, taddr_t addr, size_t nr, uint8_t *buf, uint64_t *got);

/*
 * After tracker_copy() has read everything: looks for pages that are not in the list; then, when the ring has been
 * emptied and under the lock, whether they all came after the cut. -EAGAIN: not all.
 */
int strays_collect(struct tracker *t, const struct model *m);
int strays_check(struct tracker *t, const struct model *m);

extern const struct track_ops track_wp_cow_ops, track_wp_async_ops, track_soft_dirty_ops, track_none_ops;

#endif
