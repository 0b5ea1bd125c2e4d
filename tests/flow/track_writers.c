/* Threads write random pages as fast as they can while memory is cut and copied: every byte is that of the cut. */
#include "track_rig.h"

enum { BYTES = 64 << 20, NR_THREADS = 3, ROUNDS = 6, MAX_ROUNDS = 60, NR_PLACES = 8 };

static uint8_t *memory;

static void *write_pairs(void *arg)
{
	uint64_t random = (uintptr_t)arg * 77777 + 1;

	while (!rig_shared->go) {
		size_t page = rig_random(&random) % (BYTES / RIG_PAGE);
		uint64_t *word = (uint64_t *)(memory + page * RIG_PAGE + rig_random(&random) % 512 * 8);

		*word = random;
		rig_shared->steps++;
	}
	return NULL;
}

static int target(void)
{
	pthread_t threads[NR_THREADS];

	memory = rig_memory(BYTES);
	memset(memory, 0x5a, BYTES);
	for (uintptr_t i = 0; i < NR_THREADS; i++)
		pthread_create(&threads[i], NULL, write_pairs, (void *)i);
	rig_shared->ready = 1;
	for (int i = 0; i < NR_THREADS; i++)
		pthread_join(threads[i], NULL);
	return 0;
}

static void run(const char *backend)
{
	struct rig r;

	rig_start(&r, target);
	rig_open(&r, backend, NULL);
	for (int i = 0; i < ROUNDS; i++) {
		rig_cut(&r, RIG_MAX_TRIES);
		rig_print(&r, "random writers");
	}
	if (!strcmp(backend, "wp-cow") && !tracker_stats(r.tracker)->pages_saved)
		rig_fail("no page was saved before a write: nothing was tested");
	rig_close(&r);
	rig_end(&r);
}

/* Writes some pages when it is asked to: `steps` says so, and is zero again afterwards. */
static int target_on_request(void)
{
	memory = rig_memory(BYTES);
	memset(memory, 0x5a, BYTES);
	rig_shared->ready = 1;
	while (!rig_shared->go) {
		if (rig_shared->steps) {
			for (size_t i = 0; i < NR_PLACES; i++)
				memory[i * (BYTES / NR_PLACES)]++;
			rig_shared->steps = 0;
		}
		sched_yield();
	}
	return 0;
}

static void request(void)
{
	rig_shared->steps = 1;
	while (rig_shared->steps)
		sched_yield();
}

/*
 * How much is left to the stop when a target writes without rest is a matter of the machine. Here it is known: places that
 * are too few for another round while it runs, and more than are left to the stop. The kernel itself may
 * take the lock of the target's memory meanwhile (to make a huge page): then there are no hints, everything is looked at in the
 * stop, and there is nothing to hold the target for.
 */
static void run_held(void)
{
	const struct track_env env = { .hold_above = NR_PLACES - 1 };
	int nr_held = 0;
	struct rig r;

	rig_start(&r, target_on_request);
	rig_open(&r, "wp-cow", &env);
	rig_before_follow = request;
	for (int i = 0; i < MAX_ROUNDS && nr_held < ROUNDS; i++) {
		uint64_t holds = tracker_stats(r.tracker)->holds;

		rig_cut(&r, RIG_MAX_TRIES);
		rig_print(&r, "held before the stop");
		if (tracker_stats(r.tracker)->holds != holds)
			nr_held++;
		else if (!tracker_stats(r.tracker)->cut_full)
			rig_fail("the target was not held before a stop, although more was left than there may be");
	}
	if (nr_held < ROUNDS)
		rig_fail("of %d cuts only %d followed hints: nothing was tested", MAX_ROUNDS, nr_held);
	rig_before_follow = NULL;
	rig_close(&r);
	rig_end(&r);
}

int main(void)
{
	const char *backend;

	log_set_modules(getenv("BCR_LOG"));
	for (size_t i = 0; (backend = rig_backend(&i));) {
		run(backend);
		if (!strcmp(backend, "wp-cow"))
			run_held();
	}
	puts("PASS");
	return 0;
}
