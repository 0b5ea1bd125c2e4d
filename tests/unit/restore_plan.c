/* The restore plan: where things go, which operation comes before which, and what is refused. */
#include <errno.h>
#include <linux/prctl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "restore/plan.h"
#include "sys/uapi.h"

enum { PAGE = MODEL_PAGE_SIZE };

static int failures;
static int messages = -1; /* where sentences go */

#define EXPECT(cond, ...)                                                                          \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			printf("line %d: not so: %s: ", __LINE__, #cond);                          \
			printf(__VA_ARGS__);                                                       \
			putchar('\n');                                                             \
			failures++;                                                                \
		}                                                                                  \
	} while (0)

/* --- models --- */

static struct vma *add_vma(struct mm *mm, taddr_t start, uint64_t pages, uint32_t prot)
{
	struct vma *vma = VEC_ADD(&mm->vmas);

	if (!vma)
		abort();
	*vma = (struct vma){
		.start = start,
		.end = start + pages * PAGE,
		.prot = prot,
		.flags = MAP_PRIVATE | MAP_ANONYMOUS,
		.status = VMA_REGULAR | VMA_ANON_PRIVATE,
	};
	return vma;
}

/* A task with one thread, one mapping far from everything, and one descriptor. */
static struct task *add_task(struct model *m, pid_t pid, pid_t ppid, pid_t pgid, pid_t sid)
{
	struct task *t = VEC_ADD(&m->tasks);
	struct mm *mm = model_add_mm(m, 0);
	struct fdtable *table = model_add_fdtable(m, 0);
	struct fs *fs = model_add_fs(m, 0);
	struct fd fd = { .fd = 7, .file_id = 900 };

	if (!t || !mm || !table || !fs || !VEC_ADD(&t->threads) || VEC_PUSH(&table->fds, fd))
		abort();
	*mm = (struct mm){ .id = mm->id, .pid = pid, .dumpable = 1 };
	add_vma(mm, 0x200000000000, 4, PROT_READ | PROT_WRITE);
	t->pid = pid;
	t->ppid = ppid;
	t->pgid = pgid;
	t->sid = sid;
	t->state = TASK_ALIVE;
	t->mm_id = mm->id;
	t->files_id = table->id;
	t->fs_id = fs->id;
	t->sighand_id = model_new_id(m);
	t->threads.v[0].tid = pid;
	snprintf(t->threads.v[0].comm, MODEL_COMM_LEN, "task%d", pid);
	return t;
}

static struct model *one_task(void)
{
	struct model *m = model_create();

	if (!m)
		abort();
	add_task(m, 100, 1, 100, 100);
	return m;
}

static struct mm *mm_of(struct model *m, size_t task)
{
	return model_find_mm(m, m->tasks.v[task].mm_id);
}

/* --- what a plan says --- */

static struct restore_plan *plan_of(const struct model *m)
{
	struct restore_plan *p = NULL;

	EXPECT(!restore_plan_create(m, false, &p), "the plan failed");
	if (!p)
		exit(1);
	return p;
}

/* Index of the first op from `from` on that is this call with this first argument (any: UINT64_MAX); nr when there is none. */
static size_t find_op(const struct thread_plan *th, size_t from, uint32_t nr, uint64_t arg0)
{
	for (size_t i = from; i < th->ops.nr; i++) {
		const struct restorer_op *op = &th->ops.v[i].op;

		if (op->code == RESTORER_SYSCALL && op->nr == nr && (arg0 == UINT64_MAX || op->args[0] == arg0))
			return i;
	}
	return th->ops.nr;
}

static bool meets(taddr_t a, taddr_t a_end, taddr_t b, taddr_t b_end)
{
	return a < b_end && b < a_end;
}

static void done(struct restore_plan *p, struct model *m)
{
	restore_plan_destroy(p);
	model_destroy(m);
}

/* The sentence of a plan that must fail. */
static void expect_refusal(struct model *m, const char *text)
{
	struct restore_plan *p = NULL;
	char said[4096] = "";

	if (ftruncate(messages, 0) || lseek(messages, 0, SEEK_SET))
		abort();
	EXPECT(restore_plan_create(m, false, &p) < 0, "'%s' was not refused", text);
	ssize_t len = pread(messages, said, sizeof(said) - 1, 0);
	said[len > 0 ? len : 0] = 0;
	EXPECT(strstr(said, text), "it says '%s', not '%s'", said, text);
	restore_plan_destroy(p);
	model_destroy(m);
}

