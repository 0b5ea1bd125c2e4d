/* Which system calls a stop breaks off for good on x86-64. */
#include "sys/interrupted-x86_64.h"

#include <errno.h>
#include <stddef.h>
#include <sys/syscall.h>

#include "model/cpu-x86_64.h"

/*
 * signal(7), "Interruption of system calls and library functions by stop signals", and what today's kernel does:
 * these return EINTR after a stop although no handler ran. Socket calls do so only with SO_RCVTIMEO or SO_SNDTIMEO,
 * reads and writes only on sockets and on FUSE; otherwise the kernel restarts them by itself and EINTR is not seen.
 */
static const uint16_t never_restarted[] = {
	SYS_epoll_wait,  SYS_epoll_pwait,    SYS_epoll_pwait2,   SYS_rt_sigtimedwait, SYS_semop,
	SYS_semtimedop,  SYS_io_getevents,   SYS_io_uring_enter, SYS_read,            SYS_readv,
	SYS_write,       SYS_writev,         SYS_accept,         SYS_accept4,         SYS_connect,
	SYS_recvfrom,    SYS_recvmsg,        SYS_recvmmsg,       SYS_sendto,          SYS_sendmsg,
	SYS_sendmmsg,    SYS_fallocate, /* tmpfs undoes and gives up */
};

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
	r->ip -= 2; /* length of the `syscall` instruction */
	r->ax = r->orig_ax;
	r->orig_ax = (uint64_t)-1;
}
