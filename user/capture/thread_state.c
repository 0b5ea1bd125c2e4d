/*
 * What /proc does not show of a stopped thread: asked for by ptrace and, where only the thread itself can know, by
 * the parasite. Used when the /proc back end observed; the BPF one sees all this from outside.
 */
#include <asm/ldt.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "capture/capture.h"
#include "capture/parasite.h"
#include "sys/interrupted-x86_64.h"
#include "sys/tracee.h"
#include "sys/uapi.h"

enum { PEEK_AT_ONCE = 32, TIMERS_AT_ONCE = 32, CHILDREN_AT_ONCE = 16, FIRST_TLS_ENTRY = 12, NR_TLS_ENTRIES = 3 /* of the GDT, 64-bit kernels */ };

typedef VEC(struct siginfo_raw) siginfo_vec;

/* The signals of a queue, bit n - 1 for signal n. */
static uint64_t signal_set(const siginfo_vec *vec)
{
	uint64_t set = 0;
	int32_t signo;

	VEC_FOREACH(info, vec) {
		memcpy(&signo, info->bytes, sizeof(signo));
		set |= 1ULL << (signo - 1);
	}
	return set;
}

/*
 * A signal may be pending without an entry in the queue, when the limit was reached: /proc/PID/status has told of it. It is
 * delivered as the kernel then makes it up: SI_USER, from nobody.
 */
static int add_unqueued(siginfo_vec *vec, uint64_t set)
{
	set &= ~signal_set(vec);
	for (int32_t signo = 1; signo <= MODEL_NSIG; signo++) {
		struct siginfo_raw info = { 0 };

		memcpy(info.bytes, &signo, sizeof(signo));
		if (set >> (signo - 1) & 1 && VEC_PUSH(vec, info))
			return -ENOMEM;
	}
	return 0;
}

/* `pending` is a VEC(struct siginfo_raw) of whatever anonymous type; it holds what /proc told, without siginfo. */
static int read_pending(pid_t pid, pid_t tid, bool shared, void *pending)
{
	siginfo_vec *vec = pending;
	uint64_t told = signal_set(vec);

	vec->nr = 0;
	for (;;) {
		if (VEC_RESERVE(vec, vec->nr + PEEK_AT_ONCE))
			return fail(-ENOMEM, "pid %d thread %d: read pending signals", pid, tid);
		int got = ptrace_peek_siginfo(tid, shared, vec->nr, PEEK_AT_ONCE, vec->v + vec->nr);
		if (got < 0)
			return fail(got, "pid %d thread %d: read pending signals", pid, tid);
		vec->nr += (size_t)got;
		if (got < PEEK_AT_ONCE)
			return add_unqueued(vec, told) ? fail(-ENOMEM, "pid %d thread %d: read pending signals", pid, tid) : 0;
	}
}

/* Segments of its own in the GDT, where 32-bit code has its thread-local storage (set_thread_area(2)). */
static bool has_segments(pid_t tid)
{
	for (uintptr_t entry = FIRST_TLS_ENTRY; entry < FIRST_TLS_ENTRY + NR_TLS_ENTRIES; entry++) {
		struct user_desc desc;

		/* A kernel without 32-bit programs knows no such request. */
		if (!ptrace(PTRACE_GET_THREAD_AREA, tid, (void *)entry, &desc) && !(desc.read_exec_only && desc.seg_not_present))
			return true;
	}
	return false;
}

static int read_by_ptrace(pid_t pid, struct thread *t)
{
	struct ptrace_rseq rseq = { 0 };
	int err = read_pending(pid, t->tid, false, &t->pending);

	if (err)
		return err;
	if (has_segments(t->tid))
		return unsupported("pid %d: its thread %d has segments of its own, as 32-bit code has for its thread-local storage "
				   "(set_thread_area), which is not supported",
				   pid, t->tid);
	err = ptrace_get_sigmask(t->tid, &t->sigmask);
	if (err)
		return fail(err, "pid %d thread %d: read the signal mask", pid, t->tid);
	err = ptrace_get_rseq(t->tid, &rseq);
	if (err && err != -EIO && err != -EINVAL)
		return fail(err, "pid %d thread %d: read the rseq registration", pid, t->tid);
	if (err)
		log_warn("pid %d thread %d: this kernel does not tell whether rseq is registered; it will not be", pid, t->tid);
	t->rseq.ptr = rseq.ptr;
	t->rseq.len_bytes = rseq.len_bytes;
	t->rseq.sig = rseq.sig;
	t->rseq.flags = rseq.flags;
	return 0;
}

