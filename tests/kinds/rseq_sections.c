/*
 * Restartable sequences: four threads count in counters of their processors, without atomics, in sections so long that
 * each of them is in one whenever it is dumped. Who is not sent to the abort address after that writes an old number.
 */
#include <pthread.h>
#include <signal.h>

#include "rseq_counters.h"
#include "target.h"

enum { NR_THREADS = 4 };

int main(void)
{
	pthread_t threads[NR_THREADS];
	struct rseq_counting c = { .spin = 2000 };

	if (!rseq_area())
		target_skip("the C library has not registered rseq with the kernel");
	for (int i = 0; i < NR_THREADS; i++)
		CHECK(!pthread_create(&threads[i], NULL, rseq_count_forever, &c));
	while (__atomic_load_n(&c.commits, __ATOMIC_RELAXED) < 100)
		usleep(1000);
	target_ready();

	/* It goes on: none is stuck in its section. */
	unsigned long before = __atomic_load_n(&c.commits, __ATOMIC_RELAXED);
	while (__atomic_load_n(&c.commits, __ATOMIC_RELAXED) < before + 100)
		usleep(1000);
	__atomic_store_n(&c.stop, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < NR_THREADS; i++)
		CHECK(!pthread_join(threads[i], NULL));
	printf("%lu counted, %lu aborted\n", c.commits, c.aborts);
	CHECK(c.aborts > 0);
	CHECK_EQUAL(rseq_sum(&c), c.commits);
	return target_pass();
}
