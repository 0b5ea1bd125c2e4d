/*
 * The parasite: makes a list of system calls in a thread of the target.
 *
 * Theory of operation. The tracer points the thread here, with the list in rdi, a stack of our own, and all signals but SIGURG
 * blocked. When the list is done the thread sends SIGURG to itself: a tracer sees that as a stop, takes the
 * results and gives the thread its registers. Without one (bcr was killed) the signal does nothing, by default or by its meaning
 * (a program that handles it must look by itself whether there is anything to do), and rt_sigreturn takes the thread back to
 * what it was doing.
 */
#include "pie/parasite.h"

#include <asm/unistd.h>

#include "pie/syscall-x86_64.h"

enum { SIGNAL_URG = 23 };

uint64_t parasite_run(struct parasite_batch *b);

uint64_t parasite_run(struct parasite_batch *b)
{
	for (uint32_t i = 0; i < b->nr_calls; i++) {
		struct parasite_call *c = &b->calls[i];

		c->ret = pie_syscall6((long)c->nr, (long)c->args[0], (long)c->args[1], (long)c->args[2], (long)c->args[3],
				      (long)c->args[4], (long)c->args[5]);
		b->nr_done = i + 1;
	}
	pie_syscall3(__NR_tgkill, pie_syscall0(__NR_getpid), pie_syscall0(__NR_gettid), SIGNAL_URG);
	return b->sigframe;
}

/* The entry point is first in the blob (pie.lds). */
__asm__(".section .text.start,\"ax\"\n"
	".globl blob_start\n"
	".type blob_start,@function\n"
	"blob_start:\n"
	"	call parasite_run\n"
	"	mov %rax, %rsp\n"
	"	mov $15, %eax\n" /* rt_sigreturn */
	"	syscall\n"
	"	ud2\n"
	".previous\n");
