/*
 * The process of a task, from its fork to the restorer.
 *
 * It runs bcr's code, on bcr's stack, with all signals blocked, while it builds what can be built from ordinary C: memory,
 * children, session, descriptors, directories. Then it jumps into the blob and bcr is gone from it. It never returns. A failure
 * has been reported (fail()), is noted in the control block, and ends the process; the coordinator ends the others.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "kinds/kinds.h"
#include "pie/syscall-x86_64.h"
#include "restore/plan.h"

enum { RSEQ_UNREGISTER = 1 };

/*
 * Of functions that leave a stack for good, which may be one of those that processes in the memory of others have. The address sanitizer is
 * told of the leaving, knows of no such stack, and would say so.
 */
#define ON_ANY_STACK __attribute__((no_sanitize_address))

static void give_up(struct restore *r) __attribute__((noreturn));
static void give_up(struct restore *r)
{
	__atomic_store_n(&r->control->failed, 1, __ATOMIC_RELEASE);
	control_arrive(r->control);
	control_give_turn(r);
	_exit(1);
}

static pid_t planned_parent(const struct restore *r, size_t index)
{
	size_t parent = r->plan->tasks.v[index].birth.parent;

	if (parent != TREE_OUTSIDE)
		return r->plan->tasks.v[parent].task->pid;
	return r->opts.sibling ? r->caller_ppid : r->coordinator;
}

/*
 * What a process needs that begins in the memory of another one: a stack, and of the state of a task what is not its maker's. It
 * runs the same code as any other, on the same data, thread-local data included; so only one of those who share it does at a time.
 */
enum { SHARER_STACK_BYTES = 1 << 20 };

struct sharer {
	struct restore r;
	size_t index;
	const struct mm *mm;
	pid_t parent;
};

__attribute__((noreturn)) ON_ANY_STACK static void sharer_main(struct sharer *s)
{
	/* Whoever has the turn may end, or have ended, with the parent. */
	pie_syscall2(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL);
	if (pie_syscall0(SYS_getppid) != s->parent)
		pie_syscall1(SYS_exit_group, 1);
	control_take_turn(&s->r);
	task_main(&s->r, s->index, s->mm);
}

/* clone3(2) to an empty stack, at whose top is what the new process is. Registers survive the call on both sides. */
static long clone_sharer(struct clone_args *ca, struct sharer *s)
{
	long ret;

	__asm__ volatile("mov %[s], %%r12\n\t"
			 "mov %[main], %%r13\n\t"
			 "syscall\n\t"
			 "test %%rax, %%rax\n\t"
			 "jnz 1f\n\t"
			 "xor %%ebp, %%ebp\n\t"
			 "mov %%r12, %%rdi\n\t"
			 "call *%%r13\n\t"
			 "1:"
			 : "=a"(ret)
			 : "a"(SYS_clone3), "D"(ca), "S"(sizeof(*ca)), [s] "r"(s), [main] "r"(sharer_main)
			 : "rcx", "r11", "r12", "r13", "memory");
	return ret;
}

/*
 * Since Linux commit "pid: perform free_pid() calls outside of tasklist_lock" (v6.15) a process that was collected is gone for all to
 * see a moment before its number is free again. Nothing tells of that moment, so it is tried for a while; that the number is
 * really in use was ruled out before (check_pids in restore.c).
 */
static pid_t clone_with_pid(struct clone_args *ca, struct sharer *s)
{
	enum { TRIES = 200 };
	static const struct timespec pause = { .tv_nsec = 500000 };

	for (int i = 0;; i++) {
		pid_t pid = s ? clone_sharer(ca, s) : syscall(SYS_clone3, ca, sizeof(*ca));

		if (s && pid < 0) {
			errno = -pid;
			pid = -1;
		}
		if (pid >= 0 || errno != EEXIST || i == TRIES)
			return pid;
		nanosleep(&pause, NULL);
		errno = EEXIST;
	}
}

