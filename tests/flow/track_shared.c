/*
 * Shared memory that is copied ahead: written by several processes while it is cut and copied, also by direct reads, through
 * mappings that come, go and move, by children, by somebody outside the tree; dropped, and taken out. Every copy is the memory of
 * the cut; what can be copied ahead is, and what cannot is not.
 * timeout: 400
 */
#include "track_rig.h"

#include <semaphore.h>
#include <sys/mman.h>
#include <sys/uio.h>

enum {
	PAGES = 2048,
	BYTES = PAGES * RIG_PAGE,
	CUTS = 6,
	NR_CHILDREN = 3,
	WRITES = 2,
	DIRECT_BYTES = BYTES / 4,
	NR_PARTS = 32,
	TABLE_BYTES = 2 << 20,
	PIDFD_SELF = -10001,
};

/* What the target does all the time: `n` counts; shared memory is at `at`. */
struct behaviour {
	const char *name;
	void (*work)(uint64_t n);
	bool ahead;    /* it can be copied ahead of every cut */
	bool asked;    /* what it does, it does when it is asked to */
	bool outsider; /* a process outside the tree has it as well */
	void (*prepare)(void);
};

static const struct behaviour *now;
static uint8_t *at;
static struct {
	pthread_mutex_t write; /* whoever writes from outside the tree has it, or the test does, while the tree is stopped */
	sem_t ask, done;       /* what is to happen right before the stop, once everything has been copied ahead */
} *outside;

/* How fast a target changes its memory: at full speed all of it would be another one between the copy and the stop. */
static void pace(unsigned us)
{
	const struct timespec pause = { .tv_nsec = us * 1000L };

	nanosleep(&pause, NULL);
}

static void write_some(uint8_t *p, uint64_t n)
{
	static uint64_t random = 1;

	random += getpid();
	for (int i = 0; i < WRITES; i++) {
		uint64_t r = rig_random(&random);

		*(uint64_t *)(p + r % PAGES * RIG_PAGE + (r >> 32) % 512 * 8) = n + r;
	}
}

static void do_write(uint64_t n)
{
	write_some(at, n);
	pace(2000);
}

static void do_read(uint64_t n)
{
	volatile uint8_t sum = 0;

	for (int i = 0; i < PAGES / 2; i++)
		sum += at[i * RIG_PAGE];
	pace(1000);
}

/* Pages go out of the page table, with what was noted there, and come back. */
static void do_drop(uint64_t n)
{
	write_some(at, n);
	madvise(at + n % 8 * (BYTES / 8), BYTES / 8, MADV_DONTNEED);
	madvise(at + (n + 3) % 8 * (BYTES / 8), BYTES / 8, MADV_PAGEOUT);
	pace(2000);
}

/* The page table of what has just been written goes with all that it says. */
static void do_drop_table(uint64_t n)
{
	uint8_t *table = (uint8_t *)(((uintptr_t)at + TABLE_BYTES - 1) & ~(uintptr_t)(TABLE_BYTES - 1));

	for (size_t i = 0; i < TABLE_BYTES; i += RIG_PAGE)
		*(uint64_t *)(table + i) = n + i;
	madvise(table, TABLE_BYTES, MADV_DONTNEED);
	pace(4000);
}

static void do_remove(uint64_t n)
{
	uint8_t *part = at + n % 64 * (BYTES / 64);

	write_some(at, n);
	madvise(part, BYTES / 64, MADV_REMOVE);
	pace(2000);
}

/* The same by a call that takes this advice for the caller's own memory only, where the kernel knows this descriptor (Linux 6.14). */
static void do_remove_self(uint64_t n)
{
	static uint64_t nr;
	struct iovec part = { at + nr % 32 * (BYTES / 64), BYTES / 64 };

	write_some(at, n);
	pace(2000);
	/* After the cut it would make it be taken again. */
	if (sem_trywait(&outside->ask))
		return;
	syscall(SYS_process_madvise, PIDFD_SELF, &part, 1, MADV_REMOVE, 0);
	nr++;
	sem_post(&outside->done);
}

/* Only the first half is mapped at most times. */
static void prepare_half(void)
{
	munmap(at + BYTES / 2, BYTES / 2);
}

