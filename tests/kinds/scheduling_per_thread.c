/* Policy, priority, nice value, reset-on-fork, affinity, timer slack and I/O priority, of each thread its own. */
#include <linux/ioprio.h>
#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "target.h"

/* IOPRIO_PRIO_VALUE() is no constant expression in every version of the header. */
#define IOPRIO(class, level) (IOPRIO_CLASS_##class << IOPRIO_CLASS_SHIFT | (level))

static const struct {
	int policy, priority, nice, ioprio, cpu;
	unsigned long slack_ns;
} wanted[] = {
	{ SCHED_OTHER, 0, 0, 0, -1, 50000 },
	{ SCHED_OTHER, 0, 7, IOPRIO(BE, 6), 0, 1 },
	{ SCHED_OTHER | SCHED_RESET_ON_FORK, 0, -11, IOPRIO(RT, 3), -1, 1000000 },
	{ SCHED_BATCH, 0, 19, IOPRIO(IDLE, 0), 0, 70000 },
	{ SCHED_IDLE, 0, 3, IOPRIO(BE, 0), -1, 50001 },
	{ SCHED_FIFO, 1, 2, IOPRIO(BE, 4), -1, 0 },
	{ SCHED_RR | SCHED_RESET_ON_FORK, 7, 0, IOPRIO(RT, 7), 0, 0 },
};

enum { NR_THREADS = sizeof(wanted) / sizeof(wanted[0]) };

static pthread_barrier_t built, look;

static void check(long n)
{
	struct sched_param param;
	cpu_set_t cpus;

	CHECK_EQUAL(sched_getscheduler(0), wanted[n].policy);
	CHECK(!sched_getparam(0, &param));
	CHECK_EQUAL(param.sched_priority, wanted[n].priority);
	CHECK_EQUAL(getpriority(PRIO_PROCESS, 0), wanted[n].nice);
	CHECK_EQUAL(syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0), wanted[n].ioprio);
	CHECK(!sched_getaffinity(0, sizeof(cpus), &cpus));
	CHECK_EQUAL(CPU_COUNT(&cpus), wanted[n].cpu >= 0 ? 1 : sysconf(_SC_NPROCESSORS_ONLN));
	/* Realtime threads have none, or what they had, as the kernel's version will have it. */
	if (wanted[n].slack_ns)
		CHECK_EQUAL(prctl(PR_GET_TIMERSLACK), wanted[n].slack_ns);
}

static void *thread_main(void *arg)
{
	long n = (long)arg;
	struct sched_param param = { .sched_priority = wanted[n].priority };
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(wanted[n].cpu, &cpus);
	if (wanted[n].ioprio)
		CHECK(!syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, wanted[n].ioprio));
	if (wanted[n].cpu >= 0)
		CHECK(!sched_setaffinity(0, sizeof(cpus), &cpus));
	if (wanted[n].slack_ns)
		CHECK(!prctl(PR_SET_TIMERSLACK, wanted[n].slack_ns));
	CHECK(!setpriority(PRIO_PROCESS, 0, wanted[n].nice));
	CHECK(!sched_setscheduler(0, wanted[n].policy, &param));
	check(n);
	pthread_barrier_wait(&built);
	pthread_barrier_wait(&look);
	check(n);
	return NULL;
}

int main(void)
{
	const struct sched_param lowest = { .sched_priority = 1 }, none = { 0 };
	pthread_t threads[NR_THREADS];
	cpu_set_t all;

	if (sched_setscheduler(0, SCHED_FIFO, &lowest)) {
		CHECK_EQUAL(errno, EPERM);
		target_skip("real-time threads are not allowed here, or not in this control group");
	}
	CHECK(!sched_setscheduler(0, SCHED_OTHER, &none));
	/* As it may have been started with another one of each. */
	memset(&all, 0xff, sizeof(all));
	CHECK(!sched_setaffinity(0, sizeof(all), &all));
	CHECK(!setpriority(PRIO_PROCESS, 0, 0));
	CHECK(!syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, 0));
	CHECK(!pthread_barrier_init(&built, NULL, NR_THREADS + 1));
	CHECK(!pthread_barrier_init(&look, NULL, NR_THREADS + 1));
	for (long i = 0; i < NR_THREADS; i++)
		CHECK(!pthread_create(&threads[i], NULL, thread_main, (void *)i));
	pthread_barrier_wait(&built);
	target_ready();
	pthread_barrier_wait(&look);
	for (int i = 0; i < NR_THREADS; i++)
		CHECK(!pthread_join(threads[i], NULL));
	return target_pass();
}