/* Flags and exit signal of the birth of a task. */
static struct clone_args birth_args(const struct restore *r, size_t index)
{
	const struct task_plan *tp = &r->plan->tasks.v[index];
	int32_t exit_signal = tp->task->exit_signal;
	struct clone_args ca = {
		.flags = (tp->birth.with_files ? CLONE_FILES : 0) | (tp->birth.with_fs ? CLONE_FS : 0) |
			 (tp->birth.with_vm ? CLONE_VM : 0) | (tp->birth.with_sighand ? CLONE_SIGHAND : 0),
		.exit_signal = index && exit_signal >= 0 && exit_signal <= MODEL_NSIG ? exit_signal : SIGCHLD,
	};

	if (tp->birth.way == TREE_SISTER || (!index && r->opts.sibling)) {
		ca.flags |= CLONE_PARENT;
		ca.exit_signal = 0;
	}
	return ca;
}

static pid_t fork_sharer(struct restore *r, struct clone_args *ca, size_t index, const struct mm *mm)
{
	/* It goes with all that is bcr's, when the restorer unmaps that. */
	void *stack = mmap(NULL, SHARER_STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (stack == MAP_FAILED)
		return -1;
	uintptr_t top = ((uintptr_t)stack + SHARER_STACK_BYTES - sizeof(struct sharer)) & ~(uintptr_t)63;
	struct sharer *s = (void *)top;

	*s = (struct sharer){ *r, index, mm, planned_parent(r, index) };
	ca->stack = (uintptr_t)stack;
	ca->stack_size = top - (uintptr_t)stack;
	return clone_with_pid(ca, s);
}

ON_ANY_STACK static pid_t fork_directly(struct restore *r, size_t index, const struct mm *inherited)
{
	const struct task_plan *tp = &r->plan->tasks.v[index];
	const struct task *t = tp->task;
	struct clone_args ca = birth_args(r, index);
	pid_t set_tid = t->pid;

	ca.set_tid = (uintptr_t)&set_tid;
	ca.set_tid_size = 1;
	pid_t pid = tp->birth.with_vm ? fork_sharer(r, &ca, index, inherited) : clone_with_pid(&ca, NULL);
	if (pid == 0)
		task_main(r, index, inherited);
	if (pid > 0)
		__atomic_store_n(&task_slot(r, index)->status, RESTORER_READY, __ATOMIC_RELEASE);
	if (pid < 0)
		return fail(-errno, "pid %d: make a process with this number%s", t->pid,
			    errno == EEXIST ? " (another one has taken it, or a session or process group of others has it)" : "");
	return pid;
}

/* A process that lives for a moment only, under a number that nobody of the tree needs. */
static pid_t fork_passing(const struct restore *r)
{
	enum { TRIES = 4096 };
	pid_t pid = -1;

	for (pid_t n = r->plan->max_id + 1; n <= r->plan->max_id + TRIES; n++) {
		struct clone_args ca = { .exit_signal = SIGCHLD, .set_tid = (uintptr_t)&n, .set_tid_size = 1 };

		pid = syscall(SYS_clone3, &ca, sizeof(ca));
		if (pid >= 0 || errno != EEXIST)
			break;
	}
	return pid;
}

/* By somebody who ends at once: whoever adopts above becomes the parent. */
ON_ANY_STACK static pid_t fork_orphan(struct restore *r, size_t index, const struct mm *inherited)
{
	const struct task *t = r->plan->tasks.v[index].task;
	pid_t maker = getpid(), between = fork_passing(r);
	int status = 0;

	if (between < 0)
		return fail(-errno, "pid %d: make a process that makes it", t->pid);
	if (!between) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(getppid() != maker || fork_directly(r, index, inherited) < 0);
	}
	while (waitpid(between, &status, 0) < 0) {
		if (errno != EINTR)
			return fail(-errno, "pid %d: wait for the process that makes it", t->pid);
	}
	return status ? -ECANCELED : t->pid; /* it has said why */
}

