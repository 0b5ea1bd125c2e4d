/*
 * What changes between freeze_prepare() and the stop: new threads and processes are stopped, those that left the tree go on.
 * With a lister, with one that has to be asked again, and with none.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "freeze_rig.h"

enum { NR_COUNTERS = 5, STILL_MS = 5, PATIENCE_MS = 5000 };
enum { MAIN, OLD_CHILD, NEW_THREAD, NEW_CHILD, ORPHAN }; /* who counts where */

static struct shared {
	atomic_long count[NR_COUNTERS];
	atomic_int change, end;
	pid_t old_child, middle, new_child, orphan;
} *shared;

static void *count(void *arg)
{
	atomic_long *c = arg;

	while (!shared->end) {
		(*c)++;
		sched_yield();
	}
	return NULL;
}

static pid_t fork_counter(int which)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	count(&shared->count[which]);
	_exit(0);
}

static void target(void)
{
	pthread_t t;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	shared->old_child = fork_counter(OLD_CHILD);
	shared->middle = fork();
	if (!shared->middle) {
		shared->orphan = fork_counter(ORPHAN);
		while (!shared->change)
			sched_yield();
		_exit(0);
	}
	while (!shared->change) {
		shared->count[MAIN]++;
		sched_yield();
	}
	waitpid(shared->middle, NULL, 0);
	pthread_create(&t, NULL, count, &shared->count[NEW_THREAD]);
	shared->new_child = fork_counter(NEW_CHILD);
	count(&shared->count[MAIN]);
	pthread_join(t, NULL);
	while (wait(NULL) > 0)
		;
	_exit(0);
}

/* Waits until these all go on counting. */
static bool all_count(const int *who, size_t nr)
{
	for (size_t i = 0; i < nr; i++) {
		long before = shared->count[who[i]];

		for (int ms = 0; shared->count[who[i]] == before; ms++) {
			if (ms == PATIENCE_MS)
				return false;
			nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
		}
	}
	return true;
}

static const int before_change[] = { MAIN, OLD_CHILD, ORPHAN };
static const int in_tree[] = { MAIN, OLD_CHILD, NEW_THREAD, NEW_CHILD };
static const int everyone[] = { MAIN, OLD_CHILD, NEW_THREAD, NEW_CHILD, ORPHAN };
#define COUNT(who) all_count(who, sizeof(who) / sizeof((who)[0]))

static bool tree_stands_still(void)
{
	long before[NR_COUNTERS];

	for (int i = 0; i < NR_COUNTERS; i++)
		before[i] = shared->count[i];
	nanosleep(&(struct timespec){ .tv_nsec = STILL_MS * 1000000 }, NULL);
	for (int i = 0; i < (int)(sizeof(in_tree) / sizeof(in_tree[0])); i++)
		if (shared->count[in_tree[i]] != before[in_tree[i]])
			return false;
	return true;
}

static pid_t start_target(void)
{
	memset(shared, 0, sizeof(*shared));
	pid_t pid = fork();
	if (!pid)
		target();
	check(COUNT(before_change), "the target begins");
	return pid;
}

static void end_target(pid_t pid)
{
	int status;

	shared->end = 1;
	waitpid(pid, &status, 0);
	check(status == 0, "the target ends by itself");
}

enum { FOR_EVER = 1000000 };

