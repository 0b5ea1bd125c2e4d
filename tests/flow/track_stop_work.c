/*
 * The stop looks at as few places for 1 GiB as for 64 MiB, and at few when 100 MB/s are written: those where something was
 * written. Prints what that took; every last copy is compared.
 * timeout: 600
 */
#include "track_rig.h"

enum { ROUNDS = 7, RATE_PAGES_PER_MS = 25, MOST_PLACES = 2048, MOST_COPIED = 64 };

static size_t memory_bytes;
static bool writes;

static int target(void)
{
	uint8_t *memory = rig_memory(memory_bytes);
	uint64_t random = 4711, begin_ns;

	for (size_t i = 0; i < memory_bytes; i += 8)
		*(uint64_t *)(memory + i) = rig_random(&random);
	rig_shared->ready = 1;
	begin_ns = rig_now_ns();
	while (!rig_shared->go) {
		/* As many pages as time has passed, every millisecond. */
		while (writes && (rig_now_ns() - begin_ns) / 1000000 * RATE_PAGES_PER_MS > (uint64_t)rig_shared->steps) {
			memory[rig_random(&random) % (memory_bytes / RIG_PAGE) * RIG_PAGE] = random;
			rig_shared->steps++;
		}
		usleep(1000);
	}
	return 0;
}

static int order(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void run(const char *what, size_t bytes, bool write)
{
	uint64_t stops[ROUNDS], cuts[ROUNDS];
	int nr_good = 0;
	struct rig r;

	memory_bytes = bytes;
	writes = write;
	rig_start(&r, target);
	uint64_t begin_ns = rig_now_ns();
	rig_open(&r, "wp-cow", NULL);
	printf("%s: opened in %llu ms\n", what, (unsigned long long)(rig_now_ns() - begin_ns) / 1000000);
	for (int i = 0; i < ROUNDS; i++) {
		r.compare = i == ROUNDS - 1;
		rig_cut(&r, RIG_MAX_TRIES);
		if (!r.compare)
			rig_print(&r, what);
		const struct track_stats *now = tracker_stats(r.tracker);

		stops[i] = r.stop_ns;
		cuts[i] = now->cut_us;
		nr_good += !now->cut_full && now->cut_hints <= MOST_PLACES && now->cut_pages_copied <= MOST_COPIED;
	}
	rig_print(&r, what);
	rig_close(&r);
	rig_end(&r);
	qsort(stops, ROUNDS, sizeof(*stops), order);
	qsort(cuts, ROUNDS, sizeof(*cuts), order);
	printf("%s: median stop %llu us (least %llu), of it cut %llu us (least %llu)\n", what,
	       (unsigned long long)stops[ROUNDS / 2] / 1000, (unsigned long long)stops[0] / 1000,
	       (unsigned long long)cuts[ROUNDS / 2], (unsigned long long)cuts[0]);
	/* When the kernel itself takes the lock of the memory (to make a huge page, say), a stop looks everywhere. */
	if (nr_good <= ROUNDS / 2)
		rig_fail("%s: only %d of %d stops looked at few places", what, nr_good, ROUNDS);
}

int main(void)
{
	log_set_modules(getenv("BCR_LOG"));
	rig_need_saving();
	/* What is measured writes gigabytes: not to a disk, if that can be helped. */
	if (!access("/dev/shm", W_OK))
		rig_base = "/dev/shm";
	run("64 MiB idle", 64 << 20, false);
	run("1 GiB idle", 1 << 30, false);
	run("1 GiB, 100 MB/s", 1 << 30, true);
	puts("PASS");
	return 0;
}
