/*
 * Freezing by ptrace: SEIZE and INTERRUPT every thread, and let the kernel undo it when bcr dies.
 *
 * Theory of operation. The tree has been listed before. All threads are seized, which stops nobody; then they are
 * interrupted and waited for: first those that were asleep, some at a time, so that the others hardly notice; last
 * those that were running, which are also released first. So a thread that computes stands still from the last
 * interrupts to the first detaches, however many others sleep. Then the tree is listed again, and what was made
 * meanwhile is stopped likewise, until a listing finds nothing new.
 *
 * A parent in vfork(2) does not stop before its child has called execve, so its child must not be stopped before it.
 * If there is such a parent, the tree is taken level by level from the root: all threads of a level are stopped, then
 * their children, which cannot become more any longer, form the next level.
 *
 * Nothing is left to the target: a tracer that dies detaches, pending traps are dropped, and no option asks for
 * anything else.
 */
#include <errno.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "freeze/hold.h"
#include "sys/tracee.h"
#include "sys/waits.h"

enum {
	BATCH = 128, /* sleeping threads that are woken at once */
	SEIZE_TRIES = 3,
	ROOT_TRIES = 5, /* listings that must agree that there is no root */
};

static const uint64_t bell_ns = 20000000;
/* After this time it is asked whether a thread that does not stop waits for a child. */
static const uint64_t patience_ns = 50000000;
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

/*
 * Is it worth another try? A leader that was dead a moment ago is alive again, under the same number, when a thread of it
 * has called execve.
 */
static bool was_replaced(pid_t tid)
{
	char state = hold_state(tid);

	return state && !strchr("ZX", state) && hold_status_number(tid, "TracerPid", 10) == 0;
}

static int seize_thread(struct freeze *f, struct held_thread *t)
{
	int err = ptrace_seize(t->tid, 0);

	for (int tries = 1; err == -EPERM && tries < SEIZE_TRIES && was_replaced(t->tid); tries++)
		err = ptrace_seize(t->tid, 0);
	/* Ours already, under another number, until it called execve. */
	if (err == -EPERM && hold_status_number(t->tid, "TracerPid", 10) == gettid())
		err = 0;
	t->seized = !err;
	t->gone = err != 0;
	/* It has ended since it was listed, or has another number now. */
	f->changed = f->changed || err == -ESRCH;
	return !err || err == -ESRCH ? 0 : diagnose_seize(f->tasks.v[t->task].pid, t->tid, err);
}

