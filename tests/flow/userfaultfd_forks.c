/*
 * While a userfaultfd is taken out of it, a thread of the target, or a process that has the same descriptors, forks
 * without end: no child finds a descriptor that its parent never had, and nobody sees a call fail.
 */
#include "track_rig.h"

#include <sched.h>

enum { TAKES = 200, FDS = 16 };

static atomic_int *sharer; /* the process that shares; 0: there is none */

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

static int threads(void)
{
	unsigned mine = open_fds();
	pthread_t thread;

	if (pthread_create(&thread, NULL, fork_on, &mine))
		return 1;
	rig_shared->ready = 1;
	pthread_join(thread, NULL);
	return 0;
}

static int processes(void)
{
	unsigned mine = open_fds();
	pid_t pid = syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);

	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		fork_on(&mine);
		_exit(0);
	}
	*sharer = pid;
	rig_shared->ready = 1;
	return pid < 0 || waitpid(pid, NULL, 0) != pid;
}

static void run(int (*target)(void), const char *what)
{
	int pids[2], fd = -1;
	uint32_t held_us = 0;
	struct rig r;

	*sharer = 0;
	rig_start(&r, target);
	pids[0] = r.pid;
	pids[1] = *sharer;
	/* A busy machine lets it fork less often. */
	for (int i = 0; i < TAKES || (rig_shared->steps <= TAKES / 10 && i < 50 * TAKES); i++) {
		const proc_numbers sharers = { .v = pids, .nr = 1 + (*sharer != 0) };

		RIG_NEED(!userfaultfd_take(r.pid, &sharers, 10, NULL, &held_us, &fd));
		close(fd);
	}
	printf("%s: %ld forks, held for %.0f us each time\n", what, (long)rig_shared->steps, (double)held_us / TAKES);
	RIG_NEED(rig_shared->steps > TAKES / 10 && held_us);
	rig_end(&r);
}

int main(void)
{
	log_set_modules(getenv("BCR_LOG"));
	sharer = mmap(NULL, sizeof(*sharer), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	RIG_NEED(sharer != MAP_FAILED);
	run(threads, "a thread");
	run(processes, "a process");
	puts("PASS");
	return 0;
}
