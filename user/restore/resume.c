/*
 * The last steps of a restore.
 *
 * Theory of operation. Every thread waits in the restorer, all signals blocked. Each is
 *
 *   1  seized, stopped, and taken by PTRACE_SYSCALL to the exit of its rt_sigreturn: its registers are the target's
 *   2  if it was in a call with a restart block: made to issue that call with the remaining time and stopped in it, so
 *      that the kernel itself knows how to go on (docs/kernel.md, "Interrupted calls")
 *   3  the leader unmaps the restorer, by a system call instruction that it unmaps with it
 *   4  given its signal mask, and let go
 *
 * Until 4 begins a death of bcr kills the tree; when it begins every thread is complete, and the option that would
 * do so is taken off all of them first.
 */
#include "restore/resume.h"

#include <errno.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "sys/interrupted-x86_64.h"
#include "sys/tracee.h"

enum { TRACE_OPTIONS = PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD };

static const uint64_t step_timeout_ns = 30ULL * 1000 * 1000 * 1000;

/* One thread on its way. */
struct leaving {
	const struct task_plan *tp;
	const struct thread *thread;
	struct cpu_regs regs; /* what it goes on with */
	bool leader;
	bool restarted;       /* regs hold a restart code: to be let go from a stop in the signal path */
};

int resume_trace_tasks(struct restore *r)
{
	r->traced = true;
	VEC_FOREACH(tp, &r->plan->tasks) {
		if (!tp->mm)
			continue;
		int err = ptrace_seize(tp->task->pid, TRACE_OPTIONS);
		if (err)
			return fail(err, "pid %d: trace the process being restored", tp->task->pid);
	}
	return 0;
}

static int step_fail(const struct leaving *l, int err, const char *what)
{
	return fail(err, "pid %d thread %d: %s", l->tp->task->pid, l->thread->tid, what);
}

/* The next stop of the wanted kind; signals cannot come, they are blocked, but for SIGKILL. */
static int wait_stop(const struct leaving *l, enum ptrace_stop_kind want)
{
	uint64_t deadline = ptrace_now_ns() + step_timeout_ns;
	struct ptrace_stop stop;

	for (;;) {
		int err = ptrace_wait(l->thread->tid, deadline, &stop);

		if (err)
			return step_fail(l, err, "wait for it while it is being restored");
		if (stop.kind == want)
			return 0;
		if (stop.kind == PTRACE_GONE)
			return step_fail(l, -ESRCH, "it was killed while it was being restored");
		if (want == PTRACE_STOP_SYSCALL)
			err = ptrace_syscall(l->thread->tid, 0);
		else
			err = ptrace_cont(l->thread->tid, 0);
		if (err)
			return step_fail(l, err, "go on with it");
	}
}

static int next_syscall_stop(const struct leaving *l)
{
	int err = ptrace_syscall(l->thread->tid, 0);

	return err ? step_fail(l, err, "go on to its next system call") : wait_stop(l, PTRACE_STOP_SYSCALL);
}

static int stop_thread(const struct leaving *l)
{
	pid_t tid = l->thread->tid;
	int err = l->leader ? 0 : ptrace_seize(tid, TRACE_OPTIONS);

	if (!err)
		err = ptrace_interrupt(tid);
	return err ? step_fail(l, err, "trace it") : wait_stop(l, PTRACE_STOP_TRAP);
}

/* Runs the thread to where rt_sigreturn has loaded its registers. */
static int run_to_sigreturn(struct leaving *l)
{
	bool in_sigreturn = false;

	for (;;) {
		struct __ptrace_syscall_info info;
		int err = next_syscall_stop(l);

		if (err)
			return err;
		if (ptrace(PTRACE_GET_SYSCALL_INFO, l->thread->tid, sizeof(info), &info) < 0)
			return step_fail(l, -errno, "ask for its system call");
		if (info.op == PTRACE_SYSCALL_INFO_ENTRY)
			in_sigreturn = info.entry.nr == SYS_rt_sigreturn;
		else if (info.op == PTRACE_SYSCALL_INFO_EXIT && in_sigreturn)
			break;
	}
	int err = ptrace_get_regs(l->thread->tid, &l->regs);
	if (err)
		return step_fail(l, err, "read its registers");
	if (l->regs.ip != l->thread->cpu.regs.ip || l->regs.sp != l->thread->cpu.regs.sp)
		return step_fail(l, -EINVAL, "its registers were not taken by rt_sigreturn");
	return 0;
}

/* --- calls with a restart block --- */

/* The registers that issue the call once more, with the time that was left; `ts` holds it as a timespec. */
static int restart_regs(const struct leaving *l, taddr_t ts, struct cpu_regs *ret)
{
	const struct restart *restart = &l->thread->restart;
	struct cpu_regs r = l->regs;

	r.ip -= 2; /* the program's own `syscall` instruction */
	r.ax = restart->nr;
	r.orig_ax = -1;
	switch (restart->nr) {
	case SYS_nanosleep:
		r.di = ts;
		break;
	case SYS_clock_nanosleep:
		r.si = 0;
		r.dx = ts;
		break;
	case SYS_futex:
		r.r10 = ts;
		break;
	case SYS_poll:
		r.dx = (restart->remaining_ns + 999999) / 1000000;
		break;
	default:
		return -EOPNOTSUPP;
	}
	*ret = r;
	return 0;
}

static bool is_restart_code(int64_t ax)
{
	return ax == -KERNEL_ERESTARTSYS || ax == -KERNEL_ERESTARTNOINTR || ax == -KERNEL_ERESTARTNOHAND ||
	       ax == -KERNEL_ERESTART_RESTARTBLOCK;
}

