/* The BPF back end: records of processes and threads become tasks and threads of the model. */
#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "bpf/task.skel.h"
#include "model/timers.h"
#include "observe/bpf.h"
#include "sys/interrupted-x86_64.h"
#include "sys/proc.h"

/* Constants of the kernel's own headers (include/linux/sched.h, sched/signal.h), the same in all supported versions. */
enum {
	KEXIT_ZOMBIE = 0x20,
	KPF_USER_WORKER = 0x4000, /* since Linux 6.4; PF_IO_WORKER 0x10 means the same for io_uring */
	KPF_IO_WORKER = 0x10,
	KPF_KTHREAD = 0x200000,
	KSIGNAL_STOP_STOPPED = 0x1,
	KSIGNAL_STOP_CONTINUED = 0x2,
	KSIGNAL_GROUP_EXIT = 0x4,
	KERESTART_RESTARTBLOCK = 516,
	KMMF_DUMPABLE_MASK = 0x3,
	KVM_LOCKED = 0x2000, /* as in bpf_vmas.c */
	KVM_LOCKONFAULT = 0x80000,
	KSCHED_RESET_ON_FORK = 0x40000000,
};

/* System calls that leave a restart block, and the one that continues them (x86-64). */
enum { NR_POLL = 7, NR_NANOSLEEP = 35, NR_FUTEX = 202, NR_RESTART = 219, NR_CLOCK_NANOSLEEP = 230 };

static const uint64_t ns_per_s = 1000000000;
/* What getitimer(2) says of an overdue CPU timer: one tick; the shortest one there is. */
static const uint64_t tick_ns = 1000000;

/* Position in the array of extras while records are turned into the model, in the order they were made. */
struct extras_cursor {
	const struct bpf_array *array;
	size_t at, nr;
};

static const struct extra_record *next_extra(struct extras_cursor *c, uint32_t kind)
{
	if (c->at >= c->nr || c->at >= c->array->cap)
		return NULL;
	const struct extra_record *r = bpf_array_at(c->array, c->at++);
	return r->kind == kind ? r : NULL;
}

typedef VEC(struct siginfo_raw) siginfos;

/*
 * The queue, then what is in the set of pending signals without an entry (the queue was full, or the kernel
 * itself sent it): those get the siginfo that the kernel makes up when it delivers them.
 */
static int build_pending(struct extras_cursor *c, uint32_t nr, uint64_t set, void *to)
{
	siginfos *pending = to;
	uint64_t queued = 0;

	for (uint32_t i = 0; i < nr; i++) {
		const struct extra_record *r = next_extra(c, EXTRA_SIGINFO);
		struct siginfo_raw info = {};
		int32_t signo;

		if (!r)
			return -EAGAIN;
		memcpy(info.bytes, r->siginfo, sizeof(r->siginfo));
		memcpy(&signo, info.bytes, sizeof(signo));
		if (signo < 1 || signo > MODEL_NSIG)
			return -EAGAIN;
		queued |= 1ULL << (signo - 1);
		if (VEC_PUSH(pending, info))
			return -ENOMEM;
	}
	for (int32_t signo = 1; signo <= MODEL_NSIG; signo++) {
		struct siginfo_raw info = {};

		if (!((set & ~queued) >> (signo - 1) & 1))
			continue;
		memcpy(info.bytes, &signo, sizeof(signo)); /* si_errno 0, si_code SI_USER, pid and uid 0 */
		if (VEC_PUSH(pending, info))
			return -ENOMEM;
	}
	return 0;
}

/* The groups, where they are many: of this thread in the array of extras, or those of the one before. */
static int build_groups(struct creds *creds, const struct thread_record *t, const struct creds *before, struct extras_cursor *c)
{
	uint32_t nr = t->nr_groups;

	if (!t->nr_group_extras && !before)
		return -EAGAIN;
	for (uint32_t i = 0; !t->nr_group_extras && i < before->groups.nr; i++)
		if (VEC_PUSH(&creds->groups, before->groups.v[i]))
			return -ENOMEM;
	for (uint32_t i = 0; i < t->nr_group_extras; i++) {
		const struct extra_record *r = next_extra(c, EXTRA_GROUPS);

		if (!r)
			return -EAGAIN;
		for (uint32_t k = 0; k < OBSERVE_GROUPS_AT_ONCE && creds->groups.nr < nr; k++)
			if (VEC_PUSH(&creds->groups, r->groups[k]))
				return -ENOMEM;
	}
	return creds->groups.nr == nr ? 0 : -EAGAIN;
}

