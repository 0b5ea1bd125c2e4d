/* As many supplementary groups as there can be, shared by threads; one of which has others, just more than BPF keeps in a record. */
#include <grp.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/syscall.h>

#include "target.h"

enum { MANY = 65536, SOME = 33, NR_THREADS = 6, ODD = 3 };

static gid_t many[MANY], some[SOME];
static pthread_barrier_t built, look;

static void check_groups(const gid_t *want, int nr)
{
	static __thread gid_t now[MANY];

	CHECK_EQUAL(syscall(SYS_getgroups, MANY, now), nr);
	CHECK(!memcmp(now, want, nr * sizeof(*now)));
}

static void *thread_main(void *arg)
{
	bool odd = (long)arg == ODD;

	if (odd)
		CHECK(!syscall(SYS_setgroups, SOME, some));
	pthread_barrier_wait(&built);
	pthread_barrier_wait(&look);
	check_groups(odd ? some : many, odd ? SOME : MANY);
	return NULL;
}

int main(void)
{
	pthread_t threads[NR_THREADS];

	for (int i = 0; i < MANY; i++)
		many[i] = 100000 + 3 * i;
	for (int i = 0; i < SOME; i++)
		some[i] = 5 + i;
	CHECK(!syscall(SYS_setgroups, MANY, many));
	CHECK(!pthread_barrier_init(&built, NULL, NR_THREADS + 1));
	CHECK(!pthread_barrier_init(&look, NULL, NR_THREADS + 1));
	for (long i = 0; i < NR_THREADS; i++)
		CHECK(!pthread_create(&threads[i], NULL, thread_main, (void *)i));
	pthread_barrier_wait(&built);
	target_ready();
	pthread_barrier_wait(&look);
	check_groups(many, MANY);
	for (int i = 0; i < NR_THREADS; i++)
		CHECK(!pthread_join(threads[i], NULL));
	return target_pass();
}
