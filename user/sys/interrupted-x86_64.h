/* Which system calls a stop breaks off for good on x86-64, told from a thread's registers. */
#ifndef BCR_SYS_INTERRUPTED_X86_64_H
#define BCR_SYS_INTERRUPTED_X86_64_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

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

/*
 * Which call does a restart block belong to, whose thread has these registers? One that was restarted before shows as
 * restart_syscall(2): the code in front of it, or its arguments, tell what it was. SYS_restart_syscall when nothing tells.
 */
uint32_t call_restarted(pid_t tid, const struct cpu_regs *r);

/*
 * A thread that is stopped again before it could go on with its call has the registers of one about to issue
 * restart_syscall(2), which works for the kernel alone. They become those the first stop left: a call, broken off, with a
 * restart block. Other registers stay as they are.
 */
void call_undo_restart(pid_t tid, struct cpu_regs *r);

/*
 * For a thread that the kernel does not let go from a stop: as the kernel would, a call that was broken off is issued again;
 * but one with a restart block begins anew. A wait that takes too long is what programs have to expect, EINTR without a
 * signal is not.
 */
void call_settle(pid_t tid, struct cpu_regs *r);

/* Is the thread about to return EINTR from such a call? */
bool call_was_broken_off(const struct cpu_regs *r);

/*
 * Makes the registers those before the call: the thread issues it again. For registers that are loaded
 * some other way than by resuming the stop (a sigframe, an image): the kernel does not look at the result then.
 */
void call_rewind(struct cpu_regs *r);

/*
 * The other way round: registers before a call become those of a thread whose call `nr` was interrupted. The kernel makes
 * it issue the call again when it lets the thread go from a stop, unless a handler is to run first: then the call
 * returns EINTR.
 */
void call_unwind(struct cpu_regs *r, uint64_t nr);

/* Where a call that never restarts takes a time limit that counts from its beginning. */
enum call_limit_kind { LIMIT_MS, LIMIT_TIMEVAL, LIMIT_TIMESPEC };

struct call_limit {
	uint32_t nr;
	uint32_t arg; /* 2 to 4, counted from 0 on: the milliseconds, or a pointer */
	enum call_limit_kind kind;
};

/* The i-th of all; NULL: there are no more. */
const struct call_limit *call_limit_at(size_t i);

/* NULL: it has none. */
const struct call_limit *call_limit_of(uint64_t nr);

/* Has such a call, with these arguments, a limit? */
bool call_has_limit(const struct cpu_regs *r, uint64_t nr);

/*
 * Such a call is about to be issued again, and is to wait `left_ns` only: its argument becomes that, or points to it. It is
 * written to where the kernel would put a signal frame, right below what the thread uses of its stack. If it cannot be, the
 * call waits its whole time anew. The register stays as it is made here: the ABI of functions lets calls change it.
 */
void call_set_limit(pid_t tid, struct cpu_regs *r, uint64_t nr, int64_t left_ns);

/* The parts of it: for limits in milliseconds, and for those behind a pointer. */
void call_set_limit_ms(struct cpu_regs *r, const struct call_limit *limit, int64_t left_ns);
void call_set_limit_at(struct cpu_regs *r, const struct call_limit *limit, uint64_t at);
uint64_t call_limit_place(uint64_t sp);
/* 0 or -EFAULT. */
int call_limit_write(pid_t tid, const struct call_limit *limit, uint64_t at, int64_t left_ns);
int call_limit_read(pid_t tid, const struct call_limit *limit, uint64_t at, int64_t *ret_ns);

#endif