static int build_creds(struct creds *creds, const struct thread_record *t, const struct creds *before, struct extras_cursor *c)
{
	creds->uid = t->uid;
	creds->gid = t->gid;
	creds->euid = t->euid;
	creds->egid = t->egid;
	creds->suid = t->suid;
	creds->sgid = t->sgid;
	creds->fsuid = t->fsuid;
	creds->fsgid = t->fsgid;
	creds->cap_inh = t->cap_inh;
	creds->cap_prm = t->cap_prm;
	creds->cap_eff = t->cap_eff;
	creds->cap_bnd = t->cap_bnd;
	creds->cap_amb = t->cap_amb;
	creds->securebits = t->securebits;
	creds->no_new_privs = t->no_new_privs;
	if (t->exit_state)
		return 0;
	if (t->nr_groups > OBSERVE_NR_GROUPS)
		return build_groups(creds, t, before, c);
	for (uint32_t i = 0; i < t->nr_groups; i++)
		if (VEC_PUSH(&creds->groups, t->groups[i]))
			return -ENOMEM;
	return 0;
}

static void build_regs(struct cpu_regs *regs, const struct thread_record *t)
{
	_Static_assert(offsetof(struct cpu_regs, fs_base) == sizeof(t->regs), "pt_regs come first");

	memcpy(regs, t->regs, sizeof(t->regs));
	/* The kernel keeps flags of its own beside these 16-bit selectors. */
	regs->cs &= 0xffff;
	regs->ss &= 0xffff;
	regs->fs_base = t->fs_base;
	regs->gs_base = t->gs_base;
	regs->ds = t->ds;
	regs->es = t->es;
	regs->fs = t->fs_sel;
	regs->gs = t->gs_sel;
}

static int build_fpu(const struct bpf_state *s, struct cpu_fpu *fpu, const struct thread_record *t, size_t slot)
{
	if (!t->fpu_bytes || t->fpu_bytes != t->fpu_wanted_bytes)
		return fail(-EPROTO, "tid %u: FPU state of %u bytes, of which %u could be read", t->tid,
			    t->fpu_wanted_bytes, t->fpu_bytes);
	fpu->xsave = malloc(s->xstate.user_bytes);
	if (!fpu->xsave)
		return -ENOMEM;
	fpu->len_bytes = s->xstate.user_bytes;
	int err = xstate_to_standard(&s->xstate, bpf_array_at(&s->fpus, slot), t->fpu_bytes, t->pkru, fpu->xsave);
	return err ? fail(err, "tid %u: FPU state is not laid out as the processor says", t->tid) : 0;
}

static int64_t left(uint64_t expires_ns, uint64_t now_ns)
{
	return expires_ns > now_ns ? (int64_t)(expires_ns - now_ns) : 0;
}

static int64_t sleep_left(const struct thread_record *t)
{
	switch (t->restart_clockid) {
	case CLOCK_BOOTTIME:
		return left(t->restart_expires_ns, t->now_boot_ns);
	case CLOCK_TAI:
		return left(t->restart_expires_ns, t->now_tai_ns);
	default:
		/* Relative sleeps on CLOCK_REALTIME are timed by CLOCK_MONOTONIC. */
		return left(t->restart_expires_ns, t->now_ns);
	}
}

/* A call that was interrupted twice shows as restart_syscall(2), with the arguments of the first. */
static uint32_t sleep_nr(const struct thread_record *t, const struct cpu_regs *regs)
{
	if (regs->orig_ax == NR_NANOSLEEP || regs->orig_ax == NR_CLOCK_NANOSLEEP)
		return regs->orig_ax;
	/* nanosleep(request, remaining) against clock_nanosleep(clock, flags 0, request, remaining) */
	return regs->di > CLOCK_TAI ? NR_NANOSLEEP : NR_CLOCK_NANOSLEEP;
}

static enum restart_kind restart_kind(const struct bpf_state *s, const struct thread_record *t, uint64_t nr)
{
	const struct task_bpf__bss *known = s->task->bss;