pid_t task_fork(struct restore *r, size_t index, const struct mm *inherited)
{
	if (r->plan->tasks.v[index].birth.way == TREE_ORPHAN)
		return fork_orphan(r, index, inherited);
	return fork_directly(r, index, inherited);
}

/* All that this one makes, before or after it has made its own session. */
static int fork_made(struct restore *r, size_t index, bool early, const struct mm *mm)
{
	for (size_t i = 0; i < r->plan->tasks.nr; i++) {
		const struct tree_birth *birth = &r->plan->tasks.v[i].birth;

		if (birth->maker != index || birth->early != early)
			continue;
		int err = mm ? task_memory_before_fork(r, index, plan_fork_order(r->plan, i)) : 0;
		if (err)
			return err;
		pid_t pid = task_fork(r, i, mm);
		if (pid < 0)
			return pid;
	}
	return 0;
}

int task_reap_helpers(struct restore *r, size_t parent)
{
	for (size_t i = r->m->tasks.nr; i < r->plan->tasks.nr; i++) {
		const struct task_plan *tp = &r->plan->tasks.v[i];

		if (tp->birth.parent != parent)
			continue;
		while (waitpid(tp->task->pid, NULL, __WALL) < 0) {
			if (errno != EINTR)
				return fail(-errno, "pid %d: wait for the end of what held its number", tp->task->pid);
		}
		task_slot(r, i)->status = RESTORER_RUNNING; /* the number is nobody's any more */
	}
	return 0;
}

static int join_session(const struct task *t)
{
	if (t->sid == t->pid && setsid() < 0)
		return fail(-errno, "pid %d: become a session leader", t->pid);
	if (t->pgid == t->pid && getpgrp() != t->pid && setpgid(0, 0))
		return fail(-errno, "pid %d: become a process group leader", t->pid);
	return 0;
}

static bool is_planned(const struct restore_plan *p, pid_t pid)
{
	VEC_FOREACH(tp, &p->tasks) {
		if (tp->task->pid == pid)
			return true;
	}
	return false;
}

/* Groups of others, when all leaders exist. One that nobody leads is the caller's (--shell-job). */
static int join_group(struct restore *r, const struct task *t)
{
	pid_t group = t->pgid;

	if (group == t->pid)
		return 0;
	if (!is_planned(r->plan, group))
		group = r->caller_pgrp;
	if (getpgrp() != group && setpgid(0, group))
		return fail(-errno, "pid %d: join process group %d", t->pid, group);
	return 0;
}

/* The job's group in the foreground of its terminal, when it was. SIGTTOU is blocked. */
static int take_foreground(struct restore *r, const struct task *t)
{
	VEC_FOREACH(tty, &r->m->ttys) {
		if ((*tty)->pgrp != t->pid || t->pgid != t->pid || !r->opts.shell_job)
			continue;
		_cleanup_close_ int fd = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
		if (fd < 0 || ioctl(fd, TIOCSPGRP, &t->pgid))
			return fail(-errno, "pid %d: put its process group into the foreground of the terminal", t->pid);
	}
	return 0;
}

/* --- zombies --- */

static void drain_signals(void)
{
	const struct timespec now = { 0 };
	sigset_t all;

	sigfillset(&all);
	while (sigtimedwait(&all, NULL, &now) > 0)
		;
}

static void end_as_recorded(const struct task *t) __attribute__((noreturn));
ON_ANY_STACK static void end_as_recorded(const struct task *t)
{
	uint64_t mask = t->threads.nr ? t->threads.v[0].sigmask : 0;
	int sig = t->exit_code & 0x7f;

	/* Whatever came meanwhile was not for it. */
	drain_signals();
	/* Its parent is told whose it was. */
	if (t->threads.nr && syscall(SYS_setresuid, t->threads.v[0].creds.uid, -1, -1))
		log_warn("pid %d: its user %u could not be set: %s", t->pid, t->threads.v[0].creds.uid, strerror(errno));
	if (!sig) {
		syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof(mask));
		_exit(t->exit_code >> 8 & 0xff);
	}
	/* By the signal that ended it, but without a core file; that there was one is in the status as well. */
	if (t->exit_code & 0x80)
		log_warn("pid %d: its wait status will not say that it left a core file", t->pid);
	prctl(PR_SET_DUMPABLE, 0);
	signal(sig, SIG_DFL);
	mask &= ~(1ULL << (sig - 1));
	kill(getpid(), sig);
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof(mask));
	_exit(128 + sig);
}

