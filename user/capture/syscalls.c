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
 *   EINTR from a call that never restarts         the stop caused it: issued again as well
 *
 * unless a signal with a handler is waiting for the thread: then the call ends with EINTR, or restarts under
 * SA_RESTART, exactly as it would have.
 */
#include "capture/capture.h"

#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>

#include "base/log.h"
#include "sys/interrupted-x86_64.h"

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

static void fix_restart_block(const struct task *t, struct thread *th)
{
	struct cpu_regs *r = &th->cpu.regs;

	th->restart.nr = original_call(th);
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
			log_warn("pid %d thread %d: after a restore system call %u waits its whole time anew: only the BPF "
				 "observer can read what is left",
				 t->pid, th->tid, th->restart.nr);
		th->restart.kind = RESTART_NONE;
		r->orig_ax = th->restart.nr;
		call_rewind(r);
		return;
	}
	end_call(r);
}

static void fix_thread(const struct task *t, struct thread *th)
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
		fix_restart_block(t, th);
		return;
	default:
		if (call_was_broken_off(r) && !handled_signal(t, th))
			call_rewind(r);
		else
			r->orig_ax = -1;
	}
}

void capture_fix_syscalls(struct model *m)
{
	VEC_FOREACH(t, &m->tasks) {
		VEC_FOREACH(th, &t->threads)
			if (!th->exited)
				fix_thread(t, th);
	}
}
