/*
 * Processes and threads: everything about them that is not a mapping or a descriptor.
 *
 * Two programs, each in two variants. observe_procs lists the processes of the machine, few bytes each, from which
 * user space finds the tree; observe_tasks reads the processes of the tree (`wanted`) and their threads. The variants in
 * `syscall` programs walk by open-coded iterators (since Linux 6.7) and are run by bpf_prog_test_run_opts(): no
 * descriptor, no text, no copy. The _iter variants do the same from a link iterator, one process at a time, which writes
 * nothing to its stream.
 *
 * Results are elements of mapped arrays. The counters count what was wanted, also beyond the end of an array: user
 * space then grows the array and runs again.
 */
#include "vmlinux.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "bpf/fill_attrs.bpf.h"
#include "bpf/fill_file.bpf.h"
#include "bpf/task.h"

char LICENSE[] SEC("license") = "GPL";

enum {
	TASK_ITER_ALL_PROCS = 0,
	TASK_ITER_PROC_THREADS = 2,
	MAX_EXTRAS = 1 << 20,
	PFA_NO_NEW_PRIVS = 0, /* bit of task_struct::atomic_flags */
	JOBCTL_STOP_SIGMASK = 0xffff,
	PF_KTHREAD = 0x00200000,
};

extern struct task_struct *bpf_task_from_pid(__s32 pid) __ksym __weak;
extern void bpf_task_release(struct task_struct *p) __ksym __weak;
extern void bpf_rcu_read_lock(void) __ksym __weak;
extern void bpf_rcu_read_unlock(void) __ksym __weak;
extern int bpf_iter_task_new(struct bpf_iter_task *it, struct task_struct *task, unsigned int flags) __ksym __weak;
extern struct task_struct *bpf_iter_task_next(struct bpf_iter_task *it) __ksym __weak;
extern void bpf_iter_task_destroy(struct bpf_iter_task *it) __ksym __weak;

/*
 * Pointers in a task are read by BPF_CORE_READ(), never by a plain load: for each of those the verifier searches the
 * kernel's whole BTF, by name and several times, for a type that would make the result a trusted pointer.
 */

/* Largest xsave area of this machine, as the kernel holds it. */
const volatile __u32 fpu_area_bytes = 4096;

__u32 nr_wanted = 0;   /* elements of `wanted` that count */
__u32 stopped = 0;     /* also read registers, FPU state and restart blocks */
__u32 nr_on_cpu = 0;   /* threads that are stopped, but have not left their processor yet */
__u32 nr_procs = 0, nr_tasks = 0, nr_threads = 0, nr_extras = 0;
__u64 last_groups = 0; /* whose numbers are in the extras, of the process that is being read */
/* The kernel's functions that continue interrupted calls; 0: it hides them. */
__u64 nanosleep_restart = 0, futex_restart = 0, poll_restart = 0;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct proc_record);
} procs SEC(".maps");

/* Which processes to read: numbers in the initial pid namespace. As long as `tasks`. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} wanted SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct task_record);
} tasks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct thread_record);
} threads SEC(".maps");

/* Parallel to `threads`; fpu_area_bytes each. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__uint(value_size, 4096);
} fpus SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct extra_record);
} extras SEC(".maps");

/*
 * A structure of the kernel of which many fields are wanted is copied whole, and they are taken from the copy by plain
 * loads: the helper that reads one field takes as long as for 200 bytes. Used by one run of one program at a time.
 */
static __u8 mm_copy[4096], signal_copy[4096], cred_copy[1024], fs_copy[512], restart_copy[256];

#define COPY_OF(copy, src)                                                                                         \
	({                                                                                                         \
		bpf_probe_read_kernel(copy, at_most(bpf_core_type_size(typeof(*(src))), sizeof(copy)), src);       \
		(const typeof(*(src)) *)(copy);                                                                    \
	})

/* The compiler has no memset for more than a few hundred bytes; the helper clears what it could not read. */
static __always_inline void zero(void *dst, __u32 bytes)
{
	bpf_probe_read_kernel(dst, bytes, NULL);
}

static __always_inline void add_proc(struct task_struct *t)
{
	__u32 slot = nr_procs++;
	struct proc_record *r = bpf_map_lookup_elem(&procs, &slot);

	if (!r)
		return;
	r->global_tgid = t->tgid;
	r->global_ppid = BPF_CORE_READ(t, real_parent, tgid);
	r->pid = pid_seen(BPF_CORE_READ(t, thread_pid));
	r->nr_threads = BPF_CORE_READ(t, signal, nr_threads);
}

