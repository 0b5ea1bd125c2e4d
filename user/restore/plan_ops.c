/*
 * The plan: which operations the restorer executes in each thread, in which order. Pure.
 *
 * Order, and why. The process starts as a fork of bcr with the target's memory mapped (restore/memory.c):
 *
 *   1  park bcr's vDSO, unmap everything else of bcr, move staged mappings and the vDSO to their places
 *   2  protections, advice, locks: memory is complete, nothing is written to it any more
 *   3  PR_SET_MM_MAP: the old executable is unmapped by now, which it asks for
 *   4  signal handlers, limits, names: what the threads share
 *   5  threads, which need set_tid, and so the privileges bcr still has
 *   6  timers: those of a thread need the thread
 *   7  in each thread: its own state; what it is confined by, in a tree where somebody is; credentials
 *      next to last, pending signals last (everything is blocked)
 *   8  when all threads have come so far: time begins to run for the timers, the limit of pending signals is set
 */
#include <errno.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <linux/futex.h>
#include <linux/prctl.h>
#include <linux/securebits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "pie/restorer.blob.h"
#include "restore/plan.h"
#include "restore/plan_builder.h"
#include "sys/sigframe-x86_64.h"
#include "sys/uapi.h"

enum {
	STACK_BYTES = 16384,
	KERNEL_SIGSET_BYTES = 8,
	ARCH_SET_GS_CODE = 0x1001,
	ARCH_SET_FS_CODE = 0x1002,
};

static const taddr_t highest = 0x7ffffffff000;

/* --- 1 and 2: memory --- */

static bool is_special(const struct vma *vma)
{
	return vma->status & (VMA_VDSO | VMA_VVAR);
}

static void unmap_to(struct builder *b, taddr_t *from, taddr_t keep_start, taddr_t keep_end)
{
	if (keep_start > *from)
		CALL(b, "unmap what is bcr's", SYS_munmap, *from, keep_start - *from);
	if (keep_end > *from)
		*from = keep_end;
}

/* Unmaps all but the hole and what lies at its final address already. */
static void unmap_rest(struct builder *b)
{
	const struct restore_plan *p = b->p;
	taddr_t from = 0;
	bool hole_kept = false;

	VEC_FOREACH(vma, &b->tp->mm->vmas) {
		if (is_special(vma) || plan_vma_at(p, vma) != vma->start)
			continue;
		if (!hole_kept && p->hole.start < vma->start) {
			unmap_to(b, &from, p->hole.start, p->hole.end);
			hole_kept = true;
		}
		unmap_to(b, &from, vma->start, vma->end);
	}
	if (!hole_kept)
		unmap_to(b, &from, p->hole.start, p->hole.end);
	unmap_to(b, &from, highest, highest);
}

static void move(struct builder *b, const char *what, taddr_t from, uint64_t len, taddr_t to)
{
	CALL_AT(b, what, SYS_mremap, 4, from, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, to);
}

/* bcr's own vDSO and its data pages become the target's, at the target's addresses. */
static int plan_vdso(struct builder *b, bool park)
{
	const struct own_layout *own = &b->p->own;
	const struct vma *specials[8];
	size_t nr = 0;

	VEC_FOREACH(vma, &b->tp->mm->vmas) {
		if (is_special(vma) && nr < 8)
			specials[nr++] = vma;
	}
	if (!nr)
		return 0;
	if (nr != own->specials.nr)
		return unsupported("pid %d: its vDSO has %zu mappings and this kernel's has %zu; it can be restored "
				   "on the kernel it was dumped on only",
				   b->tp->task->pid, nr, own->specials.nr);
	taddr_t parked = b->p->park;
	for (size_t i = 0; i < nr; i++) {
		const struct mem_range *at = &own->specials.v[i].at;
		uint64_t len = at->end - at->start;

		if (specials[i]->end - specials[i]->start != len ||
		    !(specials[i]->status & VMA_VDSO) == own->specials.v[i].is_vdso)
			return unsupported("pid %d: its vDSO is not this kernel's; it can be restored on the kernel it "
					   "was dumped on only",
					   b->tp->task->pid);
		if (park)
			move(b, "park the vDSO", at->start, len, parked);
		else
			move(b, "move the vDSO", parked, len, specials[i]->start);
		parked += len + MODEL_PAGE_SIZE;
	}
	return 0;
}

static void plan_moves(struct builder *b)
{
	VEC_FOREACH(vma, &b->tp->mm->vmas) {
		taddr_t at = plan_vma_at(b->p, vma);

		if (!is_special(vma) && at != vma->start)
			move(b, "move a mapping", at, vma->end - vma->start, vma->start);
	}
}

