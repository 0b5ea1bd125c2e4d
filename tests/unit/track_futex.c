/* Which registers say that a thread waits for a futex that processes may share. */
#include <assert.h>
#include <linux/futex.h>
#include <stdio.h>
#include <sys/syscall.h>

#include "model/cpu-x86_64.h"
#include "track/futex-x86_64.h"

int main(void)
{
	struct cpu_regs r = { .orig_ax = SYS_futex, .ax = (uint64_t)-512, .si = FUTEX_WAIT };

	assert(futex_wait_is_shared(&r));
	r.si = FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME;
	assert(futex_wait_is_shared(&r));
	r.si = FUTEX_WAIT | FUTEX_PRIVATE_FLAG;
	assert(!futex_wait_is_shared(&r));
	r = (struct cpu_regs){ .orig_ax = (uint64_t)-1, .ax = SYS_futex, .si = FUTEX_WAIT };
	assert(futex_wait_is_shared(&r));
	r = (struct cpu_regs){ .orig_ax = SYS_restart_syscall, .ax = (uint64_t)-516, .si = FUTEX_WAIT };
	assert(futex_wait_is_shared(&r));
	r = (struct cpu_regs){ .orig_ax = (uint64_t)-1, .ax = SYS_restart_syscall, .si = FUTEX_WAIT };
	assert(futex_wait_is_shared(&r));
	r = (struct cpu_regs){ .orig_ax = SYS_read, .ax = 5, .si = 0 };
	assert(!futex_wait_is_shared(&r));
	puts("PASS");
	return 0;
}