struct groups_walk {
	struct group_info *groups;
	__u32 tgid, nr;
};

static long add_groups_piece(__u32 i, struct groups_walk *w)
{
	__u32 slot = nr_extras, at = i * OBSERVE_GROUPS_AT_ONCE;
	struct extra_record *r = bpf_map_lookup_elem(&extras, &slot);

	nr_extras = slot + 1;
	if (!r)
		return 0;
	r->kind = EXTRA_GROUPS;
	r->global_tgid = w->tgid;
	bpf_probe_read_kernel(r->groups, at_most((w->nr - at) * 4ULL, sizeof(r->groups)),
			      (void *)w->groups + bpf_core_field_offset(w->groups->gid) + at * 4ULL);
	return 0;
}

static __always_inline __u32 add_groups(__u32 tgid, struct group_info *groups, __u32 nr)
{
	struct groups_walk w = { .groups = groups, .tgid = tgid, .nr = nr };
	__u32 pieces = (nr + OBSERVE_GROUPS_AT_ONCE - 1) / OBSERVE_GROUPS_AT_ONCE;

	bpf_loop(pieces, add_groups_piece, &w, 0);
	return pieces;
}

struct queue_walk {
	__u64 head, next;
	__u32 tgid, nr;
};

static long add_siginfo(__u32 i, struct queue_walk *w)
{
	if (w->next == w->head || !w->next)
		return 1;

	__u32 slot = nr_extras;
	struct list_head *entry = (void *)w->next;
	struct sigqueue *q = (void *)entry - bpf_core_field_offset(struct sigqueue, list);
	struct extra_record *r = bpf_map_lookup_elem(&extras, &slot);

	nr_extras = slot + 1;
	w->nr++;
	w->next = (__u64)BPF_CORE_READ(entry, next);
	if (!r)
		return 0;
	r->kind = EXTRA_SIGINFO;
	r->global_tgid = w->tgid;
	bpf_probe_read_kernel(r->siginfo, sizeof(r->siginfo),
			      (void *)q + bpf_core_field_offset(struct sigqueue, info));
	return 0;
}

static __always_inline __u32 add_siginfos(__u32 tgid, struct sigpending *pending)
{
	struct queue_walk w = { .tgid = tgid };

	w.head = (__u64)pending + bpf_core_field_offset(struct sigpending, list);
	w.next = (__u64)BPF_CORE_READ(pending, list.next);
	bpf_loop(MAX_EXTRAS, add_siginfo, &w, 0);
	return w.nr;
}

/* Remaining time, for CPU clocks the expiry itself: user space subtracts the CPU time. */
static __always_inline void fill_timer(struct extra_record *r, struct k_itimer *k)
{
	struct sigqueue *q = timer_sigqueue(k);
	struct pid *pid = BPF_CORE_READ(k, it_pid);
	__s32 clockid = BPF_CORE_READ(k, it_clock);
	__u8 info[32] = {};

	/* si_signo comes first; the timer's id, overrun and value from byte 16. */
	bpf_probe_read_kernel(info, sizeof(info), (void *)q + bpf_core_field_offset(struct sigqueue, info));
	r->timer.signo = *(__s32 *)info;
	r->timer.sigval = *(__u64 *)(info + 24);
	r->timer.id = BPF_CORE_READ(k, it_id);
	r->timer.clockid = clockid;
	r->timer.notify = BPF_CORE_READ(k, it_sigev_notify);
	r->timer.overrun = BPF_CORE_READ(k, it_overrun_last);
	r->timer.missed = BPF_CORE_READ(k, it_overrun);
	r->timer.date_ns = 0;
	r->timer.interval_ns = BPF_CORE_READ(k, it_interval);
	r->timer.notify_tid = (r->timer.notify & 4) ? pid_seen(pid) : 0; /* SIGEV_THREAD_ID */
	if (clockid < 0 || clockid == 2 || clockid == 3) { /* CLOCK_PROCESS_CPUTIME_ID, _THREAD_ */
		r->timer.cpu_pid = pid_seen(BPF_CORE_READ(k, it.cpu.pid));
		r->timer.value_ns = BPF_CORE_READ(k, it.cpu.node.expires);
		r->timer.queued = BPF_CORE_READ(k, it.cpu.head) != NULL;
	} else if (clockid == 8 || clockid == 9) { /* CLOCK_REALTIME_ALARM, _BOOTTIME_ALARM */
		struct hrtimer *timer = &k->it.alarm.alarmtimer.timer;

		r->timer.value_ns = BPF_CORE_READ(k, it.alarm.alarmtimer.node.expires) -
				    BPF_CORE_READ(timer, base, offset) - (__s64)bpf_ktime_get_ns();
		r->timer.queued = hrtimer_is_queued(timer);
	} else {
		struct hrtimer *timer = &k->it.real.timer;

		r->timer.value_ns = hrtimer_remaining(timer);
		r->timer.queued = hrtimer_is_queued(timer);
		/* Set to a time from now, one of CLOCK_REALTIME runs by CLOCK_MONOTONIC. */
		if (clockid == 0 && BPF_CORE_READ(timer, base, clockid) == 0)
			r->timer.date_ns = BPF_CORE_READ(timer, node.expires);
	}
}

