/*
 * What observing processes and their threads gives. Filled by bpf/task.bpf.c, read by user/observe/bpf_tasks.c.
 * Shared with BPF: fixed widths, no pointers.
 */
#ifndef BCR_BPF_TASK_H
#define BCR_BPF_TASK_H

#include "bpf/file.h"

enum {
	OBSERVE_NR_AUXV = 64,  /* words; the kernel's own array has 46 to 56 */
	OBSERVE_NR_GROUPS = 32, /* more are in the array of extras */
	OBSERVE_SIGINFO_BYTES = 48, /* what the kernel keeps of a queued siginfo */
	OBSERVE_GROUPS_AT_ONCE = 14,
	OBSERVE_NR_LSM = 8, /* words of what security modules keep beside credentials */
};

/* One process of the machine, to find the tree. Numbers called `global` are those of the initial pid namespace. */
struct proc_record {
	__u32 global_tgid, global_ppid;
	__u32 pid; /* in the pid namespace of the observer; 0: not visible there */
	__u32 nr_threads;
};

_Static_assert(sizeof(struct proc_record) == 16, "shared with BPF");

struct task_record {
	__u64 task, mm, files, fs, sighand; /* identities */
	__u64 nsproxy;
	__u64 now_ns; /* CLOCK_MONOTONIC at the read */
	__u64 cgroup_id;
	__u32 global_tgid, global_ppid;
	__u32 pid, ppid, pgid, sid; /* in the pid namespace of the observer */
	__u32 nr_threads;
	__u32 global_living; /* a thread that has memory, descriptors and directories: the main one, or it has exited; 0: none */
	__u32 living;        /* the same as the observer numbers it */
	__u32 exit_state, exit_code;
	__u32 signal_flags, group_exit_code, stop_signal;
	__u32 task_flags; /* PF_* */
	__u32 personality;
	__u32 child_subreaper;
	__s32 oom_score_adj;
	__s32 exit_signal;
	__u32 loginuid;
	__u32 ctty_rdev; /* kernel encoding, 0: none */
	__u32 umask;
	__u32 vfork_done; /* its parent waits for its exec or exit */
	__u32 map_count;
	__u32 ldt; /* the process has segments in an LDT (modify_ldt(2)) */
	__u32 mm_users, files_users, fs_users; /* how many threads have them, whoever looks at them now included */
	struct {
		__u32 pid, net, ipc, uts, mnt, user, cgroup, time;
	} ns;
	__u64 rlimits[16][2];
	__u64 sigactions[64][4]; /* handler, flags, restorer, mask */
	__u64 real_queued;       /* ITIMER_REAL is armed */
	__s64 real_remaining_ns;
	__u64 real_interval_ns;
	__u64 cpu_expires_ns[2], cpu_interval_ns[2]; /* [0] ITIMER_PROF, [1] ITIMER_VIRTUAL */
	/* Processor time of the process: what its running CPU timers count, or (not active) of its dead threads. */
	__u32 cputimer_active;
	__u32 pad;
	__u64 utime_ns, stime_ns, sum_exec_ns;
	__u64 sigpending; /* set of pending signals of the process */
	__u64 mm_flags;
	__u64 mm_def_flags; /* VM_* of mappings to come */
	__u64 vdso;
	__u64 start_code, end_code, start_data, end_data, start_stack, start_brk, brk;
	__u64 arg_start, arg_end, env_start, env_end;
	__u64 auxv[OBSERVE_NR_AUXV];
	__u32 nr_auxv;
	__u32 nr_timers, nr_pending; /* in the array of extras, in this order after the threads' */
	__u32 has_mm_changes;
	__u64 mm_changes; /* grows with every change of the mappings, when has_mm_changes */
	__u32 membarrier_state; /* MEMBARRIER_STATE_* of the kernel */
	__s32 autogroup_nice;
	/* The executable; the working and the root directory (`file` is the dentry, `files` the mount). */
	struct file_record exe, cwd, root;
};

