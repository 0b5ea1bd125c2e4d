/*
 * Threads change words of a large memory at random and keep a tree of checksums of it up to date. Arguments: MiB, threads,
 * microseconds each rests between two changes; "processes": all threads but the first are processes in the same memory.
 *
 * Every change adds the same difference to the word, the sum of its page and the sums above that, in pages of their own and one
 * after the other. What a snapshot loses or gets twice of that stays a difference for ever, however long the threads go on:
 * it need not be looked at in the very moment. When a file "check" appears, all threads finish their change, the tree is
 * computed anew and compared, and the number of checks so far is in the file "checked". Threads count their changes on
 * their stacks, pages count those made to them.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "self.h"

enum { PAGE = 4096, WORDS = PAGE / 8, FANOUT = 64, MAX_LEVELS = 6, LOCKS = 1024, MAX_THREADS = 64, STACK_BYTES = 64 << 10 };

static uint64_t *leaves;
static size_t nr_leaves;
static _Atomic uint64_t *sums[MAX_LEVELS]; /* of the pages, of FANOUT of these sums each, ... */
static size_t nr_sums[MAX_LEVELS];
static int nr_levels;
static pthread_mutex_t locks[LOCKS];
static int nr_threads;
static long rest_ns;
static uint64_t *counts[MAX_THREADS]; /* on their stacks */

static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool hold, end;
	int held;
} all = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };
static atomic_bool hold;

static uint64_t next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* A word moved elsewhere changes the sum too. */
static uint64_t weight(size_t place)
{
	return 2 * place + 1;
}

static void add_upwards(size_t leaf, uint64_t difference)
{
	size_t at = leaf;

	for (int level = 0; level < nr_levels; level++) {
		sums[level][at] += difference;
		difference *= weight(at % FANOUT);
		at /= FANOUT;
	}
}

static void change(size_t leaf, size_t word, uint64_t value)
{
	uint64_t *page = leaves + leaf * WORDS;
	pthread_mutex_t *lock = &locks[leaf % LOCKS];

	pthread_mutex_lock(lock);
	uint64_t difference = (value - page[word]) * weight(word) + weight(0);
	page[0]++;
	page[word] = value;
	add_upwards(leaf, difference);
	pthread_mutex_unlock(lock);
}

/* False: the end. */
static bool stand_still(void)
{
	pthread_mutex_lock(&all.lock);
	all.held++;
	pthread_cond_broadcast(&all.changed);
	while (all.hold)
		pthread_cond_wait(&all.changed, &all.lock);
	all.held--;
	bool end = all.end;
	pthread_mutex_unlock(&all.lock);
	return !end;
}

static void *worker(void *arg)
{
	uint64_t random = 0x9e3779b97f4a7c15 * ((uintptr_t)arg + 1), count = 0;

	counts[(uintptr_t)arg] = &count;
	do {
		for (; !hold; count++) {
			uint64_t n = next(&random);

			change(n % nr_leaves, 1 + (n >> 40) % (WORDS - 1), next(&random));
			if (rest_ns)
				self_nap(rest_ns);
		}
	} while (stand_still());
	return NULL;
}

static void hold_all(void)
{
	pthread_mutex_lock(&all.lock);
	all.hold = true;
	hold = true;
	while (all.held < nr_threads)
		pthread_cond_wait(&all.changed, &all.lock);
	pthread_mutex_unlock(&all.lock);
}

static void release_all(bool end)
{
	pthread_mutex_lock(&all.lock);
	all.end = end;
	all.hold = false;
	hold = false;
	pthread_cond_broadcast(&all.changed);
	pthread_mutex_unlock(&all.lock);
}

static uint64_t sum_of_page(size_t leaf)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < WORDS; i++)
		sum += leaves[leaf * WORDS + i] * weight(i);
	return sum;
}

