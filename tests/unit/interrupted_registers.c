/* capture_fix_syscalls(): the registers of threads stopped inside a call, case by case. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

#include "capture/capture.h"

static int failures;

struct want {
	const char *name;
	int64_t ax, orig_ax;       /* as the stop left them */
	uint64_t handler_flags;    /* of a pending, unblocked SIGUSR1 with a handler; ~0: none pending */
	enum restart_kind restart; /* as observed */
	int64_t ax_after;
	int64_t ip_moved;
	enum restart_kind restart_after;
};

enum { IP = 0x401000 };
#define NO_SIGNAL (~0ULL)

static const struct want wants[] = {
	{ "user mode", 7, -1, NO_SIGNAL, RESTART_NONE, 7, 0, RESTART_NONE },
	{ "finished call", 5, SYS_read, NO_SIGNAL, RESTART_NONE, 5, 0, RESTART_NONE },
	{ "failed call", -ENOENT, SYS_openat, NO_SIGNAL, RESTART_NONE, -ENOENT, 0, RESTART_NONE },
	{ "read", -512, SYS_read, NO_SIGNAL, RESTART_NONE, SYS_read, -2, RESTART_NONE },
	{ "read, handler", -512, SYS_read, 0, RESTART_NONE, -EINTR, 0, RESTART_NONE },
	{ "read, SA_RESTART", -512, SYS_read, SA_RESTART, RESTART_NONE, SYS_read, -2, RESTART_NONE },
	{ "NOINTR, handler", -513, SYS_read, 0, RESTART_NONE, SYS_read, -2, RESTART_NONE },
	{ "pause", -514, SYS_pause, NO_SIGNAL, RESTART_NONE, SYS_pause, -2, RESTART_NONE },
	{ "pause, SA_RESTART", -514, SYS_pause, SA_RESTART, RESTART_NONE, -EINTR, 0, RESTART_NONE },
	{ "nanosleep", -516, SYS_nanosleep, NO_SIGNAL, RESTART_NANOSLEEP, -EINTR, 0, RESTART_NANOSLEEP },
	{ "nanosleep, handler", -516, SYS_nanosleep, 0, RESTART_NANOSLEEP, -EINTR, 0, RESTART_NONE },
	{ "epoll_wait", -EINTR, SYS_epoll_wait, NO_SIGNAL, RESTART_NONE, SYS_epoll_wait, -2, RESTART_NONE },
	{ "epoll_wait, handler", -EINTR, SYS_epoll_wait, 0, RESTART_NONE, -EINTR, 0, RESTART_NONE },
	{ "ppoll broken off", -EINTR, SYS_ppoll, NO_SIGNAL, RESTART_NONE, SYS_ppoll, -2, RESTART_NONE },
	{ "futex whose block is unknown", -516, SYS_futex, NO_SIGNAL, RESTART_UNKNOWN, SYS_futex, -2, RESTART_NONE },
	{ "stale restart block", 3, SYS_write, NO_SIGNAL, RESTART_NANOSLEEP, 3, 0, RESTART_NONE },
};

static void check(const struct want *w)
{
	struct model *m = model_create();
	struct task *t = VEC_ADD(&m->tasks);
	struct thread *th = VEC_ADD(&t->threads);
	struct cpu_regs *r = &th->cpu.regs;

	t->pid = th->tid = 1;
	r->ip = IP;
	r->ax = w->ax;
	r->orig_ax = w->orig_ax;
	th->restart.kind = w->restart;
	if (w->handler_flags != NO_SIGNAL) {
		struct siginfo_raw *info = VEC_ADD(&t->pending);
		siginfo_t si = { .si_signo = SIGUSR1 };

		memcpy(info->bytes, &si, sizeof(si));
		t->sigactions[SIGUSR1 - 1].handler = 0x402000;
		t->sigactions[SIGUSR1 - 1].flags = w->handler_flags;
	}
	capture_fix_syscalls(m, NULL);
	if ((int64_t)r->ax != w->ax_after || (int64_t)r->ip != IP + w->ip_moved ||
	    th->restart.kind != w->restart_after) {
		printf("%s: ax %lld (want %lld), ip moved %lld (want %lld), restart %d (want %d)\n",
		       w->name, (long long)r->ax, (long long)w->ax_after, (long long)r->ip - IP,
		       (long long)w->ip_moved, th->restart.kind, w->restart_after);
		failures++;
	}
	model_destroy(m);
}

int main(void)
{
	for (size_t i = 0; i < sizeof(wants) / sizeof(wants[0]); i++)
		check(&wants[i]);
	return failures != 0;
}
