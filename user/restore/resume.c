/*
 * Letting go: the last steps of a restore, by ptrace.
 *
 * Every thread waits in its restorer, all its signals blocked. It is stopped there and then run, call by call, to the end of its
 * rt_sigreturn, where it has the registers of the image and has executed nothing yet. From there:
 *
 *   1  a call that the dump broke off and that has a time limit is issued again with the time that was left, through the `syscall`
 *      instruction of the restorer, and broken off at once: the kernel then has a restart block of its own
 *   2  a main thread that had exited while others lived on does so again, through the same instruction; who was stopped
 *      by a signal is stopped by it again (stops.c)
 *   3  one thread of each address space sets whether it is dumpable, and unmaps the restorer, by the restorer's own instruction
 *   4  registers and signal mask are set; a call that never restarts by itself gets what was left of its time limit as its
 *      argument
 *   5  at a moment that was set before 1, for remaining times to count from, the threads are detached
 *
 * A SIGSTOP that comes from outside meanwhile is put off to the end; all other signals wait, being blocked.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "restore/leaving.h"
#include "sys/interrupted-x86_64.h"
#include "sys/priority.h"
#include "sys/proc.h"

enum {
	TRACE_OPTIONS = PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD,
	SUSPEND_SECCOMP = 1 << 21, /* PTRACE_O_SUSPEND_SECCOMP */
	MAX_STOPS = 64,
	RESTART_TRIES = 3,
	MARGIN_NS = 200000,
};
static const uint64_t stop_timeout_ns = 10000000000;
static const int64_t late_ns = 1000000;

int leaving_fail(const struct leaving *l, int err, const char *what)
{
	return fail(err, "pid %d thread %d: %s", l->tp->task->pid, l->tid, what);
}

/* Calls of the restorer are not the program's: its filters must not judge them (PTRACE_O_SUSPEND_SECCOMP, ptrace(2)). */
static unsigned long trace_options(const struct restore *r)
{
	return r->plan->has_seccomp ? TRACE_OPTIONS | SUSPEND_SECCOMP : TRACE_OPTIONS;
}

int trace_threads(struct restore *r)
{
	VEC_FOREACH(tp, &r->plan->tasks) {
		VEC_FOREACH(th, &tp->threads) {
			int err = th->thread->tid != tp->task->pid ? ptrace_seize(th->thread->tid, trace_options(r)) : 0;

			if (err)
				return fail(err, "pid %d thread %d: trace it", tp->task->pid, th->thread->tid);
		}
	}
	r->threads_traced = true;
	return 0;
}

int trace_tasks(struct restore *r)
{
	VEC_FOREACH(tp, &r->plan->tasks) {
		int err = tp->mm ? ptrace_seize(tp->task->pid, trace_options(r)) : 0;

		if (err)
			return fail(err, "pid %d: trace it", tp->task->pid);
	}
	r->traced = true;
	return 0;
}

int trace_look(struct restore *r)
{
	for (size_t i = 0; i < r->plan->tasks.nr; i++) {
		const struct task_plan *tp = &r->plan->tasks.v[i];
		siginfo_t info = { 0 };
		int status;

		/* Without tracing only the root is ours to ask about; the others pass on its death, or are seen later. */
		if (!tp->mm || (!r->traced && i) ||
		    waitid(P_PID, tp->task->pid, &info, WEXITED | WSTOPPED | WNOHANG | WNOWAIT | __WALL) || !info.si_pid)
			continue;
		if (info.si_code == CLD_EXITED || info.si_code == CLD_KILLED || info.si_code == CLD_DUMPED) {
			/* What it has to say itself comes first. */
			if (!__atomic_load_n(&r->control->failed, __ATOMIC_ACQUIRE))
				fail(0, "pid %d: it was ended while it was being restored; was memory short?", tp->task->pid);
			return -ECANCELED;
		}
		if (waitpid(tp->task->pid, &status, WNOHANG | __WALL) <= 0 || !WIFSTOPPED(status))
			continue;
		r->stops[i] |= WSTOPSIG(status) == SIGSTOP;
		ptrace_cont(tp->task->pid, 0);
	}
	return 0;
}

int leaving_next_stop(struct leaving *l, int (*go)(pid_t tid, int sig), struct ptrace_stop *stop)
{
	for (;;) {
		int err = go ? go(l->tid, 0) : 0;

		if (!err)
			err = ptrace_wait(l->tid, ptrace_now_ns() + stop_timeout_ns, stop);
		if (err)
			return leaving_fail(l, err, "bring it to its next stop");
		if (stop->kind == PTRACE_GONE)
			return leaving_fail(l, 0, "it was ended while it was being restored");
		if (stop->kind != PTRACE_STOP_SIGNAL)
			return 0;
		if (stop->sig != SIGSTOP)
			return fail(0, "pid %d thread %d: it got signal %d (%s) from the restorer's last steps",
				    l->tp->task->pid, l->tid, stop->sig, strsignal(stop->sig));
		l->r->stops[l->task] = 1;
		if (!go)
			go = ptrace_cont;
	}
}

