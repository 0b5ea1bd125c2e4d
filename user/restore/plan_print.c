/* The plan as text, for a person: `bcr show --plan`. */
#include <inttypes.h>
#include <string.h>

#include "restore/plan.h"

static const struct {
	const char *name;
	uint32_t nr;
} syscalls[] = {
#include "syscalls.h"
};

static const char *syscall_name(uint32_t nr)
{
	for (size_t i = 0; i < sizeof(syscalls) / sizeof(syscalls[0]); i++) {
		if (syscalls[i].nr == nr)
			return syscalls[i].name;
	}
	return "?";
}

static void print_op(const struct plan_op *op, size_t i, FILE *out)
{
	size_t nr = 6;

	if (op->op.code == RESTORER_CLONE) {
		fprintf(out, "    %4zu  %-32s number %" PRIu64 "\n", i, op->what, (uint64_t)op->op.args[0]);
		return;
	}
	if (op->op.code == RESTORER_AWAIT || op->op.code == RESTORER_MEET || op->op.code == RESTORER_RAISE ||
	    op->op.code == RESTORER_UNTIL) {
		fprintf(out, "    %4zu  %s\n", i, op->what);
		return;
	}
	if (op->op.code == RESTORER_DATE) {
		fprintf(out, "    %4zu  %-32s clock %d, %" PRId64 " ns from then, to %#" PRIx64 "\n", i, op->what, (int)op->op.args[0],
			(int64_t)op->op.args[1], (uint64_t)op->op.args[2]);
		return;
	}
	while (nr && !op->op.args[nr - 1])
		nr--;
	fprintf(out, "    %4zu  %-32s %s(", i, op->what, syscall_name(op->op.nr));
	for (size_t k = 0; k < nr; k++) {
		uint64_t arg = op->op.args[k];

		fprintf(out, arg < 4096 ? "%s%" PRIu64 : "%s%#" PRIx64, k ? ", " : "", arg);
	}
	fputs(")\n", out);
}

static void print_task(const struct restore_plan *p, const struct task_plan *tp, FILE *out)
{
	const struct tree_birth *birth = &tp->birth;
	const struct task *t = tp->task;
	const char *comm = t->threads.nr ? t->threads.v[0].comm : "";

	if (tp->is_helper) {
		fprintf(out, "pid %d: lends its number to a %s whose leader has exited, and ends\n", t->pid,
			t->pid == t->sid ? "session" : "process group");
		return;
	}
	fprintf(out, "pid %d (%.*s): child of %d, group %d, session %d", t->pid, MODEL_COMM_LEN, comm, t->ppid, t->pgid, t->sid);
	if (birth->maker != birth->parent && birth->maker != TREE_OUTSIDE)
		fprintf(out, ", made by %d", p->tasks.v[birth->maker].task->pid);
	if (birth->with_vm)
		fprintf(out, ", in the memory of %d", p->tasks.v[tp->mm_first].task->pid);
	fputs(birth->early ? ", made before its maker leaves that session\n" : "\n", out);
	if (!tp->mm) {
		fprintf(out, "  ends again at once, wait status %#x\n", t->exit_code);
		return;
	}
	VEC_FOREACH(vma, &tp->mm->vmas) {
		taddr_t at = plan_vma_at(p, vma);

		if (at != vma->start && !(vma->status & (VMA_VDSO | VMA_VVAR)))
			fprintf(out, "  mapping %" PRIx64 "-%" PRIx64 " is filled at %" PRIx64 " and moved\n", vma->start,
				vma->end, at);
	}
	VEC_FOREACH(th, &tp->threads) {
		fprintf(out, "  thread %d: %zu operations\n", th->thread->tid, th->ops.nr);
		for (size_t i = 0; i < th->ops.nr; i++)
			print_op(&th->ops.v[i], i, out);
	}
}

void restore_plan_print(const struct restore_plan *p, FILE *out)
{
	fprintf(out, "%zu processes, %u threads; bcr works between %" PRIx64 " and %" PRIx64 "\n", p->m->tasks.nr, p->nr_slots,
		p->hole.start, p->hole.end);
	VEC_FOREACH(tp, &p->tasks)
		print_task(p, tp, out);
}