/* --- addresses --- */

static void hole_is_free(void)
{
	struct model *m = one_task();

	/* Low and high, with holes of all sizes. */
	for (int i = 0; i < 40; i++)
		add_vma(mm_of(m, 0), 0x210000000000 + ((taddr_t)i << 24), 1 + i, PROT_READ);
	struct restore_plan *p = plan_of(m);
	VEC_FOREACH(own, &p->own.ranges)
		EXPECT(!meets(own->start, own->end, p->hole.start, p->hole.end), "it meets bcr's own memory");
	VEC_FOREACH(vma, &mm_of(m, 0)->vmas)
		EXPECT(!meets(vma->start, vma->end, p->hole.start, p->hole.end), "it meets the task's memory");
	EXPECT(p->control >= p->hole.start && p->area > p->control && p->park > p->area && p->staging > p->park &&
		       p->shmem >= p->staging && p->shmem < p->hole.end,
	       "parts out of order");
	EXPECT(p->tasks.v[0].area_bytes <= p->park - p->area, "the area does not fit");
	done(p, m);
}

/* A mapping where this program's own memory is: filled elsewhere, moved when that is gone. */
static void own_memory_is_avoided(void)
{
	struct model *m = one_task();
	taddr_t here = (uintptr_t)&failures & ~(taddr_t)(PAGE - 1);

	mm_of(m, 0)->vmas.v[0].start = here;
	mm_of(m, 0)->vmas.v[0].end = here + PAGE;
	add_vma(mm_of(m, 0), 0x220000000000, 2, PROT_READ);

	struct restore_plan *p = plan_of(m);
	const struct vma *vmas = mm_of(m, 0)->vmas.v;
	const struct thread_plan *th = &p->tasks.v[0].threads.v[0];
	taddr_t at = plan_vma_at(p, &vmas[0]);

	EXPECT(at >= p->staging && at + PAGE <= p->shmem, "staged at %#lx", (long)at);
	EXPECT(plan_vma_at(p, &vmas[1]) == vmas[1].start, "what is free is mapped in place");
	size_t unmap = find_op(th, 0, SYS_munmap, UINT64_MAX), move = find_op(th, 0, SYS_mremap, at);
	EXPECT(move < th->ops.nr && th->ops.v[move].op.args[4] == here, "it is not moved home");
	EXPECT(unmap < move, "moved before bcr is unmapped");
	EXPECT(find_op(th, move, SYS_mprotect, here) < th->ops.nr, "not protected after the move");
	EXPECT(find_op(th, 0, SYS_mprotect, here) > move, "protected before the move");
	EXPECT(find_op(th, move, SYS_munmap, p->park) < th->ops.nr, "the staging area stays");
	done(p, m);
}

/* All of bcr goes, nothing of the task and of the hole does. */
static void unmaps_cover_the_rest(void)
{
	struct model *m = one_task();
	struct restore_plan *p = plan_of(m);
	const struct thread_plan *th = &p->tasks.v[0].threads.v[0];
	const struct vma *vma = mm_of(m, 0)->vmas.v;

	VEC_FOREACH(own, &p->own.ranges) {
		taddr_t at = own->start;

		for (size_t i = 0; i < th->ops.nr && at < own->end; i++) {
			const struct restorer_op *op = &th->ops.v[i].op;

			if (op->nr == SYS_munmap && op->args[0] <= at && op->args[0] + op->args[1] > at)
				at = op->args[0] + op->args[1];
		}
		EXPECT(at >= own->end, "%#lx of bcr stays mapped", (long)at);
	}
	for (size_t i = 0; i < th->ops.nr; i++) {
		const struct restorer_op *op = &th->ops.v[i].op;

		if (op->nr != SYS_munmap)
			continue;
		EXPECT(!meets(op->args[0], op->args[0] + op->args[1], vma->start, vma->end), "op %zu unmaps the task", i);
		EXPECT(!meets(op->args[0], op->args[0] + op->args[1], p->control, p->park), "op %zu unmaps the restorer", i);
	}
	done(p, m);
}

