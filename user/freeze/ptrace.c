/*
 * Freezing by ptrace: SEIZE and INTERRUPT every thread, and let the kernel undo it when bcr dies.
 *
 * Theory of operation. Processes are taken level by level from the root: all threads of a level are interrupted, then
 * all are waited for, then their children, which cannot become more any longer, form the next level. (A parent in
 * vfork(2) stops only when its child has called execve; its child is therefore not stopped before it.) Threads and processes
 * that were made while their maker was not stopped yet are found by going over everything again, until a whole
 * round finds nothing new. Nothing is left to the target: a tracer that dies detaches, pending traps are
 * dropped, and no option asks for anything else.
 *
 * A stop shows in a thread as an interrupted system call. Most are restarted by the kernel; those of
 * sys/interrupted-*.h would return EINTR to the program, and hold_hide_stop() makes the kernel restart them too.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "freeze/hold.h"
#include "sys/interrupted-x86_64.h"
#include "sys/tracee.h"

/* How long the release after a failure waits for threads that had been interrupted already. */
static const uint64_t release_wait_ns = 200000000;

/* Why a thread cannot be seized, in a sentence. A zombie is none of our business: 0. */
static int diagnose_seize(pid_t pid, pid_t tid, int err)
{
	char state = hold_state(tid);

	if (!state || state == 'Z' || state == 'X')
		return 0;

	long tracer = hold_status_number(tid, "TracerPid", 10);

	if (tracer > 0)
		return fail(-EBUSY, "pid %d thread %d is already traced by pid %ld (a debugger or strace); end that first",
			    pid, tid, tracer);
	if (hold_status_number(tid, "Kthread", 10) == 1)
		return fail(err, "pid %d is a kernel thread; only user programs can be stopped", pid);
	return fail(err, "pid %d thread %d: attach with ptrace (another user's process, or forbidden by a security module)",
		    pid, tid);
}

static int seize_thread(struct freeze *f, size_t task, pid_t tid, void *ret_new)
{
	if (hold_find_thread(f, tid))
		return 0;

	/* Room first: a seized thread must be known. */
	if (VEC_RESERVE(&f->threads, f->threads.nr + 1))
		return fail(-ENOMEM, "pid %d thread %d: stop", f->tasks.v[task].pid, tid);

	int err = ptrace_seize(tid, 0);
	if (err == -ESRCH)
		return 0;
	if (err)
		return diagnose_seize(f->tasks.v[task].pid, tid, err);

	struct held_thread *t = VEC_ADD(&f->threads);

	t->tid = tid;
	t->task = task;
	*(bool *)ret_new = true;
	err = ptrace_interrupt(tid);
	if (err && err != -ESRCH)
		return fail(err, "pid %d thread %d: interrupt", f->tasks.v[task].pid, tid);
	return 0;
}

/* The kernel function a thread sleeps in, for a message. */
static void read_wchan(pid_t tid, char *buf, size_t len)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/wchan", tid);
	_cleanup_fclose_ FILE *in = fopen(path, "re");
	if (!in || !fgets(buf, (int)len, in) || buf[0] == '0')
		snprintf(buf, len, "the kernel");
}

static int diagnose_no_stop(const struct freeze *f, const struct held_thread *t)
{
	pid_t pid = f->tasks.v[t->task].pid;
	char state = hold_state(t->tid), wchan[128];

	read_wchan(t->tid, wchan, sizeof(wchan));
	if (state == 'D' && (strcmp(wchan, "kernel_clone") == 0 || strcmp(wchan, "wait_for_vfork_done") == 0))
		return fail(-ETIMEDOUT,
			    "pid %d thread %d did not stop within %u s: it waits for its vfork child to call execve or "
			    "exit; try again when it has",
			    pid, t->tid, f->timeout_s);
	if (state == 'D')
		return fail(-ETIMEDOUT,
			    "pid %d thread %d did not stop within %u s: uninterruptible (state D) in %s; "
			    "try again when that is over",
			    pid, t->tid, f->timeout_s, wchan);
	return fail(-ETIMEDOUT, "pid %d thread %d did not stop within %u s (state %c); try again, or with a larger --timeout",
		    pid, t->tid, f->timeout_s, state ? state : '?');
}