static void plan_vma_state(struct builder *b, const struct vma *vma)
{
	uint64_t len = vma->end - vma->start;

	CALL(b, "protect", SYS_mprotect, vma->start, len, vma->prot);
	for (int advice = 0; advice < 64; advice++) {
		if (vma->madv >> advice & 1)
			CALL(b, "advise", SYS_madvise, vma->start, len, advice);
	}
}

static int plan_memory(struct builder *b)
{
	const struct restore_plan *p = b->p;
	const struct mm *mm = b->tp->mm;
	int err = plan_vdso(b, true);

	if (err)
		return err;
	unmap_rest(b);
	plan_moves(b);
	err = plan_vdso(b, false);
	if (err)
		return err;
	/* Staged leftovers and shared memory nobody maps; the area and the control block stay for now. */
	CALL(b, "unmap the staging area", SYS_munmap, p->park, p->hole.end - p->park);
	VEC_FOREACH(vma, &mm->vmas) {
		if (!is_special(vma))
			plan_vma_state(b, vma);
	}
	VEC_FOREACH(run, &mm->pages) {
		if (run->flags & PAGES_GUARD)
			CALL(b, "guard", SYS_madvise, run->start, run->nr_pages * MODEL_PAGE_SIZE,
			     BCR_MADV_GUARD_INSTALL);
	}
	VEC_FOREACH(vma, &mm->vmas) {
		if (vma->sealed)
			CALL(b, "seal", BCR_SYS_mseal, vma->start, vma->end - vma->start);
	}
	return 0;
}

/* --- 3 and 4: what a process has once --- */

static void plan_mm_layout(struct builder *b)
{
	const struct mm *mm = b->tp->mm;
	struct prctl_mm_map map = {
		.start_code = mm->start_code,
		.end_code = mm->end_code,
		.start_data = mm->start_data,
		.end_data = mm->end_data,
		.start_brk = mm->start_brk,
		.brk = mm->brk,
		.start_stack = mm->start_stack,
		.arg_start = mm->arg_start,
		.arg_end = mm->arg_end,
		.env_start = mm->env_start,
		.env_end = mm->env_end,
		.auxv = (__u64 *)(uintptr_t)put(b, mm->auxv.v, mm->auxv.nr * sizeof(uint64_t), 8),
		.auxv_size = mm->auxv.nr * sizeof(uint64_t),
		.exe_fd = b->tp->fd_exe,
	};

	CALL(b, "layout of the address space", SYS_prctl, PR_SET_MM, PR_SET_MM_MAP, put(b, &map, sizeof(map), 8),
	     sizeof(map));
	CALL(b, "close the executable", SYS_close, b->tp->fd_exe);
	plan_mm_attrs(b, mm);
	if (mm->lock_future)
		CALL(b, "lock mappings to come", SYS_mlockall, mm->lock_future);
}

/*
 * Of processes that share memory the first one makes it, when the others are out of bcr's code, which goes with it. They do
 * without memory of bcr's or their own until it is complete.
 */
static int plan_whole_memory(struct builder *b)
{
	const taddr_t crowd = b->p->control + plan_crowd_offset(b->p, b->tp);
	const taddr_t entered = crowd + offsetof(struct restorer_slot, entered);
	const taddr_t complete = crowd + offsetof(struct restorer_slot, complete);

	if (b->tp->birth.with_vm) {
		add(b, "out of bcr's code", (struct restorer_op){ .code = RESTORER_RAISE, .args = { entered } });
		add(b, "wait for the memory", (struct restorer_op){ .code = RESTORER_UNTIL, .args = { complete, 1 } });
		return 0;
	}
	if (b->tp->nr_sharers)
		add(b, "wait for those who share it",
		    (struct restorer_op){ .code = RESTORER_UNTIL, .args = { entered, b->tp->nr_sharers } });
	int err = plan_memory(b);
	if (err)
		return err;
	plan_mm_layout(b);
	if (b->tp->nr_sharers)
		add(b, "the memory is complete", (struct restorer_op){ .code = RESTORER_RAISE, .args = { complete } });
	return 0;
}

static void plan_sigactions(struct builder *b)
{
	const struct task *t = b->tp->task;

	for (int sig = 1; sig <= MODEL_NSIG; sig++) {
		const struct sigaction_raw *sa = &t->sigactions[sig - 1];

		if (sig != SIGKILL && sig != SIGSTOP)
			CALL(b, "signal handler", SYS_rt_sigaction, sig, put(b, sa, sizeof(*sa), 8), 0,
			     KERNEL_SIGSET_BYTES);
	}
}

