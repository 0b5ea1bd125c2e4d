/*
 * Raw system calls for blobs. x86-64: number in rax, arguments in rdi rsi rdx r10 r8 r9, result in rax,
 * rcx and r11 clobbered.
 */
#ifndef BCR_PIE_SYSCALL_X86_64_H
#define BCR_PIE_SYSCALL_X86_64_H

static inline long pie_syscall6(long nr, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long ret;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
}

#define PIE_ARG(x) ((long)(x))
#define pie_syscall0(nr) pie_syscall6(nr, 0, 0, 0, 0, 0, 0)
#define pie_syscall1(nr, a) pie_syscall6(nr, PIE_ARG(a), 0, 0, 0, 0, 0)
#define pie_syscall2(nr, a, b) pie_syscall6(nr, PIE_ARG(a), PIE_ARG(b), 0, 0, 0, 0)
#define pie_syscall3(nr, a, b, c) pie_syscall6(nr, PIE_ARG(a), PIE_ARG(b), PIE_ARG(c), 0, 0, 0)
#define pie_syscall4(nr, a, b, c, d)                                                               \
	pie_syscall6(nr, PIE_ARG(a), PIE_ARG(b), PIE_ARG(c), PIE_ARG(d), 0, 0)
#define pie_syscall5(nr, a, b, c, d, e)                                                            \
	pie_syscall6(nr, PIE_ARG(a), PIE_ARG(b), PIE_ARG(c), PIE_ARG(d), PIE_ARG(e), 0)

#endif