static void do_grow(uint64_t n)
{
	if (mremap(at, BYTES / 2, BYTES, 0) != at)
		_exit(3);
	for (size_t i = BYTES / 2; i < BYTES; i += 16 * RIG_PAGE)
		*(uint64_t *)(at + i) = n + i;
	mremap(at, BYTES, BYTES / 2, 0);
	pace(2000);
}

static void do_fork(uint64_t n)
{
	pid_t pid = fork();

	if (!pid) {
		write_some(at, n);
		_exit(0);
	}
	write_some(at, ~n);
	waitpid(pid, NULL, 0);
	pace(2000);
}

static void write_outside(uint64_t n)
{
	pthread_mutex_lock(&outside->write);
	write_some(at, n);
	pthread_mutex_unlock(&outside->write);
	pace(2000);
}

static void hold_outside(bool hold)
{
	if (!hold) {
		pthread_mutex_unlock(&outside->write);
		return;
	}
	if (now->asked) {
		sem_post(&outside->ask);
		sem_wait(&outside->done);
	}
	pthread_mutex_lock(&outside->write);
}

/* The last one outside was killed, perhaps while it had the mutex. */
static void init_outside(void)
{
	pthread_mutexattr_t attr;

	RIG_NEED(!pthread_mutexattr_init(&attr) && !pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED));
	RIG_NEED(!pthread_mutex_init(&outside->write, &attr) && !sem_init(&outside->ask, 1, 0) && !sem_init(&outside->done, 1, 0));
}

