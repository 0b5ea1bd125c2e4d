/*
 * What few programs set: core dump filter, out-of-memory score, personality, login uid, umask, policy for memory errors
 * (per thread), no huge pages, membarrier registrations, merging of equal pages, the nice value of its session's group, no
 * reading of the time stamp counter.
 */
#include <linux/membarrier.h>
#include <linux/prctl.h>
#include <pthread.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "target.h"

enum {
	SET_MEMORY_MERGE = 67, /* PR_SET_MEMORY_MERGE, since Linux 6.4 */
	GET_MEMORY_MERGE = 68,
	GET_REGISTRATIONS = 1 << 9, /* MEMBARRIER_CMD_GET_REGISTRATIONS, since Linux 6.3 */
};

static pthread_barrier_t built, look;
static int merges, registrations;

static void set_file(const char *name, const char *text)
{
	int fd = open(name, O_WRONLY | O_CLOEXEC);

	CHECK(fd >= 0);
	CHECK_EQUAL(write(fd, text, strlen(text)), strlen(text));
	CHECK(!close(fd));
}

static void check_file(const char *name, const char *want)
{
	char text[128];
	int fd = open(name, O_RDONLY | O_CLOEXEC);
	ssize_t len = read(fd, text, sizeof(text) - 1);

	CHECK(len > 0 && !close(fd));
	text[len] = 0;
	if (!strstr(text, want))
		TARGET_FAIL("%s says '%s', not '%s'", name, text, want);
}

static void *thread_main(void *arg)
{
	int policy = arg ? PR_MCE_KILL_EARLY : PR_MCE_KILL_LATE, tsc;

	CHECK(!prctl(PR_MCE_KILL, PR_MCE_KILL_SET, policy, 0, 0));
	pthread_barrier_wait(&built);
	pthread_barrier_wait(&look);
	CHECK_EQUAL(prctl(PR_MCE_KILL_GET, 0, 0, 0, 0), policy);
	CHECK(!prctl(PR_GET_TSC, &tsc));
	CHECK_EQUAL(tsc, PR_TSC_ENABLE);
	return NULL;
}

static void build(void)
{
	int fd = open("/proc/self/loginuid", O_WRONLY | O_CLOEXEC);

	/* A kernel may have no auditing. */
	CHECK(fd < 0 || (write(fd, "4711", 4) == 4 && !close(fd)));
	set_file("/proc/self/coredump_filter", "0x7d");
	set_file("/proc/self/oom_score_adj", "123");
	if (!access("/proc/self/autogroup", F_OK))
		set_file("/proc/self/autogroup", "4");
	umask(0135);
	CHECK(personality(ADDR_NO_RANDOMIZE | SHORT_INODE) >= 0);
	CHECK(!prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
	CHECK(!syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0));
	CHECK(!syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0));
	merges = !prctl(SET_MEMORY_MERGE, 1, 0, 0, 0);
	registrations = syscall(SYS_membarrier, GET_REGISTRATIONS, 0);
}

static void check(void)
{
	if (!access("/proc/self/loginuid", F_OK))
		check_file("/proc/self/loginuid", "4711");
	check_file("/proc/self/coredump_filter", "0000007d");
	check_file("/proc/self/oom_score_adj", "123");
	if (!access("/proc/self/autogroup", F_OK))
		check_file("/proc/self/autogroup", "nice 4");
	CHECK_EQUAL(umask(0), 0135);
	CHECK_EQUAL(personality(0xffffffff), ADDR_NO_RANDOMIZE | SHORT_INODE);
	CHECK_EQUAL(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), 1);
	CHECK_EQUAL(prctl(PR_MCE_KILL_GET, 0, 0, 0, 0), PR_MCE_KILL_DEFAULT);
	CHECK(!syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0));
	CHECK_EQUAL(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, 0), -1);
	CHECK_EQUAL(syscall(SYS_membarrier, GET_REGISTRATIONS, 0), registrations);
	CHECK_EQUAL(prctl(GET_MEMORY_MERGE, 0, 0, 0, 0) == 1, merges);
}

int main(void)
{
	pthread_t threads[2];
	int tsc;

	CHECK(!pthread_barrier_init(&built, NULL, 3));
	CHECK(!pthread_barrier_init(&look, NULL, 3));
	build();
	for (long i = 0; i < 2; i++)
		CHECK(!pthread_create(&threads[i], NULL, thread_main, (void *)i));
	pthread_barrier_wait(&built);
	check();
	umask(0135);
	CHECK(!prctl(PR_SET_TSC, PR_TSC_SIGSEGV));
	target_ready();
	CHECK(!prctl(PR_GET_TSC, &tsc));
	CHECK_EQUAL(tsc, PR_TSC_SIGSEGV);
	CHECK(!prctl(PR_SET_TSC, PR_TSC_ENABLE));
	pthread_barrier_wait(&look);
	check();
	for (int i = 0; i < 2; i++)
		CHECK(!pthread_join(threads[i], NULL));
	return target_pass();
}
