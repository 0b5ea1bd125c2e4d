/*
 * While the target's memory is taken and let go of, its mappings stay whole: mremap(2) of all of a mapping works before it is registered and
 * afterwards, and at each step of the release. Then nothing is protected or registered, however long a mapping is, and whatever the target
 * does to it meanwhile.
 */
#include <sys/mman.h>

#include "sys/pagemap.h"
#include "track/inner.h"
#include "track/steps.h"

static void between_steps(void);

static bool next_and_tell(struct steps *s)
{
	between_steps();
	return steps_next(s);
}
#define steps_next next_and_tell
#include "../../user/track/protect.c"
#undef steps_next

#include "track_rig.h"

enum { BYTES = 80 << 20, FEW_BYTES = 1 << 20, MAX_GROWN = 64, ROOM = MAX_GROWN * RIG_PAGE };

enum { FILE_BYTES = 32 << 20, READ_BYTES = 1 << 20 };

enum deed { GROW, MOVE, SPLIT, MERGE, LEAVE, NR_DEEDS };

static const char *const names[NR_DEEDS] = { "grown at each step", "moved", "split and unmapped in part", "made one with what is beside it",
					  "left the tree" };

static struct order {
	atomic_int wanted, done; /* numbers of orders */
	atomic_long reads;
	bool private_only;
	enum deed deed;
	uintptr_t at[3];
} *order;

static bool armed;
static int nr_orders;

static void give_order(void)
{
	nr_orders++;
	order->wanted++;
	while (order->done != order->wanted)
		sched_yield();
	if (rig_shared->failures)
		rig_fail("%s: %s", names[order->deed], rig_shared->why);
}

static void between_steps(void)
{
	if (armed && (order->deed == GROW || !nr_orders) && order->deed != MERGE && nr_orders < MAX_GROWN)
		give_order();
}

/* Not the shared one: memory that it has grown by does not exist. */
static void grow_private(void)
{
	order->private_only = true;
	give_order();
	order->private_only = false;
}