	if (known->nanosleep_restart && known->futex_restart && known->poll_restart)
		return t->restart_fn == known->nanosleep_restart ? RESTART_NANOSLEEP :
		       t->restart_fn == known->futex_restart ? RESTART_FUTEX :
		       t->restart_fn == known->poll_restart ? RESTART_POLL : RESTART_UNKNOWN;
	/* The kernel hides its symbols: the number of the call is all there is. */
	switch (nr) {
	case NR_NANOSLEEP:
		return RESTART_NANOSLEEP;
	case NR_FUTEX:
		return RESTART_FUTEX;
	case NR_POLL:
		return RESTART_POLL;
	default:
		return RESTART_UNKNOWN;
	}
}

static void build_restart(const struct bpf_state *s, struct restart *restart, const struct thread_record *t,
			  const struct cpu_regs *regs)
{
	if ((int64_t)regs->orig_ax < 0 || (int64_t)regs->ax != -KERESTART_RESTARTBLOCK)
		return;
	restart->kind = restart_kind(s, t, regs->orig_ax);
	restart->nr = regs->orig_ax;
	switch (restart->kind) {
	case RESTART_NANOSLEEP:
		restart->nr = sleep_nr(t, regs);
		restart->clockid = t->restart_clockid;
		restart->remaining_ns = sleep_left(t);
		break;
	case RESTART_FUTEX:
		restart->nr = NR_FUTEX;
		/* All but FUTEX_WAIT have an absolute time as their argument. */
		restart->remaining_ns = (regs->si & FUTEX_CMD_MASK) == FUTEX_WAIT ?
						left(t->restart_futex_ns, t->now_ns) :
						INT64_MAX;
		break;
	case RESTART_POLL:
		restart->nr = NR_POLL;
		restart->remaining_ns = t->poll_has_timeout ?
						left(t->poll_sec * ns_per_s + t->poll_nsec, t->now_ns) :
						INT64_MAX;
		break;
	default:
		break;
	}
}

/* A main thread that has exited: what the kernel has taken from it already, or would not tell anybody else. */
static void forget_gone(struct thread *th)
{
	th->clear_tid = th->robust_list = 0;
	th->robust_list_len = 0;
	memset(&th->rseq, 0, sizeof(th->rseq));
	memset(&th->altstack, 0, sizeof(th->altstack));
}

static int build_thread(struct bpf_run *r, struct task *task, struct task_idents *id, const struct thread_record *t,
			size_t slot, struct extras_cursor *c)
{
	struct thread *th = VEC_ADD(&task->threads);
	const struct creds *before = task->threads.nr > 1 ? &task->threads.v[task->threads.nr - 2].creds : NULL;
	int err;

	if (!th)
		return -ENOMEM;
	th->tid = t->tid;
	memcpy(th->comm, t->comm, sizeof(th->comm));
	th->comm[sizeof(th->comm) - 1] = 0;
	th->sigmask = t->restore_sigmask ? t->saved_sigmask : t->blocked;
	th->altstack.sp = t->altstack_sp;
	th->altstack.size_bytes = t->altstack_size;
	th->altstack.flags = t->altstack_flags;
	th->clear_tid = t->clear_tid;
	th->robust_list = t->robust_list;
	th->robust_list_len = t->robust_list ? 24 : 0; /* sizeof(struct robust_list_head), the only size accepted */
	th->rseq.ptr = t->rseq;
	th->rseq.len_bytes = t->rseq_len;
	th->rseq.sig = t->rseq_sig;
	th->nice = t->static_prio - 120;
	th->sched_policy = t->policy | (t->reset_on_fork ? KSCHED_RESET_ON_FORK : 0);
	th->sched_priority = t->rt_priority;
	th->pdeath_signal = t->pdeath_signal;
	th->seccomp_mode = t->seccomp_mode;
	th->timer_slack_ns = t->timer_slack_ns;
	for (size_t i = 0; i < sizeof(th->affinity); i++)
		th->affinity[i] = ((const uint8_t *)t->affinity)[i] & r->s->online[i];
	bpf_build_thread_attrs(r->s, id, th, t);
	err = build_creds(&th->creds, t, before, c);
	if (!err)
		err = build_pending(c, t->nr_pending, t->sigpending, &th->pending);
	th->exited = t->exit_state && task->state != TASK_ZOMBIE;
	if (th->exited)
		forget_gone(th);
	if (err || !r->stopped || task->state == TASK_ZOMBIE || th->exited)
		return err;
	build_regs(&th->cpu.regs, t);
	call_undo_restart(th->tid, &th->cpu.regs);
	build_restart(r->s, &th->restart, t, &th->cpu.regs);
	return build_fpu(r->s, &th->cpu.fpu, t, slot);
}

