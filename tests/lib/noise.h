/*
 * By how much the machine is late: a thread that sleeps a millisecond at a time, and sees how long it was. What a test says
 * about the end of a wait holds but for this: a machine that stands still for a second ends every wait a second later.
 */
#ifndef TESTS_LIB_NOISE_H
#define TESTS_LIB_NOISE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>

struct noise {
	pthread_t thread;
	atomic_bool stop;
	atomic_long late_ms; /* the longest so far */
};

static void *noise_listen(void *arg)
{
	struct noise *n = arg;

	while (!n->stop) {
		struct timespec before, now;

		clock_gettime(CLOCK_MONOTONIC, &before);
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
		clock_gettime(CLOCK_MONOTONIC, &now);
		long ms = (now.tv_sec - before.tv_sec) * 1000 + (now.tv_nsec - before.tv_nsec) / 1000000;
		if (ms > n->late_ms)
			n->late_ms = ms;
	}
	return NULL;
}

/* Begins to listen in a thread of the calling process, which is not to be the one that is stopped. False: there is no thread. */
static inline bool noise_start(struct noise *n)
{
	n->stop = false;
	n->late_ms = 0;
	return !pthread_create(&n->thread, NULL, noise_listen, n);
}

/* Ends it; returns by how many milliseconds a sleep was late at most. */
static inline long noise_end(struct noise *n)
{
	n->stop = true;
	pthread_join(n->thread, NULL);
	return n->late_ms;
}

#endif