/* Its grandchild is nobody's child that bcr knows of, and gone soon. */
static void do_fork_away(uint64_t n)
{
	pid_t pid = fork();

	if (!pid) {
		if (!fork())
			write_outside(n);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	write_some(at, ~n);
	pace(2000);
}

/* A second mapping of a part, through which it is written, and which goes again. */
static void do_second_mapping(uint64_t n)
{
	size_t part = BYTES / 16;
	uint8_t *second = mremap(at + n % 16 * part, 0, part, MREMAP_MAYMOVE);

	if (second == MAP_FAILED)
		_exit(3);
	for (size_t i = 0; i < part; i += RIG_PAGE)
		*(uint64_t *)(second + i) = n + i;
	munmap(second, part);
	pace(500);
}

/* What a mapping says of its pages goes with it, and others have them still. */
static void do_unmap(uint64_t n)
{
	size_t part = BYTES / NR_PARTS;

	if (n < NR_PARTS) {
		for (size_t i = 0; i < part; i += RIG_PAGE)
			*(uint64_t *)(at + n * part + i) = n + i;
		munmap(at + n * part, part);
	}
	pace(8000);
}

static void do_move(uint64_t n)
{
	write_some(at, n);
	uint8_t *to = mmap(NULL, BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	at = mremap(at, BYTES, BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, to);
	if (at == MAP_FAILED)
		_exit(3);
	write_some(at, n);
	pace(10000);
}

static void do_protect(uint64_t n)
{
	size_t part = BYTES / 16;

	write_some(at, n);
	mprotect(at + n % 16 * part, part, PROT_READ);
	pace(300);
	mprotect(at + n % 16 * part, part, PROT_READ | PROT_WRITE);
	pace(2000);
}

static int file = -1;

static void prepare_file(void)
{
	char path[80];
	size_t bytes = DIRECT_BYTES + 8 * RIG_PAGE;
	uint8_t *page = aligned_alloc(RIG_PAGE, bytes);

	snprintf(path, sizeof(path), "%s/direct", rig_dir);
	file = open(path, O_CREAT | O_RDWR | O_DIRECT, 0600);
	for (size_t i = 0; i < bytes / 8; i++)
		((uint64_t *)page)[i] = i * 0x9e3779b97f4a7c15;
	if (file < 0 || write(file, page, bytes) != (ssize_t)bytes)
		_exit(3);
	free(page);
}

static void do_direct_read(uint64_t n)
{
	if (pread(file, at, DIRECT_BYTES, n % 7 * RIG_PAGE) != DIRECT_BYTES)
		_exit(3);
}

static const struct behaviour behaviours[] = {
	{ "idle", do_read, .ahead = true },
	{ "writes", do_write, .ahead = true },
	{ "dropped from page tables", do_drop, .ahead = true },
	{ "dropped with their page table", do_drop_table, .ahead = false },
	{ "direct reads", do_direct_read, .ahead = true, .prepare = prepare_file },
	{ "mprotect of parts", do_protect, .ahead = false },
	{ "taken out", do_remove, .ahead = false },
	{ "taken out by process_madvise", do_remove_self, .ahead = false, .asked = true },
	{ "grown and shrunk", do_grow, .ahead = false, .prepare = prepare_half },
	{ "forks", do_fork, .ahead = false },
	{ "forks that leave the tree", do_fork_away, .ahead = false },
	{ "second mappings", do_second_mapping, .ahead = false },
	{ "unmapped, part by part", do_unmap, .ahead = false },
	{ "moved", do_move, .ahead = false },
	{ "somebody outside", do_read, .outsider = true },
};
enum { NR_BEHAVIOURS = sizeof(behaviours) / sizeof(behaviours[0]) };

static int target(void)
{
	pid_t children[NR_CHILDREN];

	if (now->prepare)
		now->prepare();
	for (int i = 0; i < PAGES / 2; i++)
		*(uint64_t *)(at + i * RIG_PAGE) = i;
	for (int i = 0; i < NR_CHILDREN; i++) {
		children[i] = fork();
		if (!children[i]) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			for (uint64_t n = i; !rig_shared->go; n++)
				(now->work == do_write || now->work == do_direct_read ? do_write : do_read)(n);
			_exit(0);
		}
	}
	rig_shared->ready = 1;
	for (uint64_t n = 0; !rig_shared->go; n++)
		now->work(n);
	for (int i = 0; i < NR_CHILDREN; i++)
		waitpid(children[i], NULL, 0);
	return 0;
}

static void one(const struct behaviour *b)
{
	pid_t outsider = 0;
	struct rig r;

	now = b;
	init_outside();
	at = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	RIG_NEED(at != MAP_FAILED);
	rig_start(&r, target);
	if (b->outsider) {
		outsider = fork();
		if (!outsider) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			for (uint64_t n = 0;; n++)
				write_outside(n);
		}
	}
	/* The test has it no more: whoever else has is a matter of the test. */
	RIG_NEED(!munmap(at, BYTES));
	rig_open(&r, "wp-cow", NULL);
	size_t copied = 0, ahead = 0;
	for (int i = 0; i < CUTS; i++) {
		struct model *m = rig_observe(&r, false);

		RIG_NEED(!tracker_precut(r.tracker, m));
		model_destroy(m);
		rig_cut(&r, RIG_MAX_TRIES);
		copied += tracker_stats(r.tracker)->cut_pages_copied;
		ahead += tracker_stats(r.tracker)->cut_shared_ahead;
	}
	rig_print(&r, b->name);
	printf("  copied ahead for %zu of %d cuts, %zu pages inside each stop\n", ahead, CUTS, copied / CUTS);
	rig_close(&r);
	if (b->outsider) {
		kill(outsider, SIGKILL);
		waitpid(outsider, NULL, 0);
	}
	rig_end(&r);
	if (b->ahead && ahead < CUTS / 2)
		rig_fail("%s: it was not copied ahead", b->name);
	if (b->outsider && ahead)
		rig_fail("%s: it was copied ahead", b->name);
}

int main(void)
{
	log_set_modules(getenv("BCR_LOG"));
	rig_need_saving();
	/* A file: it is no memory of the target's that would have to be as it was at the cut. */
	int fd = open("outside", O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	RIG_NEED(fd >= 0 && !ftruncate(fd, sizeof(*outside)));
	outside = mmap(NULL, sizeof(*outside), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	RIG_NEED(outside != MAP_FAILED);
	rig_hold_others = hold_outside;
	for (int i = 0; i < NR_BEHAVIOURS; i++) {
		if (behaviours[i].work == do_direct_read && !rig_has_direct_reads())
			continue;
		one(&behaviours[i]);
	}
	puts("PASS");
	return 0;
}
