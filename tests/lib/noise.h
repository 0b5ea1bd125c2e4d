/*
 * By how much the machine is late: a thread on each processor sleeps a millisecond at a time, and sees how long it was. What a test
 * says about the end of a wait holds but for this: a machine, or a processor, that stands still for a second ends waits a second
 * later.
 */
#ifndef TESTS_LIB_NOISE_H
#define TESTS_LIB_NOISE_H

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>

enum { NOISE_MAX_CPUS = 256 };

struct noise {
	pthread_t threads[NOISE_MAX_CPUS];
	int nr_threads;
	atomic_bool stop;
	atomic_long late_ns; /* by how much at most, so far */
};

static void *noise_listen(void *arg)
{
	struct noise *n = arg;

	while (!n->stop) {
		struct timespec before, now;

		clock_gettime(CLOCK_MONOTONIC, &before);
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
		clock_gettime(CLOCK_MONOTONIC, &now);
		long late_ns = (now.tv_sec - before.tv_sec) * 1000000000 + now.tv_nsec - before.tv_nsec - 1000000;
		for (long seen = n->late_ns; seen < late_ns && !atomic_compare_exchange_weak(&n->late_ns, &seen, late_ns);)
			;
	}
	return NULL;
}

/* Begins to listen in threads of the calling process, which is not to be the one that is stopped. False: there is no thread. */
static inline bool noise_start(struct noise *n)
{
	cpu_set_t may, one;

	n->stop = false;
	n->late_ns = n->nr_threads = 0;
	sched_getaffinity(0, sizeof(may), &may);
	for (int cpu = 0; cpu < CPU_SETSIZE && n->nr_threads < NOISE_MAX_CPUS; cpu++) {
		if (!CPU_ISSET(cpu, &may))
			continue;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		if (pthread_create(&n->threads[n->nr_threads], NULL, noise_listen, n))
			return false;
		pthread_setaffinity_np(n->threads[n->nr_threads++], sizeof(one), &one);
	}
	return n->nr_threads;
}

/* Ends it; returns by how many nanoseconds a sleep was late at most. */
static inline long noise_end(struct noise *n)
{
	n->stop = true;
	for (int i = 0; i < n->nr_threads; i++)
		pthread_join(n->threads[i], NULL);
	return n->late_ns;
}

#endif