/* The kernel wrote the remaining time for the program at the stop, if the program wants it. */
static bool read_remaining(pid_t tid, taddr_t request, taddr_t remaining, int64_t *ret_ns)
{
	struct timespec asked, left;

	if (!remaining || remote_read(tid, request, &asked, sizeof(asked)) || remote_read(tid, remaining, &left, sizeof(left)))
		return false;
	/* Both may be the same memory; otherwise more can never remain than was asked for. */
	if (left.tv_sec < 0 || left.tv_nsec < 0 || left.tv_nsec >= 1000000000 || left.tv_sec > asked.tv_sec ||
	    (left.tv_sec == asked.tv_sec && left.tv_nsec > asked.tv_nsec))
		return false;
	*ret_ns = (int64_t)left.tv_sec * 1000000000 + left.tv_nsec;
	return true;
}

static void read_restart(struct thread *t)
{
	struct cpu_regs *r = &t->cpu.regs;

	call_undo_restart(t->tid, r);
	t->restart = (struct restart){ 0 };
	if ((int64_t)r->ax != -KERNEL_ERESTART_RESTARTBLOCK)
		return;

	t->restart.nr = call_restarted(t->tid, r);
	bool known = false;
	if (t->restart.nr == SYS_nanosleep) {
		t->restart.clockid = CLOCK_MONOTONIC;
		known = read_remaining(t->tid, r->di, r->si, &t->restart.remaining_ns);
	} else if (t->restart.nr == SYS_clock_nanosleep) {
		t->restart.clockid = (uint32_t)r->di;
		known = read_remaining(t->tid, r->dx, r->r10, &t->restart.remaining_ns);
	}
	t->restart.kind = known ? RESTART_NANOSLEEP : RESTART_UNKNOWN;
}

/* A call of a list that must have worked. */
static int check_call(pid_t pid, pid_t tid, const struct parasite_list *list, uint32_t call, const char *what)
{
	int64_t ret = list->calls[call].ret;

	return ret < 0 ? fail((int)ret, "pid %d thread %d: %s", pid, tid, what) : 0;
}

static int ask_thread(const struct parasite *p, struct thread *t)
{
	_cleanup_free_ struct parasite_list *list = calloc(1, sizeof(*list));
	uint32_t at_stack, at_tid, at_pdeath, at_tsc;

	if (!list)
		return fail(-ENOMEM, "pid %d thread %d: ask it for its state", p->pid, t->tid);

	uint32_t c_stack = parasite_add(list, SYS_sigaltstack, 0, parasite_data(p, list, sizeof(stack_t), &at_stack), 0, 0);
	uint32_t c_tid = parasite_add(list, SYS_prctl, PR_GET_TID_ADDRESS, parasite_data(p, list, 8, &at_tid), 0, 0);
	uint32_t c_pdeath = parasite_add(list, SYS_prctl, PR_GET_PDEATHSIG, parasite_data(p, list, 4, &at_pdeath), 0, 0);
	uint32_t c_secure = parasite_add(list, SYS_prctl, PR_GET_SECUREBITS, 0, 0, 0);
	parasite_add(list, SYS_prctl, PR_GET_TSC, parasite_data(p, list, 4, &at_tsc), 0, 0);

	int err = parasite_execute(p, t->tid, list);
	if (!err)
		err = check_call(p->pid, t->tid, list, c_stack, "read the alternate signal stack");
	if (!err)
		err = check_call(p->pid, t->tid, list, c_tid, "read clear_child_tid (needs CONFIG_CHECKPOINT_RESTORE)");
	if (!err)
		err = check_call(p->pid, t->tid, list, c_pdeath, "read the parent death signal");
	if (!err)
		err = check_call(p->pid, t->tid, list, c_secure, "read the securebits");
	if (err)
		return err;

	stack_t stack;
	memcpy(&stack, list->data + at_stack, sizeof(stack));
	t->altstack.sp = (taddr_t)(uintptr_t)stack.ss_sp;
	t->altstack.size_bytes = stack.ss_size;
	/* The parasite runs on a stack of its own: what the thread itself would see is decided by its own. */
	t->altstack.flags = (uint32_t)stack.ss_flags;
	memcpy(&t->clear_tid, list->data + at_tid, sizeof(t->clear_tid));
	memcpy(&t->pdeath_signal, list->data + at_pdeath, sizeof(t->pdeath_signal));
	t->creds.securebits = (uint32_t)list->calls[c_secure].ret;
	uint32_t tsc;
	memcpy(&tsc, list->data + at_tsc, sizeof(tsc));
	t->tsc = tsc == PR_TSC_SIGSEGV ? PR_TSC_SIGSEGV : 0;
	return 0;
}