/* Waits until the thread stands still by our interrupt or by a stop signal. */
static int await_stop(struct freeze *f, struct held_thread *t, uint64_t deadline_ns)
{
	while (!t->stopped && !t->gone) {
		struct ptrace_stop stop;
		int err = ptrace_wait(t->tid, deadline_ns, &stop);

		if (err)
			return err;
		switch (stop.kind) {
		case PTRACE_STOP_GROUP:
			f->tasks.v[t->task].was_stopped = true;
			t->stopped = true;
			break;
		case PTRACE_STOP_TRAP:
			t->stopped = true;
			break;
		case PTRACE_STOP_SIGNAL:
			/* Handed on at once: the handler's frame is made, then our trap stops the thread. */
			ptrace_cont(t->tid, stop.sig);
			break;
		case PTRACE_STOP_SYSCALL:
		case PTRACE_STOP_OTHER:
			ptrace_cont(t->tid, 0);
			break;
		case PTRACE_GONE:
			t->gone = true;
			break;
		}
	}
	return 0;
}

static int await_all(struct freeze *f)
{
	VEC_FOREACH(t, &f->threads) {
		int err = await_stop(f, t, f->deadline_ns);

		if (err == -ETIMEDOUT)
			return diagnose_no_stop(f, t);
		if (err)
			return fail(err, "pid %d thread %d: wait for its stop", f->tasks.v[t->task].pid, t->tid);
	}
	return 0;
}

/* One round over the tree; *ret_new: something appeared. */
static int hold_round(struct freeze *f, bool *ret_new)
{
	size_t level = 0;

	while (level < f->tasks.nr) {
		size_t level_end = f->tasks.nr;

		for (size_t i = level; i < level_end; i++) {
			int err = f->tasks.v[i].gone ? 0 : hold_each_thread(f, i, seize_thread, ret_new);

			if (err)
				return err;
		}

		int err = await_all(f);
		if (err)
			return err;

		for (size_t i = level; i < level_end; i++) {
			err = f->tasks.v[i].gone ? 0 : hold_add_children(f, i, ret_new);
			if (err)
				return err;
		}
		level = level_end;
	}
	return 0;
}

/* A process whose threads have all exited, or that was a zombie to begin with, is not held. */
static void mark_gone_tasks(struct freeze *f)
{
	VEC_FOREACH(task, &f->tasks)
		task->gone = true;
	VEC_FOREACH(t, &f->threads)
		if (!t->gone)
			f->tasks.v[t->task].gone = false;
}

int hold_by_ptrace(struct freeze *f)
{
	unsigned rounds = 0, quiet = 0;
	int err = hold_add_task(f, f->root, NULL);

	/*
	 * The list of children may miss one while another exits; in a tree that changed under us, one quiet
	 * round is therefore not believed.
	 */
	while (!err && quiet < (rounds > 2 ? 2 : 1)) {
		bool found = false;

		err = hold_round(f, &found);
		quiet = found ? 0 : quiet + 1;
		rounds++;
		if (!err && found && ptrace_now_ns() > f->deadline_ns)
			err = fail(-ETIMEDOUT, "pid %d: the tree makes processes faster than they can be stopped", f->root);
	}
	if (err)
		return err;
	mark_gone_tasks(f);
	return 0;
}

int hold_hide_stop(pid_t tid)
{
	struct cpu_regs regs;
	int err = ptrace_get_regs(tid, &regs);

	if (err || !call_was_broken_off(&regs))
		return err;
	/*
	 * The kernel looks at the result once more when the thread resumes. With this one it issues the call again,
	 * unless a signal handler is to run first: then the program sees EINTR, as it would have without us.
	 */
	return ptrace_set_result(tid, -KERNEL_ERESTARTNOHAND);
}

void hold_detach(struct freeze *f, bool hide_stop)
{
	/* After a failure some are not in their stops yet, and would come to stay in them. */
	uint64_t deadline_ns = ptrace_now_ns() + release_wait_ns;

	VEC_FOREACH(t, &f->threads) {
		await_stop(f, t, deadline_ns);
		if (t->gone)
			continue;
		if (!t->stopped) {
			log_warn("pid %d thread %d is released when bcr exits", f->tasks.v[t->task].pid, t->tid);
			continue;
		}
		/* What a stop signal broke off is EINTR with or without us. */
		if (hide_stop && !f->tasks.v[t->task].was_stopped)
			hold_hide_stop(t->tid);
		int err = ptrace_detach(t->tid, 0);
		if (err && err != -ESRCH)
			log_warn("pid %d thread %d: detach: %s", f->tasks.v[t->task].pid, t->tid, strerror(-err));
		t->stopped = false;
		t->gone = true;
	}
}