static int expect_stop(struct leaving *l, int (*go)(pid_t tid, int sig), enum ptrace_stop_kind kind)
{
	struct ptrace_stop stop;
	int err = leaving_next_stop(l, go, &stop);

	if (err)
		return err;
	return stop.kind == kind ? 0 : leaving_fail(l, 0, "it stopped at an unexpected place");
}

static int get_regs(struct leaving *l, struct cpu_regs *regs)
{
	int err = ptrace_get_regs(l->tid, regs);

	return err ? leaving_fail(l, err, "read its registers") : 0;
}

static int set_regs(struct leaving *l, const struct cpu_regs *regs)
{
	int err = ptrace_set_regs(l->tid, regs);

	return err ? leaving_fail(l, err, "set its registers") : 0;
}

/* --- to the end of rt_sigreturn --- */

static int seize_and_stop(struct leaving *l)
{
	int err = l->r->threads_traced || l->tid == l->tp->task->pid ? 0 : ptrace_seize(l->tid, trace_options(l->r));

	if (err)
		return leaving_fail(l, err, "trace it");
	err = ptrace_interrupt(l->tid);
	if (err)
		return leaving_fail(l, err, "stop it");
	return expect_stop(l, NULL, PTRACE_STOP_TRAP);
}

static int run_to_sigreturn(struct leaving *l)
{
	for (int i = 0; i < MAX_STOPS; i++) {
		int err = expect_stop(l, ptrace_syscall, PTRACE_STOP_SYSCALL);
		if (!err)
			err = get_regs(l, &l->regs);
		if (err)
			return err;
		if (l->regs.orig_ax != SYS_rt_sigreturn || l->regs.ax != (uint64_t)-ENOSYS)
			continue;
		err = expect_stop(l, ptrace_syscall, PTRACE_STOP_SYSCALL);
		if (!err)
			err = get_regs(l, &l->regs);
		if (err)
			return err;
		if (l->regs.ip != l->th->thread->cpu.regs.ip || l->regs.sp != l->th->thread->cpu.regs.sp)
			return leaving_fail(l, 0, "the kernel did not take its registers");
		return 0;
	}
	return leaving_fail(l, 0, "its restorer did not come to its end");
}

/* --- calls by the restorer's instruction --- */

int leaving_prepare_call(struct leaving *l, uint64_t nr, const uint64_t args[6])
{
	struct cpu_regs regs = l->regs;

	regs.ip = l->r->plan->area + plan_syscall_insn();
	regs.flags &= ~0x100ull; /* trap: the program steps through its own code, not through this */
	regs.ax = nr;
	regs.orig_ax = (uint64_t)-1;
	regs.di = args[0];
	regs.si = args[1];
	regs.dx = args[2];
	regs.r10 = args[3];
	regs.r8 = args[4];
	regs.r9 = args[5];
	return set_regs(l, &regs);
}

static int start_call(struct leaving *l, uint64_t nr, const uint64_t args[6])
{
	int err = leaving_prepare_call(l, nr, args);

	return err ? err : expect_stop(l, ptrace_syscall, PTRACE_STOP_SYSCALL);
}

int leaving_call(struct leaving *l, uint64_t nr, const uint64_t args[6], int64_t *ret)
{
	struct cpu_regs after;
	int err = start_call(l, nr, args);

	if (!err)
		err = expect_stop(l, ptrace_syscall, PTRACE_STOP_SYSCALL);
	if (!err)
		err = get_regs(l, &after);
	*ret = err ? 0 : (int64_t)after.ax;
	l->in_trap = false;
	return err;
}

/* A call that gives 0. */
static int make_call(struct leaving *l, const char *what, uint64_t nr, const uint64_t args[6])
{
	int64_t ret;
	int err = leaving_call(l, nr, args, &ret);

	return !err && ret ? leaving_fail(l, (int)ret, what) : err;
}

/*
 * Each thread that changes its credentials takes "dumpable" from the process: it is set when all have theirs. 2 is what the
 * kernel has given it then (check_dumpable in restore.c).
 */
