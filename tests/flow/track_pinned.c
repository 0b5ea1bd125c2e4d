/*
 * io_uring writes into tracked memory. Reads that a ring does for the program are seen as its own are. A registered buffer is pinned, and
 * what the kernel reads into it escapes protection: here the ring even belongs to somebody else by then, as no program with
 * a ring can be dumped. Such memory is copied inside the stop; without that this test finds copies that are not those of the cut.
 */
#include "track_rig.h"

#include <linux/io_uring.h>

enum { PAGES = 1024, BYTES = PAGES * RIG_PAGE, CUTS = 8, MAX_CUTS = 500, MAX_TRIES = 2000, ENTRIES = 8 };

enum way { READS, READS_BY_WORKER, DIRECT_READS, FIXED_READS, NR_WAYS };

static const char *const names[NR_WAYS] = { "reads", "reads by a worker", "direct reads", "reads into registered buffers" };
static enum way way;

struct ring {
	int fd;
	uint8_t *rings;
	struct io_uring_sqe *sqes;
	struct io_uring_params p;
};

/* Shared with the target. */
static struct {
	uint64_t memory;
	int ring_fd, file_fd;
	struct io_uring_params p;
	atomic_int taken;
} *shared;

static unsigned *at(const struct ring *r, unsigned offset)
{
	return (unsigned *)(r->rings + offset);
}

static bool ring_map(struct ring *r)
{
	size_t bytes = r->p.cq_off.cqes + r->p.cq_entries * sizeof(struct io_uring_cqe);

	if (bytes < r->p.sq_off.array + r->p.sq_entries * sizeof(unsigned))
		bytes = r->p.sq_off.array + r->p.sq_entries * sizeof(unsigned);
	r->rings = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, r->fd, IORING_OFF_SQ_RING);
	r->sqes = mmap(NULL, r->p.sq_entries * sizeof(*r->sqes), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, r->fd,
		       IORING_OFF_SQES);
	return r->rings != MAP_FAILED && r->sqes != MAP_FAILED;
}

/* One page of the file into one page of memory, finished when it returns. The result of the read. */
static int ring_read(struct ring *r, uint8_t op, uint8_t flags, int fd, uint64_t to, uint64_t from)
{
	unsigned tail = *at(r, r->p.sq_off.tail), i = tail & *at(r, r->p.sq_off.ring_mask);

	r->sqes[i] = (struct io_uring_sqe){ .opcode = op, .flags = flags, .fd = fd, .addr = to, .len = RIG_PAGE, .off = from };
	at(r, r->p.sq_off.array)[i] = i;
	__atomic_store_n(at(r, r->p.sq_off.tail), tail + 1, __ATOMIC_RELEASE);
	for (unsigned submit = 1;; submit = 0) {
		int n = syscall(SYS_io_uring_enter, r->fd, submit, 1, IORING_ENTER_GETEVENTS, NULL, 0);

		if (n < 0 && errno != EINTR)
			return -errno;
		unsigned head = *at(r, r->p.cq_off.head);
		if (head == __atomic_load_n(at(r, r->p.cq_off.tail), __ATOMIC_ACQUIRE))
			continue;
		struct io_uring_cqe *cqes = (void *)(r->rings + r->p.cq_off.cqes);
		int res = cqes[head & *at(r, r->p.cq_off.ring_mask)].res;

		__atomic_store_n(at(r, r->p.cq_off.head), head + 1, __ATOMIC_RELEASE);
		return res;
	}
}

static pthread_mutex_t reading = PTHREAD_MUTEX_INITIALIZER;

static void hold(bool hold)
{
	if (hold)
		pthread_mutex_lock(&reading);
	else
		pthread_mutex_unlock(&reading);
}

static void read_on(struct ring *r)
{
	uint64_t random = 99;

	while (!rig_shared->go) {
		uint64_t to = shared->memory + rig_random(&random) % PAGES * RIG_PAGE;
		uint64_t from = rig_random(&random) % PAGES * RIG_PAGE;

		pthread_mutex_lock(&reading);
		int res = ring_read(r, way == FIXED_READS ? IORING_OP_READ_FIXED : IORING_OP_READ,
				    way == READS_BY_WORKER ? IOSQE_ASYNC : 0, shared->file_fd, to, from);
		/* Under the lock: outside of it the target may be stopped, and its memory be what is compared. */
		rig_shared->steps += res == RIG_PAGE;
		pthread_mutex_unlock(&reading);
		if (res != RIG_PAGE) {
			snprintf(rig_shared->why, sizeof(rig_shared->why), "%s: %s", names[way], strerror(-res));
			rig_shared->failures++;
			return;
		}
		if (rig_random(&random) % 64 == 0)
			usleep(rig_random(&random) % 60000);
	}
}

