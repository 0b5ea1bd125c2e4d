/*
 * Others look at the target between the look at its memory and the stop, as ps, a monitor or a profiler does: that is no reason to look
 * at everything inside the stop. Others who write there are one.
 */
#include <sys/uio.h>

#include "track_rig.h"

enum { BYTES = 8 << 20, MAX_CUTS = 20 };

static uint8_t *memory; /* the second half of it has no pages, until somebody reads there */

/* A process that is neither the target nor the test, and does one thing when it is told to. */
static struct other {
	atomic_int wanted; /* index of a way and 1 */
	atomic_size_t addr;
	pid_t pid;
} *other;

static uint8_t bytes[2][RIG_PAGE];
static const struct iovec here[] = { { bytes[0], RIG_PAGE }, { bytes[1], RIG_PAGE } };

static int open_proc(const char *name, int flags)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", other->pid, name);
	return open(path, flags);
}

static bool read_file(const char *name)
{
	int fd = open_proc(name, O_RDONLY);
	bool ok = fd >= 0 && read(fd, bytes, sizeof(bytes)) > 0;

	close(fd);
	return ok;
}

static bool read_cmdline(void)
{
	return read_file("cmdline");
}

static bool read_maps(void)
{
	return read_file("maps");
}

static bool read_smaps(void)
{
	return read_file("smaps_rollup");
}

/* A page that is there, and one that is not. */
static bool read_mem(ssize_t (*reads)(int fd, off_t at))
{
	int fd = open_proc("mem", O_RDONLY);
	bool ok = fd >= 0 && reads(fd, other->addr) > 0 && reads(fd, other->addr + BYTES / 2) > 0;

	close(fd);
	return ok;
}

static ssize_t by_pread(int fd, off_t at)
{
	return pread(fd, bytes, RIG_PAGE, at);
}

static ssize_t by_readv(int fd, off_t at)
{
	return lseek(fd, at, SEEK_SET) == at ? readv(fd, here, 2) : -1;
}

static ssize_t by_preadv(int fd, off_t at)
{
	return preadv(fd, here, 2, at);
}

static ssize_t by_preadv2(int fd, off_t at)
{
	return syscall(SYS_preadv2, fd, here, 2, at, 0, 0);
}

static bool pread_mem(void)
{
	return read_mem(by_pread);
}

static bool readv_mem(void)
{
	return read_mem(by_readv);
}

static bool preadv_mem(void)
{
	return read_mem(by_preadv);
}

static bool preadv2_mem(void)
{
	return read_mem(by_preadv2);
}

static bool vm_readv(void)
{
	struct iovec there[] = { { (void *)other->addr, RIG_PAGE }, { (void *)(other->addr + BYTES / 2 + RIG_PAGE), RIG_PAGE } };

	return process_vm_readv(other->pid, here, 2, there, 2, 0) == 2 * RIG_PAGE;
}

static bool vm_writev(void)
{
	struct iovec there[] = { { (void *)other->addr, RIG_PAGE } };

	memset(bytes, 0x77, sizeof(bytes));
	return process_vm_writev(other->pid, here, 1, there, 1, 0) == RIG_PAGE;
}

static bool write_mem(void)
{
	int fd = open_proc("mem", O_RDWR);

	memset(bytes, 0x78, sizeof(bytes));
	bool ok = fd >= 0 && pwrite(fd, bytes, RIG_PAGE, other->addr + RIG_PAGE) == RIG_PAGE;
	close(fd);
	return ok;
}

static const struct way {
	const char *name;
	bool (*act)(void);
	bool writes;
} ways[] = {
	{ "cmdline", read_cmdline, false },
	{ "maps", read_maps, false },
	{ "smaps_rollup", read_smaps, false },
	{ "pread of mem", pread_mem, false },
	{ "readv of mem", readv_mem, false },
	{ "preadv of mem", preadv_mem, false },
	{ "preadv2 of mem", preadv2_mem, false },
	{ "process_vm_readv", vm_readv, false },
	{ "process_vm_writev", vm_writev, true },
	{ "pwrite to mem", write_mem, true },
};
enum { NR_WAYS = sizeof(ways) / sizeof(ways[0]) };

static int way; /* of this cut */

__attribute__((noreturn)) static void be_other(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;) {
		int wanted = other->wanted;

		if (wanted > 0)
			other->wanted = ways[wanted - 1].act() ? 0 : -1;
		else
			sched_yield();
	}
}

static void let_other_act(void)
{
	other->wanted = way + 1;
	while (other->wanted > 0)
		sched_yield();
	if (other->wanted < 0)
		rig_fail("%s: did not work", ways[way].name);
}

static int target(void)
{
	memory = rig_memory(BYTES);
	memset(memory, 0x5a, BYTES / 2);
	other->addr = (uintptr_t)memory;
	rig_shared->ready = 1;
	while (!rig_shared->go)
		usleep(1000);
	return 0;
}

int main(void)
{
	struct rig r;

	log_set_modules(getenv("BCR_LOG"));
	rig_need_saving();
	other = mmap(NULL, sizeof(*other), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	RIG_NEED(other != MAP_FAILED);
	rig_start(&r, target);
	other->pid = r.pid;
	pid_t pid = fork();
	if (!pid)
		be_other();
	rig_open(&r, "wp-cow", NULL);
	rig_before_follow = let_other_act;
	for (way = 0; way < NR_WAYS; way++) {
		const struct track_stats *now = tracker_stats(r.tracker);
		int i = 0;

		/* The kernel itself may have taken the lock meanwhile, to make a huge page for instance: not every time. */
		do
			RIG_NEED(!rig_cut_once(&r));
		while (!ways[way].writes && now->cut_full && ++i < MAX_CUTS);
		rig_print(&r, ways[way].name);
		if (now->cut_full != ways[way].writes)
			rig_fail("%s: %s", ways[way].name, ways[way].writes ? "not noticed" : "everything is looked at");
	}
	rig_before_follow = NULL;
	rig_close(&r);
	rig_end(&r);
	kill(pid, SIGKILL);
	RIG_NEED(waitpid(pid, NULL, 0) == pid);
	puts("PASS");
	return 0;
}
