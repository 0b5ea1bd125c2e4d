/*
 * Letting go what ptrace holds, and what signals do to it.
 *
 * A stop shows in a thread as an interrupted system call. Most are restarted by the kernel; those of
 * sys/interrupted-*.h would return EINTR to the program, and waits_hide_stop() makes the kernel restart them too.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "base/log.h"
#include "freeze/hold.h"
#include "sys/tracee.h"
#include "sys/waits.h"

/* How long the release waits for the end of threads that were killed while they were held. */
static const uint64_t burial_ns = 200000000;

void hold_release_thread(struct freeze *f, struct held_thread *t, bool hide_stop)
{
	pid_t pid = f->tasks.v[t->task].pid;

	if (t->gone || !t->seized)
		return;
	if (t->interrupted && !t->stopped) {
		log_warn("pid %d thread %d is released when bcr exits", pid, t->tid);
		return;
	}
	/* What a stop signal broke off is EINTR with or without us. */
	if (hide_stop && !f->tasks.v[t->task].was_stopped)
		waits_hide_stop(f->waits, t->tid);
	int err = ptrace_detach(t->tid, 0);
	if (err && err != -ESRCH)
		log_warn("pid %d thread %d: detach: %s", pid, t->tid, strerror(-err));
	t->killed = err == -ESRCH;
	t->stopped = false;
	t->gone = true;
}

/* A traced thread that was killed stays until its tracer has heard of it; a leader's end is told after all others'. */
static void bury_killed(struct freeze *f)
{
	uint64_t deadline_ns = ptrace_now_ns() + burial_ns;

	for (int leaders = 0; leaders < 2; leaders++)
		VEC_FOREACH(t, &f->threads) {
			struct ptrace_stop stop = { .kind = PTRACE_STOP_OTHER };

			if (!t->killed || (t->tid == f->tasks.v[t->task].pid) != leaders)
				continue;
			while (stop.kind != PTRACE_GONE && !ptrace_wait(t->tid, deadline_ns, &stop))
				;
			t->killed = false;
		}
}

void hold_detach(struct freeze *f, bool hide_stop)
{
	bool killed = false;

	/* Those that ran were stopped last, and in this order. */
	for (int ran = 1; ran >= 0; ran--)
		VEC_FOREACH(t, &f->threads)
			if (t->ran == ran) {
				hold_release_thread(f, t, hide_stop);
				killed = killed || t->killed;
			}
	if (killed)
		bury_killed(f);
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
		/*
		 * A child of ours has been reaped above with its leader, or is reaped here; others have their own
		 * parents.
		 */
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

