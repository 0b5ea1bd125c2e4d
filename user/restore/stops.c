/*
 * Processes that a signal had stopped, or stopped and continued, and what their parents know of it.
 *
 * The kernel keeps the number of the signal until the parent has waited for the stop (wait4(2) with WUNTRACED), and sends the
 * parent a SIGCHLD once. Both are made again by a real stop, while everybody is held by ptrace: the thread is about to enter
 * a call of the restorer's when the signal comes, so that it executes nothing of the program, whatever happens. A parent that had
 * waited before the dump waits again, by a call of its own; the SIGCHLD is taken away, unless the images have one, which then
 * is pending already. That a process goes on is made by a stop and a SIGCONT, in the same way. Calls can be made for a stopped process as for any other: its tracer decides when it runs.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "restore/leaving.h"

enum { SIGSET_BYTES = 8 };
static const uint64_t stop_timeout_ns = 10000000000;

/* The next stop, signals included. */
static int any_stop(struct leaving *l, int sig, struct ptrace_stop *stop)
{
	int err = ptrace_syscall(l->tid, sig);

	if (!err)
		err = ptrace_wait(l->tid, ptrace_now_ns() + stop_timeout_ns, stop);
	if (err)
		return leaving_fail(l, err, "stop it by a signal");
	return stop->kind == PTRACE_GONE ? leaving_fail(l, 0, "it was ended while it was being restored") : 0;
}

/* From the entry of the call that it should not have come to. */
static int finish_call(struct leaving *l)
{
	struct ptrace_stop stop;
	int err = leaving_next_stop(l, ptrace_syscall, &stop);

	return !err && stop.kind != PTRACE_STOP_SYSCALL ? leaving_fail(l, 0, "it stopped at an unexpected place") : err;
}

/* Sends the leader the signal, which is not blocked then. */
static int stop_leader(struct leaving *l, int sig, bool *stopped)
{
	static const uint64_t none[6] = { 0 };
	struct ptrace_stop stop;
	int err = leaving_prepare_call(l, SYS_getpid, none);

	l->in_trap = false;
	*stopped = false;
	if (err)
		return err;
	err = ptrace_set_sigmask(l->tid, ~(1ULL << (sig - 1)));
	if (!err && syscall(SYS_tgkill, l->tp->task->pid, l->tid, sig))
		err = -errno;
	if (err)
		return leaving_fail(l, err, "stop it by a signal");
	err = any_stop(l, 0, &stop);
	while (!err && stop.kind == PTRACE_STOP_SIGNAL) {
		/* Another SIGSTOP has come from outside: it has the same effect, now. */
		int deliver = stop.sig == sig || stop.sig == SIGSTOP ? stop.sig : 0;

		err = any_stop(l, deliver, &stop);
	}
	if (err)
		return err;
	*stopped = stop.kind == PTRACE_STOP_GROUP;
	err = *stopped ? 0 : finish_call(l);
	/* Asking for anything waits until it has left the processor, and so until its parent's SIGCHLD has been sent. */
	if (!err)
		err = ptrace_set_sigmask(l->tid, UINT64_MAX);
	return err;
}

/* The other threads take part as soon as they may run. */
static int stop_other(struct leaving *l)
{
	static const uint64_t none[6] = { 0 };
	struct ptrace_stop stop;
	int err = leaving_prepare_call(l, SYS_getpid, none);

	l->in_trap = false;
	if (!err)
		err = leaving_next_stop(l, ptrace_syscall, &stop);
	if (!err && stop.kind == PTRACE_STOP_SYSCALL)
		err = finish_call(l);
	return err ? err : ptrace_set_sigmask(l->tid, UINT64_MAX);
}

/*
 * SIGTSTP and its like do not stop who has a handler by now, nor members of an orphaned group, as the tree may be one; SIGSTOP
 * always does. (A SIGCONT from outside may get in between: then it goes on, as it would have later.)
 */
static int stop_task(struct leaving *all, size_t nr, struct leaving *leader)
{
	const struct task *t = leader->tp->task;
	bool job_control = (t->stop_signal == SIGTSTP || t->stop_signal == SIGTTIN || t->stop_signal == SIGTTOU) &&
			   !t->sigactions[t->stop_signal - 1].handler;
	int sig = job_control ? (int)t->stop_signal : SIGSTOP, err;
	bool stopped;

	err = stop_leader(leader, sig, &stopped);
	if (!err && !stopped && sig != SIGSTOP) {
		log_warn("pid %d: it is stopped by SIGSTOP, not by %s, which does not stop an orphaned process group", t->pid,
			 strsignal(sig));
		err = stop_leader(leader, SIGSTOP, &stopped);
	}
	for (size_t i = 0; i < nr && !err; i++) {
		if (all[i].task == leader->task && &all[i] != leader && !all[i].th->thread->exited)
			err = stop_other(&all[i]);
	}
	return err;
}

/* --- and continued --- */

/* A SIGCONT has come: each thread that is traced stops once more, before it executes anything. */
static int pass_notices(struct leaving *all, size_t nr, const struct leaving *leader)
{
	static const uint64_t none[6] = { 0 };

	for (size_t i = 0; i < nr; i++) {
		struct ptrace_stop stop;

		if (all[i].task != leader->task || all[i].th->thread->exited)
			continue;
		int err = leaving_prepare_call(&all[i], SYS_getpid, none);
		if (!err)
			err = leaving_next_stop(&all[i], ptrace_syscall, &stop);
		if (err)
			return err;
		if (stop.kind != PTRACE_STOP_TRAP)
			return leaving_fail(&all[i], 0, "it was not continued");
		all[i].in_trap = false;
	}
	return 0;
}

