/* Which system calls a stop breaks off for good on x86-64. */
#include "sys/interrupted-x86_64.h"

#include <errno.h>
#include <linux/futex.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>

#include "model/cpu-x86_64.h"

/*
 * signal(7), "Interruption of system calls and library functions by stop signals", and what today's kernel does:
 * these return EINTR after a stop although no handler ran. Socket calls do so only with SO_RCVTIMEO or SO_SNDTIMEO,
 * reads and writes only on sockets and on FUSE, select and ppoll only when the kernel cannot write the time that is left;
 * otherwise it restarts them by itself and EINTR is not seen.
 */
static const uint16_t never_restarted[] = {
	SYS_epoll_wait,  SYS_epoll_pwait,    SYS_epoll_pwait2,   SYS_rt_sigtimedwait, SYS_semop,
	SYS_semtimedop,  SYS_io_getevents,   SYS_io_uring_enter, SYS_read,            SYS_readv,
	SYS_write,       SYS_writev,         SYS_accept,         SYS_accept4,         SYS_connect,
	SYS_recvfrom,    SYS_recvmsg,        SYS_recvmmsg,       SYS_sendto,          SYS_sendmsg,
	SYS_sendmmsg,    SYS_io_pgetevents,  SYS_select,         SYS_pselect6,        SYS_ppoll,
	SYS_fallocate, /* tmpfs undoes and gives up */
};

/* Those of them that have a time limit, which counts from their beginning. */
static const struct call_limit limits[] = {
	{ SYS_epoll_wait, 3, LIMIT_MS },          { SYS_epoll_pwait, 3, LIMIT_MS },
	{ SYS_select, 4, LIMIT_TIMEVAL },         { SYS_pselect6, 4, LIMIT_TIMESPEC },
	{ SYS_ppoll, 2, LIMIT_TIMESPEC },         { SYS_epoll_pwait2, 3, LIMIT_TIMESPEC },
	{ SYS_rt_sigtimedwait, 2, LIMIT_TIMESPEC }, { SYS_semtimedop, 3, LIMIT_TIMESPEC },
	{ SYS_io_getevents, 4, LIMIT_TIMESPEC },  { SYS_io_pgetevents, 4, LIMIT_TIMESPEC },
};

static const uint8_t syscall_insn[] = { 0x0f, 0x05 };

enum { RED_ZONE_BYTES = 128, STACK_ALIGN = 16 };

const struct call_limit *call_limit_at(size_t i)
{
	return i < sizeof(limits) / sizeof(limits[0]) ? &limits[i] : NULL;
}

const struct call_limit *call_limit_of(uint64_t nr)
{
	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++)
		if (limits[i].nr == nr)
			return &limits[i];
	return NULL;
}

/* Arguments from 2 on. */
static uint64_t *argument(struct cpu_regs *r, unsigned arg)
{
	return arg == 2 ? &r->dx : arg == 3 ? &r->r10 : &r->r8;
}

bool call_is_never_restarted(uint64_t nr)
{
	for (size_t i = 0; i < sizeof(never_restarted) / sizeof(never_restarted[0]); i++)
		if (never_restarted[i] == nr)
			return true;
	return false;
}

bool call_was_broken_off(const struct cpu_regs *r)
{
	return r->ax == (uint64_t)-EINTR && call_is_never_restarted(r->orig_ax);
}

void call_rewind(struct cpu_regs *r)
{
	r->ip -= sizeof(syscall_insn);
	r->ax = r->orig_ax;
	r->orig_ax = (uint64_t)-1;
}

void call_unwind(struct cpu_regs *r, uint64_t nr)
{
	r->ip += sizeof(syscall_insn);
	r->ax = (uint64_t)-(int64_t)KERNEL_ERESTARTNOHAND;
	r->orig_ax = nr;
}

static bool peek(pid_t tid, uint64_t at, void *buf, size_t len_bytes)
{
	struct iovec local = { buf, len_bytes }, remote = { (void *)(uintptr_t)at, len_bytes };

	return process_vm_readv(tid, &local, 1, &remote, 1, 0) == (ssize_t)len_bytes;
}

/* Arguments of a futex(2) that waits, with a time limit, for a word that is still what it was? */
static bool waits_for_futex(pid_t tid, const struct cpu_regs *r)
{
	uint64_t cmd = r->si & FUTEX_CMD_MASK;
	struct timespec ts;
	uint32_t word;

	return (cmd == FUTEX_WAIT || cmd == FUTEX_WAIT_BITSET) && r->si < 2 * FUTEX_CLOCK_REALTIME && r->di % sizeof(word) == 0 &&
	       r->r10 && peek(tid, r->di, &word, sizeof(word)) && word == (uint32_t)r->dx &&
	       peek(tid, r->r10, &ts, sizeof(ts)) && ts.tv_sec >= 0 && ts.tv_nsec >= 0 && ts.tv_nsec < 1000000000;
}

