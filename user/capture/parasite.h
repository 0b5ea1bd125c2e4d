/* The parasite from outside: injects it, has threads of one process make lists of system calls, takes it out again. */
#ifndef BCR_CAPTURE_PARASITE_H
#define BCR_CAPTURE_PARASITE_H

#include "capture/remote.h"

struct parasite {
	pid_t pid;
	taddr_t base; /* of its mapping in the target: code, then data */
};

enum { PARASITE_MAX_CALLS = 128, PARASITE_DATA_BYTES = 8192 };

/* A list of calls, and the data they read and write: `data` is copied in before and out afterwards. */
struct parasite_list {
	uint32_t nr_calls;
	struct {
		uint64_t nr;
		uint64_t args[6];
		int64_t ret;
	} calls[PARASITE_MAX_CALLS];
	uint32_t len_data;
	uint8_t data[PARASITE_DATA_BYTES];
};

/* Injects it by way of a stopped thread of the process. Failures of all of these have been reported. */
int parasite_inject(pid_t pid, pid_t tid, struct parasite *ret);

/* Address in the target of the next `len_bytes` of list data; *ret_offset is where they are in `data`. 0: too much. */
taddr_t parasite_data(const struct parasite *p, struct parasite_list *list, uint32_t len_bytes, uint32_t *ret_offset);

/* Appends a call; returns its index. The list must have room (asserted: lists are written in the source). */
uint32_t parasite_add(struct parasite_list *list, long nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d);

/* A stopped thread makes the calls; it is then in the same kind of stop, and as it was. */
int parasite_execute(const struct parasite *p, pid_t tid, struct parasite_list *list);

int parasite_remove(const struct parasite *p, pid_t tid);

#endif
