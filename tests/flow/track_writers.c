/* Threads write random pages as fast as they can while memory is cut and copied: every byte is that of the cut. */
#include "track_rig.h"

enum { BYTES = 64 << 20, NR_THREADS = 3, ROUNDS = 6 };

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
	/* Otherwise it would be a matter of the machine whether the target is held before a stop. */
	const struct track_env hold = { .hold_above = 1 };
	struct rig r;

	rig_start(&r, target);
	rig_open(&r, backend, &hold);
	for (int i = 0; i < ROUNDS; i++) {
		rig_cut(&r, 5);
		rig_print(&r, "random writers");
	}
	if (!strcmp(backend, "wp-cow") && !tracker_stats(r.tracker)->pages_saved)
		rig_fail("no page was saved before a write: nothing was tested");
	if (!strcmp(backend, "wp-cow") && !tracker_stats(r.tracker)->holds)
		rig_fail("the target was not held before a stop, although it writes faster than it can be followed");
	rig_close(&r);
	rig_end(&r);
}

int main(void)
{
	const char *backend;

	log_set_modules(getenv("BCR_LOG"));
	for (size_t i = 0; (backend = rig_backend(&i));)
		run(backend);
	puts("PASS");
	return 0;
}
