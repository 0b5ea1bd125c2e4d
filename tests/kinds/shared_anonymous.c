/*
 * Shared anonymous memory: between a parent's child and grandchild, of which the parent has nothing mapped any more; made
 * through /dev/zero; and mapped beyond its end, where accesses are bus errors.
 */
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "target.h"

enum { PAGE = 4096 };

struct letters {
	volatile int go, answered;
	char to_nephew[32], to_uncle[32];
};

static sigjmp_buf at_bus_error;

static void on_bus_error(int sig)
{
	(void)sig;
	siglongjmp(at_bus_error, 1);
}

static int faults(volatile char *at)
{
	if (sigsetjmp(at_bus_error, 1))
		return 1;
	(void)*at;
	return 0;
}

static void await_flag(volatile int *flag)
{
	const struct timespec pause = { .tv_nsec = 10 * 1000 * 1000 };

	while (!*flag)
		nanosleep(&pause, NULL);
}

static void nephew(struct letters *l)
{
	await_flag(&l->go);
	if (!strcmp(l->to_nephew, "hello nephew"))
		strcpy(l->to_uncle, "hello uncle");
	l->answered = 1;
	_exit(0);
}

/* The parent between them: waits for the grandchild, and has unmapped what the other two share. */
static void parent(struct letters *l)
{
	pid_t pid = fork();

	if (!pid)
		nephew(l);
	CHECK(pid > 0 && !munmap(l, PAGE) && waitpid(pid, NULL, 0) == pid);
	_exit(0);
}

int main(void)
{
	int zero = open("/dev/zero", O_RDWR);
	struct letters *l = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char *dev = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, zero, 0);
	char *grown = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int status;

	CHECK(zero >= 0 && l != MAP_FAILED && dev != MAP_FAILED && grown != MAP_FAILED && !close(zero));
	strcpy(dev + PAGE, "zero");
	grown[PAGE] = 'g';
	grown = mremap(grown, 2 * PAGE, 5 * PAGE, MREMAP_MAYMOVE);
	CHECK(grown != MAP_FAILED);
	signal(SIGBUS, on_bus_error);
	pid_t pid = fork();
	if (!pid)
		parent(l);
	CHECK(pid > 0);

	target_ready();
	CHECK(!dev[0] && !strcmp(dev + PAGE, "zero"));
	CHECK(grown[PAGE] == 'g' && !grown[0]);
	CHECK(faults(grown + 2 * PAGE) && faults(grown + 4 * PAGE) && !faults(grown + PAGE));
	strcpy(l->to_nephew, "hello nephew");
	l->go = 1;
	CHECK(waitpid(pid, &status, 0) == pid && !status);
	CHECK(l->answered && !strcmp(l->to_uncle, "hello uncle"));
	return target_pass();
}
