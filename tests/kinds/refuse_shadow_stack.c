/* A shadow stack: refused; what is on it could not be written back. */
#include <sys/syscall.h>

#include "target.h"

enum { ARCH_SHSTK_ENABLE = 0x5001, ARCH_SHSTK_DISABLE = 0x5002, SHSTK = 1 };

/* The return address of whoever enables it is not on the new one: there must be no return until it is disabled. */
static inline __attribute__((always_inline)) long arch_prctl(long code, long arg)
{
	long ret;

	__asm__ volatile("syscall" : "=a"(ret) : "a"(SYS_arch_prctl), "D"(code), "S"(arg) : "rcx", "r11", "memory");
	return ret;
}

int main(void)
{
	char words[96];

	snprintf(words, sizeof(words), "pid %d: its thread %d has a shadow stack", getpid(), getpid());
	if (arch_prctl(ARCH_SHSTK_ENABLE, SHSTK))
		target_skip("this processor or kernel has no shadow stacks for programs");
	target_expect_refusal(words);
	target_ready();
	if (arch_prctl(ARCH_SHSTK_DISABLE, SHSTK))
		_exit(1);
	return target_pass();
}