/* Processor time of the process, ns: [0] user and system, [1] user, [2] what the scheduler counts. */
static void process_times(const struct task_record *rec, const struct thread_record *t, size_t nr, uint64_t *ret)
{
	uint64_t utime = rec->utime_ns, stime = rec->stime_ns, sum = rec->sum_exec_ns;

	for (size_t i = 0; i < nr && !rec->cputimer_active; i++) {
		utime += t[i].utime_ns;
		stime += t[i].stime_ns;
		sum += t[i].sum_exec_ns;
	}
	ret[0] = utime + stime;
	ret[1] = utime;
	ret[2] = sum;
}

static void build_itimers(struct task *task, const struct task_record *rec, const uint64_t *times)
{
	int64_t real = rec->real_remaining_ns, interval = rec->real_interval_ns;

	if (!rec->real_queued)
		/* Expired, and its SIGALRM not yet taken: the kernel then arms it for the next whole interval. */
		real = interval ? interval - -real % interval : 0;
	else if (real < 1000)
		real = 1000;
	task->itimers[ITIMER_REAL].value_us = real / 1000;
	task->itimers[ITIMER_REAL].interval_us = interval / 1000;
	for (int i = 0; i < 2; i++) {
		struct itimer *it = &task->itimers[i ? ITIMER_VIRTUAL : ITIMER_PROF];
		uint64_t expires = rec->cpu_expires_ns[i];

		it->interval_us = rec->cpu_interval_ns[i] / 1000;
		if (expires)
			it->value_us = (expires > times[i] ? expires - times[i] : tick_ns) / 1000;
	}
}

/* What a CPU clock shows now; -1 when its task is not one of this process. */
static int64_t cpu_clock(const struct extra_record *x, const struct thread_record *t, size_t nr, const uint64_t *times)
{
	bool per_thread = x->timer.clockid < 0 ? x->timer.clockid & 4 : x->timer.clockid == CLOCK_THREAD_CPUTIME_ID;
	int which = x->timer.clockid < 0 ? x->timer.clockid & 3 : 2;

	if (which > 2)
		return -1;
	if (!per_thread)
		return x->timer.cpu_pid == t[0].tid ? (int64_t)times[which] : -1;
	for (size_t i = 0; i < nr; i++) {
		if (t[i].tid != x->timer.cpu_pid)
			continue;
		if (which == 2)
			return t[i].sum_exec_ns;
		return t[i].utime_ns + (which ? 0 : t[i].stime_ns);
	}
	return -1;
}

/* Its signal is pending: a timer that fires again starts from where it was when it fired for the first time. */
static void build_late(const struct task *task, const struct extra_record *x, int64_t value, struct posix_timer *timer)
{
	int64_t interval = x->timer.interval_ns, counted, late;

	if (x->timer.queued || value > 0 || !timer_is_pending(task, timer))
		return;
	if (__builtin_mul_overflow(interval, x->timer.missed + 1, &counted) || __builtin_add_overflow(counted, -value, &late) || late < 0)
		return;
	timer->late_ns = late;
	if (timer->date_ns > (uint64_t)counted)
		timer->date_ns -= counted;
}

