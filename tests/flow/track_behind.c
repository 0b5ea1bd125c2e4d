/*
 * Writes that no fault shows: direct reads from a file, process_vm_writev and /proc/PID/mem by a relative, read(2). The copy is that
 * of the cut, or the cut is made again; never anything else.
 */
#include "track_rig.h"

#include <sys/uio.h>

enum { PAGES = 1024, BYTES = PAGES * RIG_PAGE, CUTS = 8, MAX_CUTS = 500, MAX_TRIES = 2000, NR_WAYS = 4 };

static uint8_t *memory;
static int file_fd, direct_fd, mem_fd;
static pid_t parent;
static int way;

/* One page of the other process's memory gets new contents. */
static bool write_page(size_t page, uint64_t n)
{
	uint8_t *at = memory + page * RIG_PAGE;
	uint8_t bytes[RIG_PAGE];

	memset(bytes, (int)n, sizeof(bytes));
	struct iovec local = { bytes, sizeof(bytes) }, remote = { at, sizeof(bytes) };

	switch (way) {
	case 0:
		return process_vm_writev(parent, &local, 1, &remote, 1, 0) == RIG_PAGE;
	case 1:
		return pwrite(mem_fd, bytes, sizeof(bytes), (off_t)(uintptr_t)at) == RIG_PAGE;
	case 2:
		return pread(direct_fd, at, RIG_PAGE, (off_t)(n % PAGES) * RIG_PAGE) == RIG_PAGE;
	default:
		return pread(file_fd, at, RIG_PAGE, (off_t)(n % PAGES) * RIG_PAGE) == RIG_PAGE;
	}
}

static void write_on(void)
{
	uint64_t random = 99;

	while (!rig_shared->go) {
		if (!write_page(rig_random(&random) % PAGES, random)) {
			snprintf(rig_shared->why, sizeof(rig_shared->why), "way %d: %s", way, strerror(errno));
			rig_shared->failures++;
			return;
		}
		rig_shared->steps++;
		/* Pauses of all lengths, so that some copies are not disturbed. */
		if (rig_random(&random) % 64 == 0)
			usleep(rig_random(&random) % 60000);
	}
}

static int target(void)
{
	char path[80];
	uint64_t random = 5;

	memory = rig_memory(BYTES);
	for (size_t i = 0; i < BYTES; i += 8)
		*(uint64_t *)(memory + i) = rig_random(&random);
	snprintf(path, sizeof(path), "%s/data", rig_dir);
	file_fd = open(path, O_RDWR | O_CREAT, 0600);
	if (write(file_fd, memory, BYTES) != BYTES || fsync(file_fd))
		return 2;
	direct_fd = open(path, O_RDONLY | O_DIRECT);
	if (way == 2 && direct_fd < 0)
		return 2;
	parent = getpid();
	if (way >= 2) {
		rig_shared->ready = 1;
		write_on();
		return 0;
	}
	pid_t child = fork();
	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		snprintf(path, sizeof(path), "/proc/%d/mem", parent);
		mem_fd = way == 1 ? open(path, O_RDWR) : -1;
		rig_shared->ready = 1;
		write_on();
		_exit(0);
	}
	waitpid(child, NULL, 0);
	return 0;
}

static void run(const char *backend)
{
	static const char *const names[NR_WAYS] = { "process_vm_writev", "/proc/PID/mem", "direct reads", "reads" };
	/* read(2) is seen as faults; other back ends copy inside the stop what was written by then. */
	bool tears = way != 3 && !strcmp(backend, "wp-cow");
	struct rig r;

	rig_start(&r, target);
	rig_open(&r, backend, NULL);
	/* Cuts that no write disturbs are no test: on until one is torn. */
	for (int i = 0; i < CUTS || (tears && !r.retakes && i < MAX_CUTS); i++)
		rig_cut(&r, MAX_TRIES);
	rig_print(&r, names[way]);
	if (tears && !r.retakes)
		rig_fail("%s: no cut was ever torn: nothing was tested", names[way]);
	rig_close(&r);
	rig_end(&r);
}

int main(void)
{
	const char *backend;

	log_set_modules(getenv("BCR_LOG"));
	for (size_t i = 0; (backend = rig_backend(&i));) {
		for (way = 0; way < NR_WAYS; way++) {
			/* /proc/PID/mem is not a kind of file that can be carried. */
			if (way != 1 && (way != 2 || rig_has_direct_reads()))
				run(backend);
		}
	}
	puts("PASS");
	return 0;
}
