/* Futex waits in the registers of a stopped thread. */
#include "track/futex-x86_64.h"

#include <linux/futex.h>
#include <sys/syscall.h>

#include "model/cpu-x86_64.h"

bool futex_wait_is_shared(const struct cpu_regs *r)
{
	/* A wait that was rewound to be issued again has its number in ax. One that goes on shows as restart_syscall. */
	if (r->orig_ax != SYS_futex && r->ax != SYS_futex && r->orig_ax != SYS_restart_syscall && r->ax != SYS_restart_syscall)
		return false;
	return !(r->si & FUTEX_PRIVATE_FLAG);
}