struct thread_record {
	__u64 regs[21]; /* struct pt_regs; stopped threads only */
	__u64 fs_base, gs_base;
	__u16 ds, es, fs_sel, gs_sel;
	__u64 files, fs, nsproxy; /* must be those of the leader */
	__u64 blocked, saved_sigmask;
	__u64 sigpending; /* set of private pending signals */
	__u64 altstack_sp, altstack_size;
	__u64 clear_tid, robust_list, rseq;
	__u64 timer_slack_ns;
	__u64 cap_inh, cap_prm, cap_eff, cap_bnd, cap_amb;
	__u64 utime_ns, stime_ns, sum_exec_ns;
	__u64 now_ns; /* CLOCK_MONOTONIC at the read */
	__u64 restart_fn; /* address of the function that would continue the call */
	__u64 restart_expires_ns; /* of nanosleep, on its clock */
	__u64 restart_futex_ns;   /* CLOCK_MONOTONIC */
	__u64 now_boot_ns, now_tai_ns;
	__u64 restart_rmtp;
	__u64 poll_sec, poll_nsec;
	__u32 restart_clockid;
	__u32 poll_has_timeout;
	__u32 global_tgid, global_tid, tid;
	__u32 io_uring; /* it made a ring that is still there, with or without a descriptor */
	__u32 altstack_flags;
	__u32 rseq_len, rseq_sig;
	__u32 restore_sigmask;
	__u32 exit_state;
	__u32 task_flags;
	__u32 tracer; /* global pid of who traces it; 0: nobody, or the observer itself */
	__u32 vfork_done;
	__u32 uid, gid, euid, egid, suid, sgid, fsuid, fsgid;
	__u32 securebits;
	__u32 no_new_privs;
	__u32 nr_groups;
	__u32 groups[OBSERVE_NR_GROUPS];
	__s32 static_prio;
	__u32 policy, rt_priority, reset_on_fork;
	__u32 pdeath_signal;
	__u32 seccomp_mode;
	__u32 shadow_stack; /* the thread has one */
	__u32 segments;     /* it has segments of its own in the GDT (set_thread_area(2)) */
	__u32 seccomp_notifies; /* somebody else decides on calls, by a descriptor (SECCOMP_RET_USER_NOTIF) */
	__u32 pkru;
	__u32 fpu_bytes; /* of the xsave area in the array of FPU states; 0: not read */
	__u32 fpu_wanted_bytes;
	__u32 nr_pending; /* in the array of extras */
	__u64 affinity[16];
	char comm[16];
	__u64 group_info;   /* identity of the supplementary groups */
	__u64 ti_flags;     /* TIF_* */
	__u64 atomic_flags; /* PFA_* */
	__u64 core_cookie;
	__u64 session_keyring, process_keyring, thread_keyring; /* identities, 0: none */
	__u64 lsm[OBSERVE_NR_LSM];
	__u32 personality;
	__u32 loginuid;
	__u32 ioprio;
	__u32 nr_group_extras; /* in the array of extras, in front of the pending signals; 0: those of the thread before, or none */
};

enum extra_kind { EXTRA_SIGINFO = 1, EXTRA_TIMER = 2, EXTRA_GROUPS = 3 };

/* Things of which a task has any number. In the order: of each thread, then of the process. */
struct extra_record {
	__u32 kind; /* enum extra_kind */
	__u32 global_tgid;
	union {
		__u8 siginfo[OBSERVE_SIGINFO_BYTES];
		struct {
			__s32 id;
			__s32 clockid;
			__s32 notify;
			__s32 signo;
			__u64 sigval;
			__s32 overrun;
			__u32 cpu_pid; /* of CPU clocks: the task whose time counts */
			__u64 interval_ns;
			__s64 value_ns; /* remaining; of CPU clocks: absolute, in CPU time */
			__u32 notify_tid;
			__u32 queued; /* it is armed in the kernel's queue */
			__s64 missed; /* not queued: periods already counted since it fired, -1 at least */
			__u64 date_ns; /* set to a date of CLOCK_REALTIME: which; 0: not so */
		} timer;
		__u32 groups[OBSERVE_GROUPS_AT_ONCE];
	};
};

_Static_assert(sizeof(struct extra_record) == 80, "shared with BPF");
_Static_assert(sizeof(struct task_record) % 8 == 0, "element of an array that is mapped");
_Static_assert(sizeof(struct thread_record) % 8 == 0, "element of an array that is mapped");

#endif