uint32_t call_restarted(pid_t tid, const struct cpu_regs *r)
{
	/* In every C library a load of the number; but futex(2) has no function there, and is made by syscall(3). */
	struct __attribute__((packed)) {
		uint8_t mov_eax;
		uint32_t nr;
		uint8_t syscall[sizeof(syscall_insn)];
	} code;

	if (r->orig_ax != SYS_restart_syscall)
		return (uint32_t)r->orig_ax;
	if (peek(tid, r->ip - sizeof(code), &code, sizeof(code)) && code.mov_eax == 0xb8 &&
	    !memcmp(code.syscall, syscall_insn, sizeof(syscall_insn)))
		return code.nr;
	return waits_for_futex(tid, r) ? SYS_futex : SYS_restart_syscall;
}

void call_undo_restart(pid_t tid, struct cpu_regs *r)
{
	uint8_t code[sizeof(syscall_insn)];

	if (r->ax != SYS_restart_syscall || !peek(tid, r->ip, code, sizeof(code)) || memcmp(code, syscall_insn, sizeof(code)))
		return;
	r->ip += sizeof(code);
	r->ax = (uint64_t)-(int64_t)KERNEL_ERESTART_RESTARTBLOCK;
	/* An interrupt on the way has left something else there. */
	if ((int64_t)r->orig_ax < 0)
		r->orig_ax = SYS_restart_syscall;
}

void call_settle(pid_t tid, struct cpu_regs *r)
{
	call_undo_restart(tid, r);
	int64_t code = -(int64_t)r->ax;

	if ((int64_t)r->orig_ax < 0)
		return;
	if (code == KERNEL_ERESTART_RESTARTBLOCK)
		r->orig_ax = call_restarted(tid, r);
	else if ((code < KERNEL_ERESTARTSYS || code > KERNEL_ERESTARTNOHAND) && !call_was_broken_off(r))
		return;
	call_rewind(r);
}

bool call_has_limit(const struct cpu_regs *r, uint64_t nr)
{
	const struct call_limit *limit = call_limit_of(nr);
	struct cpu_regs regs = *r;

	if (!limit)
		return false;
	uint64_t arg = *argument(&regs, limit->arg);
	return limit->kind == LIMIT_MS ? (int32_t)arg > 0 : arg != 0;
}

void call_set_limit_ms(struct cpu_regs *r, const struct call_limit *limit, int64_t left_ns)
{
	uint64_t *arg = argument(r, limit->arg);
	int64_t left_ms = (left_ns + 999999) / 1000000;

	/* Not 0, which would be a call that does not wait at all. */
	if (left_ms < 1)
		left_ms = 1;
	if (left_ms < (int32_t)*arg)
		*arg = (uint64_t)left_ms;
}

void call_set_limit_at(struct cpu_regs *r, const struct call_limit *limit, uint64_t at)
{
	*argument(r, limit->arg) = at;
}

uint64_t call_limit_place(uint64_t sp)
{
	return (sp - RED_ZONE_BYTES - sizeof(struct timespec)) & ~(uint64_t)(STACK_ALIGN - 1);
}

int call_limit_write(pid_t tid, const struct call_limit *limit, uint64_t at, int64_t left_ns)
{
	struct timespec ts = { left_ns / 1000000000, left_ns % 1000000000 };
	struct iovec local = { &ts, sizeof(ts) }, remote = { (void *)(uintptr_t)at, sizeof(ts) };

	_Static_assert(sizeof(struct timeval) == sizeof(struct timespec), "one as long as the other");
	if (left_ns < 0)
		ts = (struct timespec){ 0, 0 };
	else if (limit->kind == LIMIT_TIMEVAL)
		ts.tv_nsec = (ts.tv_nsec + 999) / 1000;
	if (limit->kind == LIMIT_TIMEVAL && ts.tv_nsec == 1000000)
		ts = (struct timespec){ ts.tv_sec + 1, 0 };
	return process_vm_writev(tid, &local, 1, &remote, 1, 0) == sizeof(ts) ? 0 : -EFAULT;
}

int call_limit_read(pid_t tid, const struct call_limit *limit, uint64_t at, int64_t *ret_ns)
{
	struct timespec ts;
	struct iovec local = { &ts, sizeof(ts) }, remote = { (void *)(uintptr_t)at, sizeof(ts) };

	if (process_vm_readv(tid, &local, 1, &remote, 1, 0) != sizeof(ts) || ts.tv_sec < 0 || ts.tv_nsec < 0 ||
	    ts.tv_sec > INT64_MAX / 2000000000 || ts.tv_nsec >= 1000000000)
		return -EFAULT;
	*ret_ns = ts.tv_sec * 1000000000 + ts.tv_nsec * (limit->kind == LIMIT_TIMEVAL ? 1000 : 1);
	return 0;
}

void call_set_limit(pid_t tid, struct cpu_regs *r, uint64_t nr, int64_t left_ns)
{
	const struct call_limit *limit = call_limit_of(nr);
	uint64_t at = call_limit_place(r->sp);

	if (!call_has_limit(r, nr))
		return;
	if (limit->kind == LIMIT_MS)
		call_set_limit_ms(r, limit, left_ns);
	else if (!call_limit_write(tid, limit, at, left_ns))
		call_set_limit_at(r, limit, at);
}
