/*
 * A tree with several sessions and groups, zombies with their exit codes, a stopped process, a group whose leader is a
 * zombie. Each member compares its parent, group and session with what they were; the root collects the zombies.
 */
#include <sys/mman.h>

#include "self.h"
#include "state.h"

enum { MAX = 16 };

static struct member {
	pid_t pid, ppid, pgid, sid;
} *members; /* shared */

static void note(int who)
{
	members[who] = (struct member){ 0, getppid(), getpgrp(), getsid(0) };
	__atomic_store_n(&members[who].pid, getpid(), __ATOMIC_RELEASE);
}

static void await(int who)
{
	while (!__atomic_load_n(&members[who].pid, __ATOMIC_ACQUIRE))
		self_nap(1000000);
}

static void check(int who)
{
	struct member *m = &members[who];

	CHECK(getpid() == m->pid, "member %d: pid %d", who, m->pid);
	/* The parent of the root is outside of the tree, and whoever adopted it after a restore. */
	if (who)
		CHECK(getppid() == m->ppid, "member %d: parent %d, was %d", who, getppid(), m->ppid);
	CHECK(getpgrp() == m->pgid, "member %d: group %d, was %d", who, getpgrp(), m->pgid);
	CHECK(getsid(0) == m->sid, "member %d: session %d, was %d", who, getsid(0), m->sid);
}

static pid_t start(void)
{
	pid_t pid = fork();

	NEED(pid >= 0);
	return pid;
}

/* A member that waits, looks, and reaps its children. */
static void stay(int who, int nr_children)
{
	note(who);
	self_wait();
	check(who);
	for (int i = 0; i < nr_children; i++) {
		int status;

		NEED(wait(&status) > 0);
		CHECK(WIFEXITED(status) && !WEXITSTATUS(status), "a child of member %d: status %#x", who, status);
	}
	_exit(0);
}

/* A session of its own, with a background group in it. */
static void run_session(void)
{
	NEED(setsid() == getpid());
	if (!start())
		stay(2, 0); /* in the leader's group */
	if (!start()) {
		NEED(setpgid(0, 0) == 0);
		if (!start())
			stay(4, 0);
		stay(3, 1);
	}
	stay(1, 2);
}

static void wait_zombie(pid_t pid)
{
	siginfo_t info;

	NEED(waitid(P_PID, pid, &info, WEXITED | WNOWAIT) == 0);
}

static void collect(pid_t pid, int want)
{
	int status;

	NEED(waitpid(pid, &status, 0) == pid);
	CHECK(status == want, "zombie %d: status %#x, was %#x", pid, status, want);
}

int main(int argc, char **argv)
{
	pid_t session, exited, killed, dead_leader, in_its_group, stopped;
	int status;

	self_init(argc, argv);
	members = mmap(NULL, MAX * sizeof(*members), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	NEED(members != MAP_FAILED);
	note(0);

	session = start();
	if (!session)
		run_session();
	exited = start();
	if (!exited)
		_exit(42);
	killed = start();
	if (!killed) {
		raise(SIGTERM);
		_exit(0);
	}
	wait_zombie(exited);
	wait_zombie(killed);

	/* The leader of this group ends and stays a zombie; a member lives on. */
	int joined[2];
	NEED(pipe(joined) == 0);
	dead_leader = start();
	if (!dead_leader) {
		NEED(setpgid(0, 0) == 0);
		NEED(write(joined[1], "", 1) == 1);
		await(5);
		_exit(3);
	}
	char byte;
	NEED(read(joined[0], &byte, 1) == 1);
	in_its_group = start();
	if (!in_its_group) {
		NEED(setpgid(0, dead_leader) == 0);
		stay(5, 0);
	}
	wait_zombie(dead_leader);

	stopped = start();
	if (!stopped) {
		note(6);
		raise(SIGSTOP);
		check(6);
		_exit(0);
	}
	/* Collected before the dump: a stopped child is reported once. */
	NEED(waitpid(stopped, &status, WUNTRACED) == stopped && WIFSTOPPED(status));

	for (int i = 1; i < 7; i++)
		await(i);
	self_ready();
	self_wait();

	check(0);
	collect(exited, 42 << 8);
	collect(killed, SIGTERM);
	collect(dead_leader, 3 << 8);
	NEED(kill(-dead_leader, 0) == 0);
	self_join(in_its_group);

	char state = state_of(stopped);
	CHECK(state == 'T', "the stopped child is in state %c", state);
	NEED(kill(stopped, SIGCONT) == 0);
	self_join(stopped);
	self_join(session);
	CHECK(waitpid(-1, &status, 0) < 0 && errno == ECHILD, "there are more children than before");
	self_pass();
}
