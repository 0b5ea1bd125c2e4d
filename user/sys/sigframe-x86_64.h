/* Signal frames on x86-64: what rt_sigreturn(2) loads a thread's registers from. */
#ifndef BCR_SYS_SIGFRAME_X86_64_H
#define BCR_SYS_SIGFRAME_X86_64_H

#include <stddef.h>
#include <stdint.h>

struct cpu;

/* Room that a frame may need, and its alignment. */
enum { SIGFRAME_MAX_BYTES = 16384, SIGFRAME_ALIGN = 64 };

/*
 * Writes a frame with these registers, FPU state and signal mask into `buf` (SIGFRAME_MAX_BYTES long), to be copied to the
 * address `at` (aligned). The alternate stack in it is "none". *ret_sp is the stack pointer rt_sigreturn wants;
 * *ret_altstack (may be NULL) is the address of its stack_t. Returns the length, or -E2BIG.
 */
int sigframe_build(const struct cpu *cpu, uint64_t sigmask, uint64_t at, void *buf, uint64_t *ret_sp,
		   uint64_t *ret_altstack);

#endif
