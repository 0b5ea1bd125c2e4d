/* Which interrupted calls are taken for broken off, and what rewinding makes of registers. */
#include "sys/interrupted-x86_64.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

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
	{ "ppoll whose timeout cannot be written", -EINTR, SYS_ppoll, true },
	{ "ppoll that the kernel restarts", -KERNEL_ERESTARTNOHAND, SYS_ppoll, false },
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

/* What is left of a limit, in registers and in this process's own memory. */
static void check_limits(void)
{
	char stack[1024] __attribute__((aligned(16)));
	struct timespec ts = { 5, 0 };
	struct cpu_regs ms = { .r10 = 5000 }, forever = { .r10 = (uint32_t)-1 }, none = { .dx = 0 };
	struct cpu_regs pointer = { .dx = (uintptr_t)&ts, .sp = (uintptr_t)stack + sizeof(stack) };
	struct cpu_regs nowhere = { .dx = (uintptr_t)&ts, .sp = 4096 };
	int64_t ns;

	check(call_has_limit(&ms, SYS_epoll_wait) && !call_has_limit(&forever, SYS_epoll_wait), "limits in milliseconds");
	check(call_has_limit(&pointer, SYS_ppoll) && !call_has_limit(&none, SYS_ppoll), "limits behind pointers");
	check(!call_has_limit(&ms, SYS_read), "a call without one");

	call_set_limit(getpid(), &ms, SYS_epoll_wait, 1500001);
	check(ms.r10 == 2, "whole milliseconds, upwards");
	call_set_limit(getpid(), &ms, SYS_epoll_wait, 3000000);
	check(ms.r10 == 2, "never more than before");
	call_set_limit(getpid(), &ms, SYS_epoll_wait, -7);
	check(ms.r10 == 1, "never no wait at all");
	call_set_limit(getpid(), &forever, SYS_epoll_wait, 1);
	check(forever.r10 == (uint32_t)-1, "no limit stays none");

	call_set_limit(getpid(), &pointer, SYS_rt_sigtimedwait, 1500000001);
	check(pointer.dx <= pointer.sp - 128 - sizeof(ts) && pointer.dx >= (uintptr_t)stack, "below the red zone");
	check(!call_limit_read(getpid(), call_limit_of(SYS_ppoll), pointer.dx, &ns) && ns == 1500000001, "what is written there");
	check(ts.tv_sec == 5, "the program's own is left alone");
	check(!call_limit_write(getpid(), call_limit_of(SYS_select), (uintptr_t)&ts, 1999999001) && ts.tv_sec == 2 && !ts.tv_nsec,
	      "microseconds, upwards");
	check(!call_limit_write(getpid(), call_limit_of(SYS_ppoll), (uintptr_t)&ts, -1) && !ts.tv_sec && !ts.tv_nsec, "never negative");
	call_set_limit(getpid(), &nowhere, SYS_ppoll, 1);
	check(nowhere.dx == (uintptr_t)&ts, "no place for it: as it was");
}

/* Stopped again on the way into restart_syscall(2): an instruction that makes a call is what tells. */
static void check_restarts(void)
{
	static const uint8_t code[] = { 0xb8, SYS_nanosleep, 0, 0, 0, 0x0f, 0x05, 0x90, 0x90 };
	const uint64_t insn = (uintptr_t)code + 5;
	struct cpu_regs on_its_way = { .ip = insn, .ax = SYS_restart_syscall, .orig_ax = SYS_nanosleep };
	struct cpu_regs interrupted = { .ip = insn, .ax = SYS_restart_syscall, .orig_ax = (uint64_t)-1 };
	struct cpu_regs elsewhere = { .ip = insn + 2, .ax = SYS_restart_syscall, .orig_ax = SYS_read }, r;

	r = on_its_way;
	call_undo_restart(getpid(), &r);
	check(r.ip == insn + 2 && r.ax == (uint64_t)-516 && r.orig_ax == SYS_nanosleep, "as the first stop left it");
	r = interrupted;
	call_undo_restart(getpid(), &r);
	check(r.ip == insn + 2 && r.ax == (uint64_t)-516 && r.orig_ax == SYS_restart_syscall, "its number has been lost");
	check(call_restarted(getpid(), &r) == SYS_nanosleep, "the code tells the number");
	r = elsewhere;
	call_undo_restart(getpid(), &r);
	check(!memcmp(&r, &elsewhere, sizeof(r)), "219 bytes have been read");

	r = interrupted;
	call_settle(getpid(), &r);
	check(r.ip == insn && r.ax == SYS_nanosleep, "begins anew");
	r = elsewhere;
	call_settle(getpid(), &r);
	check(!memcmp(&r, &elsewhere, sizeof(r)), "a call that has ended");
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
	call_unwind(&r, SYS_epoll_wait);
	check(r.ip == 0x1002 && r.ax == (uint64_t)-KERNEL_ERESTARTNOHAND && r.orig_ax == SYS_epoll_wait, "unwound registers");
	check_limits();
	check_restarts();
	puts(failures ? "FAIL" : "PASS");
	return failures != 0;
}
