/* Segments in an LDT (modify_ldt(2)): refused, they are not in the images. */
#include <asm/ldt.h>
#include <sys/syscall.h>

#include "target.h"

int main(void)
{
	struct user_desc desc = { .base_addr = 0x1000, .limit = 0xfffff, .seg_32bit = 1, .useable = 1 };
	char words[96];

	if (syscall(SYS_modify_ldt, 1, &desc, sizeof(desc)))
		target_skip("this kernel has no modify_ldt");
	snprintf(words, sizeof(words), "pid %d: its thread %d has segments of its own (modify_ldt)", getpid(), getpid());
	target_expect_refusal(words);
	target_ready();
	return target_pass();
}
