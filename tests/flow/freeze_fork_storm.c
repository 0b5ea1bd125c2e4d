/*
 * A tree that forks and ends processes and threads all the time is stopped as a whole, goes on, and dies as a whole. And what
 * cannot be stopped (the parent of a vfork child that waits) is a failure that leaves everything running.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "freeze/freeze.h"

enum { NR_FREEZES = 40, NR_WORKERS = 3 };

static struct shared {
	atomic_long steps, vfork_steps;
	atomic_int stop, workers;
} *shared;

static int failures;

static void check(bool ok, const char *what)
{
	if (ok)
		return;
	printf("wrong: %s\n", what);
	failures++;
}

static void *short_thread(void *arg)
{
	shared->steps++;
	return NULL;
}

static void storm(void)
{
	while (!shared->stop) {
		pthread_t t;
		pid_t child = fork();

		if (child == 0) {
			shared->steps++;
			if (fork() == 0)
				shared->steps++;
			wait(NULL);
			_exit(0);
		}
		if (!pthread_create(&t, NULL, short_thread, NULL))
			pthread_join(t, NULL);
		waitpid(child, NULL, 0);
	}
}

static int storm_tree(void)
{
	/* Whoever is orphaned stays in the tree. */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	for (int i = 0; i < NR_WORKERS; i++)
		if (fork() == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			shared->workers++;
			storm();
			_exit(0);
		}
	while (wait(NULL) > 0)
		;
	return 0;
}

static bool moves(bool expected)
{
	long before = shared->steps;

	for (int ms = 0; ms < (expected ? 5000 : 10); ms++) {
		if (shared->steps != before)
			return true;
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
	return false;
}

static void check_storm(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(storm_tree());
	}
	while (shared->workers < NR_WORKERS)
		sched_yield();
	check(moves(true), "the storm begins");

	struct freeze *f;
	check(!freeze_create("ptrace", pid, 10, &f), "create");
	for (int i = 0; i < NR_FREEZES && !failures; i++) {
		const pid_t *pids;

		check(!freeze_stop(f), "stop");
		check(freeze_pids(f, &pids) >= 1 + NR_WORKERS, "all workers are held");
		check(!moves(false), "everything stands still");
		check(!freeze_thaw(f, THAW_RUN, NULL), "thaw");
		check(moves(true), "everything goes on");
	}
	/* The last one kills, and then nobody is left to count. */
	check(!freeze_stop(f) && !freeze_thaw(f, THAW_KILL, NULL), "kill");
	freeze_destroy(f);
	check(!moves(false), "nobody is left");
	check(waitpid(pid, NULL, 0) < 0 || kill(pid, 0) != 0, "the root is gone");
}

/* The vfork child sleeps instead of calling execve: its parent cannot be stopped meanwhile. */
static void check_vfork(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		pid_t child = vfork();
		if (child == 0) {
			while (!shared->stop) {
				shared->vfork_steps++;
				usleep(500);
			}
			_exit(0);
		}
		waitpid(child, NULL, 0);
		_exit(7);
	}
	while (!shared->vfork_steps)
		sched_yield();

	/* In a process of its own: what could not be stopped is released when that ends. */
	pid_t freezer = fork();
	if (freezer == 0) {
		struct freeze *f;

		_exit(freeze_create("ptrace", pid, 1, &f) || freeze_stop(f) ? 42 : 0);
	}
	int status;
	waitpid(freezer, &status, 0);
	check(WIFEXITED(status) && WEXITSTATUS(status) == 42, "the parent of a waiting vfork child is not stopped");
	long before = shared->vfork_steps;
	for (int ms = 0; ms < 5000 && shared->vfork_steps == before; ms++)
		usleep(1000);
	check(shared->vfork_steps != before, "the vfork child goes on");
	shared->stop = 1;
	waitpid(pid, &status, 0);
	check(WIFEXITED(status) && WEXITSTATUS(status) == 7, "the parent goes on");
}

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return 1;
	check_storm();
	check_vfork();
	puts(failures ? "FAIL" : "PASS");
	return failures != 0;
}