/* Two mappings that would become one when made side by side. */
static void neighbours_stay_apart(void)
{
	struct model *m = one_task();

	add_vma(mm_of(m, 0), 0x200000004000, 3, PROT_READ | PROT_WRITE);
	struct restore_plan *p = plan_of(m);
	const struct vma *vmas = mm_of(m, 0)->vmas.v;

	EXPECT((plan_vma_at(p, &vmas[0]) == vmas[0].start) != (plan_vma_at(p, &vmas[1]) == vmas[1].start),
	       "both are made in the same way");
	done(p, m);
}

/* A child's mapping that touches what is staged for its parent is staged with it, so that it can be inherited. */
static void families_agree(void)
{
	struct model *m = one_task();
	taddr_t here = (uintptr_t)&failures & ~(taddr_t)(PAGE - 1);

	add_task(m, 101, 100, 100, 100);
	mm_of(m, 0)->vmas.v[0].start = here - 4 * PAGE;
	mm_of(m, 0)->vmas.v[0].end = here + 64 * PAGE;
	mm_of(m, 1)->vmas.v[0].start = here + 60 * PAGE;
	mm_of(m, 1)->vmas.v[0].end = here + 70 * PAGE;
	struct restore_plan *p = plan_of(m);
	taddr_t a = plan_vma_at(p, mm_of(m, 0)->vmas.v), b = plan_vma_at(p, mm_of(m, 1)->vmas.v);

	EXPECT(b - a == 64 * PAGE, "staged %#lx and %#lx, not at one distance", (long)a, (long)b);
	done(p, m);
}

/* --- order of operations --- */

static void order_of_ops(void)
{
	struct model *m = one_task();
	struct task *t = &m->tasks.v[0];
	struct siginfo_raw info = { .bytes = { SIGUSR1 } };
	struct posix_timer timer = { .id = 0, .clockid = CLOCK_MONOTONIC, .notify = SIGEV_SIGNAL, .signo = SIGUSR2 };
	struct thread *second;

	if (VEC_PUSH(&t->pending, info) || VEC_PUSH(&t->timers, timer) || !(second = VEC_ADD(&t->threads)))
		abort();
	second->tid = 102;
	t->threads.v[0].rseq.ptr = 0x200000001000;
	t->threads.v[0].rseq.len_bytes = 32;
	if (VEC_PUSH(&second->pending, info))
		abort();

	struct restore_plan *p = plan_of(m);
	const struct thread_plan *first = &p->tasks.v[0].threads.v[0], *other = &p->tasks.v[0].threads.v[1];
	size_t nr = first->ops.nr, clone = 0;
	while (clone < nr && first->ops.v[clone].op.code != RESTORER_CLONE)
		clone++;
	size_t layout = find_op(first, 0, SYS_prctl, PR_SET_MM), last_unmap = 0;
	for (size_t i = 0; i < nr; i++)
		last_unmap = first->ops.v[i].op.nr == SYS_munmap && !first->ops.v[i].op.code ? i : last_unmap;
	size_t ids = find_op(first, 0, SYS_setresuid, UINT64_MAX), caps = find_op(first, ids, SYS_capset, UINT64_MAX);
	size_t pending = find_op(first, 0, SYS_rt_sigqueueinfo, 100);

	EXPECT(last_unmap < layout && layout < nr, "the layout is set before the old executable is unmapped");
	EXPECT(clone < nr && first->ops.v[clone].op.args[0] == 1, "no second thread");
	EXPECT(layout < clone && clone < find_op(first, 0, SYS_timer_create, UINT64_MAX), "threads before timers");
	EXPECT(clone < ids && ids < caps && caps < pending && pending < nr, "ids %zu, capabilities %zu, pending %zu", ids, caps,
	       pending);
	EXPECT(find_op(first, caps, SYS_prctl, PR_SET_PDEATHSIG) < nr, "the death signal is lost with the credentials");
	EXPECT(find_op(first, 0, SYS_rseq, 0x200000001000) < nr, "no rseq");
	EXPECT(find_op(first, pending, SYS_close, p->fd_err) < nr, "bcr's standard error stays open");
	EXPECT(find_op(other, 0, SYS_rt_tgsigqueueinfo, 100) < other->ops.nr, "a thread's signal is lost");
	EXPECT(find_op(other, 0, SYS_munmap, UINT64_MAX) == other->ops.nr, "the second thread unmaps something");
	for (int sig = 1; sig <= MODEL_NSIG; sig++)
		EXPECT((find_op(first, 0, SYS_rt_sigaction, sig) < nr) == (sig != SIGKILL && sig != SIGSTOP), "signal %d", sig);
	done(p, m);
}