static int build_timers(struct task *task, const struct task_record *rec, const struct thread_record *t, size_t nr,
			const uint64_t *times, struct extras_cursor *c, char *refusal, size_t refusal_bytes)
{
	for (uint32_t i = 0; i < rec->nr_timers; i++) {
		const struct extra_record *x = next_extra(c, EXTRA_TIMER);
		struct posix_timer *timer = VEC_ADD(&task->timers);
		if (!timer)
			return -ENOMEM;
		if (!x)
			return -EAGAIN;

		int64_t value = x->timer.value_ns, interval = x->timer.interval_ns;
		bool cpu = x->timer.clockid < 0 || x->timer.clockid == CLOCK_PROCESS_CPUTIME_ID ||
			   x->timer.clockid == CLOCK_THREAD_CPUTIME_ID;

		timer->id = x->timer.id;
		timer->clockid = x->timer.clockid;
		timer->notify = x->timer.notify;
		timer->signo = x->timer.signo;
		timer->sigval = x->timer.sigval;
		timer->notify_tid = x->timer.notify_tid;
		timer->overrun = x->timer.overrun;
		timer->interval_ns = interval;
		if (cpu) {
			int64_t now = cpu_clock(x, t, nr, times);

			if (now < 0)
				snprintf(refusal, refusal_bytes,
					 "its timer %d counts the processor time of another process, or of a thread that has ended; delete it",
					 timer->id);
			if (clock_is_of_thread_itself(timer->clockid) && (pid_t)x->timer.cpu_pid != task->pid)
				timer->clockid = clock_of_thread(timer->clockid, x->timer.cpu_pid);
			value -= value ? now : 0;
		}
		/* One that notifies nobody is never in the kernel's queue, and armed as long as it has time left. */
		bool silent = timer->notify == SIGEV_NONE && value > 0;
		if (x->timer.queued || silent || timer_is_pending(task, timer))
			timer->date_ns = x->timer.date_ns;
		build_late(task, x, value, timer);
		if (!x->timer.queued && !interval && !silent && !(cpu && value))
			continue; /* not armed, or expired for good */
		/* Overdue: the signal of an interval timer is pending, the kernel then goes on by whole intervals. */
		if (value <= 0 && interval && (!cpu || x->timer.value_ns))
			value = interval - -value % interval;
		else if (value <= 0)
			value = x->timer.value_ns ? 1 : 0;
		timer->value_ns = value;
	}
	return 0;
}

static void build_ns(struct task *task, const struct task_record *rec)
{
	task->ns.pid = rec->ns.pid;
	task->ns.net = rec->ns.net;
	task->ns.ipc = rec->ns.ipc;
	task->ns.uts = rec->ns.uts;
	task->ns.mnt = rec->ns.mnt;
	task->ns.user = rec->ns.user;
	task->ns.cgroup = rec->ns.cgroup;
	task->ns.time = rec->ns.time;
}

static void build_state(struct task *task, const struct task_record *rec)
{
	task->state = TASK_ALIVE;
	if (rec->exit_state & KEXIT_ZOMBIE && rec->nr_threads <= 1) {
		task->state = TASK_ZOMBIE;
		task->exit_code = rec->signal_flags & KSIGNAL_GROUP_EXIT ? rec->group_exit_code : rec->exit_code;
	} else if (rec->signal_flags & KSIGNAL_STOP_STOPPED) {
		task->state = TASK_STOPPED;
		task->stop_signal = rec->stop_signal ? rec->stop_signal :
				    rec->group_exit_code & 0x7f ? rec->group_exit_code & 0x7f : SIGSTOP;
		/* The kernel forgets the number when somebody has waited for it. */
		task->stop_reported = !rec->group_exit_code;
	} else {
		task->continued = rec->signal_flags & KSIGNAL_STOP_CONTINUED;
	}
}

static void build_task(struct task *task, const struct task_record *rec)
{
	task->pid = rec->pid;
	task->ppid = rec->ppid;
	task->pgid = rec->pgid;
	task->sid = rec->sid;
	build_state(task, rec);
	task->personality = rec->personality;
	task->child_subreaper = rec->child_subreaper;
	task->oom_score_adj = rec->oom_score_adj;
	task->loginuid = rec->loginuid;
	task->exit_signal = rec->exit_signal;
	task->cgroup_id = rec->cgroup_id;
	build_ns(task, rec);
	if (rec->exit_state && task->state != TASK_ZOMBIE)
		task->exit_code = rec->exit_code;
	for (int i = 0; i < MODEL_NR_RLIMITS; i++) {
		task->rlimits[i].cur = rec->rlimits[i][0];
		task->rlimits[i].max = rec->rlimits[i][1];
	}
	for (int i = 0; i < MODEL_NSIG; i++) {
		task->sigactions[i].handler = rec->sigactions[i][0];
		task->sigactions[i].flags = rec->sigactions[i][1];
		task->sigactions[i].restorer = rec->sigactions[i][2];
		task->sigactions[i].mask = rec->sigactions[i][3];
	}
}

