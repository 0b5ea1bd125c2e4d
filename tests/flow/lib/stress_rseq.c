/* Counting per processor in restartable sequences, by more threads than there are processors, the main thread included. */
#include <pthread.h>

#include "rseq_counters.h"
#include "stress.h"

enum { NR_THREADS = 3 };

static struct rseq_counting counting = { .spin = 3000 };

int main(int argc, char **argv)
{
	pthread_t threads[NR_THREADS];

	self_init(argc, argv);
	NEED(rseq_area() != NULL);
	stress_begin();
	for (int i = 0; i < NR_THREADS; i++)
		CHECK(pthread_create(&threads[i], NULL, rseq_count_forever, &counting) == 0, "no thread");
	for (unsigned long i = 0; !stress_ends(); i++) {
		stress_progress(i);
		for (int k = 0; k < 100; k++)
			rseq_count(&counting);
		if (i == 10)
			self_ready();
	}
	__atomic_store_n(&counting.stop, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < NR_THREADS; i++)
		pthread_join(threads[i], NULL);
	printf("%lu counted, %lu aborted\n", counting.commits, counting.aborts);
	CHECK(counting.aborts > 0, "nothing was ever aborted");
	CHECK(rseq_sum(&counting) == counting.commits, "%lu in the counters, %lu counted", rseq_sum(&counting),
	      counting.commits);
	self_pass();
}