static long add_timer(__u32 i, struct queue_walk *w)
{
	if (w->next == w->head || !w->next)
		return 1;

	__u32 slot = nr_extras;
	struct list_head *entry = (void *)w->next;
	struct k_itimer *k = (void *)entry - bpf_core_field_offset(struct k_itimer___list, list);
	struct extra_record *r = bpf_map_lookup_elem(&extras, &slot);

	nr_extras = slot + 1;
	w->nr++;
	w->next = (__u64)BPF_CORE_READ(entry, next);
	if (!r)
		return 0;
	r->kind = EXTRA_TIMER;
	r->global_tgid = w->tgid;
	fill_timer(r, k);
	return 0;
}

static __always_inline __u32 add_timers(__u32 tgid, struct signal_struct *signal)
{
	struct signal_struct___hlist *s = (void *)signal;
	struct queue_walk w = { .tgid = tgid };

	__u64 head = (__u64)signal + bpf_core_field_offset(s->posix_timers);

	bpf_probe_read_kernel(&w.next, sizeof(w.next), (void *)head); /* list_head.next, hlist_head.first */
	w.head = timers_are_hlist() ? 0 : head;
	bpf_loop(MAX_EXTRAS, add_timer, &w, 0);
	return w.nr;
}

/*
 * Processes of a tree mostly have in common what takes many reads: `same` is what was read of the process before, if it has that as
 * well, or NULL.
 */
static __always_inline void fill_dir(struct file_record *r, const struct file_record *same, struct vfsmount *mnt, struct dentry *dentry)
{
	if (same && same->file == (__u64)dentry && same->files == (__u64)mnt) {
		bpf_probe_read_kernel(r, sizeof(*r), same);
		return;
	}
	r->fd = -1;
	if (!dentry)
		return;
	r->file = (__u64)dentry;
	r->files = (__u64)mnt;
	fill_inode(r, BPF_CORE_READ(dentry, d_inode));
	fill_path(r, mnt, dentry);
}

static __always_inline void fill_namespaces(struct task_record *r, const struct task_record *before, struct task_struct *t)
{
	struct nsproxy *ns = BPF_CORE_READ(t, nsproxy);
	struct pid *pid = BPF_CORE_READ(t, thread_pid);
	__u32 nr;
	__u64 pid_ns = 0;

	r->nsproxy = (__u64)ns;
	if (ns && before && before->nsproxy == (__u64)ns)
		r->ns = before->ns;
	if (pid) {
		pid_at(pid, BPF_CORE_READ(pid, level), &nr, &pid_ns);
		struct pid_namespace *p = (void *)pid_ns;
		r->ns.pid = BPF_CORE_READ(p, ns.inum);
	}
	r->ns.user = BPF_CORE_READ(t, cred, user_ns, ns.inum);
	if (!ns || (before && before->nsproxy == (__u64)ns))
		return;
	r->ns.net = BPF_CORE_READ(ns, net_ns, ns.inum);
	r->ns.ipc = BPF_CORE_READ(ns, ipc_ns, ns.inum);
	r->ns.uts = BPF_CORE_READ(ns, uts_ns, ns.inum);
	r->ns.mnt = BPF_CORE_READ(ns, mnt_ns, ns.inum);
	r->ns.cgroup = BPF_CORE_READ(ns, cgroup_ns, ns.inum);
	if (bpf_core_field_exists(ns->time_ns))
		r->ns.time = BPF_CORE_READ(ns, time_ns, ns.inum);
}