/* Where there are helpers, or objects that several share: all go on together. */
static void wait_for_all(struct restore *r, uint32_t phase)
{
	if (!r->plan->waits_for_all)
		return;
	control_arrive(r->control);
	control_wait_phase(r, phase);
}

static void zombie_main(struct restore *r, size_t index, const struct mm *inherited) __attribute__((noreturn));
ON_ANY_STACK static void zombie_main(struct restore *r, size_t index, const struct mm *inherited)
{
	const struct task *t = r->plan->tasks.v[index].task;
	const struct thread *th = t->threads.nr ? &t->threads.v[0] : NULL;

	if (fork_made(r, index, true, inherited) || join_session(t) || fork_made(r, index, false, inherited))
		give_up(r);
	control_arrive(r->control);
	control_wait_phase(r, PHASE_TASKS);
	if (join_group(r, t))
		give_up(r);
	wait_for_all(r, PHASE_GROUPS);
	if (task_reap_helpers(r, index))
		give_up(r);
	if (th)
		prctl(PR_SET_NAME, th->comm);
	/* Handlers that bcr itself has (a sanitizer's) must not be seen in a zombie; images do not hold a zombie's own. */
	for (int sig = 1; sig < NSIG; sig++) {
		struct sigaction sa;

		if (!sigaction(sig, NULL, &sa) && sa.sa_handler != SIG_DFL && sa.sa_handler != SIG_IGN)
			signal(sig, SIG_DFL);
	}
	end_as_recorded(t);
}

/* The signals that zombies send are not the target's: they have to be here before they are thrown away. */
static int await_zombies(struct restore *r, size_t index)
{
	for (size_t i = index + 1; i < r->plan->tasks.nr; i++) {
		const struct task_plan *child = &r->plan->tasks.v[i];
		siginfo_t info;

		if (child->birth.parent != index || child->task->state != TASK_ZOMBIE)
			continue;
		while (waitid(P_PID, child->task->pid, &info, WEXITED | WNOWAIT | __WALL)) {
			if (errno != EINTR)
				return fail(-errno, "pid %d: wait for the end of zombie %d",
					    r->plan->tasks.v[index].task->pid, child->task->pid);
		}
	}
	return 0;
}

/* --- what is set through files of /proc --- */

static int write_proc_number(pid_t pid, const char *name, long long value)
{
	char path[64], text[32];
	long long now;

	snprintf(path, sizeof(path), "/proc/self/%s", name);
	_cleanup_close_ int fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? 0 : fail(-errno, "pid %d: open %s", pid, path);
	ssize_t len = read(fd, text, sizeof(text) - 1);
	text[len > 0 ? len : 0] = 0;
	if (sscanf(text, "%lld", &now) == 1 && now == value)
		return 0;
	len = snprintf(text, sizeof(text), "%lld", value);
	if (pwrite(fd, text, len, 0) != len)
		return fail(-errno, "pid %d: set %s to %lld", pid, name, value);
	return 0;
}