static int set_dumpable(struct leaving *l)
{
	const uint64_t args[6] = { PR_SET_DUMPABLE, l->tp->mm->dumpable };

	return l->tp->mm->dumpable == DUMPABLE_BY_ROOT ? 0 : make_call(l, "set whether it is dumpable", SYS_prctl, args);
}

static int unmap_restorer(struct leaving *l)
{
	const struct mem_range *hole = &l->r->plan->hole;
	const uint64_t args[6] = { hole->start, hole->end - hole->start };

	return make_call(l, "unmap the restorer", SYS_munmap, args);
}

/* --- calls with a restart block --- */

static int put_timespec(struct leaving *l, taddr_t at, int64_t ns)
{
	struct timespec ts = { ns / 1000000000, ns % 1000000000 };
	struct iovec local = { &ts, sizeof(ts) }, remote = { (void *)(uintptr_t)at, sizeof(ts) };

	if (process_vm_writev(l->tid, &local, 1, &remote, 1, 0) != sizeof(ts))
		return leaving_fail(l, -errno, "write the time its call has left");
	return 0;
}

static int64_t monotonic_ns(void)
{
	return (int64_t)ptrace_now_ns();
}

/* The arguments of the call, with its limit replaced by what was left of it. */
static int restart_args(struct leaving *l, uint64_t args[6])
{
	const struct restart *re = &l->th->thread->restart;
	const struct cpu_regs *regs = &l->regs;
	taddr_t ts = l->tp->timespecs + (l->th - l->tp->threads.v) * sizeof(struct timespec);
	int64_t ahead = *l->go_ns - monotonic_ns(), left = re->remaining_ns;
	int timeout_arg;

	/* An absurd time of an image is cut to one. */
	if (left > INT64_MAX / 4)
		left = INT64_MAX / 4;
	left += ahead > 0 ? ahead : 0;

	args[0] = regs->di, args[1] = regs->si, args[2] = regs->dx;
	args[3] = regs->r10, args[4] = regs->r8, args[5] = regs->r9;
	switch (re->nr) {
	case SYS_poll:
		left = (left + 999999) / 1000000;
		args[2] = left > INT_MAX ? INT_MAX : left;
		return 0;
	case SYS_nanosleep:
		timeout_arg = 0;
		break;
	case SYS_clock_nanosleep:
		timeout_arg = 2;
		break;
	case SYS_futex:
		timeout_arg = 3;
		/* The time of this form is absolute; that of the calendar is still what it was. */
		if ((args[1] & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET) {
			if (args[1] & FUTEX_CLOCK_REALTIME)
				return 0;
			left += monotonic_ns();
		}
		break;
	default:
		return leaving_fail(l, 0, "its broken off system call is of a kind that cannot be issued again");
	}
	args[timeout_arg] = ts;
	return put_timespec(l, ts, left);
}

/*
 * The interrupt is there before the call begins, so it never sleeps: it takes its arguments, finds that it has to stop, and leaves
 * its restart block. When it has a result instead (time is up, the word of the futex has changed), that is the result.
 */
static int restart_call(struct leaving *l)
{
	const struct restart *re = &l->th->thread->restart;
	struct cpu_regs after;
	uint64_t args[6];
	int err = restart_args(l, args);

	if (!err)
		err = start_call(l, re->nr, args);
	if (err)
		return err;
	err = ptrace_interrupt(l->tid);
	if (err)
		return leaving_fail(l, err, "stop it");
	err = expect_stop(l, ptrace_cont, PTRACE_STOP_TRAP);
	if (!err)
		err = get_regs(l, &after);
	if (err)
		return err;
	l->in_trap = true;
	l->restart = (int64_t)after.ax == -KERNEL_ERESTART_RESTARTBLOCK;
	l->regs.ax = after.ax;
	if (!l->restart && (int64_t)after.ax <= -KERNEL_ERESTARTSYS && (int64_t)after.ax >= -KERNEL_ERESTART_RESTARTBLOCK)
		l->regs.ax = (uint64_t)-EINTR;
	return 0;
}

/* --- main threads that have exited --- */

/* Its end is not told to anybody while others of its process live. */
static int await_exit(struct leaving *l)
{
	static const struct timespec look_again = { .tv_nsec = 100000 };
	uint64_t deadline_ns = ptrace_now_ns() + stop_timeout_ns;
	_cleanup_close_ int dir = -1;
	struct proc_stat stat;
	int err = proc_open(l->tid, &dir);

	for (;;) {
		if (!err)
			err = proc_read_stat(dir, "stat", &stat);
		if (err || stat.state == 'Z')
			return err ? leaving_fail(l, err, "see its end") : 0;
		if (ptrace_now_ns() > deadline_ns)
			return leaving_fail(l, -ETIMEDOUT, "it does not exit");
		nanosleep(&look_again, NULL);
	}
}

/*
 * It waits in its restorer, all its signals blocked, and is not to take the process along: should bcr end now, that is what the
 * other threads do, which are bound to its life still. It is let go when it has begun to exit: there is no way back then.
 */
static int exit_again(struct leaving *l)
{
	const uint64_t args[6] = { l->tp->task->exit_code >> 8 & 0xff };
	int err = get_regs(l, &l->regs);

	if (!err) {
		err = ptrace_set_options(l->tid, PTRACE_O_TRACEEXIT | (trace_options(l->r) & ~PTRACE_O_EXITKILL));
		err = err ? leaving_fail(l, err, "let it go") : 0;
	}
	if (!err)
		err = start_call(l, SYS_exit, args);
	if (!err)
		err = expect_stop(l, ptrace_cont, PTRACE_STOP_OTHER);
	if (!err) {
		err = ptrace_detach(l->tid, 0);
		err = err ? leaving_fail(l, err, "let it go") : 0;
	}
	return err ? err : await_exit(l);
}

static bool wants_restart(const struct thread *th)
{
	return th->restart.kind == RESTART_NANOSLEEP || th->restart.kind == RESTART_FUTEX || th->restart.kind == RESTART_POLL;
}

/* --- the end --- */

static int put_rseq_cs(struct leaving *l)
{
	uint64_t cs = l->r->control->slots[l->th->slot].rseq_cs;
	taddr_t at = l->th->thread->rseq.ptr + offsetof(struct rseq, rseq_cs);
	struct iovec local = { &cs, sizeof(cs) }, remote = { (void *)(uintptr_t)at, sizeof(cs) };

	if (!cs || process_vm_writev(l->tid, &local, 1, &remote, 1, 0) == sizeof(cs))
		return 0;
	return leaving_fail(l, -errno, "put back its restartable sequence");
}

/*
 * The registers are those before the call. The kernel itself is made to go back there, so that a handler that runs first
 * ends the call, as it does with a call that was broken off.
 */
static void issue_again(struct leaving *l)
{
	const struct restart *re = &l->th->thread->restart;

	call_set_limit(l->tp->task->pid, &l->regs, re->nr, re->remaining_ns);
	call_unwind(&l->regs, re->nr);
}

static int final_state(struct leaving *l)
{
	int err = put_rseq_cs(l);

	if (err)
		return err;

	if (!l->in_trap && (l->restart || l->th->thread->restart.kind == RESTART_ISSUE)) {
		err = ptrace_interrupt(l->tid);
		if (err)
			return leaving_fail(l, err, "stop it");
		err = expect_stop(l, ptrace_cont,
				  l->tp->task->state == TASK_STOPPED ? PTRACE_STOP_GROUP : PTRACE_STOP_TRAP);
		if (err)
			return err;
	}
	if (l->restart)
		l->regs.orig_ax = l->th->thread->restart.nr;
	else if (l->th->thread->restart.kind == RESTART_ISSUE)
		issue_again(l);
	else
		l->regs.orig_ax = (uint64_t)-1;
	err = set_regs(l, &l->regs);
	if (err)
		return err;
	err = ptrace_set_sigmask(l->tid, l->th->thread->sigmask);
	return err ? leaving_fail(l, err, "set its signal mask") : 0;
}

static int for_each(struct leaving *all, size_t nr, int (*step)(struct leaving *l), bool (*wanted)(const struct leaving *l))
{
	for (size_t i = 0; i < nr; i++) {
		int err = !wanted || wanted(&all[i]) ? step(&all[i]) : 0;

		if (err)
			return err;
	}
	return 0;
}

static bool lives(const struct leaving *l)
{
	return !l->th->thread->exited;
}

static bool has_exited(const struct leaving *l)
{
	return l->th->thread->exited;
}

static bool has_restart(const struct leaving *l)
{
	return lives(l) && wants_restart(l->th->thread);
}

static bool is_first(const struct leaving *l)
{
	return l->th->thread == task_living(l->tp->task);
}

/* Of all that have the memory. */
static bool is_first_of_mm(const struct leaving *l)
{
	return is_first(l) && l->tp->mm_first == l->task;
}

/*
 * The remaining times of all calls count from one moment, that at which the threads are let go. It must lie ahead when
 * the first call is issued, and nobody can tell how long the others take: the step before, which took `measure_ns`,
 * gives an idea. If it was too short a time the calls are issued once more; if it was too long, it is waited for.
 */
static int restart_calls(struct leaving *all, size_t nr, int64_t measure_ns, int64_t *go_ns)
{
	size_t nr_restarts = 0, nr_leaders = 0;
	int64_t now_ns = monotonic_ns();

	*go_ns = now_ns;
	for (size_t i = 0; i < nr; i++) {
		nr_restarts += has_restart(&all[i]);
		nr_leaders += is_first(&all[i]);
	}
	if (!nr_restarts)
		return 0;
	for (int try = 0; try < RESTART_TRIES; try++) {
		int64_t begin_ns = now_ns;

		*go_ns = begin_ns + measure_ns + measure_ns / 2 + MARGIN_NS;
		int err = for_each(all, nr, restart_call, has_restart);
		if (err)
			return err;
		now_ns = monotonic_ns();
		/* What is still to be done takes a few stops of each leader. */
		int64_t rest_ns = (now_ns - begin_ns) * 2 * (int64_t)nr_leaders / (int64_t)nr_restarts;
		if (now_ns + rest_ns <= *go_ns)
			return 0;
		measure_ns = now_ns - begin_ns + rest_ns;
	}
	return 0;
}

static void wait_to_go(int64_t go_ns)
{
	struct timespec ts = { go_ns / 1000000000, go_ns % 1000000000 };

	if (monotonic_ns() - go_ns > late_ns)
		log_debug("sleeps and the like end %lld us early", (long long)(monotonic_ns() - go_ns) / 1000);
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
		;
}

static int bring_to_end(struct restore *r, struct leaving *all, size_t nr, int64_t *go_ns)
{
	int err = for_each(all, nr, seize_and_stop, NULL);

	if (err)
		return err;
	control_set_phase(r->control, PHASE_RESUME);
	int64_t begin_ns = monotonic_ns();
	err = for_each(all, nr, run_to_sigreturn, lives);
	if (!err)
		err = restart_calls(all, nr, monotonic_ns() - begin_ns, go_ns);
	if (!err)
		err = for_each(all, nr, exit_again, has_exited);
	if (!err)
		err = leaving_stop_tasks(r, all, nr);
	if (!err)
		err = for_each(all, nr, set_dumpable, is_first_of_mm);
	if (!err)
		err = for_each(all, nr, unmap_restorer, is_first_of_mm);
	if (!err)
		err = for_each(all, nr, final_state, lives);
	return err;
}

/* Stops are pending before the first thread is let go, so that none executes anything. */
static int send_stops(struct restore *r)
{
	for (size_t i = 0; i < r->plan->tasks.nr; i++) {
		const struct task_plan *tp = &r->plan->tasks.v[i];

		if (!tp->mm || tp->task->state == TASK_STOPPED || !(r->opts.leave_stopped || r->stops[i]))
			continue;
		if (kill(tp->task->pid, SIGSTOP))
			return fail(-errno, "pid %d: stop it", tp->task->pid);
	}
	return 0;
}

/* All are complete: a death of bcr between here and the last detach must not take some of them along. */
static int keep_alive(struct leaving *l)
{
	int err = ptrace_set_options(l->tid, 0);

	return err ? leaving_fail(l, err, "let it go") : 0;
}

static int let_go(struct leaving *l)
{
	int err = ptrace_detach(l->tid, 0);

	return err ? leaving_fail(l, err, "let it go") : 0;
}

int restore_resume(struct restore *r, struct restore_stats *stats)
{
	size_t nr = 0, nr_threads = r->plan->nr_slots;
	int64_t go_ns = 0;
	_cleanup_free_ struct leaving *all = calloc(nr_threads, sizeof(*all));
	struct priority priority = {};

	if (!all)
		return fail(-ENOMEM, "resume");
	for (size_t i = 0; i < r->plan->tasks.nr; i++) {
		const struct task_plan *tp = &r->plan->tasks.v[i];

		VEC_FOREACH(th, &tp->threads)
			all[nr++] = (struct leaving){ .r = r, .task = i, .tp = tp, .th = th, .tid = th->thread->tid, .go_ns = &go_ns };
	}
	priority_raise(&priority);
	int err = bring_to_end(r, all, nr, &go_ns);
	if (!err)
		err = for_each(all, nr, keep_alive, lives);
	if (!err)
		err = send_stops(r);
	if (!err) {
		wait_to_go(go_ns);
		err = for_each(all, nr, let_go, lives);
	}
	priority_restore(&priority);
	if (err)
		return err;
	r->released = true;
	stats->pages_compared = r->control->pages_compared;
	stats->pages_skipped_cow = r->control->pages_skipped_cow;
	stats->pages_restored = r->control->pages_restored;
	return 0;
}