/* What a call says, when it is known to this kernel; nothing otherwise. */
static uint32_t positive(const struct parasite_list *list, uint32_t call)
{
	return list->calls[call].ret > 0 ? (uint32_t)list->calls[call].ret : 0;
}

static void take_itimer(struct itimer *ret, const uint8_t *data)
{
	struct itimerval v;

	memcpy(&v, data, sizeof(v));
	ret->interval_us = (uint64_t)v.it_interval.tv_sec * 1000000 + (uint64_t)v.it_interval.tv_usec;
	ret->value_us = (uint64_t)v.it_value.tv_sec * 1000000 + (uint64_t)v.it_value.tv_usec;
}

/*
 * mlockall(MCL_FUTURE) is in no file of /proc, but the parasite's own mapping, the newest there is, shows what becomes of
 * mappings to come.
 */
static int read_lock_future(const struct parasite *p, pid_t tid, struct mm *mm)
{
	_cleanup_fclose_ FILE *f = NULL;
	_cleanup_free_ char *line = NULL;
	unsigned long long start, end;
	bool inside = false;
	size_t cap = 0;
	char path[48];

	/* By a thread that lives: a main one that has exited shows none. */
	snprintf(path, sizeof(path), "/proc/%d/smaps", tid);
	f = fopen(path, "re");
	if (!f)
		return fail(-errno, "pid %d: read its mappings", p->pid);
	mm->lock_future = 0;
	while (getline(&line, &cap, f) > 0) {
		if (sscanf(line, "%llx-%llx ", &start, &end) == 2)
			inside = start <= p->base && p->base < end;
		if (!inside || strncmp(line, "VmFlags:", 8))
			continue;
		if (strstr(line, " lo"))
			mm->lock_future = MCL_FUTURE | (strstr(line, " lf") ? MCL_ONFAULT : 0);
		return 0;
	}
	return fail(0, "pid %d: the parasite's mapping is not among its own", p->pid);
}

