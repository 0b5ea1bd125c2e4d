/*
 * Children made with CLONE_PARENT, by a child in the same session and by one in a session of its own, and children that
 * tell their parent of their end by another signal than SIGCHLD, or by none.
 */
#include "../lib/family.h"

enum { MAKER = 1, SISTER, LEADER, LEADERS_SISTER, USR1, QUEUED, SILENT, LAST };

static void make_sister(int who, int sister)
{
	if (!family_fork(CLONE_PARENT, 0))
		family_stay(sister, 0);
	family_await(sister);
	family_stay(who, 0);
}

/* Ends when it is asked to, well; only waits that are for such children find it when `__WCLONE` is asked for. */
static void end(int who, int exit_signal, int flags)
{
	struct timespec now = { 0 }, soon = { .tv_sec = 600 };
	pid_t pid = family->members[who].pid;
	sigset_t set;
	siginfo_t info;
	int status;

	sigemptyset(&set);
	if (exit_signal)
		sigaddset(&set, exit_signal);
	CHECK(!kill(pid, SIGTERM));
	if (exit_signal) {
		CHECK_EQUAL(sigtimedwait(&set, &info, &soon), exit_signal);
		CHECK(info.si_pid == pid && info.si_code == CLD_KILLED);
	}
	CHECK_EQUAL(waitpid(pid, &status, flags), pid);
	CHECK_EQUAL(status, SIGTERM);
	CHECK(sigtimedwait(&set, &info, &now) < 0);
}

int main(void)
{
	static const int signals[LAST] = {
		[MAKER] = SIGCHLD, [SISTER] = SIGCHLD, [LEADER] = SIGUSR2, [LEADERS_SISTER] = SIGUSR2, [USR1] = SIGUSR1, [QUEUED] = 50,
	};
	sigset_t all;

	family_init();
	sigemptyset(&all);
	for (int i = 1; i < LAST; i++)
		if (signals[i])
			sigaddset(&all, signals[i]);
	CHECK(!sigprocmask(SIG_BLOCK, &all, NULL));
	if (!family_fork(0, SIGCHLD))
		make_sister(MAKER, SISTER);
	if (!family_fork(0, SIGUSR2)) {
		CHECK(setsid() == getpid());
		make_sister(LEADER, LEADERS_SISTER);
	}
	for (int i = USR1; i < LAST; i++)
		if (!family_fork(0, signals[i]))
			family_stay(i, 0);
	for (int i = 1; i < LAST; i++) {
		family_await(i);
		CHECK_EQUAL(family->members[i].ppid, getpid());
	}
	CHECK_EQUAL(family->members[LEADERS_SISTER].sid, family->members[LEADER].pid);

	target_ready();

	for (int i = 1; i < LAST; i++)
		CHECK_EQUAL(getsid(family->members[i].pid), family->members[i].sid);
	for (int i = 1; i < LAST; i++)
		end(i, signals[i], signals[i] == SIGCHLD ? 0 : __WCLONE);
	CHECK(waitpid(-1, NULL, __WALL) < 0 && errno == ECHILD);
	return target_pass();
}