static int diagnose_no_stop(const struct freeze *f, const struct held_thread *t)
{
	pid_t pid = f->tasks.v[t->task].pid;
	char state = hold_state(t->tid), wchan[128];

	hold_read_wchan(t->tid, wchan, sizeof(wchan));
	if (state == 'D' && hold_waits_for_vfork(t->tid))
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

static int interrupt_thread(struct freeze *f, struct held_thread *t)
{
	int err = ptrace_interrupt(t->tid);

	t->interrupted = true;
	f->listed_last = false;
	return !err || err == -ESRCH ? 0 : fail(err, "pid %d thread %d: interrupt", f->tasks.v[t->task].pid, t->tid);
}

/* Looks at the next stop, or the end, of a thread. */
static void note_stop(struct freeze *f, struct held_thread *t, const struct ptrace_stop *stop)
{
	f->listed_last = false;
	switch (stop->kind) {
	case PTRACE_STOP_GROUP:
		f->tasks.v[t->task].was_stopped = true;
		t->stopped = true;
		break;
	case PTRACE_STOP_TRAP:
		t->stopped = true;
		break;
	case PTRACE_STOP_SIGNAL:
		/* Handed on at once: the handler's frame is made, then our trap stops the thread. */
		ptrace_cont(t->tid, stop->sig);
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

/*
 * A thread called execve: it is the leader now, under the leader's number, and what is known of the leader is no longer
 * true. It may stand in a stop whose status was taken for the leader's; else it is to come to one.
 */
static void expect_new_leader(struct freeze *f, const struct held_thread *replaced)
{
	struct held_thread *leader = hold_find_thread(f, f->tasks.v[replaced->task].pid);
	uint8_t info[128];

	if (!leader || leader == replaced || !leader->interrupted || ptrace_get_siginfo(leader->tid, info) == 0)
		return;
	leader->stopped = false;
	ptrace_interrupt(leader->tid);
}

/* Waits until the thread stands still by our interrupt or by a stop signal, or is gone. -ETIMEDOUT: not in time. */
static int await_stop(struct freeze *f, struct held_thread *t, uint64_t deadline_ns)
{
	while (!t->stopped && !t->gone) {
		struct ptrace_stop stop;
		int got = ptrace_take(t->tid, false, &stop);

		if (!got && ptrace_now_ns() >= deadline_ns)
			return -ETIMEDOUT;
		if (!got)
			got = ptrace_take(t->tid, true, &stop);
		if (got < 0)
			return got;
		if (!got)
			continue;
		note_stop(f, t, &stop);
		if (stop.kind == PTRACE_GONE && stop.sig == -1)
			expect_new_leader(f, t);
	}
	return 0;
}

/* The same until the deadline of the stop. -EAGAIN: the tree has to be stopped level by level. */
static int await_thread(struct freeze *f, struct held_thread *t)
{
	int err;

	do {
		uint64_t patient_ns = ptrace_now_ns() + patience_ns;

		err = await_stop(f, t, patient_ns < f->deadline_ns ? patient_ns : f->deadline_ns);
		if (err != -ETIMEDOUT)
			break;
		/* A thread that nobody knew called execve, and has this number now; the next listing finds it. */
		if (hold_status_number(t->tid, "TracerPid", 10) != gettid()) {
			t->gone = true;
			return 0;
		}
		if (!f->vfork_seen && hold_waits_for_vfork(t->tid)) {
			f->vfork_seen = true;
			return -EAGAIN;
		}
	} while (ptrace_now_ns() < f->deadline_ns);
	if (err == -ETIMEDOUT)
		return diagnose_no_stop(f, t);
	return err ? fail(err, "pid %d thread %d: wait for its stop", f->tasks.v[t->task].pid, t->tid) : 0;
}

/*
 * When the bell rings. A thread in execve(2) waits until all others of its process are gone, and a traced one is not gone
 * before its tracer has heard of its end; but the tracer may itself be held up by the execve, in PTRACE_SEIZE or by the
 * wait for another thread.
 */
static void bury_dead(void *arg)
{
	struct freeze *f = arg;

	VEC_FOREACH(t, &f->threads) {
		siginfo_t info = { 0 };

		/* Looked at first: whatever is asked for, a tracer is told of stops as well, and once only. */
		if (!t->seized || t->gone || waitid(P_PID, (id_t)t->tid, &info, WEXITED | WNOHANG | WNOWAIT | __WALL) ||
		    (info.si_code != CLD_EXITED && info.si_code != CLD_KILLED && info.si_code != CLD_DUMPED))
			continue;
		waitid(P_PID, (id_t)t->tid, &info, WEXITED | WNOHANG | __WALL);
		t->gone = true;
	}
}

static bool is_listed(const struct freeze *f, const struct held_thread *t)
{
	return !t->gone && f->tasks.v[t->task].listed == f->nr_listings;
}

static int await_range(struct freeze *f, size_t begin, size_t end)
{
	/* The last first: while it is waited for the others come to their stops, and then need not be waited for. */
	for (size_t i = end; i-- > begin;) {
		struct held_thread *t = &f->threads.v[i];
		int err = t->interrupted && !t->stopped && !t->gone ? await_thread(f, t) : 0;

		if (err)
			return err;
	}
	return 0;
}

/* Interrupts and waits for the threads that ran, or that slept; *ret_new: there were some. */
static int stop_some(struct freeze *f, bool ran, bool *ret_new)
{
	size_t begin = 0, end = 0;

	while (end < f->threads.nr) {
		for (size_t nr = 0; end < f->threads.nr && (ran || nr < BATCH); end++) {
			struct held_thread *t = &f->threads.v[end];

			if (t->ran != ran || t->interrupted || !t->seized || !is_listed(f, t))
				continue;
			int err = interrupt_thread(f, t);
			if (err)
				return err;
			nr++;
			*ret_new = true;
		}

		int err = await_range(f, begin, end);
		if (err)
			return err;
		begin = end;
	}
	return 0;
}

/* Stops all that has been listed and does not stand still yet; *ret_new: there was some. */
static int stop_listed(struct freeze *f, bool *ret_new)
{
	VEC_FOREACH(t, &f->threads) {
		int err = t->seized || !is_listed(f, t) ? 0 : seize_thread(f, t);

		if (err)
			return err;
	}

	int err = stop_some(f, false, ret_new);
	if (!err)
		err = stop_some(f, true, ret_new);
	/* The new leader after an execve. */
	return err ? err : await_range(f, 0, f->threads.nr);
}

/* Lists the tree and stops it, level by level. */
static int stop_by_levels(struct freeze *f, bool *ret_new)
{
	size_t level = 0;
	int err = hold_list_begin(f);

	while (!err && level < f->queue.nr) {
		size_t level_end = f->queue.nr;

		for (size_t i = level; !err && i < level_end; i++)
			err = hold_list_threads(f, f->queue.v[i]);
		if (!err)
			err = stop_listed(f, ret_new);
		for (size_t i = level; !err && i < level_end; i++)
			err = hold_list_children(f, f->queue.v[i]);
		level = level_end;
	}
	return err;
}

/* Lets everything run on that stands still by our interrupt; it stays seized. */
static void resume_all(struct freeze *f)
{
	f->listed_last = false;
	waits_settle(f->waits);
	VEC_FOREACH(t, &f->threads) {
		if (!t->stopped || t->gone || f->tasks.v[t->task].was_stopped)
			continue;
		waits_hide_stop(f->waits, t->tid);
		ptrace_cont(t->tid, 0);
		t->stopped = t->interrupted = false;
	}
	waits_begin(f->waits);
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

/* Has the process ended, all of it? While a thread of it calls execve its leader is dead, and cannot be seized. */
static bool has_ended(pid_t pid)
{
	char state = hold_state(pid);

	return !state || (strchr("ZX", state) && hold_status_number(pid, "Threads", 10) <= 1);
}

enum unheld { NOTHING, DEAD, ALIVE };

/*
 * Processes that were listed, but nothing of them is held: zombies. Or a thread of one is just calling execve: then
 * it lives, although the leader is dead, and for a moment not even that shows, while the thread takes the leader's
 * number.
 */
static enum unheld unheld_processes(const struct freeze *f)
{
	enum unheld ret = NOTHING;

	VEC_FOREACH(task, &f->tasks) {
		if (!task->gone || task->listed != f->nr_listings)
			continue;
		if (!has_ended(task->pid))
			return ALIVE;
		ret = DEAD;
	}
	return ret;
}

/*
 * What the last listing did not show: it is let go if its parent is none of ours any more. *ret_missed: it is, so the
 * listing was not complete.
 */
static void let_strays_go(struct freeze *f, bool *ret_missed)
{
	VEC_FOREACH(task, &f->tasks) {
		if (task->gone || task->listed == f->nr_listings)
			continue;

		pid_t ppid = (pid_t)hold_status_number(task->pid, "PPid", 10);
		const struct held_task *parent = ppid > 0 ? hold_find_task(f, ppid) : NULL;
		if (parent && parent->listed == f->nr_listings) {
			*ret_missed = true;
			continue;
		}
		task->gone = true;
		VEC_FOREACH(t, &f->threads)
			if (&f->tasks.v[t->task] == task)
				hold_release_thread(f, t, true);
	}
}

/*
 * Is each leader that was stopped still in that stop? A thread that nobody knew may have called execve since: then it has the
 * leader's number now, and runs. Whoever is not, is to be stopped anew. (Such a thread existed when the tree was listed, so a
 * leader that stands still after a listing which showed nothing new does so until it is let go.)
 */
static bool leaders_stand(struct freeze *f)
{
	uint8_t info[128];
	bool all = true;

	VEC_FOREACH(t, &f->threads) {
		if (t->tid != f->tasks.v[t->task].pid || !t->stopped || t->gone || ptrace_get_siginfo(t->tid, info) != -ESRCH)
			continue;
		t->seized = t->interrupted = t->stopped = false;
		all = false;
	}
	return all;
}

/*
 * Is what is held all of the tree, after so many rounds, of which the last `quiet` ones found nothing new? One is not
 * believed when there are zombies (see above), or when the tree changed before and /proc was asked: its list of
 * children may miss one while another exits.
 */
static bool is_whole(struct freeze *f, unsigned rounds, unsigned quiet)
{
	bool missed = false;

	if (!quiet || !hold_find_task(f, f->root))
		return false;
	enum unheld unheld = unheld_processes(f);
	if (unheld == ALIVE || quiet < (unheld == DEAD || (!f->lister && rounds > 2) ? 2 : 1) || !leaders_stand(f))
		return false;
	let_strays_go(f, &missed);
	return !missed;
}

/* Stops the tree, and looks whether it is all of it, until it is. */
static int stop_tree(struct freeze *f)
{
	unsigned rounds = 0, quiet = 0, without_root = 0;

	for (;;) {
		bool found = false;
		int err = f->vfork_seen ? stop_by_levels(f, &found) : stop_listed(f, &found);

		if (err == -EAGAIN) {
			resume_all(f);
			continue;
		}
		if (err)
			return err;
		rounds++;
		quiet = found || f->changed ? 0 : quiet + 1;
		mark_gone_tasks(f);
		if (is_whole(f, rounds, quiet))
			return 0;
		without_root = hold_find_task(f, f->root) || !has_ended(f->root) ? 0 : without_root + 1;
		if (without_root == ROOT_TRIES)
			return fail(-ESRCH, "pid %d: there is no such process, or it has exited", f->root);
		if (ptrace_now_ns() > f->deadline_ns)
			return fail(-ETIMEDOUT, "pid %d: the tree makes processes faster than they can be stopped", f->root);
		err = f->vfork_seen ? 0 : hold_list(f);
		if (err)
			return err;
	}
}

/* Lets everything go after a failure. Only a thread that stands still can be let go. */
static void give_up(struct freeze *f)
{
	uint64_t deadline_ns = ptrace_now_ns() + release_wait_ns;

	/* Also those that nobody has interrupted yet: seized, they would come to stay in the next stop a signal makes. */
	VEC_FOREACH(t, &f->threads)
		if (t->seized && !t->interrupted && !t->gone)
			interrupt_thread(f, t);
	VEC_FOREACH(t, &f->threads)
		if (t->interrupted)
			await_stop(f, t, deadline_ns);
	hold_detach(f, true);
}

int hold_by_ptrace(struct freeze *f)
{
	struct ptrace_bell bell;
	int err = ptrace_bell_start(&bell, bell_ns, bury_dead, f);

	if (err)
		return fail(err, "pid %d: a timer for its stop", f->root);
	f->in_stop = true;
	err = stop_tree(f);
	if (err)
		give_up(f);
	f->in_stop = false;
	ptrace_bell_stop(&bell);
	return err;
}

static int ptrace_need_ptrace(struct freeze *f)
{
	(void)f;
	return 0;
}

const struct freeze_ops freeze_ptrace_ops = {
	.name = "ptrace",
	.stop = hold_by_ptrace,
	.thaw = hold_thaw_by_ptrace,
	.need_ptrace = ptrace_need_ptrace,
};