static int restart_call(struct leaving *l, taddr_t ts)
{
	struct cpu_regs r;
	pid_t tid = l->thread->tid;

	if (restart_regs(l, ts, &r)) {
		log_warn("pid %d thread %d: system call %u returns EINTR, it cannot be restarted", l->tp->task->pid, tid,
			 l->thread->restart.nr);
		return 0;
	}
	int err = ptrace_set_regs(tid, &r);
	if (err)
		return step_fail(l, err, "set its registers");
	err = next_syscall_stop(l); /* its entry */
	if (err)
		return err;
	/* Whether the stop comes before the call sleeps or after: the kernel has made its restart block. */
	err = ptrace_cont(tid, 0);
	if (!err)
		err = ptrace_interrupt(tid);
	if (err)
		return step_fail(l, err, "stop it in its system call");
	err = wait_stop(l, PTRACE_STOP_TRAP);
	if (err)
		return err;
	err = ptrace_get_regs(tid, &r);
	if (err)
		return step_fail(l, err, "read its registers");
	l->regs.ax = r.ax;
	l->restarted = is_restart_code((int64_t)r.ax);
	l->regs.orig_ax = l->restarted ? l->thread->restart.nr : (uint64_t)-1;
	err = ptrace_set_regs(tid, &l->regs);
	return err ? step_fail(l, err, "set its registers") : 0;
}

static bool wants_restart(const struct thread *th)
{
	return th->restart.kind == RESTART_NANOSLEEP || th->restart.kind == RESTART_FUTEX ||
	       th->restart.kind == RESTART_POLL;
}

/* --- removing the restorer --- */

static int unmap_restorer(const struct restore *r, struct leaving *l)
{
	const struct restore_plan *p = r->plan;
	pid_t tid = l->thread->tid;
	struct cpu_regs regs = l->regs;

	regs.ip = p->area + plan_syscall_insn();
	regs.ax = SYS_munmap;
	regs.orig_ax = -1;
	regs.di = p->hole.start;
	regs.si = p->hole.end - p->hole.start;
	int err = ptrace_set_regs(tid, &regs);
	if (err)
		return step_fail(l, err, "set its registers");
	err = next_syscall_stop(l); /* entry */
	if (!err)
		err = next_syscall_stop(l); /* exit */
	if (err)
		return err;
	err = ptrace_get_regs(tid, &regs);
	if (err || regs.ax)
		return step_fail(l, err ? err : (int)(int64_t)regs.ax, "unmap the restorer");
	err = ptrace_set_regs(tid, &l->regs);
	if (err)
		return step_fail(l, err, "set its registers");
	if (!l->restarted)
		return 0;
	/* The kernel looks for restart codes in the signal path only: through an interrupt. */
	err = ptrace_interrupt(tid);
	if (!err)
		err = ptrace_cont(tid, 0);
	return err ? step_fail(l, err, "stop it once more") : wait_stop(l, PTRACE_STOP_TRAP);
}

/* --- letting go --- */

static int let_go(const struct restore *r, struct leaving *all, size_t nr)
{
	int err = 0;

	for (size_t i = 0; i < nr && !err; i++) {
		err = ptrace_set_sigmask(all[i].thread->tid, all[i].thread->sigmask);
		if (err)
			err = step_fail(&all[i], err, "set its signal mask");
	}
	for (size_t i = 0; i < nr && !err; i++) {
		const struct task *t = all[i].tp->task;

		/* Queued first, so that no instruction of it runs. */
		if (all[i].leader && (r->opts.leave_stopped || t->state == TASK_STOPPED) && kill(t->pid, SIGSTOP))
			err = step_fail(&all[i], -errno, "stop it");
	}
	if (err)
		return err;
	for (size_t i = 0; i < nr; i++)
		ptrace_set_options(all[i].thread->tid, 0);
	for (size_t i = 0; i < nr; i++) {
		err = ptrace_detach(all[i].thread->tid, 0);
		if (err && err != -ESRCH)
			log_warn("pid %d thread %d: detach: %s", all[i].tp->task->pid, all[i].thread->tid, strerror(-err));
	}
	return 0;
}

static size_t list_threads(const struct restore *r, struct leaving *all)
{
	size_t nr = 0;

	VEC_FOREACH(tp, &r->plan->tasks) {
		VEC_FOREACH(th, &tp->threads) {
			all[nr++] = (struct leaving){
				.tp = tp,
				.thread = th->thread,
				.leader = th == tp->threads.v,
			};
		}
	}
	return nr;
}

static taddr_t timespec_at(const struct leaving *l)
{
	size_t i = 0;

	while (l->tp->threads.v[i].thread != l->thread)
		i++;
	return l->tp->timespecs + i * sizeof(struct timespec);
}

int resume_all(struct restore *r)
{
	_cleanup_free_ struct leaving *all = calloc(r->plan->nr_slots, sizeof(*all));
	int err = 0;

	if (!all)
		return fail(-ENOMEM, "list of threads");
	size_t nr = list_threads(r, all);
	for (size_t i = 0; i < nr && !err; i++)
		err = stop_thread(&all[i]);
	control_set_phase(r->control, PHASE_RESUME);
	for (size_t i = 0; i < nr && !err; i++)
		err = run_to_sigreturn(&all[i]);
	for (size_t i = 0; i < nr && !err; i++) {
		if (wants_restart(all[i].thread))
			err = restart_call(&all[i], timespec_at(&all[i]));
	}
	for (size_t i = 0; i < nr && !err; i++) {
		if (all[i].leader)
			err = unmap_restorer(r, &all[i]);
	}
	return err ? err : let_go(r, all, nr);
}
