/*
 * While a userfaultfd is taken out of it, a thread of the target forks without end: no child finds a descriptor that its parent
 * never had, and nobody sees a call fail.
 */
#include "track_rig.h"

enum { TAKES = 200, FDS = 16 };

/* A set of bits: which of the first descriptors are open. */
static unsigned open_fds(void)
{
	unsigned set = 0;

	for (int fd = 0; fd < FDS; fd++)
		set |= (unsigned)(fcntl(fd, F_GETFD) >= 0) << fd;
	return set;
}

static void *fork_on(void *arg)
{
	unsigned mine = *(unsigned *)arg;

	while (!rig_shared->go) {
		int status = 0;
		pid_t pid = fork();

		if (!pid)
			_exit(open_fds() != mine);
		if (pid < 0 || waitpid(pid, &status, 0) != pid || status) {
			snprintf(rig_shared->why, sizeof(rig_shared->why), "a child ended with status %#x", status);
			rig_shared->failures++;
		}
		rig_shared->steps++;
	}
	return NULL;
}

static int target(void)
{
	unsigned mine = open_fds();
	pthread_t thread;

	if (pthread_create(&thread, NULL, fork_on, &mine))
		return 1;
	rig_shared->ready = 1;
	pthread_join(thread, NULL);
	return 0;
}

int main(void)
{
	struct rig r;

	log_set_modules(getenv("BCR_LOG"));
	rig_start(&r, target);
	for (int i = 0; i < TAKES; i++) {
		int fd = -1;

		RIG_NEED(!rig_userfaultfd(&r, r.pid, &fd));
		close(fd);
	}
	printf("%ld forks\n", (long)rig_shared->steps);
	RIG_NEED(rig_shared->steps > TAKES / 10);
	rig_end(&r);
	puts("PASS");
	return 0;
}