/* The one of these that reads as hexadecimal. */
static int write_coredump_filter(pid_t pid, uint32_t filter)
{
	_cleanup_close_ int fd = -1;
	char text[16];

	if (filter == MM_DUMP_FILTER_UNKNOWN)
		return 0;
	fd = open("/proc/self/coredump_filter", O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? 0 : fail(-errno, "pid %d: open its coredump_filter", pid);
	int len = snprintf(text, sizeof(text), "%#x", filter);
	return write(fd, text, len) == len ? 0 : fail(-errno, "pid %d: set coredump_filter to %s", pid, text);
}

/* The group of its session, by the scheduler's own reckoning: new with each setsid(2). */
static int write_autogroup(const struct task *t)
{
	_cleanup_close_ int fd = -1;
	char text[16];

	if (t->sid != t->pid || !t->autogroup_nice)
		return 0;
	fd = open("/proc/self/autogroup", O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? 0 : fail(-errno, "pid %d: open its autogroup", t->pid);
	int len = snprintf(text, sizeof(text), "%d", t->autogroup_nice);
	return write(fd, text, len) == len ? 0 : fail(-errno, "pid %d: set the nice value of its autogroup to %s", t->pid, text);
}

static int set_proc_state(const struct task *t, const struct mm *mm)
{
	int err = write_proc_number(t->pid, "oom_score_adj", t->oom_score_adj);

	if (!err)
		err = write_proc_number(t->pid, "loginuid", t->loginuid);
	if (!err)
		err = write_coredump_filter(t->pid, mm->coredump_filter);
	return err ? err : write_autogroup(t);
}

/*
 * A thread may have been stopped inside a restartable sequence. The coordinator puts the pointer back at the very end, and
 * the kernel then does what it would have done: lets the thread go on at the sequence's abort address.
 */
static void note_rseq(struct restore *r, const struct task_plan *tp)
{
	VEC_FOREACH(th, &tp->threads) {
		taddr_t cs = th->thread->rseq.ptr + offsetof(struct rseq, rseq_cs);
		struct iovec local = { &r->control->slots[th->slot].rseq_cs, sizeof(uint64_t) };

		VEC_FOREACH(vma, &tp->mm->vmas) {
			struct iovec remote = { (void *)(uintptr_t)(plan_vma_at(r->plan, vma) + (cs - vma->start)),
						sizeof(uint64_t) };

			/* Memory without contents has no pointer in it: that it cannot be read is fine. */
			if (th->thread->rseq.ptr && vma->start <= cs && cs + sizeof(uint64_t) <= vma->end)
				process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
		}
	}
}

/* --- into the blob --- */

/* The C library has registered its own area with the kernel, and a second registration is refused. */
static void unregister_rseq(void)
{
	if (__rseq_size)
		syscall(SYS_rseq, (char *)__builtin_thread_pointer() + __rseq_offset, 32, RSEQ_UNREGISTER, RSEQ_SIG);
}

static void jump(taddr_t stack, taddr_t entry, taddr_t args) __attribute__((noreturn));
static void jump(taddr_t stack, taddr_t entry, taddr_t args)
{
	__asm__ volatile("mov %[args], %%rdi\n\t"
			 "mov %[stack], %%rsp\n\t"
			 "xor %%ebp, %%ebp\n\t"
			 "push $0\n\t"
			 "jmp *%[entry]"
			 :
			 : [stack] "r"(stack), [entry] "r"(entry), [args] "r"(args)
			 : "rdi", "memory");
	__builtin_unreachable();
}

ON_ANY_STACK static int enter_blob(const struct restore *r, const struct task_plan *tp)
{
	void *area = (void *)(uintptr_t)tp->area_at;
	struct restorer_thread *leader;
	struct restorer_args *args;

	if (mmap(area, tp->area_bytes, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		 0) != area)
		return fail(-errno, "pid %d: map the restorer", tp->task->pid);
	memcpy(area, tp->area.v, tp->area.nr);
	args = (void *)(uintptr_t)(tp->area_at + tp->args_offset);
	leader = (void *)(uintptr_t)args->threads;
	unregister_rseq();
	control_give_turn(r);
	jump(leader->stack_top, tp->area_at, tp->area_at + tp->args_offset);
}

static int become(struct restore *r, size_t index, const struct mm *inherited)
{
	const struct task_plan *tp = &r->plan->tasks.v[index];
	const struct task *t = tp->task;
	int err = tp->birth.with_vm ? 0 : task_map_memory(r, tp, inherited);

	if (!err)
		err = fork_made(r, index, true, tp->mm);
	if (!err)
		err = join_session(t);
	if (!err)
		err = fork_made(r, index, false, tp->mm);
	if (!err)
		err = task_memory_before_fork(r, index, UINT64_MAX);
	if (err)
		return err;
	note_rseq(r, tp);
	control_arrive(r->control);
	control_wait_phase(r, PHASE_TASKS);
	err = join_group(r, t);
	if (!err)
		err = take_foreground(r, t);
	if (!err)
		err = set_proc_state(t, tp->mm);
	if (!err && !tp->birth.with_vm)
		err = task_open_exe(r, tp);
	if (err)
		return err;
	wait_for_all(r, PHASE_GROUPS);
	if (tp->birth.adopts)
		prctl(PR_SET_CHILD_SUBREAPER, 0);
	err = task_reap_helpers(r, index);
	if (!err)
		err = await_zombies(r, index);
	if (!err)
		err = task_enter_dirs(r, tp);
	if (err)
		return err;
	wait_for_all(r, PHASE_DIRS);
	err = task_install_files(r, tp);
	if (err)
		return err;
	drain_signals();
	return enter_blob(r, tp);
}

/* Lends its number to a session or a group until all members are in it. */
static void helper_main(struct restore *r, size_t index, const struct mm *inherited) __attribute__((noreturn));
ON_ANY_STACK static void helper_main(struct restore *r, size_t index, const struct mm *inherited)
{
	const struct task *t = r->plan->tasks.v[index].task;

	if (join_session(t) || fork_made(r, index, false, inherited))
		give_up(r);
	control_arrive(r->control);
	control_wait_phase(r, PHASE_GROUPS);
	_exit(0);
}

/* Born of somebody who ends at once: which is told by a signal that nobody else sends. All are blocked. */
static void await_adoption(pid_t parent)
{
	sigset_t wanted;

	sigemptyset(&wanted);
	sigaddset(&wanted, SIGUSR1);
	prctl(PR_SET_PDEATHSIG, SIGUSR1);
	while (getppid() != parent && sigwaitinfo(&wanted, NULL) < 0 && errno == EINTR)
		;
}

ON_ANY_STACK void task_main(struct restore *r, size_t index, const struct mm *inherited)
{
	const struct task_plan *tp = &r->plan->tasks.v[index];
	const struct task *t = tp->task;
	pid_t parent = planned_parent(r, index);

	if (!tp->birth.with_vm) {
		r->turn = tp->nr_sharers ? &task_slot(r, index)->turn : NULL;
		control_take_turn(r);
	}
	if (tp->birth.way == TREE_ORPHAN)
		await_adoption(parent);
	/* Until the coordinator traces it, a task goes down with its parent; who may have done so already. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent) {
		/* Nobody else misses one that was adopted by somebody else. */
		if (tp->birth.way == TREE_ORPHAN)
			__atomic_store_n(&r->control->failed, 1, __ATOMIC_SEQ_CST);
		control_end_task(r);
	}
	/* Whoever aborts kills those that are noted; one that comes later has to see for itself. */
	__atomic_store_n(&task_slot(r, index)->status, RESTORER_READY, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&r->control->failed, __ATOMIC_SEQ_CST))
		control_end_task(r);
	/* An ignored SIGCHLD, inherited from bcr's caller, would let zombies vanish. */
	signal(SIGCHLD, SIG_DFL);
	log_set_err_fd(r->plan->fd_err);
	r->shares_table = tp->birth.with_files;
	if (tp->birth.adopts)
		prctl(PR_SET_CHILD_SUBREAPER, 1);
	if (tp->is_helper)
		helper_main(r, index, inherited);
	if (t->state == TASK_ZOMBIE)
		zombie_main(r, index, inherited);
	if (!become(r, index, inherited))
		fail(0, "pid %d: the restorer returned", t->pid);
	give_up(r);
}
