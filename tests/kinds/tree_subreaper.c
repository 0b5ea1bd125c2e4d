/*
 * Subreapers, one below another, with orphans they have adopted; signals at the death of a parent. After the restore
 * parents die: their children are told, and come to the nearest subreaper.
 */
#include <sys/prctl.h>

#include "../lib/family.h"

enum { REAPER = 1, ORPHAN, PARENT, CHILD, GRANDCHILD, ROOTS_ORPHAN, LAST };

static void stay_until_parent_dies(int who, int sig, pid_t adopter)
{
	struct timespec patience = { .tv_sec = 600 };
	sigset_t set;
	siginfo_t info;
	int now = -1;

	sigemptyset(&set);
	sigaddset(&set, sig);
	CHECK(!sigprocmask(SIG_BLOCK, &set, NULL));
	CHECK(!prctl(PR_SET_PDEATHSIG, sig));
	family_note(who);
	CHECK_EQUAL(sigtimedwait(&set, &info, &patience), sig);
	CHECK_EQUAL(getppid(), adopter);
	CHECK(!prctl(PR_GET_PDEATHSIG, &now));
	CHECK_EQUAL(now, sig);
	_exit(0);
}

/* Two that wait for the death of the same parent, which waits too. */
static void be_parent(int who, pid_t adopter)
{
	if (!family_fork(0, SIGCHLD))
		stay_until_parent_dies(CHILD, SIGUSR1, adopter);
	if (!family_fork(0, SIGCHLD))
		stay_until_parent_dies(GRANDCHILD, 45, adopter);
	family_await(CHILD);
	family_await(GRANDCHILD);
	family_note(who);
	family_wait();
	_exit(0);
}

static void fork_orphan(int who)
{
	pid_t between = family_fork(0, SIGCHLD);

	if (!between) {
		pid_t self = getpid();

		if (!family_fork(0, SIGCHLD))
			family_stay_orphan(who, self);
		_exit(0);
	}
	family_join(between);
	family_await(who);
}

static void be_reaper(void)
{
	pid_t reaper_pid = getpid();
	int reaper = 0;

	CHECK(!prctl(PR_SET_CHILD_SUBREAPER, 1));
	fork_orphan(ORPHAN);
	CHECK_EQUAL(family->members[ORPHAN].ppid, getpid());
	if (!family_fork(0, SIGCHLD))
		be_parent(PARENT, reaper_pid);
	family_await(PARENT);
	family_note(REAPER);
	family_wait();
	family_check(REAPER);
	CHECK(!prctl(PR_GET_CHILD_SUBREAPER, &reaper) && reaper == 1);
	/* The orphan, the parent, and the two that are adopted when that ends. */
	for (int i = 0; i < 4; i++)
		family_join(-1);
	CHECK(waitpid(-1, NULL, 0) < 0 && errno == ECHILD);
	_exit(0);
}

int main(void)
{
	int reaper = 0;

	family_init();
	CHECK(!prctl(PR_SET_CHILD_SUBREAPER, 1));
	fork_orphan(ROOTS_ORPHAN);
	if (!family_fork(0, SIGCHLD))
		be_reaper();
	for (int i = 1; i < LAST; i++)
		family_await(i);
	CHECK_EQUAL(family->members[ROOTS_ORPHAN].ppid, getpid());

	target_ready();

	CHECK(!prctl(PR_GET_CHILD_SUBREAPER, &reaper) && reaper == 1);
	family_go();
	family_join(-1);
	family_join(-1);
	CHECK(waitpid(-1, NULL, 0) < 0 && errno == ECHILD);
	return target_pass();
}
