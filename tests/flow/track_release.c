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

enum deed { GROW, MOVE, SPLIT, NR_DEEDS };

static const char *const names[NR_DEEDS] = { "grown at each step", "moved", "split and unmapped in part" };

static struct order {
	atomic_int wanted, done; /* numbers of orders */
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
	if (armed && (order->deed == GROW || !nr_orders) && nr_orders < MAX_GROWN)
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

static bool act(uint8_t *at, size_t bytes, size_t grown)
{
	if (order->deed == GROW)
		return mremap(at, bytes + grown * RIG_PAGE, bytes + (grown + 1) * RIG_PAGE, 0) == at;
	if (order->deed == MOVE) {
		void *to = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		return mremap(at, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to;
	}
	return !mprotect(at + bytes / 4, RIG_PAGE, PROT_READ) && !munmap(at + bytes / 2, RIG_PAGE);
}

static int target(void)
{
	const size_t sizes[] = { BYTES, BYTES, FEW_BYTES };
	size_t grown[3] = {};

	for (int i = 0; i < 3; i++)
		order->at[i] = (uintptr_t)take(sizes[i], i == 1 ? MAP_SHARED : MAP_PRIVATE);
	rig_shared->ready = 1;
	while (!rig_shared->go) {
		if (order->wanted == order->done) {
			usleep(100);
			continue;
		}
		for (int i = 0; i < 3; i++) {
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

static int found_protected(void *arg, const struct page_range *r)
{
	*(uint64_t *)arg += (r->end - r->start) / RIG_PAGE;
	return 0;
}

static void expect_free(pid_t pid)
{
	uint64_t nr = 0;
	int fd;

	RIG_NEED(!scan_open(pid, &fd));
	RIG_NEED(!scan_pages(fd, 0x1000, 0x7ffffffff000, PAGE_CAT_WPALLOWED, true, found_protected, &nr));
	close(fd);
	if (nr)
		rig_fail("%s: %llu pages are registered still", names[order->deed], (unsigned long long)nr);
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
		tracker_release(r.tracker);
		armed = false;
		pauses = tracker_stats(r.tracker)->pauses - pauses;
		printf("%s: %d orders, held %llu times\n", names[deed], nr_orders, (unsigned long long)pauses);
		/* A step is 16 MiB at most. */
		if (nr_orders < (deed == GROW ? 2 * (BYTES >> 24) : 1) || (deed == GROW && pauses != 1))
			rig_fail("it was not done in steps: nothing was tested");
		expect_free(r.pid);
		rig_close(&r);
		rig_end(&r);
	}
	puts("PASS");
	return 0;
}
