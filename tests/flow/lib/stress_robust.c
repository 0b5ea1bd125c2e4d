/*
 * Robust mutexes: threads take them in turns, change what they guard in two steps, and now and then one ends while it
 * holds one, half way. Whoever comes next must be told so, mends it, and goes on. Half of the mutexes inherit priority.
 */
#include <pthread.h>

#include "stress.h"

enum { NR_WORKERS = 4, NR_MUTEXES = 4, DEATHS_PER_1000 = 20 };

struct guarded {
	pthread_mutex_t mutex;
	volatile unsigned long a, b; /* equal, but while somebody holds the mutex */
	unsigned long broken;        /* holders that ended; known to the next one */
};

static struct guarded guarded[NR_MUTEXES];
static unsigned long rounds, deaths, told;
static int stop;

static void spend(uint64_t *state)
{
	for (uint32_t i = stress_random(state) % 3000; i; i--)
		__asm__ volatile("pause");
	if (stress_random(state) % 4 == 0)
		self_nap(300000);
}

/* True: the thread is to end where it is. */
static bool one_turn(uint64_t *state)
{
	struct guarded *g = &guarded[stress_random(state) % NR_MUTEXES];
	int err = pthread_mutex_lock(&g->mutex);

	if (err == EOWNERDEAD) {
		CHECK(g->a == g->b + 1, "its holder ended half way, and a is %lu, b %lu", g->a, g->b);
		g->b = g->a;
		__atomic_add_fetch(&told, 1, __ATOMIC_SEQ_CST);
		CHECK(pthread_mutex_consistent(&g->mutex) == 0, "a mutex cannot be mended");
	} else {
		CHECK(err == 0, "a mutex cannot be taken: %s", strerror(err));
	}
	CHECK(g->a == g->b, "a is %lu, b %lu: two have held one mutex", g->a, g->b);
	g->a++;
	spend(state);
	__atomic_add_fetch(&rounds, 1, __ATOMIC_SEQ_CST);
	if (stress_random(state) % 1000 < DEATHS_PER_1000) {
		__atomic_add_fetch(&deaths, 1, __ATOMIC_SEQ_CST);
		return true;
	}
	g->b++;
	CHECK(pthread_mutex_unlock(&g->mutex) == 0, "a mutex cannot be let go");
	spend(state);
	return false;
}

static void *work(void *arg)
{
	uint64_t state = (uintptr_t)arg;

	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED))
		if (one_turn(&state))
			break;
	return NULL;
}

/* Each of them has one worker after the other. */
static void *employ(void *arg)
{
	uintptr_t seed = (uintptr_t)arg;
	pthread_t worker;

	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		seed += 0x9e3779b97f4a7c15;
		CHECK(pthread_create(&worker, NULL, work, (void *)seed) == 0, "no thread");
		CHECK(pthread_join(worker, NULL) == 0, "no end of a thread");
	}
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t threads[NR_WORKERS];
	pthread_mutexattr_t attr;

	self_init(argc, argv);
	stress_begin();
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	for (int i = 0; i < NR_MUTEXES; i++) {
		pthread_mutexattr_setprotocol(&attr, i % 2 ? PTHREAD_PRIO_INHERIT : PTHREAD_PRIO_NONE);
		CHECK(pthread_mutex_init(&guarded[i].mutex, &attr) == 0, "no mutex");
	}
	for (int i = 0; i < NR_WORKERS; i++)
		CHECK(pthread_create(&threads[i], NULL, employ, (void *)(uintptr_t)(i + 1)) == 0, "no thread");
	stress_progress(0);
	self_ready();
	while (!stress_ends()) {
		stress_progress(__atomic_load_n(&rounds, __ATOMIC_SEQ_CST));
		self_nap(2000000);
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < NR_WORKERS; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < NR_MUTEXES; i++) {
		int err = pthread_mutex_lock(&guarded[i].mutex);

		told += err == EOWNERDEAD;
		CHECK(err == 0 || err == EOWNERDEAD, "mutex %d: %s", i, strerror(err));
	}
	printf("%lu turns, %lu holders ended\n", rounds, deaths);
	CHECK(deaths > 0 && told == deaths, "%lu ended holding a mutex, and %lu times somebody was told so", deaths, told);
	self_pass();
}
