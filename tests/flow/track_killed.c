/*
 * The process that tracks, or copies ahead, is killed at random instants, of its opening as well: the target goes on, computes the same, and none of its
 * pages is protected any more. The page map says so, and writes do: while pages are protected the first write to each is a
 * fault and takes its time, afterwards none is. KILLS in the environment: how many, 25; 500 is the full size.
 * timeout: 900
 */
#include "track_rig.h"

#include <sys/resource.h>

#include "sys/pagemap.h"
#include "track/precopy.h"
#include "track/scan.h"

enum { BYTES = 32 << 20, NR_THREADS = 2, KILLS = 25, SWEPT_PAGES = 1024, OPEN_US = 60000, TRACK_US = 50000 };

static uint8_t *memory, *swept;

/* Shared with the target: one write to each of some pages, on order. */
static struct {
	atomic_int wanted, done;
	long faults;
	uint64_t cpu_ns;
} *sweep;

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

static uint64_t thread_cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void *sweep_on(void *arg)
{
	struct rusage before, after;

	while (!rig_shared->go) {
		if (sweep->wanted == sweep->done) {
			usleep(200);
			continue;
		}
		getrusage(RUSAGE_THREAD, &before);
		uint64_t begin_ns = thread_cpu_ns();
		for (size_t i = 0; i < SWEPT_PAGES; i++)
			(*(volatile uint64_t *)(swept + i * RIG_PAGE))++;
		sweep->cpu_ns = thread_cpu_ns() - begin_ns;
		getrusage(RUSAGE_THREAD, &after);
		sweep->faults = after.ru_minflt - before.ru_minflt;
		sweep->done++;
	}
	return NULL;
}

static int target(void)
{
	pthread_t threads[NR_THREADS], sweeper;

	memory = rig_memory(BYTES);
	memset(memory, 0, BYTES);
	swept = rig_memory(SWEPT_PAGES * RIG_PAGE);
	madvise(swept, SWEPT_PAGES * RIG_PAGE, MADV_NOHUGEPAGE);
	memset(swept, 1, SWEPT_PAGES * RIG_PAGE);
	pthread_create(&sweeper, NULL, sweep_on, NULL);
	for (uintptr_t i = 0; i < NR_THREADS; i++)
		pthread_create(&threads[i], NULL, write_on, (void *)i);
	rig_shared->ready = 1;
	for (int i = 0; i < NR_THREADS; i++)
		pthread_join(threads[i], NULL);
	pthread_join(sweeper, NULL);
	return 0;
}

static void order_sweep(pid_t pid)
{
	sweep->wanted++;
	for (int i = 0; sweep->done != sweep->wanted; i++) {
		if (i > 100000)
			rig_fail("pid %d: the thread that sweeps does not go on", pid);
		usleep(100);
	}
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

static int no_progress(uint64_t done, uint64_t all)
{
	return 0;
}

/* Copies ahead without end. */
static void copy_ahead(struct rig *r, int ready_fd)
{
	struct track_env env = { .arg = r, .userfaultfd = rig_userfaultfd, .pause = rig_pause };
	struct precopy *p;
	uint64_t nr;
	int dirfd;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	rig_open(r, "none", NULL);
	struct image_set *set = rig_set(r, "ahead", &dirfd);
	RIG_NEED(!precopy_open(&env, set, &p));
	for (bool first = true;; first = false) {
		struct model *running = rig_observe(r, false);

		RIG_NEED(!precopy_round(p, running, &nr, no_progress));
		model_destroy(running);
		if (first && write(ready_fd, "x", 1) != 1)
			_exit(2);
	}
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

/* The least that a write took while pages were protected, and afterwards; 0: none was seen. The processor's time has what others stole. */
static uint64_t armed_ns, after_ns;

static void note_sweep(bool is_after)
{
	uint64_t *least_ns = is_after ? &after_ns : &armed_ns, ns = sweep->cpu_ns / SWEPT_PAGES;

	if (!is_after && sweep->faults < SWEPT_PAGES)
		return; /* it was not protected as a whole at that moment */
	if (!*least_ns || ns < *least_ns)
		*least_ns = ns;
}

/* Starts to track, and is killed: while it opens, or while it tracks. */
static void kill_once(struct rig *r, int nr, uint64_t *random, uint64_t *seen)
{
	int ready[2], status;
	bool opening = nr % 2;
	char c;

	RIG_NEED(!pipe(ready));
	pid_t pid = fork();
	if (!pid)
		(nr % 4 ? track : copy_ahead)(r, ready[1]);
	close(ready[1]);
	if (!opening) {
		RIG_NEED(read(ready[0], &c, 1) == 1);
		/* The test itself can see that pages are protected. */
		*seen += protected_pages(r->pid);
		order_sweep(r->pid);
		note_sweep(false);
	}
	usleep(rig_random(random) % (opening ? OPEN_US : TRACK_US));
	kill(pid, SIGKILL);
	RIG_NEED(waitpid(pid, &status, 0) == pid);
	close(ready[0]);
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		rig_fail("the tracking process ended by itself, status %#x", status);
}

static void expect_unprotected(pid_t pid, int nr)
{
	uint64_t left = protected_pages(pid);

	if (left)
		rig_fail("kill %d: %llu pages are still protected", nr, (unsigned long long)left);
	order_sweep(pid);
	order_sweep(pid);
	note_sweep(true);
	if (sweep->faults)
		rig_fail("kill %d: of the second writes to %d pages, %ld were faults", nr, SWEPT_PAGES, sweep->faults);
}

int main(void)
{
	int kills = getenv("KILLS") ? atoi(getenv("KILLS")) : KILLS;
	uint64_t random = rig_now_ns(), seen = 0;
	struct rig r;

	log_set_modules(getenv("BCR_LOG"));
	rig_need_saving();
	sweep = mmap(NULL, sizeof(*sweep), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	RIG_NEED(sweep != MAP_FAILED);
	rig_start(&r, target);
	for (int i = 0; i < kills; i++) {
		kill_once(&r, i, &random, &seen);
		expect_unprotected(r.pid, i);
		expect_progress(r.pid);
	}
	if (!seen || !armed_ns)
		rig_fail("no page was ever protected: nothing was tested");
	printf("a write to a page: %llu ns while protected, %llu ns after a kill\n", (unsigned long long)armed_ns,
	       (unsigned long long)after_ns);
	if (after_ns > armed_ns / 3)
		rig_fail("writes after a kill are not faster than while pages are protected");
	rig_end(&r);
	printf("%d kills\nPASS\n", kills);
	return 0;
}