/* The stop has taken away the SIGCONT that it had pending. */
static int queue_again(struct leaving *all, size_t nr, const struct leaving *leader, struct leaving *l, bool shared,
		       const struct siginfo_raw *info)
{
	taddr_t at = l->tp->stop_scratch + offsetof(struct stop_scratch, info);
	struct iovec local = { (void *)info->bytes, sizeof(info->bytes) }, remote = { (void *)(uintptr_t)at, sizeof(info->bytes) };
	const uint64_t to_process[6] = { l->tp->task->pid, SIGCONT, at }, to_thread[6] = { l->tp->task->pid, l->tid, SIGCONT, at };
	int64_t ret = 0;
	int signo;

	memcpy(&signo, info->bytes, sizeof(signo));
	if (signo != SIGCONT)
		return 0;
	if (process_vm_writev(l->tid, &local, 1, &remote, 1, 0) != sizeof(info->bytes))
		return leaving_fail(l, -errno, "write its SIGCONT");
	int err = shared ? leaving_call(l, SYS_rt_sigqueueinfo, to_process, &ret) :
			   leaving_call(l, SYS_rt_tgsigqueueinfo, to_thread, &ret);
	if (!err && ret)
		err = leaving_fail(l, (int)ret, "queue its SIGCONT");
	return err ? err : pass_notices(all, nr, leader);
}

/* The kernel notes for the parent that it goes on; the SIGCONT itself was delivered before the dump, or is pending. */
static int continue_task(struct leaving *all, size_t nr, struct leaving *leader)
{
	taddr_t scratch = leader->tp->stop_scratch;
	const uint64_t take[6] = { scratch + offsetof(struct stop_scratch, sigcont), 0,
				   scratch + offsetof(struct stop_scratch, no_time), SIGSET_BYTES };
	int64_t ret;
	int err = kill(leader->tp->task->pid, SIGCONT) ? leaving_fail(leader, -errno, "continue it") : 0;

	if (!err)
		err = pass_notices(all, nr, leader);
	if (!err)
		err = leaving_call(leader, SYS_rt_sigtimedwait, take, &ret);
	VEC_FOREACH(info, &leader->tp->task->pending)
		err = err ? err : queue_again(all, nr, leader, leader, true, info);
	for (size_t i = 0; i < nr && !err; i++) {
		if (all[i].task != leader->task || all[i].th->thread->exited)
			continue;
		VEC_FOREACH(info, &all[i].th->thread->pending)
			err = err ? err : queue_again(all, nr, leader, &all[i], false, info);
	}
	return err;
}

/* --- what the parents know --- */

static bool has_pending_sigchld(const struct task *t)
{
	int signo;

	VEC_FOREACH(info, &t->pending) {
		memcpy(&signo, info->bytes, sizeof(signo));
		if (signo == SIGCHLD)
			return true;
	}
	return false;
}

/* The parent knew of the stop already, or only had the signal; or neither. */
static int tell_parent(struct leaving *parent, const struct task *child)
{
	taddr_t scratch = parent->tp->stop_scratch;
	const uint64_t wait[6] = { child->pid, 0, WUNTRACED | WNOHANG | __WALL, 0 };
	const uint64_t take[6] = { scratch + offsetof(struct stop_scratch, sigchld), 0,
				   scratch + offsetof(struct stop_scratch, no_time), SIGSET_BYTES };
	int64_t ret;
	int err = child->stop_reported ? leaving_call(parent, SYS_wait4, wait, &ret) : 0;

	if (err || has_pending_sigchld(parent->tp->task))
		return err;
	return leaving_call(parent, SYS_rt_sigtimedwait, take, &ret);
}

/* Index of the first living thread of each task in `all`; SIZE_MAX for those without threads. */
static size_t *find_leaders(const struct restore *r, const struct leaving *all, size_t nr)
{
	size_t *ret = calloc(r->plan->tasks.nr, sizeof(*ret));

	if (!ret)
		return NULL;
	for (size_t i = 0; i < r->plan->tasks.nr; i++)
		ret[i] = SIZE_MAX;
	for (size_t i = 0; i < nr; i++) {
		if (all[i].th->thread == task_living(all[i].tp->task))
			ret[all[i].task] = i;
	}
	return ret;
}

int leaving_stop_tasks(struct restore *r, struct leaving *all, size_t nr)
{
	_cleanup_free_ size_t *leaders = find_leaders(r, all, nr);
	int err = leaders ? 0 : fail(-ENOMEM, "stop processes");

	for (size_t i = 0; i < r->m->tasks.nr && !err; i++) {
		const struct task_plan *tp = &r->plan->tasks.v[i];

		/* That it goes on is for its parent only to know. */
		bool continued = tp->task->continued && tp->birth.parent != TREE_OUTSIDE;

		if (leaders[i] == SIZE_MAX || (tp->task->state != TASK_STOPPED && !continued))
			continue;
		err = stop_task(all, nr, &all[leaders[i]]);
		if (!err && continued)
			err = continue_task(all, nr, &all[leaders[i]]);
		if (!err && tp->birth.parent != TREE_OUTSIDE && leaders[tp->birth.parent] != SIZE_MAX)
			err = tell_parent(&all[leaders[tp->birth.parent]], tp->task);
	}
	return err;
}
