/*
 * A range of an address space in steps, for calls that hold its lock all the time: mmap(2), munmap(2), brk(2) and fork(2) of the target
 * wait for it. To protect a page takes 0.1 us, so 1 GiB in one call 26 ms.
 *
 * A step is a hole, however large, which takes hardly any time, and up to 16 MiB behind it. It ends at a multiple of that, so that no
 * huge page is cut.
 */
#ifndef BCR_TRACK_STEPS_H
#define BCR_TRACK_STEPS_H

#include <stdbool.h>
#include <stdint.h>

struct steps {
	uint64_t start, end; /* of this step */
	uint64_t until, begin_ns;
	int pagemap_fd;
};

/* `pagemap_fd`, of the address space, is borrowed; where it does not tell holes (before Linux 6.7) all is one step. */
struct steps steps_over(int pagemap_fd, uint64_t start, uint64_t end);

/* The next step is [s->start, s->end); false: there is none. Rests before it, so that whoever waits gets the lock. */
bool steps_next(struct steps *s);

/* From now on the target stands still, or runs again. While it does, nobody waits: everything is one step. */
void steps_stopped(bool stopped);

#endif
