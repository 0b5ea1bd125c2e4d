/*
 * Threads inside signal handlers: four handlers deep on one alternate stack (SA_NODEFER lets one interrupt itself), on an alternate
 * stack that disarms itself (SS_AUTODISARM), and one that has such a stack, but is not in a handler. All come back the way they went
 * in, with the registers, masks and stacks they were interrupted with.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <ucontext.h>

#include "target.h"

#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1U << 31)
#endif

enum { STACK = 64 * 1024, DEPTH = 3 };

static char stacks[3][STACK];
static int in[2], out[2];
static volatile int depth, returned;

static void use_stack(int nr, int flags)
{
	stack_t ss = { .ss_sp = stacks[nr], .ss_size = STACK, .ss_flags = flags };

	CHECK(!sigaltstack(&ss, NULL));
}

static void check_stack(int nr, int flags)
{
	stack_t ss;

	CHECK(!sigaltstack(NULL, &ss));
	CHECK_EQUAL((unsigned)ss.ss_flags, (unsigned)flags);
	CHECK(flags == SS_DISABLE || (ss.ss_sp == stacks[nr] && ss.ss_size == STACK));
}

static int blocked(int sig)
{
	sigset_t set;

	CHECK(!pthread_sigmask(SIG_SETMASK, NULL, &set));
	return sigismember(&set, sig);
}

static int on(int nr, const void *p)
{
	return (const char *)p >= stacks[nr] && (const char *)p < stacks[nr] + STACK;
}

/* Raises a signal with patterns in the registers that a handler may use, and finds them again. */
static void raise_with_registers(int sig)
{
	register long rbx __asm__("rbx") = 0x1234567890 + sig;
	register long r12 __asm__("r12") = ~0x1234567890 - sig;
	long nr = SYS_tgkill, pid = getpid(), tid = gettid();
	long double st = 1.0L / 3 * sig;
	double a = 2.0 / 7 * sig, b = a;

	__asm__ volatile("syscall" : "+a"(nr), "+r"(rbx), "+r"(r12), "+x"(a), "+t"(st)
			 : "D"(pid), "S"(tid), "d"((long)sig)
			 : "rcx", "r11", "memory");
	CHECK_EQUAL(nr, 0);
	CHECK(rbx == 0x1234567890 + sig && r12 == ~0x1234567890 - sig && a == b && st == 1.0L / 3 * sig);
}

/* SA_NODEFER and SA_ONSTACK: interrupts itself, on the stack it is on already. */
static void again(int sig, siginfo_t *info, void *context)
{
	int mine = depth++;

	CHECK(on(0, &mine));
	if (mine < DEPTH - 1)
		raise_with_registers(SIGUSR2);
	else
		target_ready();
	CHECK_EQUAL(sig, SIGUSR2);
	CHECK_EQUAL(info->si_code, SI_TKILL);
	check_stack(0, SS_ONSTACK);
	CHECK(!blocked(SIGUSR2) && blocked(SIGUSR1) && blocked(SIGWINCH) && blocked(SIGURG));
	CHECK_EQUAL(sigismember(&((ucontext_t *)context)->uc_sigmask, SIGURG), mine > 0);
	CHECK_EQUAL(--depth, mine);
}

static void first(int sig, siginfo_t *info, void *context)
{
	int here = 5;

	CHECK(on(0, &here) && blocked(SIGUSR1) && !blocked(SIGUSR2) && !blocked(SIGURG));
	raise_with_registers(SIGUSR2);
	CHECK(blocked(SIGUSR1) && blocked(SIGWINCH) && !blocked(SIGURG) && here == 5);
	check_stack(0, SS_ONSTACK);
	returned++;
}

/* While it runs the thread has no alternate stack at all. */
static void disarmed(int sig, siginfo_t *info, void *context)
{
	char byte;

	CHECK(on(1, &byte));
	check_stack(1, SS_DISABLE);
	CHECK_EQUAL(write(out[1], "", 1), 1);
	CHECK_EQUAL(read(in[0], &byte, 1), 1);
	check_stack(1, SS_DISABLE);
	CHECK(((ucontext_t *)context)->uc_stack.ss_sp == stacks[1]);
}

static void plain(int sig)
{
	CHECK(on(2, &sig));
	check_stack(2, SS_DISABLE);
}

static void *in_handler(void *arg)
{
	use_stack(1, SS_AUTODISARM);
	raise_with_registers(SIGRTMIN + 1);
	check_stack(1, SS_AUTODISARM);
	return NULL;
}

static void *not_in_handler(void *arg)
{
	char byte;

	use_stack(2, SS_AUTODISARM);
	CHECK_EQUAL(write(out[1], "", 1), 1);
	CHECK_EQUAL(read(in[0], &byte, 1), 1);
	check_stack(2, SS_AUTODISARM);
	raise_with_registers(SIGRTMIN + 2);
	check_stack(2, SS_AUTODISARM);
	return NULL;
}

static void handle(int sig, void (*handler)(int, siginfo_t *, void *), int flags, int mask, int mask_too)
{
	struct sigaction sa = { .sa_sigaction = handler, .sa_flags = flags };

	if (mask)
		sigaddset(&sa.sa_mask, mask);
	if (mask_too)
		sigaddset(&sa.sa_mask, mask_too);
	CHECK(!sigaction(sig, &sa, NULL));
}

int main(void)
{
	pthread_t threads[2];
	char byte;

	CHECK(!pipe(in) && !pipe(out));
	handle(SIGUSR1, first, SA_SIGINFO | SA_ONSTACK, SIGWINCH, 0);
	handle(SIGUSR2, again, SA_SIGINFO | SA_ONSTACK | SA_NODEFER, SIGWINCH, SIGURG);
	handle(SIGRTMIN + 1, disarmed, SA_SIGINFO | SA_ONSTACK, 0, 0);
	handle(SIGRTMIN + 2, (void *)plain, SA_ONSTACK, 0, 0);
	CHECK(!pthread_create(&threads[0], NULL, in_handler, NULL));
	CHECK_EQUAL(read(out[0], &byte, 1), 1);
	CHECK(!pthread_create(&threads[1], NULL, not_in_handler, NULL));
	CHECK_EQUAL(read(out[0], &byte, 1), 1);
	use_stack(0, 0);
	raise_with_registers(SIGUSR1);
	CHECK_EQUAL(returned, 1);
	CHECK_EQUAL(depth, 0);
	CHECK(!blocked(SIGUSR1) && !blocked(SIGUSR2) && !blocked(SIGWINCH) && !blocked(SIGURG));
	check_stack(0, 0);
	CHECK_EQUAL(write(in[1], "xx", 2), 2);
	for (int i = 0; i < 2; i++)
		CHECK(!pthread_join(threads[i], NULL));
	return target_pass();
}
