/* The workload of bcr bench: a process that holds memory, writes to it, and watches the clock. */
#ifndef BCR_CMD_BENCH_LOAD_H
#define BCR_CMD_BENCH_LOAD_H

#include <stdint.h>
#include <sys/types.h>

struct bench_load_spec {
	uint64_t mib;      /* private memory, in 4 KiB pages */
	uint64_t threads;  /* in all, at least 1; the first watches the clock, the second writes, others sleep */
	uint64_t write_mb; /* MB/s that are dirtied at random pages; 0: none, and no writer */
};

struct bench_load;

/*
 * Starts the workload in a session of its own and returns when it has built its state. `dir` is a directory for a file that it
 * shares with bcr. It ends with bcr, however that ends. 0 or a reported negative errno.
 */
int bench_load_start(const struct bench_load_spec *spec, const char *dir, struct bench_load **ret);

pid_t bench_load_pid(const struct bench_load *l);

/* Gives it a version 2 cgroup of its own, so that the freezer can be used. Returns NULL, or why that cannot be. */
const char *bench_load_own_cgroup(struct bench_load *l);

/* The largest gap between two readings of the clock since the last call, nanoseconds. */
uint64_t bench_load_take_gap(struct bench_load *l);

/* Ends the workload and removes its cgroup; the file in `dir` stays. Accepts NULL. */
void bench_load_end(struct bench_load *l);

#endif
