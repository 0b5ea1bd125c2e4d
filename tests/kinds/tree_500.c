/* Five hundred processes: children, grandchildren, each tenth in a group of its own, and a few zombies among them. */
#include "../lib/family.h"

enum { CHILDREN = 20, GRANDCHILDREN = 24, NR = CHILDREN * (GRANDCHILDREN + 1) };

static void be_child(int who)
{
	pid_t zombie = 0;

	for (int i = 1; i <= GRANDCHILDREN; i++) {
		pid_t pid = family_fork(0, SIGCHLD);

		if (!pid && i == GRANDCHILDREN)
			_exit(0);
		if (!pid) {
			if (i % 10 == 0)
				CHECK(!setpgid(0, 0));
			family_stay(who + i, 0);
		}
		zombie = pid;
	}
	family_await_zombie(zombie);
	family_stay(who, GRANDCHILDREN);
}

int main(void)
{
	family_init();
	for (int i = 0; i < CHILDREN; i++) {
		if (!family_fork(0, SIGCHLD))
			be_child(1 + i * (GRANDCHILDREN + 1));
	}
	for (int i = 0; i < NR; i++) {
		if (i % (GRANDCHILDREN + 1) != GRANDCHILDREN)
			family_await(1 + i);
	}

	target_ready();

	family_go();
	for (int i = 0; i < CHILDREN; i++)
		family_join(-1);
	CHECK(waitpid(-1, NULL, 0) < 0 && errno == ECHILD);
	return target_pass();
}
