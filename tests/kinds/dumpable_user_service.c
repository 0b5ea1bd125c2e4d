/*
 * A service as another user: four threads, few capabilities, no way to new ones, and dumpable, as after setpriv(1). And a
 * child of it that has said it is not to be dumped.
 */
#include <grp.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "creds.h"

enum { NR_THREADS = 4, NOBODY = 65534 };

static pthread_barrier_t look;

static void *thread_main(void *arg)
{
	(void)arg;
	pthread_barrier_wait(&look);
	CHECK_EQUAL(prctl(PR_GET_DUMPABLE), 1);
	CHECK_EQUAL(geteuid(), NOBODY);
	/* Files of a dumpable process are its own user's. */
	int fd = open("/proc/self/environ", O_RDONLY | O_CLOEXEC);
	CHECK(fd >= 0 && !close(fd));
	return NULL;
}

static void start_threads(pthread_t *threads)
{
	CHECK(!pthread_barrier_init(&look, NULL, NR_THREADS + 1));
	for (int i = 0; i < NR_THREADS; i++)
		CHECK(!pthread_create(&threads[i], NULL, thread_main, NULL));
}

static void secretive(int ready)
{
	const struct timespec pause = { .tv_nsec = 20 * 1000 * 1000 };

	CHECK(!prctl(PR_SET_DUMPABLE, 0));
	CHECK(write(ready, "", 1) == 1 && !close(ready));
	while (access("go", F_OK))
		nanosleep(&pause, NULL);
	CHECK_EQUAL(prctl(PR_GET_DUMPABLE), 0);
	CHECK_EQUAL(open("/proc/self/environ", O_RDONLY | O_CLOEXEC), -1);
	_exit(0);
}

int main(void)
{
	static struct creds_text before, after;
	const gid_t group = NOBODY;
	pthread_t threads[NR_THREADS];
	int ready[2], status;
	char byte;

	creds_open_directory();
	for (int cap = 0; cap <= CAP_LAST_CAP; cap++)
		if (cap != CAP_NET_BIND_SERVICE)
			prctl(PR_CAPBSET_DROP, cap);
	CHECK(!setgroups(1, &group) && !setresgid(NOBODY, NOBODY, NOBODY));
	CHECK(!prctl(PR_SET_KEEPCAPS, 1) && !setresuid(NOBODY, NOBODY, NOBODY));
	creds_capset(1 << CAP_NET_BIND_SERVICE, 1 << CAP_NET_BIND_SERVICE, 1 << CAP_NET_BIND_SERVICE);
	CHECK(!prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_BIND_SERVICE, 0, 0));
	CHECK(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) && !prctl(PR_SET_DUMPABLE, 1));

	CHECK(!pipe(ready));
	pid_t child = fork();
	CHECK(child >= 0);
	if (!child)
		secretive(ready[1]);
	CHECK(read(ready[0], &byte, 1) == 1 && !close(ready[0]) && !close(ready[1]));
	start_threads(threads);
	creds_read(&before);
	target_ready();
	creds_read(&after);
	creds_compare("service", &before, &after);
	pthread_barrier_wait(&look);
	for (int i = 0; i < NR_THREADS; i++)
		CHECK(!pthread_join(threads[i], NULL));
	CHECK(waitpid(child, &status, 0) == child);
	CHECK_EQUAL(status, 0);
	return target_pass();
}