/* The argument of the only setgroups(2) of a thread. */
static taddr_t groups_of(const struct thread_plan *th)
{
	size_t at = find_op(th, 0, SYS_setgroups, UINT64_MAX);

	EXPECT(at < th->ops.nr, "a thread without setgroups");
	return at < th->ops.nr ? th->ops.v[at].op.args[1] : 0;
}

static void groups_are_there_once(void)
{
	struct model *m = one_task();
	struct task *t = &m->tasks.v[0];

	for (int i = 1; i < 4; i++)
		if (!VEC_ADD(&t->threads))
			abort();
	for (int i = 0; i < 4; i++) {
		t->threads.v[i].tid = 100 + i;
		for (uint32_t gid = 0; gid < 1000; gid++)
			if (VEC_PUSH(&t->threads.v[i].creds.groups, gid + (i == 2)))
				abort();
	}
	struct restore_plan *p = plan_of(m);
	const struct thread_plan *th = p->tasks.v[0].threads.v;

	EXPECT(groups_of(&th[0]) == groups_of(&th[1]) && groups_of(&th[0]) == groups_of(&th[3]), "the same groups twice");
	EXPECT(groups_of(&th[0]) != groups_of(&th[2]), "other groups are not the same");
	done(p, m);
}

/* What few programs have set: each by its call, with its value, while there are privileges for it. */
static void rare_attributes(void)
{
	struct model *m = one_task();
	struct thread *th = &m->tasks.v[0].threads.v[0];
	struct mm *mm = mm_of(m, 0);

	th->io_flusher = true;
	th->spec_store_bypass = PR_SPEC_FORCE_DISABLE;
	th->spec_indirect_branch = PR_SPEC_DISABLE;
	th->tsc = PR_TSC_SIGSEGV;
	th->mce_kill = 1 + PR_MCE_KILL_EARLY;
	th->ioprio = 3 << 13;
	m->tasks.v[0].membarrier = 1 << 6;
	mm->mdwe = 1;
	mm->dumpable = DUMPABLE_BY_ROOT;

	struct restore_plan *p = plan_of(m);
	const struct thread_plan *first = &p->tasks.v[0].threads.v[0];
	size_t ids = find_op(first, 0, SYS_setresuid, UINT64_MAX), io = find_op(first, 0, SYS_prctl, PR_SET_IO_FLUSHER);
	size_t spec = find_op(first, 0, SYS_prctl, PR_SET_SPECULATION_CTRL);
	size_t mce = find_op(first, 0, SYS_prctl, PR_MCE_KILL), mdwe = find_op(first, 0, SYS_prctl, BCR_PR_SET_MDWE);

	EXPECT(io < ids && find_op(first, 0, SYS_ioprio_set, UINT64_MAX) < ids, "I/O is set without privileges");
	EXPECT(spec < ids && first->ops.v[spec].op.args[1] == PR_SPEC_STORE_BYPASS &&
		       first->ops.v[spec].op.args[2] == PR_SPEC_FORCE_DISABLE,
	       "speculative store bypass");
	spec = find_op(first, spec + 1, SYS_prctl, PR_SET_SPECULATION_CTRL);
	EXPECT(spec < ids && first->ops.v[spec].op.args[1] == PR_SPEC_INDIRECT_BRANCH &&
		       first->ops.v[spec].op.args[2] == PR_SPEC_DISABLE,
	       "indirect branch speculation");
	EXPECT(mce < ids && first->ops.v[mce].op.args[1] == PR_MCE_KILL_SET && first->ops.v[mce].op.args[2] == PR_MCE_KILL_EARLY,
	       "policy for memory errors");
	EXPECT(find_op(first, 0, SYS_prctl, PR_SET_TSC) < ids, "time stamp counter");
	EXPECT(find_op(first, 0, SYS_membarrier, 1 << 6) < ids, "membarrier");
	EXPECT(mdwe < ids && find_op(first, mdwe, SYS_mprotect, UINT64_MAX) == first->ops.nr, "memory is protected too late");
	EXPECT(find_op(first, 0, SYS_setfsuid, UINT64_MAX) < ids, "the kernel sees no change of ids");
	done(p, m);
}

