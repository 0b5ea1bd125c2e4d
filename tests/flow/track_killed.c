/*
 * The process that tracks is killed at random instants: the target goes on, computes the same, and none of its pages is
 * protected any more.
 */
#include "track_rig.h"

#include <poll.h>

#include "sys/pagemap.h"
#include "track/scan.h"

enum { BYTES = 32 << 20, NR_THREADS = 2, KILLS = 25 };

static uint8_t *memory;

/* Two halves of a page always say the same, but for the page being written. */
static void *write_on(void *arg)
{
	size_t from = (uintptr_t)arg * (BYTES / NR_THREADS / RIG_PAGE), nr = BYTES / NR_THREADS / RIG_PAGE;
	uint64_t random = (uintptr_t)arg + 77, *count = calloc(nr, sizeof(*count));

	while (!rig_shared->go) {
		size_t i = rig_random(&random) % nr;
		volatile uint64_t *page = (uint64_t *)(memory + (from + i) * RIG_PAGE);

		if (page[0] != count[i] || page[511] != count[i]) {
			snprintf(rig_shared->why, sizeof(rig_shared->why), "page %zu says %llu and %llu instead of %llu",
				 from + i, (unsigned long long)page[0], (unsigned long long)page[511],
				 (unsigned long long)count[i]);
			rig_shared->failures++;
			return NULL;
		}
		page[0] = page[511] = ++count[i];
		rig_shared->steps++;
	}
	return NULL;
}

static int target(void)
{
	pthread_t threads[NR_THREADS];

	memory = rig_memory(BYTES);
	memset(memory, 0, BYTES);
	for (uintptr_t i = 0; i < NR_THREADS; i++)
		pthread_create(&threads[i], NULL, write_on, (void *)i);
	rig_shared->ready = 1;
	for (int i = 0; i < NR_THREADS; i++)
		pthread_join(threads[i], NULL);
	return 0;
}

/* Tracks without end; says through the pipe when the memory is protected. */
static void track(struct rig *r, int ready_fd)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* The target is no child of this process. */
	rig_open(r, "wp-cow", NULL);
	r->compare = false;
	if (write(ready_fd, "x", 1) != 1)
		_exit(2);
	for (;;)
		rig_cut_once(r);
}

static int found_protected(void *arg, const struct page_range *r)
{
	*(uint64_t *)arg += (r->end - r->start) / RIG_PAGE;
	return 0;
}

static uint64_t protected_pages(pid_t pid)
{
	uint64_t nr = 0;
	int fd;

	RIG_NEED(!scan_open(pid, &fd));
	RIG_NEED(!scan_pages(fd, 0x1000, 0x7ffffffff000, PAGE_CAT_WPALLOWED, true, found_protected, &nr));
	close(fd);
	return nr;
}

/* The threads make progress again. */
static void expect_progress(pid_t pid)
{
	long before = rig_shared->steps;

	for (int i = 0; rig_shared->steps < before + 1000; i++) {
		if (i > 5000)
			rig_fail("pid %d does not go on (%s)", pid, rig_shared->why);
		usleep(1000);
	}
}

int main(void)
{
	uint64_t random = rig_now_ns(), seen = 0;
	struct rig r;

	log_set_modules(getenv("BCR_LOG"));
	rig_start(&r, target);
	for (int i = 0; i < KILLS; i++) {
		int ready[2], status;

		RIG_NEED(!pipe(ready));
		pid_t pid = fork();
		if (!pid)
			track(&r, ready[1]);
		close(ready[1]);
		char c;
		RIG_NEED(read(ready[0], &c, 1) == 1);
		close(ready[0]);
		/* The test itself can see that pages are protected. */
		seen += protected_pages(r.pid);
		usleep(rig_random(&random) % 50000);
		kill(pid, SIGKILL);
		RIG_NEED(waitpid(pid, &status, 0) == pid);
		if (!WIFSIGNALED(status))
			rig_fail("the tracking process ended by itself, status %#x", status);
		uint64_t left = protected_pages(r.pid);
		if (left)
			rig_fail("kill %d: %llu pages are still protected", i, (unsigned long long)left);
		expect_progress(r.pid);
	}
	if (!seen)
		rig_fail("no page was ever protected: nothing was tested");
	rig_end(&r);
	printf("%d kills\nPASS\n", KILLS);
	return 0;
}
