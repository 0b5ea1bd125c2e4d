/*
 * The order rule of bpf/track.bpf.c, and that its violation would be noticed: two threads write to the same pages at the same
 * time. The program as it is, but dwelling before and after it reads a page until the other thread has written it, makes copies that
 * are those of the cut. With the number taken first, which it does in a build for this test, it does not: if that passes, too,
 * nothing is tested.
 */
#include "tests/bpf/track.skel.h"

#include <sched.h>

#include "track_rig.h"

static unsigned number_first;

/* Looks at the page, some 20 ns each: far longer than another thread needs to save the page, too, and write it. */
enum { DWELL = 1000 };

static int load_as_told(struct track_bpf *skel)
{
	skel->rodata->number_first = number_first;
	skel->rodata->dwell = DWELL;
	return track_bpf__load(skel);
}
#define track_bpf__load load_as_told
#include "../../user/track/cow.c"
#undef track_bpf__load

enum { PAGES = 8192, BYTES = PAGES * RIG_PAGE, NR_THREADS = 2, CUTS = 4, MAX_CUTS = 300, ENOUGH = PAGES / 100 };

static uint8_t *memory;
static atomic_uint arrived;

/* All threads leave at once, as far as there are processors. */
static void meet(unsigned *round)
{
	unsigned all = ++*round * NR_THREADS;

	arrived++;
	for (unsigned spins = 0; (int)(arrived - all) < 0 && !rig_shared->go; spins++)
		if (spins > 2000)
			sched_yield();
}

/* The first processor this process may use whose number is even, or odd. */
static void run_on(bool odd)
{
	cpu_set_t may, one;

	sched_getaffinity(0, sizeof(may), &may);
	for (int cpu = odd; cpu < CPU_SETSIZE; cpu += 2) {
		if (!CPU_ISSET(cpu, &may))
			continue;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		sched_setaffinity(0, sizeof(one), &one);
		return;
	}
}

/* From the end to the beginning: the copier comes the other way. */
static void *write_together(void *arg)
{
	uintptr_t me = (uintptr_t)arg;
	uint64_t random = me + 1;
	unsigned round = 0;

	/* Whoever is on an odd processor dwells. */
	run_on(me);
	while (!rig_shared->go) {
		for (size_t i = PAGES; i-- && !rig_shared->go;) {
			meet(&round);
			((volatile uint64_t *)(memory + i * RIG_PAGE))[me] = rig_random(&random);
			rig_shared->steps++;
		}
	}
	return NULL;
}

static int target(void)
{
	pthread_t threads[NR_THREADS];

	memory = rig_memory(BYTES);
	memset(memory, 1, BYTES);
	for (uintptr_t i = 0; i < NR_THREADS; i++)
		pthread_create(&threads[i], NULL, write_together, (void *)i);
	rig_shared->ready = 1;
	for (int i = 0; i < NR_THREADS; i++)
		pthread_join(threads[i], NULL);
	return 0;
}

/* Ends this process as failed when a copy is not that of the cut. */
static void run(int cuts)
{
	struct track_env env = { .ring_bytes = 4 * BYTES };
	struct rig r;

	rig_start(&r, target);
	rig_open(&r, "wp-cow", &env);
	/* A machine that stands still while it is copied leaves no page to save: on until some were. */
	for (int i = 0; i < cuts || (tracker_stats(r.tracker)->pages_saved < ENOUGH && i < MAX_CUTS); i++)
		rig_cut(&r, RIG_MAX_TRIES);
	rig_print(&r, number_first ? "number first" : "page first");
	if (tracker_stats(r.tracker)->pages_saved < ENOUGH)
		rig_fail("hardly a page was saved before a write: nothing was tested");
	rig_close(&r);
	rig_end(&r);
}

int main(void)
{
	int status;

	log_set_modules(getenv("BCR_LOG"));
	rig_need_saving();
	if (sysconf(_SC_NPROCESSORS_ONLN) < 2) {
		puts("two threads write at the same time on two processors only");
		return 77;
	}
	run(CUTS);
	fflush(stdout);
	number_first = 1;
	pid_t pid = fork();
	if (!pid) {
		run(MAX_CUTS);
		_exit(0);
	}
	RIG_NEED(waitpid(pid, &status, 0) == pid);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != RIG_STATUS_DIFFERENT)
		rig_fail("of %d copies with the number taken before the page was read none was found wrong", MAX_CUTS);
	puts("and that is what had to happen: the violation is noticed\nPASS");
	return 0;
}