static void area_is_consistent(void)
{
	struct model *m = one_task();
	struct restore_plan *p = plan_of(m);
	const struct task_plan *tp = &p->tasks.v[0];
	const struct restorer_args *args = (const void *)(tp->area.v + tp->args_offset);
	const struct restorer_thread *th = (const void *)(tp->area.v + (args->threads - p->area));

	EXPECT(args->control == p->control && args->nr_threads == 1, "arguments");
	EXPECT(th->tid == 100 && th->nr_ops == tp->threads.v[0].ops.nr, "thread");
	EXPECT(!memcmp(tp->area.v + (th->ops - p->area) + sizeof(struct restorer_op), &tp->threads.v[0].ops.v[1].op,
		       sizeof(struct restorer_op)),
	       "operations");
	EXPECT(th->frame_sp > p->area && th->frame_sp < p->area + tp->area.nr, "signal frame");
	EXPECT(th->stack_top > p->area + tp->area.nr && th->stack_top <= p->area + tp->area_bytes, "stack");
	EXPECT(tp->area.v[plan_syscall_insn()] == 0x0f && tp->area.v[plan_syscall_insn() + 1] == 0x05, "instruction");
	done(p, m);
}

static void numbers_are_above_all(void)
{
	struct model *m = one_task();

	add_task(m, 101, 100, 100, 100);
	model_find_fdtable(m, m->tasks.v[1].files_id)->fds.v[0].fd = 3000;
	struct restore_plan *p = plan_of(m);
	int numbers[] = { 3000, p->fd_log, p->fd_err, p->fd_exe, p->fd_files };

	for (int i = 1; i < 5; i++)
		EXPECT(numbers[i] > numbers[i - 1], "descriptor %d is %d, the one before is %d", i, numbers[i], numbers[i - 1]);
	EXPECT(p->fd_log > p->own.max_fd, "bcr's own descriptors");
	done(p, m);
}

/* --- the tree --- */

static void early_children(void)
{
	struct model *m = one_task();

	/* 101 has made a session of its own after it made 102, and before it made 103. */
	add_task(m, 101, 100, 101, 101);
	add_task(m, 102, 101, 100, 100);
	add_task(m, 103, 101, 101, 101);
	struct restore_plan *p = plan_of(m);

	EXPECT(p->tasks.v[1].birth.parent == 0 && p->tasks.v[2].birth.parent == 1 && p->tasks.v[3].birth.parent == 1, "parents");
	EXPECT(p->tasks.v[2].birth.early && !p->tasks.v[3].birth.early && !p->tasks.v[1].birth.early, "who is early");
	EXPECT(p->tasks.v[1].birth.sid == 100, "101 is born in session %d", p->tasks.v[1].birth.sid);
	done(p, m);
}

/* Numbers of leaders that have exited are planned like tasks that do nothing. */
static void helpers_follow_tasks(void)
{
	struct model *m = one_task();

	add_task(m, 101, 100, 66, 100);
	add_task(m, 102, 100, 55, 55);
	struct restore_plan *p = plan_of(m);

	EXPECT(p->tasks.nr == 5 && p->nr_helpers == 2 && p->waits_for_all, "%zu tasks, %zu helpers", p->tasks.nr, p->nr_helpers);
	EXPECT(p->tasks.v[3].is_helper && p->tasks.v[3].task->pid == 66 && p->tasks.v[3].birth.maker == 1, "66");
	EXPECT(p->tasks.v[4].is_helper && p->tasks.v[4].task->pid == 55 && p->tasks.v[4].birth.parent == 0, "55");
	EXPECT(p->tasks.v[2].birth.maker == 4 && p->max_id == 102, "102 is made by %zu", p->tasks.v[2].birth.maker);
	done(p, m);
}

/* Whoever shares a table of descriptors keeps its executable under a number of its own there. */
static void shared_tables(void)
{
	struct model *m = one_task();

	add_task(m, 101, 100, 100, 100)->files_id = m->tasks.v[0].files_id;
	add_task(m, 102, 100, 100, 100)->files_id = m->tasks.v[0].files_id;
	struct restore_plan *p = plan_of(m);
	const struct task_plan *t = p->tasks.v;

	EXPECT(!t[0].birth.with_files && t[1].birth.with_files && t[2].birth.with_files && p->waits_for_all, "who shares");
	EXPECT(t[0].fd_exe < t[1].fd_exe && t[1].fd_exe < t[2].fd_exe && t[2].fd_exe < p->fd_files, "%d, %d, %d", t[0].fd_exe,
	       t[1].fd_exe, t[2].fd_exe);
	done(p, m);
}

