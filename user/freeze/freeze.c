/* Stopping and resuming a process tree: what all back ends have in common. */
#include "freeze/freeze.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "freeze/hold.h"
#include "sys/pid_check.h"
#include "sys/priority.h"
#include "sys/tracee.h"
#include "sys/waits.h"

static int choose_backend(struct freeze *f, const char *backend)
{
	const char *why = "";

	f->ops = &freeze_ptrace_ops;
	if (backend && strcmp(backend, "ptrace") == 0)
		return 0;
	if (backend && strcmp(backend, "cgroup") != 0)
		return fail(-EINVAL, "freezer \"%s\" is unknown: ptrace or cgroup", backend);

	int err = freeze_cgroup_ops.probe(f, &why);
	if (!err)
		f->ops = &freeze_cgroup_ops;
	else if (err == -EOPNOTSUPP && backend)
		return fail(0, "pid %d: the cgroup freezer cannot be used: %s", f->root, why);
	else if (err == -EOPNOTSUPP)
		log_debug("pid %d: stopped by ptrace: %s", f->root, why);
	return err == -EOPNOTSUPP ? 0 : err;
}

int freeze_create(const char *backend, pid_t root, unsigned timeout_s, struct freeze **ret)
{
	int err = pid_check_target(root);
	if (err)
		return err;

	struct freeze *f = calloc(1, sizeof(*f));
	if (!f)
		return fail(-ENOMEM, "pid %d: prepare to stop", root);
	f->root = root;
	f->timeout_s = timeout_s ? timeout_s : 10;
	err = choose_backend(f, backend);
	if (err) {
		free(f);
		return err;
	}
	*ret = f;
	return 0;
}

int freeze_probe_cgroup(pid_t root, const char **why)
{
	struct freeze f = { .root = root };
	int err = freeze_cgroup_ops.probe(&f, why);

	if (!err)
		freeze_cgroup_ops.deinit(&f);
	hold_clear(&f);
	return err;
}

const char *freeze_backend(const struct freeze *f)
{
	return f->ops->name;
}

static int collect_pids(struct freeze *f)
{
	VEC_FOREACH(t, &f->tasks)
		if (!t->gone && VEC_PUSH(&f->pids, t->pid))
			return fail(-ENOMEM, "pid %d: list the stopped processes", f->root);
	return f->pids.nr ? 0 : fail(-ESRCH, "pid %d: there is no such process, or it has exited", f->root);
}

void freeze_set_lister(struct freeze *f, const struct freeze_lister *lister)
{
	f->lister = lister;
}

void freeze_set_waits(struct freeze *f, struct waits *waits)
{
	f->waits = waits;
}

void freeze_set_short(struct freeze *f, bool is_short)
{
	f->keep_priority = is_short;
}

int freeze_prepare(struct freeze *f)
{
	if (f->held)
		return 0;
	hold_clear(f);
	int err = hold_list(f);
	f->prepared = !err;
	return err;
}

int freeze_stop(struct freeze *f)
{
	int err = f->held || f->prepared ? 0 : freeze_prepare(f);

	if (err || f->held)
		return err;

	priority_raise(&f->priority);
	f->stop_begin_ns = ptrace_now_ns();
	f->thaw_end_ns = 0;
	f->deadline_ns = f->stop_begin_ns + (uint64_t)f->timeout_s * 1000000000u;
	f->prepared = false;
	waits_begin(f->waits);
	f->stopping = true;
	f->listed_last = false;
	err = f->ops->stop(f);
	f->stopping = false;
	if (!err) {
		f->held = true;
		waits_settle(f->waits);
		err = collect_pids(f);
		if (err)
			freeze_thaw(f, THAW_RUN, NULL);
	}
	f->stop_end_ns = ptrace_now_ns();
	if (!f->held || !f->keep_priority)
		priority_restore(&f->priority);
	return err;
}

bool freeze_was_listed(const struct freeze *f)
{
	return f->held && f->listed_last;
}

bool freeze_was_stopped(const struct freeze *f, pid_t pid)
{
	VEC_FOREACH(t, &f->tasks)
		if (t->pid == pid && !t->gone)
			return t->was_stopped;
	return false;
}

size_t freeze_pids(const struct freeze *f, const pid_t **ret)
{
	*ret = f->pids.v;
	return f->pids.nr;
}

static int read_thread_cpu(pid_t pid, struct thread *thread)
{
	size_t len_bytes = CPU_XSAVE_MAX;
	_cleanup_free_ uint8_t *xsave = malloc(len_bytes);
	if (!xsave)
		return fail(-ENOMEM, "pid %d thread %d: read registers", pid, thread->tid);

	int err = ptrace_get_regs(thread->tid, &thread->cpu.regs);
	if (err)
		return fail(err, "pid %d thread %d: read registers", pid, thread->tid);
	err = ptrace_get_xstate(thread->tid, xsave, &len_bytes);
	if (err)
		return fail(err, "pid %d thread %d: read FPU state", pid, thread->tid);

	free(thread->cpu.fpu.xsave);
	thread->cpu.fpu.xsave = take_ptr(xsave);
	thread->cpu.fpu.len_bytes = (uint32_t)len_bytes;
	return 0;
}

int freeze_need_ptrace(struct freeze *f)
{
	if (!f->held)
		return fail(0, "pid %d: registers can be read of a stopped tree only", f->root);
	return f->ops->need_ptrace(f);
}

int freeze_read_cpu(struct freeze *f, struct model *m)
{
	int err = freeze_need_ptrace(f);

	if (err)
		return err;

	VEC_FOREACH(task, &m->tasks) {
		if (task->state == TASK_ZOMBIE || task->state == TASK_DEAD)
			continue;
		VEC_FOREACH(thread, &task->threads) {
			err = thread->exited ? 0 : read_thread_cpu(task->pid, thread);
			if (err)
				return err;
		}
	}
	return 0;
}

int freeze_thaw(struct freeze *f, enum thaw_mode mode, const struct model *m)
{
	if (!f->held)
		return 0;

	/* Each back end reads the registers of threads itself: the model's may have been adjusted for the image. */
	(void)m;
	priority_raise(&f->priority);
	int err = f->ops->thaw(f, mode);
	f->held = false;
	f->thaw_end_ns = ptrace_now_ns();
	priority_restore(&f->priority);
	return err;
}

void freeze_destroy(struct freeze *f)
{
	if (!f)
		return;
	freeze_thaw(f, THAW_RUN, NULL);
	if (f->ops->deinit)
		f->ops->deinit(f);
	hold_clear(f);
	free(f);
}

uint32_t freeze_freezing_us(const struct freeze *f)
{
	return (uint32_t)((f->stop_end_ns - f->stop_begin_ns) / 1000);
}

uint32_t freeze_frozen_us(const struct freeze *f)
{
	uint64_t end_ns = f->thaw_end_ns ? f->thaw_end_ns : ptrace_now_ns();

	return f->stop_begin_ns ? (uint32_t)((end_ns - f->stop_begin_ns) / 1000) : 0;
}
