/*
 * A userfaultfd of the target. The call works on the address space of whoever makes it, so the target has to: two
 * remote system calls in one thread, and in between the descriptor is duplicated to here. Should bcr die in the
 * middle, the thread finds its way back and the descriptor is closed (capture/way_back.h). Nobody else who has these
 * descriptors may run meanwhile, for a child that is forked then would keep it, and with it the protection.
 */
#include "capture/userfaultfd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "capture/remote.h"
#include "sys/fdio.h"
#include "sys/priority.h"
#include "sys/proc.h"
#include "sys/tracee.h"
#include "sys/waits.h"

static const uint64_t stop_wait_ns = 5000000000;

/* Waits until the thread stands still; signals that come first are handed on. */
static int await_stop(pid_t tid)
{
	uint64_t deadline_ns = ptrace_now_ns() + stop_wait_ns;

	for (;;) {
		struct ptrace_stop stop;
		int err = ptrace_wait(tid, deadline_ns, &stop);

		if (err)
			return err;
		switch (stop.kind) {
		case PTRACE_STOP_TRAP:
		case PTRACE_STOP_GROUP:
			return 0;
		case PTRACE_GONE:
			return -ESRCH;
		case PTRACE_STOP_SIGNAL:
			ptrace_cont(tid, stop.sig);
			break;
		default:
			ptrace_cont(tid, 0);
		}
	}
}

/* Detaches; the thread's call goes on as if nothing had been. */
static void let_go(const struct waits *waits, pid_t tid)
{
	waits_hide_stop(waits, tid);
	ptrace_detach(tid, 0);
}

/*
 * With kernel-mode faults left out, processes without privileges may make one too; asynchronous protection has none
 * to report.
 */
static int make_and_take(struct remote *r, int *ret)
{
	uint64_t args[6] = { O_CLOEXEC | UFFD_USER_MODE_ONLY };
	int64_t fd;
	int err = remote_open(r, SYS_userfaultfd, args, &fd);

	if (err)
		return err;
	if (fd < 0)
		return fail((int)fd, "pid %d: userfaultfd in it", r->pid);
	int take_err = fd_of_process(r->pid, (int)fd, ret);
	if (take_err)
		fail(take_err, "pid %d fd %d: take its userfaultfd over", r->pid, (int)fd);
	err = remote_close(r, (int)fd);
	return take_err ? take_err : err;
}

static bool is_dead(pid_t tid)
{
	_cleanup_close_ int dir = -1;
	struct proc_stat stat;

	return proc_open(tid, &dir) || proc_read_stat(dir, "stat", &stat) || stat.state == 'Z' || stat.state == 'X';
}

/* The thread is in a ptrace stop of ours. */
static int by_stopped_thread(pid_t pid, pid_t tid, const struct way_back_code *code, int *ret)
{
	struct remote r;
	int err = remote_begin(&r, pid, tid, code);

	if (err)
		return err;
	err = make_and_take(&r, ret);
	int end_err = remote_end(&r);
	if (!err && end_err) {
		close(*ret);
		*ret = -1;
		err = end_err;
	}
	return err;
}

/* Once it stands still, nobody can make threads any more. */
static bool is_alone(const char *task_dir)
{
	struct stat st;

	return !stat(task_dir, &st) && st.st_nlink == 3; /* . and .. of the directory, and the one thread's */
}

/* From the interrupt on the thread stands still: what can be asked was asked before. */
static int by_thread(pid_t pid, pid_t tid, const struct way_back_code *code, struct waits *waits, int *ret)
{
	char task_dir[32];
	int err = ptrace_seize(tid, 0);

	if (err == -EPERM && is_dead(tid))
		return -ESRCH;
	if (err)
		return err == -ESRCH ? err : fail(err, "pid %d thread %d: attach with ptrace", pid, tid);
	snprintf(task_dir, sizeof(task_dir), "/proc/%d/task", pid);
	waits_begin(waits);
	err = ptrace_interrupt(tid);
	if (!err)
		err = await_stop(tid);
	if (err) {
		ptrace_detach(tid, 0);
		return err == -ESRCH ? err : fail(err, "pid %d thread %d: stop it for a moment", pid, tid);
	}
	waits_settle(waits);
	err = is_alone(task_dir) ? by_stopped_thread(pid, tid, code, ret) : -EBUSY;
	let_go(waits, tid);
	return err && is_dead(tid) ? -ESRCH : err;
}

static int list_threads(pid_t pid, proc_numbers *ret)
{
	_cleanup_close_ int dir = -1;
	int err = proc_open(pid, &dir);

	if (!err)
		err = proc_list(dir, "task", ret);
	if (!err && !ret->nr)
		err = -ESRCH;
	return err == -ENOENT ? -ESRCH : err;
}

int capture_userfaultfd(pid_t pid, struct waits *waits, int *ret)
{
	struct way_back_code code;
	struct priority priority = {};
	proc_numbers tids = {};
	int err = list_threads(pid, &tids);

	if (!err && tids.nr > 1)
		err = -EBUSY;
	if (!err) {
		way_back_find(proc_living(pid), &code);
		priority_raise(&priority);
		err = by_thread(pid, tids.v[0], &code, waits, ret);
		priority_restore(&priority);
	}
	VEC_FREE(&tids);
	return err == -ENOENT ? -ESRCH : err;
}

int capture_userfaultfd_held(pid_t pid, const struct way_back_code *code, int *ret)
{
	proc_numbers tids = {};
	int err = list_threads(pid, &tids);

	/* A leader that exited long ago is a thread that cannot do anything: the next one. */
	for (size_t i = 0; i < tids.nr; i++) {
		err = is_dead(tids.v[i]) ? -ESRCH : by_stopped_thread(pid, tids.v[i], code, ret);
		if (err != -ESRCH)
			break;
	}
	VEC_FREE(&tids);
	return err;
}