static __always_inline void fill_mm(struct task_record *r, const struct task_record *before, struct mm_struct *at)
{
	const struct mm_struct *mm = COPY_OF(mm_copy, at);
	__u64 auxv_bytes = bpf_core_field_size(mm->saved_auxv);
	struct file *exe = mm->exe_file;

	r->mm = (__u64)at;
	r->mm_users = mm->mm_users.counter;
	r->mm_flags = mm_flags(mm);
	r->mm_def_flags = mm->def_flags;
	r->has_mm_changes = mm_changes(mm, &r->mm_changes);
	r->map_count = mm->map_count;
	r->vdso = (__u64)mm->context.vdso;
	if (bpf_core_field_exists(mm->context.ldt))
		r->ldt = mm->context.ldt != NULL;
	r->start_code = mm->start_code;
	r->end_code = mm->end_code;
	r->start_data = mm->start_data;
	r->end_data = mm->end_data;
	r->start_stack = mm->start_stack;
	r->start_brk = mm->start_brk;
	r->brk = mm->brk;
	r->arg_start = mm->arg_start;
	r->arg_end = mm->arg_end;
	r->env_start = mm->env_start;
	r->env_end = mm->env_end;
	auxv_bytes = at_most(auxv_bytes, sizeof(r->auxv));
	r->nr_auxv = auxv_bytes / 8;
	bpf_probe_read_kernel(r->auxv, auxv_bytes, (void *)at + bpf_core_field_offset(mm->saved_auxv));
	fill_mm_attrs(r, mm);
	if (exe && before && before->exe.file == (__u64)exe)
		bpf_probe_read_kernel(&r->exe, sizeof(r->exe), &before->exe);
	else if (exe)
		fill_file(&r->exe, exe);
}

static __always_inline void fill_signal(struct task_record *r, struct task_struct *t)
{
	struct signal_struct *at = BPF_CORE_READ(t, signal);
	const struct signal_struct *signal = COPY_OF(signal_copy, at);

	r->nr_threads = signal->nr_threads;
	r->signal_flags = signal->flags;
	r->group_exit_code = signal->group_exit_code;
	r->child_subreaper = BPF_CORE_READ_BITFIELD(signal, is_child_subreaper);
	r->oom_score_adj = signal->oom_score_adj;
	r->pgid = pid_seen(signal->pids[PIDTYPE_PGID]);
	r->sid = pid_seen(signal->pids[PIDTYPE_SID]);
	bpf_probe_read_kernel(r->rlimits, sizeof(r->rlimits), (void *)at + bpf_core_field_offset(signal->rlim));
	r->real_queued = hrtimer_is_queued(&at->real_timer);
	if (r->real_queued)
		r->real_remaining_ns = hrtimer_remaining(&at->real_timer);
	r->real_interval_ns = signal->it_real_incr;
	r->cpu_expires_ns[0] = signal->it[0].expires;
	r->cpu_expires_ns[1] = signal->it[1].expires;
	r->cpu_interval_ns[0] = signal->it[0].incr;
	r->cpu_interval_ns[1] = signal->it[1].incr;
	r->cputimer_active = signal->posix_cputimers.timers_active;
	if (r->cputimer_active) {
		r->utime_ns = signal->cputimer.cputime_atomic.utime.counter;
		r->stime_ns = signal->cputimer.cputime_atomic.stime.counter;
		r->sum_exec_ns = signal->cputimer.cputime_atomic.sum_exec_runtime.counter;
	} else {
		r->utime_ns = signal->utime;
		r->stime_ns = signal->stime;
		r->sum_exec_ns = signal->sum_sched_runtime;
	}

	fill_signal_attrs(r, signal);
	struct tty_struct *tty = signal->tty;
	if (tty)
		r->ctty_rdev = BPF_CORE_READ(tty, driver, major) << 20 |
			       (BPF_CORE_READ(tty, driver, minor_start) + BPF_CORE_READ(tty, index));
}

/* What was read of the process before this one; NULL: it is the first, or the array is full. */
static __always_inline struct task_record *task_before(__u32 slot)
{
	slot--; /* of the first: none */
	return bpf_map_lookup_elem(&tasks, &slot);
}

