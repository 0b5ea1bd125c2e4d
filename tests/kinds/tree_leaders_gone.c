/*
 * Sessions and process groups whose leader has exited, or is a zombie, or is no ancestor of its members: orphans that the
 * root, or a subreaper below it, has adopted.
 */
#include <sys/prctl.h>

#include "../lib/family.h"

enum { DEAD_MEMBER = 1, DEAD_OTHER_GROUP, ZOMBIE_MEMBER, LEADER, LEADER_ORPHAN, ABOVE, BELOW, FAR_ORPHAN, GROUP_A, GROUP_B, REAPER, NEAR_ORPHAN, LAST };

/* Makes a session with two members in two groups, and ends. */
static void leave_session(int member, int other)
{
	pid_t self = getpid();

	CHECK(setsid() == self);
	if (!fork())
		family_stay_orphan(member, self);
	if (other && !fork()) {
		CHECK(!setpgid(0, 0));
		family_stay_orphan(other, self);
	}
	_exit(0);
}

/* Forks a member by somebody who ends. */
static void fork_orphan(int member)
{
	pid_t between = fork();

	CHECK(between >= 0);
	if (!between) {
		pid_t self = getpid();

		if (!fork())
			family_stay_orphan(member, self);
		_exit(0);
	}
	family_join(between);
	family_await(member);
}

/* A session whose leader has a child that is an orphan, and stays itself. */
static void lead(int who, int orphan)
{
	CHECK(setsid() == getpid());
	fork_orphan(orphan);
	family_stay(who, 0);
}

static void stand_between(int who)
{
	if (!fork())
		lead(BELOW, FAR_ORPHAN);
	family_await(BELOW);
	family_stay(who, 1);
}

static void reap_below(int who)
{
	pid_t leader;

	CHECK(!prctl(PR_SET_CHILD_SUBREAPER, 1));
	leader = fork();
	if (!leader)
		leave_session(NEAR_ORPHAN, 0);
	family_join(leader);
	family_stay(who, 1);
}

/* A process group in the session of the root; its leader ends, and is collected. */
static pid_t leave_group(void)
{
	pid_t leader = fork();

	CHECK(leader >= 0);
	if (!leader) {
		CHECK(!setpgid(0, 0));
		fork_orphan(GROUP_A);
		fork_orphan(GROUP_B);
		_exit(0);
	}
	family_join(leader);
	return leader;
}

int main(void)
{
	pid_t dead, zombie, group;

	family_init();
	CHECK(!prctl(PR_SET_CHILD_SUBREAPER, 1));
	dead = fork();
	if (!dead)
		leave_session(DEAD_MEMBER, DEAD_OTHER_GROUP);
	family_join(dead);
	zombie = fork();
	if (!zombie)
		leave_session(ZOMBIE_MEMBER, 0);
	family_await_zombie(zombie);
	if (!fork())
		lead(LEADER, LEADER_ORPHAN);
	if (!fork())
		stand_between(ABOVE);
	group = leave_group();
	if (!fork())
		reap_below(REAPER);
	for (int i = 1; i < LAST; i++)
		family_await(i);
	CHECK_EQUAL(family->members[FAR_ORPHAN].ppid, getpid());
	CHECK_EQUAL(family->members[NEAR_ORPHAN].ppid, family->members[REAPER].pid);

	target_ready();

	family_check(0);
	CHECK_EQUAL(getsid(family->members[DEAD_MEMBER].pid), dead);
	CHECK_EQUAL(getpgid(family->members[GROUP_B].pid), group);
	CHECK(!kill(-dead, 0) && !kill(-group, 0));
	CHECK(kill(dead, 0) && errno == ESRCH);
	CHECK(kill(group, 0) && errno == ESRCH);
	/* One more can still join. */
	pid_t late = fork();
	if (!late)
		_exit(setpgid(0, group) != 0);
	family_join(late);
	int reaper = 0;
	CHECK(!prctl(PR_GET_CHILD_SUBREAPER, &reaper));
	CHECK_EQUAL(reaper, 1);
	family_go();
	/* Two of the dead session, the zombie and who is left of its session, and all others whose parent is the root. */
	for (int i = 0; i < 11; i++)
		family_join(-1);
	CHECK(waitpid(-1, NULL, 0) < 0 && errno == ECHILD);
	CHECK(kill(-group, 0) && errno == ESRCH);
	return target_pass();
}
