/* A chain of a hundred processes, each the parent of the next; every seventh leads a session. */
#include "../lib/family.h"

enum { DEPTH = 100 };

int main(void)
{
	int who = 0;

	family_init();
	while (who < DEPTH) {
		pid_t pid = family_fork(0, SIGCHLD);

		if (pid)
			break;
		who++;
		if (who % 7 == 0)
			CHECK(setsid() == getpid());
	}
	if (who == DEPTH)
		family_stay(who, 0);
	if (who)
		family_stay(who, 1);
	for (int i = 1; i <= DEPTH; i++)
		family_await(i);

	target_ready();

	family_go();
	family_join(-1);
	return target_pass();
}
