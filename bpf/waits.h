/*
 * Waits with a time limit that a stop of bcr's has ended: filled by bpf/waits.bpf.c, read by user/sys/waits.c. Shared
 * with BPF: fixed widths, no pointers.
 */
#ifndef BCR_BPF_WAITS_H
#define BCR_BPF_WAITS_H

enum {
	WAITS_NR_SLOTS = 1 << 14, /* a power of two */
	WAITS_NR_PROBES = 16,     /* slots, from number & (WAITS_NR_SLOTS - 1) on, in which a thread may be */
	WAITS_NR_CALLS = 8,
};

/* A thread that was woken while a timer of it was running. */
struct wait_record {
	__u32 tid;        /* in the pid namespace of bcr */
	__u32 stop;       /* number of the stop; another than that of now: the slot is free */
	__s64 expires_ns; /* CLOCK_MONOTONIC, of whatever clock the timer is */
	__s64 left_ns;    /* at the moment of the wake-up */
	__u64 sp, arg;    /* of calls whose limit is a pointer: the thread's stack pointer, and this argument */
	__u32 nr;         /* of the call */
	__u32 pad;
};

_Static_assert(sizeof(struct wait_record) == 48, "element of an array that is mapped");

#endif
