/* Segments in the GDT, where 32-bit code has its thread-local storage: refused, they are not in the images. */
#include <asm/ldt.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

#include "target.h"

enum { NR_SET_THREAD_AREA = 243 }; /* of 32-bit programs; 64-bit ones have no such call */

static sigjmp_buf no_such_call;

static void handle(int sig)
{
	siglongjmp(no_such_call, sig);
}

int main(void)
{
	struct user_desc *desc = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	char words[64];
	long ret;

	CHECK(desc != MAP_FAILED);
	*desc = (struct user_desc){ .entry_number = -1, .base_addr = 0x1000, .limit = 0xfffff, .seg_32bit = 1, .useable = 1 };
	signal(SIGSEGV, handle);
	if (sigsetjmp(no_such_call, 1))
		target_skip("this kernel runs no 32-bit code");
	__asm__ volatile("int $0x80" : "=a"(ret) : "a"(NR_SET_THREAD_AREA), "b"(desc) : "memory", "r8", "r9", "r10", "r11");
	if (ret)
		target_skip("this kernel has no set_thread_area for 32-bit code");
	snprintf(words, sizeof(words), "pid %d: its thread %d has segments of its own", getpid(), getpid());
	target_expect_refusal(words);
	target_ready();
	return target_pass();
}