/* Takes the next task_record for the leader `t`. Returns NULL when the array is full. */
static __always_inline struct task_record *add_task(struct task_struct *t)
{
	__u32 slot = nr_tasks;
	struct task_record *r = bpf_map_lookup_elem(&tasks, &slot);

	nr_tasks = slot + 1;
	last_groups = 0;
	if (!r)
		return NULL;
	zero(r, sizeof(*r));
	r->task = (__u64)t;
	r->now_ns = bpf_ktime_get_ns();
	r->sighand = (__u64)BPF_CORE_READ(t, sighand);
	r->global_tgid = t->tgid;
	r->global_ppid = BPF_CORE_READ(t, real_parent, tgid);
	r->pid = pid_seen(BPF_CORE_READ(t, thread_pid));
	r->ppid = pid_seen(BPF_CORE_READ(t, real_parent, group_leader, thread_pid));
	r->exit_state = t->exit_state;
	r->exit_code = t->exit_code;
	r->exit_signal = t->exit_signal;
	r->stop_signal = t->jobctl & JOBCTL_STOP_SIGMASK;
	r->task_flags = t->flags;
	r->personality = t->personality;
	r->loginuid = -1;
	if (bpf_core_field_exists(t->loginuid))
		r->loginuid = t->loginuid.val;
	r->vfork_done = BPF_CORE_READ(t, vfork_done) != NULL;
	r->cgroup_id = BPF_CORE_READ(t, cgroups, dfl_cgrp, kn, id);
	fill_namespaces(r, task_before(slot), t);
	fill_signal(r, t);
	if (r->sighand)
		bpf_probe_read_kernel(r->sigactions, sizeof(r->sigactions),
				      (void *)r->sighand + bpf_core_field_offset(struct sighand_struct, action));
	return r;
}

/* A thread that has not exited, as far as its process can be seen by it: memory goes first. Kernel threads have none. */
static __always_inline bool is_living(struct task_struct *t)
{
	return BPF_CORE_READ(t, mm) || t->flags & PF_KTHREAD;
}

/* What the threads of a process share; of one that lives: the main one may have exited. */
static __always_inline void fill_shared(struct task_record *r, struct task_struct *t)
{
	struct task_record *before = task_before(nr_tasks - 1);

	r->global_living = t->pid;
	r->living = pid_seen(BPF_CORE_READ(t, thread_pid));
	r->files = (__u64)BPF_CORE_READ(t, files);
	r->fs = (__u64)BPF_CORE_READ(t, fs);
	if (t->pid != t->tgid)
		fill_namespaces(r, before, t);
	if (r->files) {
		struct files_struct *files = (void *)r->files;

		r->files_users = BPF_CORE_READ(files, count.counter);
	}
	if (r->fs) {
		const struct fs_struct *fs = COPY_OF(fs_copy, (struct fs_struct *)r->fs);

		r->fs_users = fs->users;
		r->umask = fs->umask;
		fill_dir(&r->cwd, before ? &before->cwd : NULL, fs->pwd.mnt, fs->pwd.dentry);
		fill_dir(&r->root, before ? &before->root : NULL, fs->root.mnt, fs->root.dentry);
	}
	struct mm_struct *mm = BPF_CORE_READ(t, mm);
	if (mm)
		fill_mm(r, before, mm);
}

/*
 * Sets are 64 bits wide in every version; since Linux 6.3 one word, an array of two halves before. The barrier keeps the
 * compiler from making one load of it, of a field whose type libbpf would want to know.
 */
static __always_inline __u64 word_at(const void *copy, __u64 offset)
{
	barrier_var(offset);
	return *(const __u64 *)(copy + offset);
}

static __always_inline void fill_caps(struct thread_record *r, const struct cred *cred)
{
	r->cap_inh = word_at(cred, bpf_core_field_offset(cred->cap_inheritable));
	r->cap_prm = word_at(cred, bpf_core_field_offset(cred->cap_permitted));
	r->cap_eff = word_at(cred, bpf_core_field_offset(cred->cap_effective));
	r->cap_bnd = word_at(cred, bpf_core_field_offset(cred->cap_bset));
	r->cap_amb = word_at(cred, bpf_core_field_offset(cred->cap_ambient));
}

