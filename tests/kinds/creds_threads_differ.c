/*
 * Threads of one process with ids, groups, capabilities, securebits and no_new_privs of their own, as raw system calls make
 * them; and the process dumpable, which the kernel takes away when any thread changes its ids.
 */
#include <linux/securebits.h>
#include <pthread.h>
#include <sys/prctl.h>

#include "creds.h"

enum { NR_THREADS = 8 };

static pthread_barrier_t built, look;

static void become(long n)
{
	gid_t groups[] = { 100 + n, 200 + n };

	if (n % 3 == 1)
		CHECK(!prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP | SECBIT_NO_CAP_AMBIENT_RAISE));
	CHECK(!syscall(SYS_setgroups, n % 2 + 1, groups));
	CHECK(!syscall(SYS_setresgid, 1000 + n, 1100 + n, 1200 + n));
	CHECK(!syscall(SYS_setresuid, 2000 + n, 2100 + n, 2200 + n));
	if (n % 3 == 1)
		creds_capset(1 << CAP_NET_RAW, 1 << CAP_NET_RAW | 1 << CAP_KILL, 1 << CAP_MKNOD);
	if (n % 3 == 2)
		CHECK(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
}

static void *thread_main(void *arg)
{
	static struct creds_text texts[NR_THREADS][2];
	long n = (long)arg;
	int bits, signal;
	char name[16];

	if (n)
		become(n);
	CHECK(!prctl(PR_SET_PDEATHSIG, 10 + n));
	bits = prctl(PR_GET_SECUREBITS);
	pthread_barrier_wait(&built);
	pthread_barrier_wait(&built);
	/* By now the process is dumpable, and a thread may read of itself. */
	creds_read(&texts[n][0]);
	pthread_barrier_wait(&built);
	pthread_barrier_wait(&look);
	CHECK_EQUAL(prctl(PR_GET_DUMPABLE), 1);
	creds_read(&texts[n][1]);
	snprintf(name, sizeof(name), "thread %ld", n);
	creds_compare(name, &texts[n][0], &texts[n][1]);
	CHECK_EQUAL(prctl(PR_GET_SECUREBITS), bits);
	/* Gone with a parent that has ended since; bcr restores detached trees without it. */
	CHECK(!prctl(PR_GET_PDEATHSIG, &signal));
	CHECK(!signal || signal == 10 + n);
	return NULL;
}

int main(void)
{
	pthread_t threads[NR_THREADS];

	creds_open_directory();
	CHECK(!pthread_barrier_init(&built, NULL, NR_THREADS + 1));
	CHECK(!pthread_barrier_init(&look, NULL, NR_THREADS + 1));
	for (long i = 0; i < NR_THREADS; i++)
		CHECK(!pthread_create(&threads[i], NULL, thread_main, (void *)i));
	pthread_barrier_wait(&built);
	CHECK(!prctl(PR_SET_DUMPABLE, 1));
	pthread_barrier_wait(&built);
	pthread_barrier_wait(&built);
	target_ready();
	pthread_barrier_wait(&look);
	for (int i = 0; i < NR_THREADS; i++)
		CHECK(!pthread_join(threads[i], NULL));
	return target_pass();
}