/* What all threads of a process share; asked of any one. */
static int ask_process(const struct parasite *p, pid_t tid, struct task *task, struct mm *mm)
{
	_cleanup_free_ struct parasite_list *list = calloc(1, sizeof(*list));
	uint32_t at_action[MODEL_NSIG], at_itimer[3], at_reaper, at_ldt;

	if (!list)
		return fail(-ENOMEM, "pid %d: ask it for its state", p->pid);

	for (int i = 0; i < MODEL_NSIG; i++) {
		taddr_t at = parasite_data(p, list, sizeof(struct sigaction_raw), &at_action[i]);
		parasite_add(list, SYS_rt_sigaction, (uint64_t)i + 1, 0, at, sizeof(uint64_t));
	}
	for (int i = 0; i < 3; i++) {
		taddr_t at = parasite_data(p, list, sizeof(struct itimerval), &at_itimer[i]);
		parasite_add(list, SYS_getitimer, (uint64_t)i, at, 0, 0);
	}
	taddr_t at = parasite_data(p, list, 4, &at_reaper);
	parasite_add(list, SYS_prctl, PR_GET_CHILD_SUBREAPER, at, 0, 0);
	uint32_t c_dumpable = parasite_add(list, SYS_prctl, PR_GET_DUMPABLE, 0, 0, 0);
	uint32_t c_thp = parasite_add(list, SYS_prctl, PR_GET_THP_DISABLE, 0, 0, 0);
	uint32_t c_merge = parasite_add(list, SYS_prctl, BCR_PR_GET_MEMORY_MERGE, 0, 0, 0);
	uint32_t c_brk = parasite_add(list, SYS_brk, 0, 0, 0, 0);
	uint32_t c_mdwe = parasite_add(list, SYS_prctl, BCR_PR_GET_MDWE, 0, 0, 0);
	uint32_t c_membarrier = parasite_add(list, SYS_membarrier, BCR_MEMBARRIER_CMD_GET_REGISTRATIONS, 0, 0, 0);
	/* The beginning of its LDT: as many bytes as there are. */
	uint32_t c_ldt = parasite_add(list, SYS_modify_ldt, 0, parasite_data(p, list, 16, &at_ldt), 16, 0);
	uint32_t c_personality = parasite_add(list, SYS_personality, 0xffffffffu, 0, 0, 0);

	int err = parasite_execute(p, tid, list);
	for (uint32_t i = 0; !err && i < list->nr_calls; i++)
		/* These are not known to kernels without huge pages, or to older ones. */
		if (i != c_thp && i != c_mdwe && i != c_merge && i != c_membarrier && i != c_ldt)
			err = check_call(p->pid, tid, list, i, "ask it for its state");
	if (err)
		return err;

	for (int i = 0; i < MODEL_NSIG; i++)
		memcpy(&task->sigactions[i], list->data + at_action[i], sizeof(struct sigaction_raw));
	for (int i = 0; i < 3; i++)
		take_itimer(&task->itimers[i], list->data + at_itimer[i]);
	int reaper;
	memcpy(&reaper, list->data + at_reaper, sizeof(reaper));
	if (list->calls[c_ldt].ret > 0)
		return unsupported("pid %d: its thread %d has segments of its own (modify_ldt), which is not supported", p->pid, tid);
	task->child_subreaper = reaper;
	task->personality = (uint32_t)list->calls[c_personality].ret;
	task->membarrier = positive(list, c_membarrier);
	if (mm) {
		mm->dumpable = (int32_t)list->calls[c_dumpable].ret;
		mm->thp_disabled = positive(list, c_thp);
		mm->mdwe = positive(list, c_mdwe);
		mm->merge_all = list->calls[c_merge].ret == 1;
		mm->brk = (taddr_t)list->calls[c_brk].ret;
		return read_lock_future(p, tid, mm);
	}
	return 0;
}

static int ask_timers(const struct parasite *p, pid_t tid, struct posix_timer *timers, size_t nr)
{
	_cleanup_free_ struct parasite_list *list = calloc(1, sizeof(*list));
	uint32_t at_value[TIMERS_AT_ONCE];

	if (!list)
		return fail(-ENOMEM, "pid %d: ask it for its timers", p->pid);
	for (size_t i = 0; i < nr; i++) {
		taddr_t at = parasite_data(p, list, sizeof(struct itimerspec), &at_value[i]);
		parasite_add(list, SYS_timer_gettime, (uint64_t)timers[i].id, at, 0, 0);
		parasite_add(list, SYS_timer_getoverrun, (uint64_t)timers[i].id, 0, 0, 0);
	}
	int err = parasite_execute(p, tid, list);
	for (uint32_t i = 0; !err && i < list->nr_calls; i++)
		err = check_call(p->pid, tid, list, i, "ask it for its timers");
	if (err)
		return err;

	for (size_t i = 0; i < nr; i++) {
		struct itimerspec v;

		memcpy(&v, list->data + at_value[i], sizeof(v));
		timers[i].interval_ns = (uint64_t)v.it_interval.tv_sec * 1000000000u + (uint64_t)v.it_interval.tv_nsec;
		timers[i].value_ns = (uint64_t)v.it_value.tv_sec * 1000000000u + (uint64_t)v.it_value.tv_nsec;
		timers[i].overrun = (uint32_t)list->calls[2 * i + 1].ret;
	}
	return 0;
}

