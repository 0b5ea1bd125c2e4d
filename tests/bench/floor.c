/*
 * The floor that bcr's stop is measured against: floor PID
 *
 * Stops every thread of the tree below PID with ptrace and lets all of them go on at once. It does nothing else: the tree is
 * listed and attached to before; threads are interrupted, waited for and released, in one order. Like bcr it raises itself above
 * what it wakes. Prints how long each step took.
 */
#include <dirent.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>

enum { MAX_TASKS = 65536 };

static pid_t pids[MAX_TASKS], tids[MAX_TASKS];
static size_t nr_pids, nr_tids;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void add(pid_t *list, size_t *nr, pid_t id)
{
	if (*nr == MAX_TASKS)
		die("too many");
	list[(*nr)++] = id;
}

static void add_children(pid_t pid, pid_t tid)
{
	char path[64];
	int child;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", pid, tid);
	FILE *in = fopen(path, "r");
	if (!in)
		die(path);
	while (fscanf(in, "%d", &child) == 1)
		add(pids, &nr_pids, child);
	fclose(in);
}

static void list_tree(pid_t root)
{
	add(pids, &nr_pids, root);
	for (size_t i = 0; i < nr_pids; i++) {
		char path[64];

		snprintf(path, sizeof(path), "/proc/%d/task", pids[i]);
		DIR *dir = opendir(path);
		if (!dir)
			die(path);
		for (struct dirent *e; (e = readdir(dir));) {
			pid_t tid = atoi(e->d_name);

			if (tid <= 0)
				continue;
			add(tids, &nr_tids, tid);
			add_children(pids[i], tid);
		}
		closedir(dir);
	}
}

static double now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1e6 + ts.tv_nsec / 1e3;
}

/* Signals that come in between are handed on. */
static void wait_for_stop(pid_t tid)
{
	int status;

	while (waitpid(tid, &status, __WALL) == tid && WIFSTOPPED(status) && status >> 16 != PTRACE_EVENT_STOP)
		if (ptrace(PTRACE_CONT, tid, 0, WSTOPSIG(status)))
			die("continue");
}

int main(int argc, char **argv)
{
	struct sched_param fifo = { .sched_priority = 1 };
	double at[5];

	if (argc != 2)
		return 2;
	list_tree(atoi(argv[1]));
	if (sched_setscheduler(0, SCHED_FIFO, &fifo))
		perror("SCHED_FIFO");

	at[0] = now_us();
	for (size_t i = 0; i < nr_tids; i++)
		if (ptrace(PTRACE_SEIZE, tids[i], 0, 0))
			die("seize");
	at[1] = now_us();
	for (size_t i = 0; i < nr_tids; i++)
		if (ptrace(PTRACE_INTERRUPT, tids[i], 0, 0))
			die("interrupt");
	at[2] = now_us();
	for (size_t i = 0; i < nr_tids; i++)
		wait_for_stop(tids[i]);
	at[3] = now_us();
	for (size_t i = 0; i < nr_tids; i++)
		ptrace(PTRACE_DETACH, tids[i], 0, 0);
	at[4] = now_us();

	printf("%zu processes, %zu threads: seize %.0f us, interrupt %.0f, wait %.0f, detach %.0f\n",
	       nr_pids, nr_tids, at[1] - at[0], at[2] - at[1], at[3] - at[2], at[4] - at[3]);
	return 0;
}