static __always_inline void fill_creds(struct thread_record *r, struct task_struct *t)
{
	const struct cred *cred = COPY_OF(cred_copy, BPF_CORE_READ(t, cred));
	struct group_info *groups = cred->group_info;

	r->uid = cred->uid.val;
	r->gid = cred->gid.val;
	r->euid = cred->euid.val;
	r->egid = cred->egid.val;
	r->suid = cred->suid.val;
	r->sgid = cred->sgid.val;
	r->fsuid = cred->fsuid.val;
	r->fsgid = cred->fsgid.val;
	r->securebits = cred->securebits;
	fill_caps(r, cred);
	r->no_new_privs = (t->atomic_flags >> PFA_NO_NEW_PRIVS) & 1;
	r->group_info = (__u64)groups;
	r->nr_groups = BPF_CORE_READ(groups, ngroups);
	bpf_probe_read_kernel(r->groups, at_most(r->nr_groups * 4ULL, sizeof(r->groups)), (void *)groups + bpf_core_field_offset(groups->gid));
	fill_cred_attrs(r, cred);
}

/* Threads mostly have the groups of the one before: those are there already. Of what has ended nobody wants them. */
static __always_inline __u32 add_many_groups(struct thread_record *r, struct task_struct *t)
{
	struct group_info *groups = (void *)r->group_info;
	bool again = r->group_info == last_groups;

	if (r->exit_state)
		return 0;
	last_groups = r->group_info;
	if (r->nr_groups <= OBSERVE_NR_GROUPS || again)
		return 0;
	return add_groups(t->tgid, groups, r->nr_groups);
}

static __always_inline void fill_restart(struct thread_record *r, struct task_struct *t)
{
	const struct restart_block *block = COPY_OF(restart_copy, &t->restart_block);

	r->restart_fn = (__u64)block->fn;
	r->restart_clockid = block->nanosleep.clockid;
	r->restart_rmtp = (__u64)block->nanosleep.rmtp;
	r->restart_expires_ns = block->nanosleep.expires;
	r->restart_futex_ns = block->futex.time;
	r->now_boot_ns = bpf_ktime_get_boot_ns();
	r->now_tai_ns = bpf_ktime_get_tai_ns();
	r->poll_has_timeout = block->poll.has_timeout;
	r->poll_sec = block->poll.tv_sec;
	r->poll_nsec = block->poll.tv_nsec;
}

/* Registers and FPU state: only of a thread that the kernel has put aside are they in memory. */
static __always_inline void fill_cpu(struct thread_record *r, struct task_struct *t, __u32 slot)
{
	struct pt_regs *regs = (void *)bpf_task_pt_regs(t);
	struct fpstate *fpstate = BPF_CORE_READ(task_fpu(t), fpstate);
	void *area = bpf_map_lookup_elem(&fpus, &slot);
	__u64 bytes = BPF_CORE_READ(fpstate, size);

	bpf_probe_read_kernel(r->regs, sizeof(r->regs), regs);
	r->fpu_wanted_bytes = bytes;
	bytes = at_most(bytes, fpu_area_bytes);
	if (area && !bpf_probe_read_kernel(area, bytes, (void *)fpstate + bpf_core_field_offset(fpstate->regs)))
		r->fpu_bytes = bytes;
	fill_restart(r, t);
}

struct xarray___ring {
	void *xa_head;
} __attribute__((preserve_access_index));

struct io_uring_task___ring {
	struct xarray___ring xa;
} __attribute__((preserve_access_index));

struct task_struct___ring {
	struct io_uring_task___ring *io_uring;
} __attribute__((preserve_access_index));

/* The kernel keeps, per thread, the rings it has to do with. */
static __always_inline bool has_io_uring(struct task_struct *t)
{
	struct task_struct___ring *task = (void *)t;

	if (!bpf_core_field_exists(task->io_uring))
		return false;
	struct io_uring_task___ring *rings = BPF_CORE_READ(task, io_uring);

	return rings && BPF_CORE_READ(rings, xa.xa_head);
}

enum { FEATURE_SHADOW_STACK = 1 << 0 }; /* ARCH_SHSTK_SHSTK of the kernel's <asm/prctl.h> */

static __always_inline void fill_segments(struct thread_record *r, struct task_struct *t)
{
	__u64 tls[3] = {};

	bpf_probe_read_kernel(tls, sizeof(tls), (void *)t + bpf_core_field_offset(t->thread.tls_array));
	r->segments = tls[0] || tls[1] || tls[2];
	if (bpf_core_field_exists(t->thread.features))
		r->shadow_stack = !!(t->thread.features & FEATURE_SHADOW_STACK);
}

enum { MAX_FILTERS = 32 };

