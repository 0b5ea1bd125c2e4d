/* A stopped child of a stopped parent, and the SIGCHLD of its stop, which is pending with all it says. */
#include "../lib/family.h"

static sigset_t chld;

static void check_pending(pid_t child)
{
	struct timespec now = { 0 };
	siginfo_t info;

	CHECK_EQUAL(sigtimedwait(&chld, &info, &now), SIGCHLD);
	CHECK(info.si_code == CLD_STOPPED && info.si_status == SIGTSTP && info.si_pid == child);
	CHECK(sigtimedwait(&chld, &info, &now) < 0);
}

static void be_parent(void)
{
	siginfo_t info;
	pid_t child;
	int status;

	/* Not in the group of the child, so that this is not an orphaned one. */
	child = family_fork(0, SIGCHLD);
	if (!child) {
		CHECK(!setpgid(0, 0));
		family_stay(2, 0);
	}
	family_await(2);
	CHECK(!kill(child, SIGTSTP));
	CHECK(!waitid(P_PID, child, &info, WSTOPPED | WNOWAIT));
	family_note(1);
	family_wait();
	check_pending(child);
	CHECK(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status) && WSTOPSIG(status) == SIGTSTP);
	CHECK(waitpid(child, &status, WUNTRACED | WNOHANG) == 0);
	CHECK(!kill(child, SIGCONT));
	family_join(child);
	family_check(1);
	_exit(0);
}

int main(void)
{
	pid_t parent;
	int status;

	family_init();
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	CHECK(!sigprocmask(SIG_BLOCK, &chld, NULL));
	parent = family_fork(0, SIGCHLD);
	if (!parent)
		be_parent();
	family_await(1);
	CHECK(!kill(parent, SIGSTOP));
	CHECK(waitpid(parent, &status, WUNTRACED) == parent && WIFSTOPPED(status));

	target_ready();

	CHECK_EQUAL(waitpid(parent, &status, WUNTRACED | WNOHANG), 0);
	family_go();
	CHECK(!kill(parent, SIGCONT));
	family_join(parent);
	return target_pass();
}