static size_t find_code(const struct thread_plan *th, uint32_t code)
{
	size_t i = 0;

	while (i < th->ops.nr && th->ops.v[i].op.code != code)
		i++;
	return i;
}

/* Memory is made by the first who has it, while the others wait in areas of their own. */
static void shared_memory(void)
{
	struct model *m = one_task();

	for (pid_t pid = 101; pid < 103; pid++) {
		struct task *t = add_task(m, pid, 100, 100, 100);

		t->mm_id = m->tasks.v[0].mm_id;
		if (pid == 102)
			t->sighand_id = m->tasks.v[0].sighand_id;
	}
	add_task(m, 103, 102, 100, 100);
	struct restore_plan *p = plan_of(m);
	const struct task_plan *t = p->tasks.v;
	const struct thread_plan *first = t[0].threads.v, *second = t[1].threads.v, *third = t[2].threads.v;

	EXPECT(!t[0].birth.with_vm && t[1].birth.with_vm && t[2].birth.with_vm && !t[3].birth.with_vm, "who shares");
	EXPECT(t[0].nr_sharers == 2 && !t[1].mm_first && !t[2].mm_first && t[3].mm_first == 3, "with whom");
	EXPECT(t[0].area_at == p->area && t[3].area_at == p->area, "the first area is elsewhere");
	EXPECT(t[1].area_at >= t[0].area_at + t[0].area_bytes && t[2].area_at >= t[1].area_at + t[1].area_bytes, "areas overlap");
	EXPECT(t[2].area_at + t[2].area_bytes <= p->park, "areas do not fit");
	EXPECT(first->ops.v[0].op.code == RESTORER_UNTIL && first->ops.v[0].op.args[1] == 2, "the first does not wait");
	EXPECT(find_code(first, RESTORER_RAISE) > find_op(first, 0, SYS_prctl, PR_SET_MM), "memory is not complete");
	EXPECT(second->ops.v[0].op.code == RESTORER_RAISE && second->ops.v[0].op.args[0] == first->ops.v[0].op.args[0], "not heard of");
	EXPECT(second->ops.v[1].op.args[0] == first->ops.v[find_code(first, RESTORER_RAISE)].op.args[0], "waits for something else");
	EXPECT(find_op(second, 0, SYS_munmap, UINT64_MAX) == second->ops.nr, "the second unmaps");
	EXPECT(find_op(second, 0, SYS_rt_sigaction, UINT64_MAX) < second->ops.nr, "handlers of its own");
	EXPECT(find_op(third, 0, SYS_rt_sigaction, UINT64_MAX) == third->ops.nr, "handlers of the first");
	EXPECT(find_code(t[3].threads.v, RESTORER_UNTIL) == t[3].threads.v->ops.nr, "who has a copy waits");
	done(p, m);
}

static void zombies_have_no_ops(void)
{
	struct model *m = one_task();
	struct task *z = add_task(m, 101, 100, 100, 100);

	z->state = TASK_ZOMBIE;
	z->mm_id = z->files_id = z->fs_id = z->sighand_id = 0;
	struct restore_plan *p = plan_of(m);
	EXPECT(!p->tasks.v[1].mm && !p->tasks.v[1].threads.nr && p->nr_slots == 1, "a zombie has %u slots", p->nr_slots);
	done(p, m);
}

static void refusals(void)
{
	struct model *m = one_task();

	/* Born in the session of the nephew that it would have to be forked by, with an exit signal of its own. */
	add_task(m, 101, 100, 100, 100);
	add_task(m, 102, 101, 102, 102);
	add_task(m, 103, 100, 102, 102)->exit_signal = SIGUSR1;
	expect_refusal(m, "pid 103: its session 102 cannot be made again below its parent 100");

	m = one_task();
	add_task(m, 101, 100, 100, 100);
	add_task(m, 102, 101, 100, 100)->mm_id = m->tasks.v[0].mm_id;
	expect_refusal(m, "pid 102: shares its memory");

	m = one_task();
	add_task(m, 101, 77, 100, 100);
	expect_refusal(m, "its parent 77 is not in the tree");

	m = one_task();
	m->tasks.v[0].state = TASK_ZOMBIE;
	expect_refusal(m, "pid 100: the root of the tree has ended");

	m = one_task();
	m->tasks.v[0].threads.v[0].creds.cap_prm = 1ULL << 62;
	expect_refusal(m, "capabilities that bcr does not have");

	m = one_task();
	m->tasks.v[0].threads.v[0].creds.cap_bnd = 1ULL << 62;
	expect_refusal(m, "not in bcr's bounding set (0x4000000000000000)");

	m = one_task();
	add_vma(mm_of(m, 0), 0x210000000000, 1, PROT_READ | PROT_EXEC)->status |= VMA_VDSO;
	expect_refusal(m, "vDSO");
}

