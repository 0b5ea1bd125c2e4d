/* Processor state of one thread on x86-64. */
#ifndef BCR_MODEL_CPU_X86_64_H
#define BCR_MODEL_CPU_X86_64_H

#include <stdint.h>

/* Field for field the kernel's struct user_regs_struct (arch/x86/include/asm/user_64.h). */
struct cpu_regs {
	uint64_t r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax;
	uint64_t ip, cs, flags, sp, ss, fs_base, gs_base, ds, es, fs, gs;
};

enum {
	/* Largest xsave area bcr handles: standard format, AMX tiles included (11008 on today's CPUs). */
	CPU_XSAVE_MAX = 12288,
	CPU_XSAVE_LEGACY = 512, /* the fxsave image in front */
	CPU_XSAVE_HEADER = 64,  /* xstate_bv, xcomp_bv, reserved */
};

/* The xsave area in the standard (not compacted) format, as NT_X86_XSTATE gives it. */
struct cpu_fpu {
	uint32_t len_bytes; /* 0: not read */
	uint8_t *xsave;     /* owned; len_bytes long */
};

struct cpu {
	struct cpu_regs regs;
	struct cpu_fpu fpu;
};

#endif
