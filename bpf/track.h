/*
 * What the tracker's BPF program and user/track/ share: settings, hints before the cut, saved pages after it. Fixed
 * widths, no pointers.
 */
#ifndef BCR_BPF_TRACK_H
#define BCR_BPF_TRACK_H

#include <linux/types.h>

enum track_mode {
	TRACK_OFF,
	TRACK_HINT, /* before the cut: tell where the scan inside the stop has to look */
	TRACK_SAVE, /* after the cut: save each page before its first write */
};

enum {
	TRACK_PAGE_BYTES = 4096,
	TRACK_NR_MMS = 4096,     /* address spaces that can be tracked at once */
	TRACK_NR_FAULTING = 16384, /* threads whose faults are told from other uses of the lock */
	TRACK_NR_HINTS = 8192,   /* a power of two: the last so many are kept */
};

/* One element of the mapped array `control`. */
struct track_control {
	__u32 mode;       /* enum track_mode */
	__u32 tool;       /* thread group of bcr: what it does to the target is no hint */
	__u32 generation; /* of the hints */
	__u32 full;       /* something happened that no fault tells of: look at everything */
	__u32 full_by;    /* who did it: thread, and thread group */
	__u32 full_by_group;
	__u64 nr_hints;   /* all of them: number n is element n modulo TRACK_NR_HINTS */
	__u64 seq;        /* of the last saved page */
	__u64 lost;       /* writes that found the ring full */
	__u64 wake_bytes; /* unread bytes in the ring from which on the reader is woken */
	__u64 max_drop_pages; /* a call that drops or moves more pages than these is not waited for: it counts as lost */
	__u64 shared_changes; /* what changes shared memory, or who has it, and no page table tells of: fork(2), MADV_REMOVE, second mappings */
};

_Static_assert(sizeof(struct track_control) == 72, "shared with BPF");

/* One element of the mapped array `hints`. */
struct track_hint {
	__u64 addr;  /* page aligned */
	__u32 mm;    /* number of the address space */
	__u32 chunk; /* not the page alone: all 2 MiB around it (it did not exist) */
};

_Static_assert(sizeof(struct track_hint) == 16, "shared with BPF");

/* In the ring: a page as it was before a write, its contents behind; or pages that could not be read. */
struct track_record {
	__u64 addr; /* page aligned */
	__u64 seq;  /* taken when the contents had been read */
	__u32 mm;
	__u32 nr_unread; /* 0: the contents follow; otherwise so many pages from `addr` on could not be read */
	__u32 by_call;   /* before a system call that drops the page, not before a write */
	__u32 reserved;
};

_Static_assert(sizeof(struct track_record) == 32, "shared with BPF");

/* Argument of the programs track_add, which gives the address space of a process a number, and track_forget. */
struct track_add_args {
	__u32 pid;
	__u32 mm;
};

/* Argument and answer of track_file_users: the file that process `pid` has mapped at `addr`. */
struct track_file_args {
	__u32 pid;
	__u32 reserved;
	__u64 addr;
	__u64 file;  /* identity of the open file */
	__u64 users; /* mappings, descriptors and whatever else refers to it */
	__u64 opens; /* how many such open files there are of its directory entry */
};

/* Argument of track_next_pinned: look at address spaces [from, to). */
struct track_range_args {
	__u32 from, to;
};

#endif
