/*
 * A tree that forks, execs and exits all the time, and processes that share their memory: every copy that is taken for whole is
 * that of the cut, for every process in it.
 */
#include "track_rig.h"

#include <sched.h>

enum { BYTES = 4 << 20, CUTS = 6, MAX_TRIES = 40 };

static uint8_t *memory;

static void dirty(uint64_t seed, int pages)
{
	for (int i = 0; i < pages; i++)
		*(uint64_t *)(memory + rig_random(&seed) % (BYTES / 8) * 8) = seed;
}

static int share(void *arg)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (uint64_t n = 1; !rig_shared->go; n++) {
		dirty(n, 20);
		usleep(200);
	}
	return 0;
}

static int target(void)
{
	static char stack[65536];

	memory = rig_memory(BYTES);
	memset(memory, 7, BYTES);
	/* A process of its own with the same memory, and one with a copy that lives as long. */
	clone(share, stack + sizeof(stack), CLONE_VM | SIGCHLD, NULL);
	pid_t child = fork();
	if (!child) {
		share(NULL);
		_exit(0);
	}
	for (uint64_t n = 1; !rig_shared->go; n++) {
		dirty(n, 50);
		pid_t pid = fork();
		if (!pid) {
			dirty(~n, 50);
			usleep(3000);
			if (n % 2)
				execl("/bin/sleep", "sleep", "0.003", NULL);
			_exit(0);
		}
		dirty(n, 50);
		waitpid(pid, NULL, 0);
		rig_shared->ready = n > 5;
		usleep(n % 7 * 5000);
	}
	return 0;
}

int main(void)
{
	const char *backend;
	struct rig r;

	log_set_modules(getenv("BCR_LOG"));
	for (size_t n = 0; (backend = rig_backend(&n));) {
		rig_start(&r, target);
		rig_open(&r, backend, NULL);
		for (int i = 0; i < (strcmp(backend, "wp-cow") ? CUTS / 2 : CUTS); i++)
			rig_cut(&r, MAX_TRIES);
		rig_print(&r, "fork, exec, exit");
		rig_close(&r);
		rig_end(&r);
	}
	puts("PASS");
	return 0;
}
