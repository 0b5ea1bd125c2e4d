/* Attributes that few programs have ↔ bcr-threads-N.bcr: I/O priority, what prctl(2) sets, core dump filter. */
#include <linux/ioprio.h>
#include <linux/prctl.h>

#include "base/log.h"
#include "image/parts.h"
#include "sys/uapi.h"

enum { COREDUMP_FILTER_MASK = 0x1ff };

void save_thread_attrs(const struct thread *th, BcrThreadEntry *e)
{
	e->has_ioprio = th->ioprio != 0;
	e->ioprio = th->ioprio;
	e->has_mce_kill = th->mce_kill != 0;
	e->mce_kill = th->mce_kill ? th->mce_kill - 1 : 0;
	e->has_tsc = th->tsc != 0;
	e->tsc = th->tsc;
	e->has_spec_store_bypass = th->spec_store_bypass != 0;
	e->spec_store_bypass = th->spec_store_bypass;
	e->has_spec_indirect_branch = th->spec_indirect_branch != 0;
	e->spec_indirect_branch = th->spec_indirect_branch;
	e->has_io_flusher = th->io_flusher;
	e->io_flusher = th->io_flusher;
}

static bool is_speculation(uint32_t value)
{
	return !value || value == PR_SPEC_DISABLE || value == PR_SPEC_FORCE_DISABLE || value == PR_SPEC_DISABLE_NOEXEC;
}

int load_thread_attrs(const struct image_reader *r, const BcrThreadEntry *e, struct thread *th)
{
	if (e->ioprio > UINT16_MAX || IOPRIO_PRIO_CLASS(e->ioprio) > IOPRIO_CLASS_IDLE)
		return bad_image(r, "thread %u: I/O priority %#x", e->tid, e->ioprio);
	if (e->mce_kill != PR_MCE_KILL_EARLY && e->mce_kill != PR_MCE_KILL_LATE)
		return bad_image(r, "thread %u: mce_kill %u", e->tid, e->mce_kill);
	if (e->tsc && e->tsc != PR_TSC_SIGSEGV)
		return bad_image(r, "thread %u: tsc %u", e->tid, e->tsc);
	if (!is_speculation(e->spec_store_bypass) || !is_speculation(e->spec_indirect_branch))
		return bad_image(r, "thread %u: speculation control %u, %u", e->tid, e->spec_store_bypass,
				 e->spec_indirect_branch);
	th->ioprio = e->ioprio;
	th->mce_kill = e->has_mce_kill ? 1 + e->mce_kill : 0;
	th->tsc = e->tsc;
	th->spec_store_bypass = e->spec_store_bypass;
	th->spec_indirect_branch = e->spec_indirect_branch;
	th->io_flusher = e->io_flusher;
	return 0;
}

void save_process_attrs(const struct task *t, const struct mm *mm, BcrTaskEntry *e)
{
	e->has_autogroup_nice = t->autogroup_nice != 0;
	e->autogroup_nice = t->autogroup_nice;
	if (!mm)
		return;
	e->has_coredump_filter = mm->coredump_filter != MM_DUMP_FILTER_UNKNOWN;
	e->coredump_filter = mm->coredump_filter;
	e->has_mdwe = mm->mdwe != 0;
	e->mdwe = mm->mdwe;
	e->has_thp_disabled = mm->thp_disabled > 1;
	e->thp_disabled = mm->thp_disabled;
}

int load_task_attrs(const struct image_reader *r, const BcrTaskEntry *e, struct task *t)
{
	if (e->autogroup_nice < -20 || e->autogroup_nice > 19)
		return bad_image(r, "nice value %d of its scheduling group", e->autogroup_nice);
	t->autogroup_nice = e->autogroup_nice;
	return 0;
}

int load_mm_attrs(const struct image_reader *r, const BcrTaskEntry *e, struct mm *mm)
{
	uint32_t thp = BCR_PR_THP_DISABLE_EXCEPT_ADVISED | 1, mdwe = BCR_PR_MDWE_REFUSE_EXEC_GAIN;

	if (e->has_coredump_filter && e->coredump_filter & ~COREDUMP_FILTER_MASK)
		return bad_image(r, "coredump_filter %#x", e->coredump_filter);
	if (e->mdwe && e->mdwe != mdwe && e->mdwe != (mdwe | BCR_PR_MDWE_NO_INHERIT))
		return bad_image(r, "mdwe %u", e->mdwe);
	if (e->has_thp_disabled && e->thp_disabled != thp)
		return bad_image(r, "thp_disabled %u", e->thp_disabled);
	if (e->has_coredump_filter)
		mm->coredump_filter = e->coredump_filter;
	if (e->has_thp_disabled)
		mm->thp_disabled = e->thp_disabled;
	mm->mdwe = e->mdwe;
	return 0;
}
