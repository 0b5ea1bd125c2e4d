/* Threads with different personalities: images have one for a process. */
#include <pthread.h>
#include <sys/personality.h>

#include "target.h"

static pthread_barrier_t built;

static void *thread_main(void *arg)
{
	CHECK(personality(SHORT_INODE) >= 0);
	pthread_barrier_wait(&built);
	for (;;)
		pause();
	return arg;
}

int main(void)
{
	pthread_t thread;

	CHECK(!pthread_barrier_init(&built, NULL, 2));
	CHECK(!pthread_create(&thread, NULL, thread_main, NULL));
	pthread_barrier_wait(&built);
	target_expect_refusal("has a personality(2) of its own, which is not supported");
	target_ready();
	return target_pass();
}
