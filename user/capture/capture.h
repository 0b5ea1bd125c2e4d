/* Capture: what only a stopped target can tell: page contents, the payload of pipes. */
#ifndef BCR_CAPTURE_CAPTURE_H
#define BCR_CAPTURE_CAPTURE_H

#include "image/image.h"
#include "model/model.h"

/*
 * Adjusts registers of threads stopped inside a system call to what the image must hold
 * (docs/kernel.md, "Interrupted calls"): rewound calls, restart blocks kept in thread.restart. `waits` (may be NULL) knows
 * of the stop in which the registers were read what its threads had left of waits that the kernel does not tell about.
 */
struct waits;
void capture_fix_syscalls(struct model *m, const struct waits *waits);

/*
 * Copies every present page that a restore cannot get elsewhere into the set, and fills mm.pages and shmem.pages.
 * `progress` is called now and then with bytes done and bytes in all; a negative errno from it, which it
 * has reported, ends the copying.
 */
int capture_memory(struct model *m, struct image_set *set, struct dump_stats *stats,
		   int (*progress)(uint64_t done, uint64_t all));

/* Shared memory only, when the address spaces have been copied already: their pages_id are in use. */
int capture_shmems(struct model *m, struct image_set *set, struct dump_stats *stats,
		   int (*progress)(uint64_t done, uint64_t all));

/*
 * All memory of a target that runs: pages may be of different moments, and those that go away meanwhile are
 * left out. A set of such pages is good as the parent of another one only, for which each page is compared.
 */
int capture_memory_running(struct model *m, struct image_set *set, struct dump_stats *stats,
			   int (*progress)(uint64_t done, uint64_t all));

/*
 * Fills mm.kin: which pages relatives have in common. The target may run: it is a hint for the restore. Returns 0 or a reported
 * -ENOMEM.
 */
int capture_kin(struct model *m);

/* Pipe contents and whatever else kinds have to read from the stopped target. */
int capture_files(struct model *m);

struct freeze;

/*
 * What the /proc back end of observe/ could not see (pending signals with siginfo, actions, timers, rseq, alternate
 * stacks, restart blocks, ...), by ptrace and the parasite. freeze_read_cpu() comes before it: threads are in ptrace
 * stops then, and registers tell who sleeps. Returns 0 or a reported negative errno.
 */
int capture_thread_state(struct freeze *f, struct model *m);

/*
 * The seccomp filters of every thread of the model that has some, into the model; threads are in stops of ptrace. Failures have
 * been reported. `judge`: nobody has looked yet whether somebody decides on calls by a descriptor; what may be so is refused.
 * And of one thread: *ret as thread.seccomp_filter.
 */
int capture_seccomp(struct model *m, bool judge);
int capture_seccomp_thread(struct model *m, pid_t pid, pid_t tid, uint32_t *ret);

#endif
