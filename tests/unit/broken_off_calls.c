/* Which interrupted calls are taken for broken off, and what rewinding makes of registers. */
#include "sys/interrupted-x86_64.h"

#include <errno.h>
#include <stdio.h>
#include <sys/syscall.h>

#include "model/cpu-x86_64.h"

static int failures;

static const struct {
	const char *name;
	int64_t ax, orig_ax;
	bool broken_off;
} cases[] = {
	{ "epoll_wait", -EINTR, SYS_epoll_wait, true },
	{ "epoll_pwait2", -EINTR, SYS_epoll_pwait2, true },
	{ "rt_sigtimedwait", -EINTR, SYS_rt_sigtimedwait, true },
	{ "semtimedop", -EINTR, SYS_semtimedop, true },
	{ "recvfrom with a timeout", -EINTR, SYS_recvfrom, true },
	{ "epoll_wait that timed out", 0, SYS_epoll_wait, false },
	{ "epoll_wait that failed", -EBADF, SYS_epoll_wait, false },
	{ "read that the kernel restarts", -KERNEL_ERESTARTSYS, SYS_read, false },
	{ "nanosleep with a restart block", -KERNEL_ERESTART_RESTARTBLOCK, SYS_nanosleep, false },
	{ "close, which must not be repeated", -EINTR, SYS_close, false },
	{ "user mode, the number of EINTR by chance", -EINTR, -1, false },
};

static void check(bool ok, const char *what)
{
	if (ok)
		return;
	printf("wrong: %s\n", what);
	failures++;
}

int main(void)
{
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct cpu_regs r = { .ax = (uint64_t)cases[i].ax, .orig_ax = (uint64_t)cases[i].orig_ax };

		check(call_was_broken_off(&r) == cases[i].broken_off, cases[i].name);
	}

	struct cpu_regs r = { .ip = 0x1002, .ax = (uint64_t)-EINTR, .orig_ax = SYS_epoll_wait, .di = 7 };
	call_rewind(&r);
	check(r.ip == 0x1000 && r.ax == SYS_epoll_wait && r.orig_ax == (uint64_t)-1 && r.di == 7, "rewound registers");
	puts(failures ? "FAIL" : "PASS");
	return failures != 0;
}