/* With room behind it. */
static uint8_t *take(size_t bytes, int flags)
{
	uint8_t *p = mmap(NULL, bytes + ROOM, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	p = mmap(p, bytes, PROT_READ | PROT_WRITE, flags | MAP_FIXED | MAP_ANONYMOUS, -1, 0);
	munmap(p + bytes, ROOM);
	memset(p, 0x5a, bytes);
	return p;
}

/* Private ones of a file: one that is written, and one right behind other memory, as libraries are. */
static void take_file(void)
{
	int fd = memfd_create("file", 0);
	uint8_t *p = mmap(NULL, 2 * FILE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (fd < 0 || ftruncate(fd, FILE_BYTES))
		_exit(3);
	memset(p, 1, FILE_BYTES);
	mmap(p + FILE_BYTES, FILE_BYTES, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0);
	p = mmap(NULL, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	memset(p, 2, FILE_BYTES);
	close(fd);
}

/*
 * A child whose parent ends on order is not of the tree any more, and runs while that is held. It reads into memory that has no pages
 * yet, all the time.
 */
static void read_on(void)
{
	int file = memfd_create("read", 0); /* of which a read is never cut short by a stop */
	uint8_t *p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	memset(p + BYTES / 2, 1, BYTES / 2);
	if (file < 0 || ftruncate(file, READ_BYTES))
		_exit(3);
	order->reads++;
	while (!rig_shared->go) {
		for (size_t at = 0; at < BYTES / 2; at += READ_BYTES) {
			ssize_t got = pread(file, p + at, READ_BYTES, 0);

			if (got != READ_BYTES && !rig_shared->failures++)
				snprintf(rig_shared->why, sizeof(rig_shared->why), "read returned %zd (%s)", got, strerror(errno));
		}
		madvise(p, BYTES / 2, MADV_DONTNEED);
		order->reads++;
	}
}

static pid_t fork_middle(void)
{
	pid_t middle = fork();

	if (middle)
		return middle;
	if (!fork()) {
		read_on();
		_exit(0);
	}
	for (;;)
		pause();
}

static bool act(uint8_t *at, size_t bytes, size_t grown)
{
	if (order->deed == GROW)
		return mremap(at, bytes + grown * RIG_PAGE, bytes + (grown + 1) * RIG_PAGE, 0) == at;
	if (order->deed == MOVE) {
		void *to = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		return mremap(at, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to;
	}
	if (order->deed == MERGE)
		return !mprotect(at + bytes - FEW_BYTES / 2, FEW_BYTES / 2, PROT_READ | PROT_WRITE);
	return !mprotect(at + bytes / 4, RIG_PAGE, PROT_READ) && !munmap(at + bytes / 2, RIG_PAGE);
}

static int target(void)
{
	const size_t sizes[] = { BYTES, BYTES, FEW_BYTES };
	size_t grown[3] = {};

	for (int i = 0; i < 3; i++)
		order->at[i] = (uintptr_t)take(sizes[i], i == 1 ? MAP_SHARED : MAP_PRIVATE);
	for (int i = 0; i < 3 && order->deed == MERGE; i++)
		mprotect((uint8_t *)order->at[i] + sizes[i] - FEW_BYTES / 2, FEW_BYTES / 2, PROT_READ);
	take_file();
	pid_t middle = order->deed == LEAVE ? fork_middle() : 0;
	while (middle && !order->reads)
		usleep(1000);
	rig_shared->ready = 1;
	while (!rig_shared->go) {
		if (order->wanted == order->done) {
			usleep(100);
			continue;
		}
		if (middle && (kill(middle, SIGKILL) || waitpid(middle, NULL, 0) != middle))
			_exit(3);
		for (int i = 0; i < 3 && !middle; i++) {
			if ((order->private_only && i == 1) || act((uint8_t *)order->at[i], sizes[i], grown[i]++))
				continue;
			snprintf(rig_shared->why, sizeof(rig_shared->why), "mapping %d, order %d: %s", i, (int)order->wanted,
				 strerror(errno));
			rig_shared->failures++;
		}
		order->done++;
	}
	return 0;
}

/* Linux 6.11. */
static bool can_tell_growth(void)
{
	struct bcr_procmap_query q = { .size = sizeof(q), .query_addr = (uintptr_t)names };
	int fd = open("/proc/self/maps", O_RDONLY);
	bool can = !ioctl(fd, BCR_PROCMAP_QUERY, &q);

	if (!can)
		printf("this kernel does not tell what a mapping has grown by\n");
	close(fd);
	return can;
}

/* Of a mapping that is registered still, or protected in one that is not. */
static int found_page(void *arg, const struct page_range *r)
{
	if (r->categories & PAGE_CAT_WPALLOWED || !(r->categories & PAGE_CAT_WRITTEN))
		*(uint64_t *)arg += (r->end - r->start) / RIG_PAGE;
	return 0;
}

static void expect_free(pid_t pid)
{
	uint64_t nr = 0;
	int fd;

	RIG_NEED(!scan_open(pid, &fd));
	RIG_NEED(!scan_pages(fd, 0x1000, 0x7ffffffff000, 0, true, found_page, &nr));
	close(fd);
	if (nr)
		rig_fail("%s: %llu pages are registered or protected still", names[order->deed], (unsigned long long)nr);
}

int main(void)
{
	log_set_modules(getenv("BCR_LOG"));
	rig_need_saving();
	order = mmap(NULL, sizeof(*order), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	RIG_NEED(order != MAP_FAILED);
	for (int deed = 0; deed < NR_DEEDS; deed++) {
		struct rig r;

		memset(order, 0, sizeof(*order));
		order->deed = deed;
		nr_orders = 0;
		rig_start(&r, target);
		/* Before it is registered, and then once more. */
		rig_before_open = deed == GROW && can_tell_growth() ? grow_private : NULL;
		rig_open(&r, "wp-cow", NULL);
		if (rig_before_open)
			grow_private();
		rig_cut(&r, RIG_MAX_TRIES);
		uint64_t pauses = tracker_stats(r.tracker)->pauses;

		armed = true;
		/* When everything has been lifted, each part for itself. */
		rig_before_pause = deed == MERGE ? give_order : NULL;
		RIG_NEED(!tracker_release(r.tracker));
		rig_before_pause = NULL;
		armed = false;
		pauses = tracker_stats(r.tracker)->pauses - pauses;
		printf("%s: %d orders, held %llu times\n", names[deed], nr_orders, (unsigned long long)pauses);
		/* A step is 16 MiB at most. */
		if (nr_orders < (deed == GROW ? 2 * (BYTES >> 24) : 1) || (deed == GROW && pauses != 1))
			rig_fail("it was not done in steps: nothing was tested");
		for (long reads = order->reads; deed == LEAVE && order->reads < reads + 2;)
			sched_yield();
		if (rig_shared->failures)
			rig_fail("%s: %s", names[deed], rig_shared->why);
		expect_free(r.pid);
		rig_close(&r);
		rig_end(&r);
	}
	puts("PASS");
	return 0;
}
