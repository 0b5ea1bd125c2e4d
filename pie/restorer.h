/*
 * What the restorer blob is given. Plain fixed-size structs, shared with user/restore/; addresses are those of the
 * process that is being restored.
 *
 * A process's restorer area, at an address free in the old layout and in the new one:
 *
 *     blob | struct restorer_args | struct restorer_thread[] | ops | data of ops, signal frames | stacks
 *
 * The control block lies in a mapping of its own, shared by all processes of the restore and the coordinator.
 */
#ifndef BCR_PIE_RESTORER_H
#define BCR_PIE_RESTORER_H

#include <linux/types.h>

enum restorer_op_code {
	RESTORER_SYSCALL, /* issue `nr` with args; see `expect` */
	RESTORER_MEET,    /* report an arrival, and wait for the phase args[0] */
	RESTORER_CLONE,   /* make thread number args[0] of this process and let it run its own ops */
	RESTORER_AWAIT,   /* wait until all other threads of this process have run theirs */
	RESTORER_RAISE,   /* add 1 to the word at args[0], and wake whoever waits for it */
	RESTORER_UNTIL,   /* wait until the word at args[0] is args[1], or more */
	RESTORER_DATE,    /* what clock args[0] will show in args[1] ns, 1 ns at least: a timespec to address args[2] */
};

enum restorer_expect {
	RESTORER_OK,      /* a negative result is a failure */
	RESTORER_SAME,    /* the result must equal args[expect_arg] (mmap, mremap at a fixed address) */
	RESTORER_ANY,     /* the result does not matter */
};

struct restorer_op {
	__u32 code;
	__u32 nr;
	__u32 expect;
	__u32 expect_arg;
	__u64 args[6];
};

struct restorer_thread {
	__u64 ops;      /* struct restorer_op[] */
	__u64 nr_ops;
	__u64 stack_top;
	__u64 frame_sp; /* what rt_sigreturn wants in the stack pointer */
	__u64 args;     /* struct restorer_args */
	__u32 tid;
	__u32 slot;     /* in the control block */
};

struct restorer_args {
	__u64 control;  /* struct restorer_control */
	__u64 threads;  /* struct restorer_thread[], the leader first */
	__u64 nr_threads;
};

enum restorer_status { RESTORER_RUNNING, RESTORER_READY, RESTORER_FAILED };

struct restorer_slot {
	__u32 status; /* enum restorer_status */
	__s32 error;  /* negative errno */
	__u64 op;     /* index of the op that failed */
	__u64 rseq_cs; /* what the thread's rseq area held; the kernel clears it while the restorer runs */
	/* Of a task whose memory others share (the first that has it). All are futexes. */
	__u32 turn;     /* 1: somebody runs bcr's code in that memory */
	__u32 entered;  /* how many of the others are in their restorers */
	__u32 complete; /* the memory is */
	__u32 pad;
};

struct restorer_control {
	__u32 phase;   /* futex: raised by the coordinator */
	__u32 arrived; /* futex: tasks or threads that have reached the current barrier */
	__u32 failed;  /* somebody has failed */
	__u32 pad;
	__u64 bytes_done, pages_compared, pages_skipped_cow, pages_restored;
	struct restorer_slot slots[]; /* one per thread of the tree, then one per task */
};

/* Phases of the control block: a task waits until the phase is the one after its barrier. */
enum restorer_phase {
	PHASE_FORK,   /* making the tree */
	PHASE_TASKS,  /* all tasks exist and are traced: process groups */
	PHASE_GROUPS, /* all are in their groups, helpers end (where there is anything to wait for): directories */
	PHASE_DIRS,   /* all are in their directories (likewise): descriptors, ops */
	PHASE_TRACED,  /* of a tree with seccomp: all threads exist and are traced, filters that whole processes have */
	PHASE_FILTERS, /* filters of single threads, privileges */
	PHASE_RESUME, /* all threads are ready: rt_sigreturn */
};

#endif
