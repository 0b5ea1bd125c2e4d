/*
 * The ring for saved pages is far too small: pages are lost, and the copy is refused, never wrong. With a ring that is only
 * small, the target is held while it is emptied. What never gets whole is copied inside the stop at last.
 */
#include "track_rig.h"

enum { BYTES = 64 << 20, NR_THREADS = 2 };

static uint8_t *memory;

static void *write_on(void *arg)
{
	uint64_t random = (uintptr_t)arg * 4711 + 1;

	while (!rig_shared->go)
		*(uint64_t *)(memory + rig_random(&random) % (BYTES / 8) * 8) = random;
	return NULL;
}

static int target(void)
{
	pthread_t threads[NR_THREADS];

	memory = rig_memory(BYTES);
	memset(memory, 1, BYTES);
	for (uintptr_t i = 0; i < NR_THREADS; i++)
		pthread_create(&threads[i], NULL, write_on, (void *)i);
	rig_shared->ready = 1;
	for (int i = 0; i < NR_THREADS; i++)
		pthread_join(threads[i], NULL);
	return 0;
}

/* Cuts until so many copies are whole, or the cuts are used up. Returns how many are not whole. */
static int run(const char *what, const char *backend, uint64_t ring_bytes, int wanted, int cuts)
{
	struct track_env env = { .ring_bytes = ring_bytes };
	struct rig r;

	rig_start(&r, target);
	rig_open(&r, backend, &env);
	for (int i = 0; i < cuts && wanted; i++) {
		int err = rig_cut_once(&r);

		r.retakes += err == -EAGAIN;
		wanted -= !err;
	}
	rig_print(&r, what);
	rig_close(&r);
	rig_end(&r);
	return wanted;
}

int main(void)
{
	log_set_modules(getenv("BCR_LOG"));
	rig_need_saving();
	if (!run("a ring of 64 KiB", "wp-cow", 64 << 10, 6, 6))
		rig_fail("no page was lost with a ring of 64 KiB: nothing was tested");
	run("a ring of 1 MiB", "wp-cow", 1 << 20, 6, 6);
	/* On a slow machine some copies are not whole, but not most of them. */
	if (run("a ring of 64 MiB", "wp-cow", 64 << 20, 5, 60))
		rig_fail("most copies are not whole although the ring is as large as memory");
	if (run("no tracking", "none", 0, 2, 2))
		rig_fail("a copy inside the stop was not whole");
	puts("PASS");
	return 0;
}