static int plan_process(struct builder *b)
{
	const struct task *t = b->tp->task;

	if (!b->tp->birth.with_sighand)
		plan_sigactions(b);
	CALL(b, "personality", SYS_personality, t->personality);
	if (t->child_subreaper)
		CALL(b, "child subreaper", SYS_prctl, PR_SET_CHILD_SUBREAPER, 1);
	plan_process_attrs(b, t);
	return plan_limits(b, t);
}

/* --- 7: what a thread has of its own --- */

static void plan_thread_memory(struct builder *b, const struct thread *th)
{
	CALL(b, "fs base", SYS_arch_prctl, ARCH_SET_FS_CODE, th->cpu.regs.fs_base);
	CALL(b, "gs base", SYS_arch_prctl, ARCH_SET_GS_CODE, th->cpu.regs.gs_base);
	CALL(b, "clear_child_tid", SYS_set_tid_address, th->clear_tid);
	if (th->robust_list)
		CALL(b, "robust list", SYS_set_robust_list, th->robust_list, th->robust_list_len);
	if (th->rseq.ptr)
		CALL(b, "rseq", SYS_rseq, th->rseq.ptr, th->rseq.len_bytes, 0, th->rseq.sig);
}

static int plan_thread(struct builder *b, const struct thread *th, bool leader)
{
	/* Not of one that is about to exit: the kernel would write there, and wake others, once more. */
	if (!th->exited)
		plan_thread_memory(b, th);
	CALL(b, "name", SYS_prctl, PR_SET_NAME, put(b, th->comm, sizeof(th->comm), 8));
	plan_sched(b, th);
	plan_thread_attrs(b, th);
	plan_seccomp(b, th, leader);
	int err = plan_creds(b, th);
	if (err)
		return err;
	/* It is cleared when credentials change. So is "dumpable", of the whole process: that is set when all threads are done. */
	CALL(b, "signal at the parent's death", SYS_prctl, PR_SET_PDEATHSIG, th->pdeath_signal);
	plan_pending(b, th, leader);
	return 0;
}

/* --- the area --- */

static void put_frame(struct builder *b, const struct thread *th, struct restorer_thread *rt)
{
	_cleanup_free_ uint8_t *buf = calloc(1, SIGFRAME_MAX_BYTES);
	uint64_t altstack, frame_sp;
	struct {
		uint64_t sp;
		int32_t flags, pad;
		uint64_t size;
	} ss = { th->altstack.sp, th->altstack.flags & ~SS_ONSTACK, 0, th->altstack.size_bytes };

	if (!buf) {
		b->failed = true;
		return;
	}
	if (!ss.size)
		ss.flags = SS_DISABLE;
	/* Room first: the frame has to know where it lies. Everything stays blocked until the thread is let go. */
	taddr_t at = put(b, buf, SIGFRAME_MAX_BYTES, SIGFRAME_ALIGN);
	if (!at)
		return;
	int len = sigframe_build(&th->cpu, UINT64_MAX, at, buf, &frame_sp, &altstack);
	if (len < 0) {
		b->failed = true;
		return;
	}
	rt->frame_sp = frame_sp;
	memcpy(buf + (altstack - at), &ss, sizeof(ss));
	memcpy(b->tp->area.v + (at - b->tp->area_at), buf, len);
}

static int build_ops(struct builder *b)
{
	struct task_plan *tp = b->tp;

	for (size_t i = 0; i < tp->threads.nr; i++) {
		b->th = &tp->threads.v[i];
		if (i == 0) {
			int err = plan_whole_memory(b);
			if (err)
				return err;
			err = plan_process(b);
			if (err)
				return err;
			for (size_t k = 1; k < tp->threads.nr; k++)
				add(b, "thread", (struct restorer_op){ .code = RESTORER_CLONE, .args = { k } });
			err = plan_timers(b);
			if (err)
				return err;
		}
		int err = plan_thread(b, b->th->thread, i == 0);
		if (err)
			return err;
		if (i == 0) {
			plan_start_timers(b);
			plan_limit_of_signals(b);
			/* Last of all: errors up to here may be logged. */
			CALL_ANY(b, "close bcr's log", SYS_close, b->p->fd_log);
			CALL_ANY(b, "close bcr's standard error", SYS_close, b->p->fd_err);
		}
	}
	return 0;
}

