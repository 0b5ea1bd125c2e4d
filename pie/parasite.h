/*
 * What the parasite is asked for: a list of system calls, made by a thread of the target. Shared by the blob and
 * user/capture/parasite.c.
 */
#ifndef BCR_PIE_PARASITE_H
#define BCR_PIE_PARASITE_H

#include <stdint.h>

struct parasite_call {
	uint64_t nr;
	uint64_t args[6]; /* addresses are the target's */
	int64_t ret;      /* as the kernel returned it */
};

_Static_assert(sizeof(struct parasite_call) == 64, "the blob's layout");

struct parasite_batch {
	uint32_t nr_calls;
	uint32_t nr_done; /* the blob counts here */
	uint64_t sigframe; /* stack pointer for rt_sigreturn */
	struct parasite_call calls[];
};

_Static_assert(sizeof(struct parasite_batch) == 16, "the blob's layout");

#endif
