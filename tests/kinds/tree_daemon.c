/* A daemon: neither the leader of its session, which has exited, nor below it. */
#include "../lib/family.h"

int main(void)
{
	pid_t pid = fork(), sid;
	int status;

	CHECK(pid >= 0);
	if (pid)
		return waitpid(pid, &status, 0) == pid ? status : 1;
	CHECK((sid = setsid()) == getpid());
	pid = fork();
	CHECK(pid >= 0);
	if (pid)
		_exit(0);
	while (getppid() == sid || !kill(sid, 0))
		family_nap();

	family_init();
	pid = fork();
	if (!pid) {
		CHECK(!setpgid(0, 0));
		family_stay(1, 0);
	}
	family_await(1);
	CHECK_EQUAL(getsid(0), sid);
	CHECK_EQUAL(getpgrp(), sid);

	target_ready();

	family_check(0);
	CHECK(kill(sid, 0) && errno == ESRCH);
	family_go();
	family_join(pid);
	return target_pass();
}
