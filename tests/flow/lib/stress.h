/*
 * What stress programs share (tests/lib/stress.sh dumps them at random moments): progress in the file `rounds`, which the
 * test waits for after each dump, and an end when the test says go.
 */
#ifndef TESTS_FLOW_LIB_STRESS_H
#define TESTS_FLOW_LIB_STRESS_H

#include "self.h"

static int stress_fd = -1;

static inline void stress_begin(void)
{
	stress_fd = open("rounds", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	NEED(stress_fd >= 0);
}

/* The length never changes: a restored file is the one that was dumped. */
static inline void stress_progress(unsigned long rounds)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%012lu\n", rounds);

	NEED(pwrite(stress_fd, text, len, 0) == len);
}

static inline int stress_ends(void)
{
	return access("go", F_OK) == 0;
}

/* Cheap numbers that differ; `state` is the caller's, not 0. */
static inline uint32_t stress_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state >> 32;
}

#endif