/* Which of its children have gone on after a stop that it has not waited for: as many as there is room for, from `*at` on. */
static int ask_children(const struct parasite *p, pid_t tid, struct model *m, size_t *at)
{
	_cleanup_free_ struct parasite_list *list = calloc(1, sizeof(*list));
	struct task *children[CHILDREN_AT_ONCE];
	uint32_t at_info[CHILDREN_AT_ONCE];
	size_t nr = 0;

	if (!list)
		return fail(-ENOMEM, "pid %d: ask it for its children", p->pid);
	for (; *at < m->tasks.nr && nr < CHILDREN_AT_ONCE; (*at)++) {
		struct task *child = &m->tasks.v[*at];

		if (child->ppid != p->pid || child->state == TASK_ZOMBIE)
			continue;
		taddr_t info = parasite_data(p, list, sizeof(siginfo_t), &at_info[nr]);
		children[nr++] = child;
		parasite_add(list, SYS_waitid, P_PID, (uint64_t)child->pid, info, WCONTINUED | WNOHANG | WNOWAIT | __WALL);
	}
	int err = nr ? parasite_execute(p, tid, list) : 0;
	for (size_t i = 0; !err && i < nr; i++) {
		siginfo_t info;

		err = check_call(p->pid, tid, list, (uint32_t)i, "ask it for its children");
		memcpy(&info, list->data + at_info[i], sizeof(info));
		children[i]->continued = info.si_pid == children[i]->pid;
	}
	return err;
}

static int ask_task(const struct parasite *p, struct model *m, struct task *task, struct mm *mm)
{
	pid_t tid = task_living(task)->tid;
	int err = ask_process(p, tid, task, mm);

	for (size_t i = 0; !err && i < task->timers.nr; i += TIMERS_AT_ONCE) {
		size_t left = task->timers.nr - i;
		err = ask_timers(p, tid, task->timers.v + i, left < TIMERS_AT_ONCE ? left : TIMERS_AT_ONCE);
	}
	for (size_t i = 0; !err && i < task->threads.nr; i++)
		err = task->threads.v[i].exited ? 0 : ask_thread(p, &task->threads.v[i]);
	for (size_t at = 0; !err && at < m->tasks.nr;)
		err = ask_children(p, tid, m, &at);
	return err;
}

static int capture_task(struct model *m, struct task *task)
{
	struct parasite p;
	pid_t tid = task_living(task)->tid;

	/* By ptrace first: the parasite's own signal would be among the pending ones if anything went wrong. */
	int err = read_pending(task->pid, tid, true, &task->pending);
	for (size_t i = 0; !err && i < task->threads.nr; i++) {
		if (task->threads.v[i].exited)
			continue;
		err = read_by_ptrace(task->pid, &task->threads.v[i]);
		if (!err)
			read_restart(&task->threads.v[i]);
	}
	if (err)
		return err;

	err = parasite_inject(task->pid, tid, &p);
	if (err)
		return err;
	err = ask_task(&p, m, task, model_find_mm(m, task->mm_id));
	int err_remove = parasite_remove(&p, tid);
	return err ? err : err_remove;
}

int capture_thread_state(struct freeze *f, struct model *m)
{
	VEC_FOREACH(task, &m->tasks) {
		if (task->state == TASK_ZOMBIE || task->state == TASK_DEAD || !task->threads.nr)
			continue;
		int err = capture_task(m, task);
		if (err)
			return err;
	}
	return 0;
}