/* Is one of its filters watched? The kernel lets one thread have one such filter. */
static __always_inline bool seccomp_notifies(struct task_struct *t)
{
	struct seccomp_filter *f = BPF_CORE_READ(t, seccomp.filter);

	if (!bpf_core_field_exists(f->notif))
		return false;
	for (int i = 0; i < MAX_FILTERS && f; i++) {
		if (BPF_CORE_READ(f, notif))
			return true;
		f = BPF_CORE_READ(f, prev);
	}
	return false;
}

static __always_inline void add_thread(struct task_struct *t)
{
	__u32 slot = nr_threads;
	struct thread_record *r = bpf_map_lookup_elem(&threads, &slot);

	nr_threads = slot + 1;
	if (!r) {
		add_siginfos(t->tgid, &t->pending);
		return;
	}
	zero(r, sizeof(*r));
	r->global_tgid = t->tgid;
	r->global_tid = t->pid;
	r->tid = pid_seen(BPF_CORE_READ(t, thread_pid));
	r->exit_state = t->exit_state;
	r->task_flags = t->flags;
	r->io_uring = has_io_uring(t);
	bpf_probe_read_kernel(r->comm, sizeof(r->comm), &t->comm);
	r->files = (__u64)BPF_CORE_READ(t, files);
	r->fs = (__u64)BPF_CORE_READ(t, fs);
	r->nsproxy = (__u64)BPF_CORE_READ(t, nsproxy);
	r->blocked = t->blocked.sig[0];
	r->saved_sigmask = t->saved_sigmask.sig[0];
	r->restore_sigmask = BPF_CORE_READ_BITFIELD_PROBED(t, restore_sigmask);
	r->sigpending = t->pending.signal.sig[0];
	r->altstack_sp = t->sas_ss_sp;
	r->altstack_size = t->sas_ss_size;
	r->altstack_flags = t->sas_ss_flags;
	r->clear_tid = (__u64)BPF_CORE_READ(t, clear_child_tid);
	r->robust_list = (__u64)BPF_CORE_READ(t, robust_list);
	task_rseq(t, &r->rseq, &r->rseq_len, &r->rseq_sig);
	r->timer_slack_ns = t->timer_slack_ns;
	r->utime_ns = t->utime;
	r->stime_ns = t->stime;
	r->sum_exec_ns = t->se.sum_exec_runtime;
	r->now_ns = bpf_ktime_get_ns();
	if (t->ptrace) {
		__s32 tracer = BPF_CORE_READ(t, parent, tgid);

		r->tracer = tracer == (__s32)(bpf_get_current_pid_tgid() >> 32) ? 0 : tracer;
	}
	r->vfork_done = BPF_CORE_READ(t, vfork_done) != NULL;
	r->static_prio = t->static_prio;
	r->policy = t->policy;
	r->rt_priority = t->rt_priority;
	r->reset_on_fork = BPF_CORE_READ_BITFIELD_PROBED(t, sched_reset_on_fork);
	r->pdeath_signal = t->pdeath_signal;
	if (bpf_core_field_exists(t->seccomp)) {
		r->seccomp_mode = t->seccomp.mode;
		r->seccomp_notifies = seccomp_notifies(t);
	}
	r->fs_base = t->thread.fsbase;
	r->gs_base = t->thread.gsbase;
	r->fs_sel = t->thread.fsindex;
	r->gs_sel = t->thread.gsindex;
	r->ds = t->thread.ds;
	r->es = t->thread.es;
	if (bpf_core_field_exists(t->thread.pkru))
		r->pkru = t->thread.pkru;
	fill_segments(r, t);
	__u32 mask_bytes = bpf_core_field_size(t->cpus_mask);
	bpf_probe_read_kernel(r->affinity, at_most(mask_bytes, sizeof(r->affinity)), &t->cpus_mask);
	fill_creds(r, t);
	fill_thread_attrs(r, t);
	if (stopped) {
		/* A stop is announced before the thread has been switched out, which is what saves its FPU state. */
		if (bpf_core_field_exists(t->on_cpu) && *(volatile int *)&t->on_cpu)
			__sync_fetch_and_add(&nr_on_cpu, 1);
		fill_cpu(r, t, slot);
	}
	r->nr_group_extras = add_many_groups(r, t);
	r->nr_pending = add_siginfos(t->tgid, &t->pending);
}