static int open_data(const uint8_t *memory)
{
	char path[80];

	snprintf(path, sizeof(path), "%s/data", rig_dir);
	int fd = open(path, O_RDWR | O_CREAT, 0600);
	if (fd < 0 || write(fd, memory, BYTES) != BYTES || fsync(fd))
		return -1;
	if (way == DIRECT_READS)
		fd = open(path, O_RDONLY | O_DIRECT);
	return fd;
}

static int target(void)
{
	struct ring r = {};
	uint64_t random = 5;
	uint8_t *memory = rig_memory(BYTES);

	for (size_t i = 0; i < BYTES; i += 8)
		*(uint64_t *)(memory + i) = rig_random(&random);
	shared->memory = (uintptr_t)memory;
	shared->file_fd = open_data(memory);
	r.fd = syscall(SYS_io_uring_setup, ENTRIES, &r.p);
	if (r.fd < 0 || shared->file_fd < 0)
		return 2;
	shared->ring_fd = r.fd;
	shared->p = r.p;
	if (way == FIXED_READS) {
		struct iovec all = { memory, BYTES };

		if (syscall(SYS_io_uring_register, r.fd, IORING_REGISTER_BUFFERS, &all, 1))
			return 3;
		/* The other one takes the ring over; nothing of it is left here but the pins. */
		rig_shared->ready = 1;
		while (!shared->taken)
			usleep(1000);
		close(r.fd);
		close(shared->file_fd);
		shared->taken = 2;
		while (!rig_shared->go)
			usleep(1000);
		return 0;
	}
	if (!ring_map(&r))
		return 2;
	rig_shared->ready = 1;
	read_on(&r);
	return 0;
}

/* A thread of this process reads by the ring of the target. */
static void *read_for_it(void *arg)
{
	read_on(arg);
	return NULL;
}

static void take_ring(struct rig *rig, struct ring *r)
{
	int pidfd = syscall(SYS_pidfd_open, rig->pid, 0);

	r->p = shared->p;
	r->fd = syscall(SYS_pidfd_getfd, pidfd, shared->ring_fd, 0);
	shared->file_fd = syscall(SYS_pidfd_getfd, pidfd, shared->file_fd, 0);
	RIG_NEED(r->fd >= 0 && shared->file_fd >= 0 && ring_map(r));
	close(pidfd);
	shared->taken = 1;
	while (shared->taken != 2)
		usleep(1000);
}

static void run(const char *backend)
{
	bool tears = way == DIRECT_READS && !strcmp(backend, "wp-cow");
	pthread_t reader;
	struct ring r;
	struct rig rig;

	memset(shared, 0, sizeof(*shared));
	rig_start(&rig, target);
	if (way == FIXED_READS) {
		take_ring(&rig, &r);
		RIG_NEED(!pthread_create(&reader, NULL, read_for_it, &r));
	}
	/* A dump refuses a ring that the tree has; what is asked here is whether it could be tracked. */
	rig_refusals_do_not_matter = true;
	rig_hold_others = way == FIXED_READS ? hold : NULL;
	rig_open(&rig, backend, NULL);
	for (int i = 0; i < CUTS || (tears && !rig.retakes && i < MAX_CUTS); i++)
		rig_cut(&rig, MAX_TRIES);
	rig_print(&rig, names[way]);
	if (tears && !rig.retakes)
		rig_fail("no cut was ever torn: nothing was tested");
	if (way == FIXED_READS && tracker_stats(rig.tracker)->cut_pages_copied < PAGES)
		rig_fail("only %llu pages were copied inside the stop",
			 (unsigned long long)tracker_stats(rig.tracker)->cut_pages_copied);
	rig_close(&rig);
	rig_shared->go = 1;
	if (way == FIXED_READS) {
		pthread_join(reader, NULL);
		close(r.fd);
	}
	rig_end(&rig);
}

int main(void)
{
	struct io_uring_params p = {};
	int fd = syscall(SYS_io_uring_setup, ENTRIES, &p);
	const char *backend;

	log_set_modules(getenv("BCR_LOG"));
	if (fd < 0) {
		printf("io_uring cannot be used here: %s\n", strerror(errno));
		return 77;
	}
	close(fd);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	RIG_NEED(shared != MAP_FAILED);
	for (size_t i = 0; (backend = rig_backend(&i));)
		for (way = 0; way < NR_WAYS; way++)
			if (way != DIRECT_READS || rig_has_direct_reads())
				run(backend);
	puts("PASS");
	return 0;
}
