/*
 * Threads that step through their own code (the trap flag is set, and each instruction brings a SIGTRAP), and one that runs into
 * breakpoints (int3) it has put into its own code: both go on, and no trap is lost or comes too many.
 */
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "target.h"

enum { NR_STEPPING = 2, FLAG_TRAP = 0x100, TRACE_NOPS = 16 };

struct stepping {
	pthread_t thread;
	volatile unsigned long rounds;
};

static struct stepping stepping[NR_STEPPING];
static volatile unsigned long breaks;
static int stop;
static __thread volatile unsigned long steps, int3s;

static void handle(int sig, siginfo_t *info, void *ctx)
{
	(void)sig;
	(void)ctx;
	if (info->si_code == TRAP_TRACE)
		steps++;
	else
		int3s++;
}

/* With the trap flag set for a known number of instructions: each of these nops, and popf that clears it. */
static void step_once(void)
{
	__asm__ volatile("sub $128, %%rsp\n\t" /* the red zone */
			 "pushf\n\t"
			 "orq %[trap], (%%rsp)\n\t"
			 "popf\n\t"
			 ".rept %c[nops]\n\tnop\n\t.endr\n\t"
			 "pushf\n\t"
			 "andq %[no_trap], (%%rsp)\n\t"
			 "popf\n\t"
			 "add $128, %%rsp"
			 :
			 : [trap] "i"(FLAG_TRAP), [no_trap] "i"(~FLAG_TRAP), [nops] "i"(TRACE_NOPS)
			 : "memory", "cc");
}

static void *run_stepping(void *arg)
{
	struct stepping *s = arg;
	unsigned long each;

	step_once();
	each = steps;
	CHECK(each >= TRACE_NOPS);
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		steps = 0;
		step_once();
		CHECK_EQUAL(steps, each);
		s->rounds++;
	}
	CHECK_EQUAL(int3s, 0);
	return NULL;
}

static void *run_breaking(void *arg)
{
	void (*code)(void) = (void (*)(void))arg;

	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		int3s = 0;
		code();
		CHECK_EQUAL(int3s, 1);
		breaks++;
	}
	return NULL;
}

int main(void)
{
	struct sigaction sa = { .sa_sigaction = handle, .sa_flags = SA_SIGINFO };
	unsigned long before[NR_STEPPING + 1];
	pthread_t breaking;
	uint8_t *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(code != MAP_FAILED);
	memcpy(code, "\xcc\xc3", 2); /* int3; ret */
	CHECK(!mprotect(code, 4096, PROT_READ | PROT_EXEC));
	CHECK(!sigaction(SIGTRAP, &sa, NULL));
	for (int i = 0; i < NR_STEPPING; i++)
		CHECK(!pthread_create(&stepping[i].thread, NULL, run_stepping, &stepping[i]));
	CHECK(!pthread_create(&breaking, NULL, run_breaking, code));
	while (!stepping[0].rounds || !stepping[1].rounds || !breaks)
		usleep(1000);
	target_ready();
	for (int i = 0; i <= NR_STEPPING; i++)
		before[i] = i < NR_STEPPING ? stepping[i].rounds : breaks;
	for (int i = 0; i <= NR_STEPPING; i++)
		while ((i < NR_STEPPING ? stepping[i].rounds : breaks) < before[i] + 10)
			usleep(1000);
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < NR_STEPPING; i++)
		CHECK(!pthread_join(stepping[i].thread, NULL));
	CHECK(!pthread_join(breaking, NULL));
	return target_pass();
}
