/* The freezing process is killed at any instant: the target goes on, and never sees a thing but time. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "freeze/freeze.h"

enum { NR_KILLS = 200, NR_THREADS = 4, LONGEST_US = 3000 };

static struct shared {
	atomic_int ready, stop;
	atomic_long count[NR_THREADS];
} *shared;

static void *count(void *arg)
{
	atomic_long *c = arg;
	struct timespec t = { .tv_nsec = 50000 };

	shared->ready++;
	while (!shared->stop) {
		if (nanosleep(&t, NULL) != 0)
			_exit(3);
		(*c)++;
	}
	return NULL;
}

static int target(void)
{
	pthread_t threads[NR_THREADS];

	for (int i = 0; i < NR_THREADS; i++)
		pthread_create(&threads[i], NULL, count, &shared->count[i]);
	for (int i = 0; i < NR_THREADS; i++)
		pthread_join(threads[i], NULL);
	return 0;
}

/* Freezes and thaws until it is killed; every thaw mode's first half included. */
static void freeze_forever(pid_t pid)
{
	struct freeze *f;

	if (freeze_create("ptrace", pid, 10, &f))
		_exit(1);
	for (;;)
		if (freeze_stop(f) || freeze_thaw(f, THAW_RUN, NULL))
			_exit(1);
}

static bool all_go_on(pid_t pid)
{
	long before[NR_THREADS];

	for (int i = 0; i < NR_THREADS; i++)
		before[i] = shared->count[i];
	for (int ms = 0; ms < 5000; ms++) {
		int moved = 0;

		for (int i = 0; i < NR_THREADS; i++)
			moved += shared->count[i] != before[i];
		if (moved == NR_THREADS)
			return true;
		if (waitpid(pid, NULL, WNOHANG) != 0)
			return false;
		usleep(1000);
	}
	return false;
}

int main(void)
{
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return 1;
	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(target());
	}
	while (shared->ready < NR_THREADS)
		sched_yield();

	srand(1);
	for (int i = 0; i < NR_KILLS; i++) {
		pid_t freezer = fork();
		int status;

		if (freezer == 0)
			freeze_forever(pid);
		usleep((useconds_t)(rand() % LONGEST_US));
		kill(freezer, SIGKILL);
		waitpid(freezer, &status, 0);
		if (!WIFSIGNALED(status) || !all_go_on(pid)) {
			printf("FAIL: kill %d: freezer %#x, or the target does not go on\n", i, status);
			kill(pid, SIGKILL);
			return 1;
		}
	}
	shared->stop = 1;
	int status;
	waitpid(pid, &status, 0);
	if (status) {
		printf("FAIL: target ended with status %#x\n", status);
		return 1;
	}
	puts("PASS");
	return 0;
}