static int build_layout(struct mm *mm, const struct task_record *rec)
{
	mm->start_code = rec->start_code;
	mm->end_code = rec->end_code;
	mm->start_data = rec->start_data;
	mm->end_data = rec->end_data;
	mm->start_stack = rec->start_stack;
	mm->start_brk = rec->start_brk;
	mm->brk = rec->brk;
	mm->arg_start = rec->arg_start;
	mm->arg_end = rec->arg_end;
	mm->env_start = rec->env_start;
	mm->env_end = rec->env_end;
	mm->dumpable = rec->mm_flags & KMMF_DUMPABLE_MASK;
	if (rec->mm_def_flags & KVM_LOCKED)
		mm->lock_future = MCL_FUTURE | (rec->mm_def_flags & KVM_LOCKONFAULT ? MCL_ONFAULT : 0);
	/* Pairs up to and with AT_NULL, as /proc/PID/auxv has them. */
	for (uint32_t i = 0; i + 1 < rec->nr_auxv && i + 1 < OBSERVE_NR_AUXV; i += 2) {
		if (VEC_PUSH(&mm->auxv, rec->auxv[i]) || VEC_PUSH(&mm->auxv, rec->auxv[i + 1]))
			return -ENOMEM;
		if (!rec->auxv[i])
			break;
	}
	return 0;
}

/* What a link below /proc/PID says: *ret is owned. -EAGAIN when the process has ended. */
static int read_link(pid_t pid, const char *name, char **ret)
{
	_cleanup_close_ int dir = -1;
	int err = proc_open(pid, &dir);

	if (!err)
		err = proc_readlink(dir, name, ret);
	if (err == -ENOENT || err == -ESRCH)
		return -EAGAIN;
	return err ? fail(err, "pid %d: read where %s points", pid, name) : 0;
}

/*
 * Working and root directory are told apart by mount and dentry. Their identities among the files are odd numbers,
 * which no address of a struct file is.
 */
static int add_dir(struct bpf_run *r, pid_t pid, const struct file_record *dir, const char *name, uint64_t *ret)
{
	uint64_t key = ident_mix(ident_mix(1, dir->file), dir->files);
	uint32_t known = dir->file ? ident_map_find(&r->dirs, key) : 0;
	_cleanup_free_ char *path = NULL;

	*ret = 0;
	if (!dir->file)
		return 0;
	if (!known) {
		struct file_record rec = *dir;
		int err = read_link(pid, name, &path);

		if (err)
			return err;
		known = r->dirs.nr + 1;
		rec.file = (uint64_t)known << 1 | 1;
		rec.files = 0;
		err = ident_map_add(&r->dirs, key, known);
		if (!err)
			err = bpf_add_other(r, &rec, path);
		if (err)
			return err;
	}
	*ret = (uint64_t)known << 1 | 1;
	return 0;
}

static int add_exe(struct bpf_run *r, pid_t pid, const struct file_record *exe, uint64_t *ret)
{
	_cleanup_free_ char *path = NULL;

	*ret = exe->file;
	if (!exe->file || ident_map_find(&r->others, exe->file))
		return 0;
	int err = read_link(pid, "exe", &path);
	return err ? err : bpf_add_other(r, exe, path);
}

/* A process has one table of descriptors, one working directory and one set of namespaces, or is not dumped. */
static void judge_thread(struct task_idents *id, const struct task_record *rec, const struct thread_record *t)
{
	const char *why = NULL;
	/* Who is on the way out gives up one after the other, before its state says that it has exited. */
	bool leaves = t->exit_state || !t->files || !t->fs || !t->nsproxy;
	bool process_leaves = !rec->files || !rec->fs || !rec->nsproxy;

	if (leaves)
		return;
	if (t->task_flags & (KPF_USER_WORKER | KPF_IO_WORKER) && !(t->task_flags & KPF_KTHREAD))
		why = "is a worker of the kernel's own (io_uring, vhost)";
	else if (t->io_uring)
		why = "has an io_uring ring";
	else if (t->shadow_stack)
		why = "has a shadow stack (start it with GLIBC_TUNABLES=glibc.cpu.hwcaps=-SHSTK)";
	else if (t->segments)
		why = "has segments of its own, as 32-bit code has for its thread-local storage (set_thread_area)";
	else if (rec->ldt)
		why = "has segments of its own (modify_ldt)";
	else if (t->files != rec->files && !process_leaves)
		why = "has descriptors of its own (unshare(CLONE_FILES))";
	else if (t->fs != rec->fs && !process_leaves)
		why = "has a working directory of its own (unshare(CLONE_FS))";
	else if (t->nsproxy != rec->nsproxy && !process_leaves)
		why = "is in other namespaces than its process";
	else if (t->personality != rec->personality && !process_leaves)
		why = "has a personality(2) of its own";
	else if (t->loginuid != rec->loginuid && !process_leaves)
		why = "has a login uid of its own";
	if (why && !id->refusal[0])
		snprintf(id->refusal, sizeof(id->refusal), "its thread %u %s, which is not supported", t->tid, why);
}