int hold_signal(struct freeze *f, int sig)
{
	int err = 0;

	VEC_FOREACH(t, &f->tasks) {
		if (t->gone || syscall(SYS_pidfd_send_signal, t->pidfd, sig, NULL, 0) == 0 || errno == ESRCH)
			continue;
		int failed = fail(-errno, "pid %d: send signal %d", t->pid, sig);
		err = err ? err : failed;
	}
	return err;
}

/* Milliseconds until the deadline, for poll(2). */
static int left_ms(uint64_t deadline_ns)
{
	uint64_t now_ns = ptrace_now_ns();

	return now_ns >= deadline_ns ? 0 : (int)((deadline_ns - now_ns) / 1000000 + 1);
}

int hold_kill(struct freeze *f)
{
	uint64_t deadline_ns = ptrace_now_ns() + (uint64_t)f->timeout_s * 1000000000u;
	int err = hold_signal(f, SIGKILL);

	if (err)
		return err;

	/*
	 * A traced thread that died waits for its tracer, and a leader for all its threads: other threads first,
	 * leaders in a second pass.
	 */
	for (int leaders = 0; leaders < 2; leaders++)
		VEC_FOREACH(t, &f->threads) {
			if (t->gone || (t->tid == f->tasks.v[t->task].pid) != leaders)
				continue;
			struct ptrace_stop stop = { .kind = PTRACE_STOP_OTHER };
			while (stop.kind != PTRACE_GONE && !ptrace_wait(t->tid, deadline_ns, &stop))
				;
			if (stop.kind != PTRACE_GONE)
				return fail(-ETIMEDOUT, "pid %d thread %d does not die", f->tasks.v[t->task].pid, t->tid);
			t->gone = true;
		}

	VEC_FOREACH(task, &f->tasks) {
		struct pollfd p = { .fd = task->pidfd, .events = POLLIN };

		if (task->gone)
			continue;
		while (poll(&p, 1, left_ms(deadline_ns)) < 0 && errno == EINTR)
			;
		if (!(p.revents & POLLIN))
			return fail(-ETIMEDOUT, "pid %d does not die", task->pid);
		/* A child of ours has been reaped above with its leader, or is reaped here; others have their own parents. */
		waitpid(task->pid, NULL, WNOHANG);
	}
	return 0;
}

struct not_stopped {
	pid_t pid, tid;
};

static int look_for_running(struct freeze *f, size_t task, pid_t tid, void *arg)
{
	char state = hold_state(tid);

	if (state && !strchr("TZX", state))
		*(struct not_stopped *)arg = (struct not_stopped){ f->tasks.v[task].pid, tid };
	return 0;
}

int hold_wait_stopped(struct freeze *f)
{
	uint64_t deadline_ns = ptrace_now_ns() + (uint64_t)f->timeout_s * 1000000000u;

	for (;;) {
		struct not_stopped running = { 0 };

		for (size_t i = 0; i < f->tasks.nr; i++)
			if (!f->tasks.v[i].gone)
				hold_each_thread(f, i, look_for_running, &running);
		if (!running.tid)
			return 0;
		if (ptrace_now_ns() >= deadline_ns)
			return fail(-ETIMEDOUT, "pid %d thread %d does not stop", running.pid, running.tid);
		/* Only a parent is told of a stop; somebody else's process has to be looked at again. */
		nanosleep(&(struct timespec){ .tv_nsec = 200000 }, NULL);
	}
}

int hold_thaw_by_ptrace(struct freeze *f, enum thaw_mode mode)
{
	int err;

	switch (mode) {
	case THAW_KILL:
		return hold_kill(f);
	case THAW_STOP:
		/* Queued before the detach: it is the first thing a released thread meets, no instruction is run. */
		err = hold_signal(f, SIGSTOP);
		hold_detach(f, true);
		return err ? err : hold_wait_stopped(f);
	case THAW_RUN:
		break;
	}
	hold_detach(f, true);
	return 0;
}

static int ptrace_stop_tree(struct freeze *f)
{
	int err = hold_by_ptrace(f);

	if (err)
		hold_detach(f, true);
	return err;
}

static int ptrace_need_ptrace(struct freeze *f)
{
	return 0;
}

const struct freeze_ops freeze_ptrace_ops = {
	.name = "ptrace",
	.stop = ptrace_stop_tree,
	.thaw = hold_thaw_by_ptrace,
	.need_ptrace = ptrace_need_ptrace,
};
