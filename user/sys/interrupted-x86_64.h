/* Which system calls a stop breaks off for good on x86-64, told from a thread's registers. */
#ifndef BCR_SYS_INTERRUPTED_X86_64_H
#define BCR_SYS_INTERRUPTED_X86_64_H

#include <stdbool.h>
#include <stdint.h>

struct cpu_regs;

/* What the kernel leaves in the result register of a call that it would restart by itself (include/linux/errno.h). */
enum {
	KERNEL_ERESTARTSYS = 512,
	KERNEL_ERESTARTNOINTR = 513,
	KERNEL_ERESTARTNOHAND = 514,
	KERNEL_ERESTART_RESTARTBLOCK = 516,
};

/* Can this call return EINTR because of a stop alone, without any signal handler (signal(7))? */
bool call_is_never_restarted(uint64_t nr);

/* Is the thread about to return EINTR from such a call? */
bool call_was_broken_off(const struct cpu_regs *r);

/*
 * Makes the registers those before the call: the thread issues it again. For registers that are loaded
 * some other way than by resuming the stop (a sigframe, an image): the kernel does not look at the result then.
 */
void call_rewind(struct cpu_regs *r);

#endif
