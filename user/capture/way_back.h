/*
 * The way back of a thread that makes a system call for bcr, should bcr die meanwhile.
 *
 * Registers are given back by the tracer, and a dead one does not. So the thread's registers, FPU state and signal
 * mask are written as a signal frame to where the kernel would put one, below its stack pointer; the call is made by
 * a `syscall; ret` of the program's own code, and what `ret` finds is the code by which signal handlers return. A
 * thread that is left alone makes the call, returns from a signal handler that never was, and goes on. A call of its
 * own that the stop had interrupted is issued again; a wait with a timeout then waits its whole time anew. If the
 * call is one that makes a descriptor, two more pieces of code are in between, by which it is closed.
 */
#ifndef BCR_CAPTURE_WAY_BACK_H
#define BCR_CAPTURE_WAY_BACK_H

#include "model/model.h"

/* Pieces of code in the files that a program has mapped, and where its stack is. */
struct way_back_code {
	taddr_t syscall_ret;   /* `syscall; ret` */
	taddr_t restorer;      /* `mov $15, %eax; syscall`: rt_sigreturn */
	taddr_t swap, pop;     /* `xchg %eax, %edi; ret` and `pop %rax; ret`; 0: there are none, descriptors stay open */
	taddr_t stack_start, stack_end;
	bool shadow_stack;     /* it has one: there is no way back */
};

struct way_back {
	bool open;             /* false: it cannot be had, and all else here is nothing */
	struct way_back_code code;
	taddr_t frame;         /* stack pointer at `ret` */
	taddr_t closing;       /* the same, after a call whose result is to be closed */
	taddr_t ucontext;      /* stack pointer at the restorer */
	uint8_t *before;       /* owned: what was overwritten, from `closing` on */
	size_t len_bytes;
};

/* Looks for it, while the process runs: it takes a millisecond. What is not there is 0. */
void way_back_find(pid_t pid, struct way_back_code *ret);

/*
 * For a thread in a ptrace stop with these registers and this mask. Only for a thread on the stack of the process: other
 * stacks may be smaller than a frame. Where it cannot be had, says so at level debug and leaves ret->open false.
 */
void way_back_open(pid_t pid, pid_t tid, const struct way_back_code *code, const struct cpu_regs *regs, uint64_t sigmask,
		   struct way_back *ret);

/* The stack pointer for a call by syscall_ret; one that makes a descriptor has it closed on the way. */
taddr_t way_back_stack(const struct way_back *w, bool makes_descriptor);

/* Makes registers those of a thread that goes back. */
void way_back_enter(const struct way_back *w, struct cpu_regs *regs);

/*
 * The memory is again what it was, unless it is to be left alone: a thread that is on its way back needs it. Accepts
 * one that is not open.
 */
void way_back_close(pid_t pid, struct way_back *w, bool leave);

#endif