/* All stand still. */
static void check_tree(void)
{
	uint64_t made = 0, counted = 0;

	for (size_t i = 0; i < nr_leaves; i++) {
		uint64_t sum = sum_of_page(i);

		made += leaves[i * WORDS];
		CHECK(sum == sums[0][i], "page %zu of %zu: the tree says %#llx, it is %#llx (%llu changes)", i, nr_leaves,
		      (unsigned long long)sums[0][i], (unsigned long long)sum, (unsigned long long)leaves[i * WORDS]);
	}
	for (int level = 1; level < nr_levels; level++) {
		for (size_t i = 0; i < nr_sums[level]; i++) {
			uint64_t sum = 0;

			for (size_t j = i * FANOUT; j < (i + 1) * FANOUT && j < nr_sums[level - 1]; j++)
				sum += sums[level - 1][j] * weight(j % FANOUT);
			CHECK(sum == sums[level][i], "level %d node %zu: the tree says %#llx, it is %#llx", level, i,
			      (unsigned long long)sums[level][i], (unsigned long long)sum);
		}
	}
	for (int i = 0; i < nr_threads; i++)
		counted += *counts[i];
	CHECK(made == counted, "%llu changes in the pages, %llu by the threads", (unsigned long long)made,
	      (unsigned long long)counted);
}

static void *map(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	NEED(p != MAP_FAILED);
	return p;
}

static void build(size_t bytes)
{
	uint64_t random = 88172645463325252;

	nr_leaves = bytes / PAGE;
	leaves = map(bytes);
	for (size_t nr = nr_leaves;; nr = (nr + FANOUT - 1) / FANOUT) {
		NEED(nr_levels < MAX_LEVELS);
		nr_sums[nr_levels] = nr;
		sums[nr_levels++] = map(nr * sizeof(*sums[0]));
		if (nr == 1)
			break;
	}
	for (size_t i = 0; i < nr_leaves; i++) {
		for (size_t j = 1; j < WORDS; j++)
			leaves[i * WORDS + j] = next(&random);
		add_upwards(i, sum_of_page(i));
	}
	for (int i = 0; i < LOCKS; i++)
		pthread_mutex_init(&locks[i], NULL);
}

static void check_when_told(void)
{
	char text[24];

	for (int nr = 1; access("go", F_OK); self_nap(2000000)) {
		if (access("check", F_OK))
			continue;
		hold_all();
		check_tree();
		NEED(!unlink("check"));
		snprintf(text, sizeof(text), "%d\n", nr++);
		self_write_file("checked", text);
		release_all(false);
	}
}

static int process_main(void *arg)
{
	worker(arg);
	_exit(0);
	return 0;
}

/*
 * A process needs little of the C library here, whose thread-local data it has in common with the main thread. (A first thread
 * makes the library lock as if there were several.)
 */
static void start_process(uintptr_t i)
{
	char *stack = map(STACK_BYTES);

	NEED(clone(process_main, stack + STACK_BYTES, CLONE_VM | SIGCHLD, (void *)i) > 0);
}

int main(int argc, char **argv)
{
	pthread_t threads[MAX_THREADS];
	int nr_processes = 0, status;

	self_init(argc, argv);
	NEED(argc >= 5 && atoi(argv[2]) > 0 && atoi(argv[3]) > 0 && atoi(argv[3]) <= MAX_THREADS);
	build((size_t)atoi(argv[2]) << 20);
	nr_threads = atoi(argv[3]);
	rest_ns = atol(argv[4]) * 1000;
	for (uintptr_t i = 0; i < (uintptr_t)nr_threads; i++) {
		if (i && argc > 5) {
			start_process(i);
			nr_processes++;
			continue;
		}
		NEED(!pthread_create(&threads[i], NULL, worker, (void *)i));
	}
	self_ready();
	check_when_told();
	hold_all();
	check_tree();
	release_all(true);
	for (int i = 0; i < nr_threads - nr_processes; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < nr_processes; i++)
		CHECK(wait(&status) > 0 && !status, "a process ended with status %#x", status);
	self_pass();
}
