/* Actions of all 62 signals, raw: every flag, masks with all 64 bits, handlers with restorers of their own, ignored and default ones. */
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "target.h"

struct raw {
	void *handler;
	unsigned long flags;
	void *restorer;
	unsigned long mask;
};

static struct raw wanted[65];
static volatile int handled;
static volatile unsigned long returns;

/* A restorer that counts, so that one sees whose it was. */
void own_restorer(void);
__asm__(".text\n"
	".globl own_restorer\n"
	"own_restorer:\n"
	"	lock incq returns(%rip)\n"
	"	mov $15, %eax\n"
	"	syscall\n");

static void on_signal(int sig)
{
	handled = sig;
}

static void set(int sig, struct raw action)
{
	CHECK(!syscall(SYS_rt_sigaction, sig, &action, NULL, 8));
	CHECK(!syscall(SYS_rt_sigaction, sig, NULL, &wanted[sig], 8));
}

int main(void)
{
	/* SA_RESTORER 0x04000000; SA_EXPOSE_TAGBITS 0x800 since Linux 5.11. */
	static const unsigned long flags[] = { SA_NOCLDSTOP, SA_NOCLDWAIT, SA_SIGINFO, SA_ONSTACK, SA_RESTART,
					       SA_NODEFER,   SA_RESETHAND, 0x800,      0 };
	struct raw now;

	for (int sig = 1; sig <= 64; sig++) {
		unsigned long f = flags[sig % 9] | flags[sig / 9] | flags[sig % 4];

		if (sig == SIGKILL || sig == SIGSTOP)
			continue;
		if (sig % 5 == 0)
			set(sig, (struct raw){ SIG_IGN, f, NULL, ~0UL / sig });
		else if (sig % 7 == 0)
			set(sig, (struct raw){ SIG_DFL, f, NULL, ~0UL << (sig - 1) });
		else
			set(sig, (struct raw){ (void *)on_signal, f | 0x04000000, (void *)own_restorer, 0x5555555555555555UL << (sig & 1) });
	}
	set(SIGUSR1, (struct raw){ (void *)on_signal, 0x04000000, (void *)own_restorer, 0 });
	set(SIGUSR2, (struct raw){ SIG_IGN, 0, NULL, 0 });
	set(SIGHUP, (struct raw){ (void *)on_signal, 0x04000000 | SA_RESETHAND, (void *)own_restorer, 0 });
	set(SIGCHLD, (struct raw){ SIG_DFL, SA_NOCLDWAIT, NULL, 0 });
	target_ready();

	for (int sig = 1; sig <= 64; sig++) {
		if (sig == SIGKILL || sig == SIGSTOP)
			continue;
		CHECK(!syscall(SYS_rt_sigaction, sig, NULL, &now, 8));
		if (memcmp(&now, &wanted[sig], sizeof(now)))
			TARGET_FAIL("signal %d: handler %p flags %#lx restorer %p mask %#lx, expected %p %#lx %p %#lx", sig,
				    now.handler, now.flags, now.restorer, now.mask, wanted[sig].handler, wanted[sig].flags,
				    wanted[sig].restorer, wanted[sig].mask);
	}

	/* And they do what they say. */
	CHECK(!kill(getpid(), SIGUSR1));
	CHECK_EQUAL(handled, SIGUSR1);
	CHECK_EQUAL(returns, 1);
	CHECK(!kill(getpid(), SIGUSR2));
	CHECK(!kill(getpid(), SIGHUP));
	CHECK_EQUAL(handled, SIGHUP);
	CHECK(!syscall(SYS_rt_sigaction, SIGHUP, NULL, &now, 8));
	CHECK(now.handler == SIG_DFL);
	pid_t child = fork();
	if (!child)
		_exit(0);
	CHECK_EQUAL(waitpid(child, NULL, 0), -1); /* SA_NOCLDWAIT: nobody is left to wait for */
	CHECK_EQUAL(errno, ECHILD);
	return target_pass();
}