static void check_change(const char *backend, bool with_lister, int again)
{
	pid_t pid = start_target();
	struct proc_lister lister = proc_lister(pid);
	struct freeze *f;
	static const int orphan[] = { ORPHAN };
	bool listed = with_lister && again < FOR_EVER;

	check(!freeze_create(backend, pid, 10, &f), "create");
	if (with_lister)
		use_lister(f, &lister);
	check(!freeze_prepare(f), "prepare");
	shared->change = 1;
	check(COUNT(everyone), "the tree has changed");

	lister.again = again;
	check(!freeze_stop(f), "stop");
	check(freeze_was_listed(f) == listed, "the lister has seen it stand still");
	check(!listed || (lister.in_stop && lister.stood), "and it did");
	check(tree_stands_still(), "the tree stands still, what is new included");
	check(COUNT(orphan), "what has left the tree goes on");
	check(holds_pid(f, pid) && holds_pid(f, shared->old_child) && holds_pid(f, shared->new_child), "the tree is held");
	check(!holds_pid(f, shared->middle) && !holds_pid(f, shared->orphan), "and nothing else");
	check(!freeze_thaw(f, THAW_RUN, NULL), "thaw");
	check(!freeze_was_listed(f), "what was listed does not stand still any more");
	check(COUNT(everyone), "everything goes on");

	/* Again, without preparation, as a copier does that has to catch up. */
	check(!freeze_stop(f) && tree_stands_still() && !freeze_thaw(f, THAW_RUN, NULL), "a second stop");
	check(COUNT(everyone), "everything goes on after it");
	check(!with_lister || lister.nr_calls >= 4, "the lister was asked");
	freeze_destroy(f);
	end_target(pid);
}

static void check_failing_lister(void)
{
	pid_t pid = start_target();
	struct proc_lister lister = proc_lister(pid);
	struct freeze *f;

	check(!freeze_create("ptrace", pid, 10, &f), "create");
	use_lister(f, &lister);
	check(!freeze_prepare(f), "prepare");
	shared->change = 1;
	check(COUNT(everyone), "the tree has changed");
	lister.err = -EIO;
	check(freeze_stop(f) == -EIO, "a lister that fails makes the stop fail");
	check(COUNT(everyone), "everything goes on");
	lister.err = 0;
	check(!freeze_stop(f) && tree_stands_still() && !freeze_thaw(f, THAW_RUN, NULL), "then it can be stopped");
	freeze_destroy(f);
	end_target(pid);
}

/* Killed while it is held, a process is its parent's to reap as soon as the tree is thawed. */
static void check_killed_while_held(void)
{
	pid_t pid = start_target();
	struct freeze *f;

	check(!freeze_create("ptrace", pid, 10, &f) && !freeze_stop(f), "stop");
	kill(pid, SIGKILL);
	check(!freeze_thaw(f, THAW_RUN, NULL), "thaw");
	int status;
	pid_t got = 0;
	for (int ms = 0; ms < PATIENCE_MS && !got; ms++) {
		got = waitpid(pid, &status, WNOHANG);
		if (!got)
			nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
	check(got < 0 || (got == pid && WIFSIGNALED(status)), "the killed process is gone");
	shared->end = shared->change = 1;
	freeze_destroy(f);
}

/* Stopped by a signal: known after the thaw, too. */
static void check_was_stopped(void)
{
	pid_t pid = start_target();
	struct freeze *f;

	check(!freeze_create("ptrace", pid, 10, &f) && !freeze_prepare(f), "prepare");
	kill(shared->old_child, SIGSTOP);
	while (state_of(shared->old_child) != 'T')
		sched_yield();
	check(!freeze_stop(f) && !freeze_thaw(f, THAW_RUN, NULL), "stop and thaw");
	check(freeze_was_stopped(f, shared->old_child) && !freeze_was_stopped(f, pid), "the stopped one is known");
	kill(shared->old_child, SIGCONT);
	shared->change = 1;
	check(COUNT(everyone), "everything goes on");
	check(!freeze_stop(f) && !freeze_was_stopped(f, shared->old_child), "and that it was not the next time");
	freeze_destroy(f);
	end_target(pid);
}

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return 1;
	check_change("ptrace", false, 0);
	check_change("ptrace", true, 0);
	check_change("ptrace", true, 3);
	check_change("ptrace", true, FOR_EVER); /* then /proc is listed */
	check_failing_lister();
	check_killed_while_held();
	check_was_stopped();
	puts(failures ? "FAIL" : "PASS");
	return failures != 0;
}