/* After the threads: what belongs to the process as a whole. */
static __always_inline void finish_task(struct task_record *r, struct task_struct *t)
{
	struct signal_struct *signal = BPF_CORE_READ(t, signal);
	__u32 nr_pending = add_siginfos(t->tgid, &signal->shared_pending);
	__u32 nr_timers = add_timers(t->tgid, signal);

	if (!r)
		return;
	r->nr_pending = nr_pending;
	r->nr_timers = nr_timers;
	r->sigpending = BPF_CORE_READ(signal, shared_pending.signal.sig[0]);
}

/* Once, after loading. 0; 1: a structure of this kernel is larger than what it is copied to. */
SEC("syscall")
int get_ready(void *ctx)
{
	static const char nanosleep[] = "hrtimer_nanosleep_restart", futex[] = "futex_wait_restart", poll[] = "do_restart_poll";

	bpf_kallsyms_lookup_name(nanosleep, sizeof(nanosleep), 0, &nanosleep_restart);
	bpf_kallsyms_lookup_name(futex, sizeof(futex), 0, &futex_restart);
	bpf_kallsyms_lookup_name(poll, sizeof(poll), 0, &poll_restart);
	return bpf_core_type_size(struct mm_struct) > sizeof(mm_copy) ||
	       bpf_core_type_size(struct signal_struct) > sizeof(signal_copy) ||
	       bpf_core_type_size(struct cred) > sizeof(cred_copy) || bpf_core_type_size(struct fs_struct) > sizeof(fs_copy) ||
	       bpf_core_type_size(struct restart_block) > sizeof(restart_copy);
}

SEC("syscall")
int observe_procs(void *ctx)
{
	struct task_struct *t;
	struct bpf_iter_task it;

	bpf_rcu_read_lock();
	bpf_iter_task_new(&it, NULL, TASK_ITER_ALL_PROCS);
	while ((t = bpf_iter_task_next(&it)))
		add_proc(t);
	bpf_iter_task_destroy(&it);
	bpf_rcu_read_unlock();
	return 0;
}

/* One process and its threads. 0; 1: it has ended. */
static long observe_task(__u32 i, __u32 *ended)
{
	__u64 *tgid = bpf_map_lookup_elem(&wanted, &i);
	struct task_struct *leader = tgid ? bpf_task_from_pid(*tgid) : NULL;
	struct task_struct *t;
	struct task_record *r;
	struct bpf_iter_task it;
	__u32 living = 0;

	if (!leader) {
		*ended = 1;
		return 1;
	}
	r = add_task(leader);
	bpf_rcu_read_lock();
	bpf_iter_task_new(&it, leader, TASK_ITER_PROC_THREADS);
	while ((t = bpf_iter_task_next(&it))) {
		if (!living && is_living(t))
			living = t->pid;
		add_thread(t);
	}
	bpf_iter_task_destroy(&it);
	bpf_rcu_read_unlock();
	t = living ? bpf_task_from_pid(living) : NULL;
	if (t) {
		if (r)
			fill_shared(r, t);
		bpf_task_release(t);
	}
	finish_task(r, leader);
	bpf_task_release(leader);
	return 0;
}

/* All that is wanted; the return value says whether one of them has ended. */
SEC("syscall")
int observe_tasks(void *ctx)
{
	__u32 ended = 0;

	bpf_loop(nr_wanted, observe_task, &ended, 0);
	return ended;
}

SEC("iter/task")
int observe_procs_iter(struct bpf_iter__task *ctx)
{
	struct task_struct *t = ctx->task;

	if (t && t->pid == t->tgid)
		add_proc(t);
	return 0;
}

/* Attached to the threads of one process: the leader comes first. */
SEC("iter/task")
int observe_task_iter(struct bpf_iter__task *ctx)
{
	struct task_struct *t = ctx->task;

	if (!t)
		return 0;
	if (t->pid == t->tgid)
		add_task(t);

	__u32 slot = nr_tasks - 1;
	struct task_record *r = bpf_map_lookup_elem(&tasks, &slot);
	if (r && !r->global_living && is_living(t))
		fill_shared(r, t);
	add_thread(t);
	return 0;
}

/* And then once more, for what belongs to the process as a whole. */
SEC("iter/task")
int finish_task_iter(struct bpf_iter__task *ctx)
{
	struct task_struct *t = ctx->task;
	__u32 slot = nr_tasks - 1;

	if (t && t->pid == t->tgid)
		finish_task(bpf_map_lookup_elem(&tasks, &slot), t);
	return 0;
}