/* Threads that are on their way out are no part of the model; the main one always is. */
static bool is_gone(const struct task *task, const struct thread_record *t)
{
	return t->exit_state && task->state != TASK_ZOMBIE && t->global_tid != t->global_tgid;
}

static int build_threads(struct bpf_run *r, struct task *task, struct task_idents *id, const struct task_record *rec,
			 size_t first, struct extras_cursor *c)
{
	const struct thread_record *t = bpf_array_at(&r->s->threads, first);
	siginfos dropped = {};
	int err = 0;

	for (uint32_t i = 0; i < rec->nr_threads && !err; i++) {
		judge_thread(id, rec, &t[i]);
		id->traced |= t[i].tracer != 0;
		if (t[i].seccomp_notifies)
			id->seccomp_notifies = t[i].tid;
		if (is_gone(task, &t[i]))
			err = build_pending(c, t[i].nr_pending, 0, &dropped);
		else
			err = build_thread(r, task, id, &t[i], first + i, c);
	}
	VEC_FREE(&dropped);
	/* All others that were seen were on their way out. */
	if (!err && task->state != TASK_ZOMBIE && task->threads.v[0].exited && task->threads.nr == 1)
		err = -EAGAIN;
	return err;
}

static int build_process(struct bpf_run *r, const struct task_record *rec, size_t first_thread, size_t nr_threads,
			 struct extras_cursor *c)
{
	struct task *task = VEC_ADD(&r->o->m->tasks);
	struct task_idents *id = VEC_ADD(&r->o->idents);
	const struct thread_record *threads = bpf_array_at(&r->s->threads, first_thread);
	uint64_t times[3];

	if (!task || !id || VEC_PUSH(&r->records, rec))
		return -ENOMEM;
	build_task(task, rec);
	if (!rec->pid)
		return fail(0, "a process of the tree is not visible in this pid namespace: run bcr outside of it");
	id->mm = rec->mm;
	id->files = rec->files;
	id->fs = rec->fs;
	id->sighand = rec->sighand;
	id->kernel_thread = rec->task_flags & KPF_KTHREAD;
	id->umask = rec->umask;
	id->ctty_rdev = rec->ctty_rdev;
	int err = build_threads(r, task, id, rec, first_thread, c);
	if (!err)
		err = build_pending(c, rec->nr_pending, rec->sigpending, &task->pending);
	process_times(rec, threads, nr_threads, times);
	build_itimers(task, rec, times);
	if (!err)
		err = build_timers(task, rec, threads, nr_threads, times, c, id->refusal, sizeof(id->refusal));
	if (!err)
		err = build_layout(&id->layout, rec);
	bpf_build_process_attrs(r->s, task, &id->layout, rec);
	if (err || r->again)
		return err;
	err = add_dir(r, rec->living, &rec->cwd, "cwd", &id->cwd);
	if (!err)
		err = add_dir(r, rec->living, &rec->root, "root", &id->root);
	return err;
}

/* The parent of a task whose vfork has not ended waits for it, provided that they still share memory. */
static void mark_vfork(struct bpf_run *r)
{
	for (size_t i = 1; i < r->records.nr; i++) {
		const struct task_record *child = r->records.v[i];

		for (size_t p = 0; p < i && child->vfork_done; p++)
			if (r->records.v[p]->global_tgid == child->global_ppid &&
			    r->records.v[p]->mm == child->mm)
				r->o->idents.v[p].vfork_wait = true;
	}
}

