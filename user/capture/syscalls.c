/*
 * Threads stopped inside a system call: what their registers must say in the image.
 *
 * A stop takes a thread out of its call through the signal path: ax then holds a restart code that user space never
 * sees, and orig_ax the number of the call. The restored thread enters user mode by rt_sigreturn, which has no restart
 * logic, so the decision the kernel would take on resuming is taken here (arch_do_signal_or_restart(),
 * arch/x86/kernel/signal.c; signal(7)):
 *
 *   ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND   the call is issued again: ip back to the instruction, ax = number
 *   ERESTART_RESTARTBLOCK                         EINTR in the registers; thread.restart tells a restore of ours the rest
 *   EINTR from a call that never restarts         the stop caused it: issued again as well; if it has a time limit,
 *                                                 thread.restart tells a restore of ours what was left
 *
 * unless a signal with a handler is waiting for the thread: then the call ends with EINTR, or restarts under
 * SA_RESTART, exactly as it would have.
 */
#include "capture/capture.h"

#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>

#include "base/log.h"
#include "sys/interrupted-x86_64.h"
#include "sys/waits.h"

static int siginfo_signo(const struct siginfo_raw *info)
{
	siginfo_t si;

	memcpy(&si, info->bytes, sizeof(si));
	return si.si_signo;
}

/* The first signal that will run a handler in this thread, or 0. */
static int handled_signal(const struct task *t, const struct thread *th)
{
	for (int shared = 0; shared < 2; shared++) {
		size_t nr = shared ? t->pending.nr : th->pending.nr;
		const struct siginfo_raw *v = shared ? t->pending.v : th->pending.v;

		for (size_t i = 0; i < nr; i++) {
			int sig = siginfo_signo(&v[i]);

			if (sig < 1 || sig > MODEL_NSIG || th->sigmask >> (sig - 1) & 1)
				continue;
			if (t->sigactions[sig - 1].handler > 1)
				return sig;
		}
	}
	return 0;
}

static void end_call(struct cpu_regs *r)
{
	r->ax = -(int64_t)EINTR;
	r->orig_ax = -1;
}

/* The call that restart_syscall(2) stands for, when the thread was stopped in that. */
static uint32_t original_call(const struct thread *th)
{
	return th->cpu.regs.orig_ax == SYS_restart_syscall && th->restart.nr ? th->restart.nr : th->cpu.regs.orig_ax;
}

/* Restart blocks that the observer could not read: what is left of such a call tells its timer. */
static void learn_restart(struct restart *restart, const struct thread *th, const struct waits *waits)
{
	const struct cpu_regs *r = &th->cpu.regs;
	bool has_limit = true;
	struct ended_wait wait;
	enum restart_kind kind;

	switch (restart->nr) {
	case SYS_nanosleep:
	case SYS_clock_nanosleep:
		kind = RESTART_NANOSLEEP;
		restart->clockid = restart->nr == SYS_nanosleep ? CLOCK_MONOTONIC : (uint32_t)r->di;
		break;
	case SYS_futex:
		kind = RESTART_FUTEX;
		/* All but FUTEX_WAIT have an absolute time as their argument. */
		has_limit = (r->si & FUTEX_CMD_MASK) == FUTEX_WAIT;
		break;
	case SYS_poll:
		kind = RESTART_POLL;
		has_limit = (int32_t)r->dx >= 0;
		break;
	default:
		return;
	}
	if (has_limit && !waits_find(waits, th->tid, &wait))
		return;
	restart->kind = kind;
	restart->remaining_ns = !has_limit ? INT64_MAX : wait.left_ns > 0 ? wait.left_ns : 0;
}

static void fix_restart_block(const struct task *t, struct thread *th, const struct waits *waits)
{
	struct cpu_regs *r = &th->cpu.regs;
	struct ended_wait wait;

	th->restart.nr = original_call(th);
	if (th->restart.kind == RESTART_UNKNOWN)
		learn_restart(&th->restart, th, waits);
	else if (th->restart.remaining_ns != INT64_MAX && waits_find(waits, th->tid, &wait))
		/* When its own stop came; the observer read the block when all stood still. */
		th->restart.remaining_ns = wait.left_ns > 0 ? wait.left_ns : 0;
	if (handled_signal(t, th)) {
		th->restart.kind = RESTART_NONE;
	} else if (th->restart.kind == RESTART_UNKNOWN && th->restart.nr == SYS_restart_syscall) {
		log_warn("pid %d thread %d: after a restore its system call returns EINTR: which one it was cannot be read here",
			 t->pid, th->tid);
		th->restart.kind = RESTART_NONE;
	} else if (th->restart.kind == RESTART_UNKNOWN || th->restart.remaining_ns == INT64_MAX) {
		/*
		 * No limit of its own: its arguments, still in the registers, say all. Or one of which we do not know
		 * how much is left: a wait that takes too long is what programs have to expect, EINTR without a
		 * signal is not.
		 */
		if (th->restart.kind == RESTART_UNKNOWN)
			log_warn("pid %d thread %d: after a restore system call %u waits its whole time anew: what is left "
				 "of it cannot be read",
				 t->pid, th->tid, th->restart.nr);
		th->restart.kind = RESTART_NONE;
		r->orig_ax = th->restart.nr;
		call_rewind(r);
		return;
	}
	end_call(r);
}

/* The stop has broken it off: issued again, for as long as it had left. */
static void fix_broken_off(struct thread *th, const struct waits *waits)
{
	struct cpu_regs *r = &th->cpu.regs;
	struct ended_wait wait;

	if (call_has_limit(r, r->orig_ax) && waits_find(waits, th->tid, &wait)) {
		th->restart.kind = RESTART_ISSUE;
		th->restart.nr = (uint32_t)r->orig_ax;
		th->restart.remaining_ns = wait.left_ns > 0 ? wait.left_ns : 0;
	}
	call_rewind(r);
}

static void fix_thread(const struct task *t, struct thread *th, const struct waits *waits)
{
	struct cpu_regs *r = &th->cpu.regs;
	int64_t code = -(int64_t)r->ax;
	int sig;

	if ((int64_t)r->orig_ax < 0) {
		th->restart.kind = RESTART_NONE;
		return;
	}
	if (code != KERNEL_ERESTART_RESTARTBLOCK)
		th->restart.kind = RESTART_NONE;
	switch (code) {
	case KERNEL_ERESTARTNOINTR:
		call_rewind(r);
		return;
	case KERNEL_ERESTARTSYS:
		sig = handled_signal(t, th);
		if (sig && !(t->sigactions[sig - 1].flags & SA_RESTART))
			end_call(r);
		else
			call_rewind(r);
		return;
	case KERNEL_ERESTARTNOHAND:
		if (handled_signal(t, th))
			end_call(r);
		else
			call_rewind(r);
		return;
	case KERNEL_ERESTART_RESTARTBLOCK:
		fix_restart_block(t, th, waits);
		return;
	default:
		if (call_was_broken_off(r) && !handled_signal(t, th))
			fix_broken_off(th, waits);
		else
			r->orig_ax = -1;
	}
}

void capture_fix_syscalls(struct model *m, const struct waits *waits)
{
	VEC_FOREACH(t, &m->tasks) {
		VEC_FOREACH(th, &t->threads)
			if (!th->exited)
				fix_thread(t, th, waits);
	}
}
