/*
 * Zombies that wait for their parent: exit codes, signals, users, exit signals, sessions and groups of their own; and what
 * the parent has been told of them: the SIGCHLD that is pending, with all it says, and queued signals of another kind.
 */
#include <sys/resource.h>

#include "../lib/family.h"

enum { NR = 7, USER = 1234 };

static const struct dead {
	int code, sig; /* how it ends */
	int exit_signal;
	uid_t uid;
	bool session;
} dead[NR] = {
	{ .code = 42, .exit_signal = SIGCHLD }, { .code = 255, .exit_signal = SIGCHLD, .uid = USER },
	{ .sig = SIGTERM, .exit_signal = SIGCHLD }, { .sig = SIGKILL, .exit_signal = SIGCHLD, .session = true },
	{ .code = 7, .exit_signal = 40 }, { .sig = SIGSEGV, .exit_signal = 40, .uid = USER }, { .code = 3, .exit_signal = 0 },
};

static sigset_t told;

static void die(const struct dead *d)
{
	const struct rlimit no_core = { 0, 0 };

	if (d->session)
		CHECK(setsid() == getpid());
	CHECK(!setrlimit(RLIMIT_CORE, &no_core));
	if (d->uid)
		CHECK(!setuid(d->uid));
	if (!d->sig)
		_exit(d->code);
	kill(getpid(), d->sig);
	_exit(99);
}

static void check_info(const siginfo_t *info, const struct dead *d, pid_t pid)
{
	CHECK_EQUAL(info->si_pid, pid);
	CHECK_EQUAL(info->si_code, d->sig ? CLD_KILLED : CLD_EXITED);
	CHECK_EQUAL(info->si_status, d->sig ? d->sig : d->code);
	CHECK_EQUAL(info->si_uid, d->uid);
}

static void collect(const struct dead *d, pid_t pid)
{
	siginfo_t info = { 0 };
	int status;

	CHECK_EQUAL(getpgid(pid), d->session ? pid : getpgrp());
	CHECK_EQUAL(getsid(pid), d->session ? pid : getsid(0));
	CHECK(!waitid(P_PID, pid, &info, WEXITED | WNOWAIT | WNOHANG | __WALL));
	check_info(&info, d, pid);
	CHECK_EQUAL(waitpid(pid, &status, __WALL), pid);
	CHECK_EQUAL(status, d->sig ? d->sig : d->code << 8);
}

int main(void)
{
	struct timespec now = { 0 };
	pid_t pids[NR], collected;
	siginfo_t info;

	sigemptyset(&told);
	sigaddset(&told, SIGCHLD);
	sigaddset(&told, 40);
	CHECK(!sigprocmask(SIG_BLOCK, &told, NULL));
	/* One that has been collected, and whose signal has not been taken. */
	collected = family_fork(0, SIGCHLD);
	if (!collected)
		_exit(11);
	CHECK_EQUAL(waitpid(collected, NULL, 0), collected);
	for (int i = 0; i < NR; i++) {
		pids[i] = family_fork(0, dead[i].exit_signal);
		if (!pids[i])
			die(&dead[i]);
		family_await_zombie(pids[i]);
	}

	target_ready();

	/* Only the first SIGCHLD is kept; signals from 32 on are queued. */
	CHECK_EQUAL(sigtimedwait(&told, &info, &now), SIGCHLD);
	check_info(&info, &(struct dead){ .code = 11 }, collected);
	for (int i = 4; i < 6; i++) {
		CHECK_EQUAL(sigtimedwait(&told, &info, &now), 40);
		check_info(&info, &dead[i], pids[i]);
	}
	CHECK(sigtimedwait(&told, &info, &now) < 0);
	for (int i = 0; i < NR; i++)
		collect(&dead[i], pids[i]);
	CHECK(waitpid(-1, NULL, __WALL) < 0 && errno == ECHILD);
	return target_pass();
}
