/* A System V segment that a process outside the tree has attached: its copy would not be what that one goes on with. */
#include <signal.h>
#include <sys/shm.h>
#include <sys/wait.h>

#include "target.h"

/* One that is in nobody's tree but init's. It ends with the target. */
static void attach_elsewhere(int id, pid_t target)
{
	int ready[2];
	char byte;

	CHECK(!pipe(ready));
	if (!fork()) {
		if (!fork()) {
			CHECK(setsid() > 0 && shmat(id, NULL, 0) != (void *)-1 && write(ready[1], "x", 1) == 1);
			close(ready[0]);
			close(ready[1]);
			while (!kill(target, 0))
				usleep(10 * 1000);
			_exit(0);
		}
		_exit(0);
	}
	CHECK(read(ready[0], &byte, 1) == 1 && !close(ready[0]) && !close(ready[1]));
	while (wait(NULL) > 0)
		;
}

int main(void)
{
	int id = shmget(IPC_PRIVATE, 4096, 0600);
	char *at = shmat(id, NULL, 0);

	CHECK(id >= 0 && at != (void *)-1);
	attach_elsewhere(id, getpid());
	CHECK(!shmctl(id, IPC_RMID, NULL)); /* it goes with both */
	target_expect_refusal("is attached by processes outside the tree");
	target_ready();
	return target_pass();
}