static uint32_t count_living(const struct thread_record *threads, size_t nr)
{
	uint32_t ret = 0;

	for (size_t i = 0; i < nr; i++)
		ret += !threads[i].exit_state && threads[i].files;
	return ret;
}

enum { NR_COUNTED = 3 };

struct counted {
	uint64_t object;
	uint32_t users;
};

static void get_counted(const struct task_record *rec, struct counted ret[NR_COUNTED])
{
	ret[0] = (struct counted){ rec->mm, rec->mm_users };
	ret[1] = (struct counted){ rec->files, rec->files_users };
	ret[2] = (struct counted){ rec->fs, rec->fs_users };
}

/* Has an object of the task more users than all tasks of the tree that have it have threads? */
static bool has_more_users(const struct bpf_run *r, const uint32_t *living, const struct task_record *rec, size_t what)
{
	struct counted all[NR_COUNTED], others[NR_COUNTED];
	uint64_t known = 0;

	get_counted(rec, all);
	if (all[what].users <= 1 || !all[what].object)
		return false;
	for (size_t i = 0; i < r->records.nr; i++) {
		get_counted(r->records.v[i], others);
		if (others[what].object == all[what].object)
			known += living[i];
	}
	return all[what].users > known;
}

/* `living`: threads of each task that have not exited. */
static void mark_outsiders(struct bpf_run *r, const uint32_t *living)
{
	struct counted all[NR_COUNTED];

	for (size_t i = 0; i < r->records.nr && !r->o->outsiders; i++) {
		get_counted(r->records.v[i], all);
		for (size_t what = 0; what < NR_COUNTED; what++) {
			/* Mostly the process shares with nobody at all. */
			if (all[what].users > living[i])
				r->o->outsiders |= has_more_users(r, living, r->records.v[i], what);
		}
	}
}

static const struct thread_record *thread_at(const struct bpf_state *s, size_t i)
{
	return bpf_array_at(&s->threads, i);
}

int bpf_tasks_build(struct bpf_run *r)
{
	struct bpf_state *s = r->s;
	struct extras_cursor c = { .array = &s->extras, .nr = s->task->bss->nr_extras };
	size_t nr = s->task->bss->nr_tasks, nr_threads = s->task->bss->nr_threads, at = 0;
	_cleanup_free_ uint32_t *living = calloc(nr + 1, sizeof(*living));

	if (!living)
		return fail(-ENOMEM, "observe");
	for (size_t i = 0; i < nr; i++) {
		const struct task_record *rec = bpf_array_at(&s->tasks, i);
		size_t first = at;

		/* The threads that were seen must be those that the process had: it may have been exiting or cloning. */
		while (at < nr_threads && thread_at(s, at)->global_tgid == rec->global_tgid)
			at++;
		if (at - first != rec->nr_threads)
			return -EAGAIN;
		living[i] = count_living(thread_at(s, first), at - first);
		int err = build_process(r, rec, first, at - first, &c);
		if (err == -ENOMEM)
			return fail(err, "observe pid %u", rec->pid);
		if (err)
			return err;
	}
	mark_vfork(r);
	mark_outsiders(r, living);
	return 0;
}

int bpf_each_thread(struct bpf_state *s, int (*fn)(void *ctx, pid_t pid, pid_t tid, const struct cpu_regs *regs), void *ctx)
{
	size_t nr_threads = s->task->bss->nr_threads, at = 0;
	bool stopped = s->task->bss->stopped;
	int err = 0;

	for (size_t i = 0; i < s->task->bss->nr_tasks; i++) {
		const struct task_record *rec = bpf_array_at(&s->tasks, i);

		for (; at < nr_threads && thread_at(s, at)->global_tgid == rec->global_tgid; at++) {
			const struct thread_record *t = thread_at(s, at);
			struct cpu_regs regs;

			if (t->exit_state)
				continue;
			if (stopped)
				build_regs(&regs, t);
			err = fn(ctx, rec->pid, t->tid, stopped ? &regs : NULL);
			if (err)
				return err;
		}
	}
	return 0;
}

int bpf_exes_build(struct bpf_run *r)
{
	for (size_t i = 0; i < r->records.nr; i++) {
		int err = add_exe(r, r->records.v[i]->living, &r->records.v[i]->exe, &r->o->idents.v[i].exe);

		if (err)
			return err;
	}
	return 0;
}