static struct timespec timespec_of(uint64_t ns)
{
	return (struct timespec){ ns / 1000000000, ns % 1000000000 };
}

/* Restart calls: the remaining time, as the call wants it, for the coordinator to point at. */
static void put_timespecs(struct builder *b)
{
	size_t nr = b->tp->threads.nr;
	_cleanup_free_ struct timespec *ts = calloc(nr, sizeof(*ts));

	if (!ts) {
		b->failed = true;
		return;
	}
	for (size_t i = 0; i < nr; i++)
		ts[i] = timespec_of(b->tp->threads.v[i].thread->restart.remaining_ns);
	b->tp->timespecs = put(b, ts, nr * sizeof(*ts), 16);
}

static void put_stop_scratch(struct builder *b)
{
	const struct stop_scratch s = { .sigchld = 1ULL << (SIGCHLD - 1), .sigcont = 1ULL << (SIGCONT - 1) };

	b->tp->stop_scratch = put(b, &s, sizeof(s), 8);
}

static void put_threads(struct builder *b, taddr_t threads_at, taddr_t args_at)
{
	struct task_plan *tp = b->tp;
	taddr_t stacks;

	for (size_t i = 0; i < tp->threads.nr && !b->failed; i++) {
		struct thread_plan *th = &tp->threads.v[i];
		struct restorer_thread rt = {
			.nr_ops = th->ops.nr,
			.args = args_at,
			.tid = th->thread->tid,
			.slot = th->slot,
		};
		_cleanup_free_ struct restorer_op *ops = calloc(th->ops.nr + 1, sizeof(*ops));

		if (!ops) {
			b->failed = true;
			return;
		}
		for (size_t k = 0; k < th->ops.nr; k++)
			ops[k] = th->ops.v[k].op;
		rt.ops = put(b, ops, th->ops.nr * sizeof(*ops), 16);
		if (!th->thread->exited)
			put_frame(b, th->thread, &rt);
		memcpy(tp->area.v + (threads_at - b->tp->area_at) + i * sizeof(rt), &rt, sizeof(rt));
	}
	if (b->failed)
		return;
	stacks = (tp->area_at + tp->area.nr + MODEL_PAGE_SIZE - 1) & ~(taddr_t)(MODEL_PAGE_SIZE - 1);
	for (size_t i = 0; i < tp->threads.nr; i++) {
		struct restorer_thread *rt =
			(void *)(tp->area.v + (threads_at - b->tp->area_at) + i * sizeof(struct restorer_thread));

		rt->stack_top = stacks + (i + 1) * STACK_BYTES;
	}
	tp->area_bytes = stacks + tp->threads.nr * STACK_BYTES - tp->area_at;
}

int plan_task_ops(struct restore_plan *p, struct task_plan *tp)
{
	struct task_plan *first = &p->tasks.v[tp->mm_first];
	struct builder b = { .p = p, .tp = tp };
	struct restorer_args args = { .control = p->control, .nr_threads = tp->threads.nr };
	_cleanup_free_ void *zero = calloc(tp->threads.nr, sizeof(struct restorer_thread));

	if (!zero)
		return fail(-ENOMEM, "pid %d: plan", tp->task->pid);
	tp->area_at = tp == first ? p->area : first->areas_end;
	put(&b, restorer_blob, sizeof(restorer_blob), 1);
	taddr_t args_at = put(&b, &args, sizeof(args), 64);
	tp->args_offset = args_at - tp->area_at;
	args.threads = put(&b, zero, tp->threads.nr * sizeof(struct restorer_thread), 64);
	if (!b.failed)
		memcpy(tp->area.v + (args_at - tp->area_at), &args, sizeof(args));
	int err = b.failed ? 0 : build_ops(&b);
	if (err)
		return err;
	put_timespecs(&b);
	put_stop_scratch(&b);
	put_threads(&b, args.threads, args_at);
	if (b.failed)
		return fail(-ENOMEM, "pid %d: plan", tp->task->pid);
	if (tp->area_bytes > p->park - tp->area_at)
		return fail(0, "pid %d: the restorer's area of %" PRIu64 " bytes is larger than planned", tp->task->pid,
			    tp->area_bytes);
	first->areas_end = tp->area_at + tp->area_bytes;
	return 0;
}

uint64_t plan_syscall_insn(void)
{
	for (size_t i = 0; i + 1 < sizeof(restorer_blob); i++) {
		if (restorer_blob[i] == 0x0f && restorer_blob[i + 1] == 0x05)
			return i;
	}
	return 0; /* a blob without system calls cannot be built */
}