static void add_kin(struct model *m, size_t task, taddr_t start, uint64_t pages, pid_t pid)
{
	struct kin_run run = { .start = start, .nr_pages = pages, .pid = pid };

	if (VEC_PUSH(&mm_of(m, task)->kin, run))
		abort();
}

static void expect_late(const struct restore_plan *p, size_t task, size_t i, taddr_t start, uint64_t pages, size_t source,
			size_t first, size_t last)
{
	const late_ranges *late = &p->tasks.v[task].late;

	if (i >= late->nr) {
		EXPECT(false, "task %zu has %zu late ranges", task, late->nr);
		return;
	}
	const struct late_range *l = &late->v[i];
	EXPECT(l->start == start && l->end == start + pages * PAGE, "%zu.%zu: %llx-%llx", task, i, (unsigned long long)l->start,
	       (unsigned long long)l->end);
	EXPECT(l->source == (source == SIZE_MAX ? NULL : p->tasks.v[source].mm), "%zu.%zu: whose", task, i);
	EXPECT(l->first == plan_fork_order(p, first) && l->last == plan_fork_order(p, last), "%zu.%zu: for whom", task, i);
}

/* 100 has the children 101, 102 and 104; 103 is a child of 102. */
static void relatives_share(void)
{
	const taddr_t at = 0x200000000000;
	struct model *m = one_task();

	add_task(m, 101, 100, 100, 100);
	add_task(m, 102, 100, 100, 100);
	add_task(m, 103, 102, 100, 100);
	add_task(m, 104, 100, 100, 100);
	add_kin(m, 2, at, 2, 101);             /* sisters */
	add_kin(m, 4, at + PAGE, 2, 101);
	add_kin(m, 3, at + 3 * PAGE, 1, 100);  /* over a generation */
	add_kin(m, 3, at + 4 * PAGE, 1, 101);  /* an aunt */
	add_kin(m, 3, at + 5 * PAGE, 1, 4711); /* nobody */
	add_kin(m, 1, at + 6 * PAGE, 1, 101);  /* itself */
	add_kin(m, 0, at + 7 * PAGE, 1, 103);  /* a descendant */

	struct restore_plan *p = plan_of(m);
	EXPECT(p->tasks.v[0].late.nr == 4, "%zu", p->tasks.v[0].late.nr);
	expect_late(p, 0, 0, at, 1, 1, 1, 2);
	expect_late(p, 0, 1, at + PAGE, 1, 1, 1, 4);
	expect_late(p, 0, 2, at + 2 * PAGE, 1, 1, 1, 4);
	expect_late(p, 0, 3, at + 4 * PAGE, 1, 1, 1, 2);
	EXPECT(p->tasks.v[2].late.nr == 2, "%zu", p->tasks.v[2].late.nr);
	expect_late(p, 2, 0, at + 3 * PAGE, 1, SIZE_MAX, 3, 3);
	expect_late(p, 2, 1, at + 4 * PAGE, 1, SIZE_MAX, 3, 3);
	EXPECT(!p->tasks.v[1].late.nr && !p->tasks.v[3].late.nr && !p->tasks.v[4].late.nr, "of those without children");
	done(p, m);
}

int main(void)
{
	messages = memfd_create("messages", MFD_CLOEXEC);
	if (messages < 0)
		return 1;
	log_set_err_fd(messages);
	hole_is_free();
	own_memory_is_avoided();
	unmaps_cover_the_rest();
	neighbours_stay_apart();
	families_agree();
	order_of_ops();
	groups_are_there_once();
	rare_attributes();
	area_is_consistent();
	numbers_are_above_all();
	early_children();
	helpers_follow_tasks();
	shared_tables();
	shared_memory();
	zombies_have_no_ops();
	relatives_share();
	refusals();
	return failures ? 1 : 0;
}
