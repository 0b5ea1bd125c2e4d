/* The BPF back end: attributes that few programs have, out of flags of the kernel's own. */
#include <linux/prctl.h>
#include <stdio.h>

#include "observe/bpf.h"
#include "sys/task_flags.h"
#include "sys/uapi.h"

/* Bits of task_struct::atomic_flags (include/linux/sched.h). */
enum {
	KPFA_SPEC_SSB_DISABLE = 1 << 3,
	KPFA_SPEC_SSB_FORCE_DISABLE = 1 << 4,
	KPFA_SPEC_IB_DISABLE = 1 << 5,
	KPFA_SPEC_IB_FORCE_DISABLE = 1 << 6,
	KPFA_SPEC_SSB_NOEXEC = 1 << 7,
};

/* Pairs of a state and the one that it is in when it is ready, by registration (include/linux/sched/mm.h). */
static const struct {
	uint32_t states, command;
} registrations[] = {
	{ 3 << 2, 1 << 2 }, /* GLOBAL_EXPEDITED */
	{ 3 << 0, 1 << 4 }, /* PRIVATE_EXPEDITED */
	{ 3 << 4, 1 << 6 }, /* PRIVATE_EXPEDITED_SYNC_CORE */
	{ 3 << 6, 1 << 8 }, /* PRIVATE_EXPEDITED_RSEQ */
};

enum { MM_DUMP_FILTER_SHIFT = 2, MM_DUMP_FILTER_MASK = 0x1ff };

static uint8_t store_bypass(uint64_t flags)
{
	return flags & KPFA_SPEC_SSB_FORCE_DISABLE ? PR_SPEC_FORCE_DISABLE :
	       flags & KPFA_SPEC_SSB_NOEXEC	   ? PR_SPEC_DISABLE_NOEXEC :
	       flags & KPFA_SPEC_SSB_DISABLE	   ? PR_SPEC_DISABLE :
						     0;
}

static uint8_t indirect_branch(uint64_t flags)
{
	return flags & KPFA_SPEC_IB_FORCE_DISABLE ? PR_SPEC_FORCE_DISABLE :
	       flags & KPFA_SPEC_IB_DISABLE	  ? PR_SPEC_DISABLE :
						    0;
}

static const char *obstacle(const struct bpf_state *s, const struct thread_record *t)
{
	int landlock = s->learned.landlock;

	/* What bcr is in itself, whatever it restores will be in, too. */
	if (landlock >= 0 && t->lsm[landlock] && t->lsm[landlock] != s->learned.lsm[landlock])
		return "is in a Landlock sandbox";
	if (t->core_cookie)
		return "is in a core scheduling group (prctl(PR_SCHED_CORE))";
	if (t->process_keyring || t->thread_keyring)
		return "has a keyring of its own (keyctl(2), KEY_SPEC_PROCESS_KEYRING or _THREAD_)";
	return NULL;
}

void bpf_build_thread_attrs(const struct bpf_state *s, struct task_idents *id, struct thread *th, const struct thread_record *t)
{
	const char *why = t->exit_state ? NULL : obstacle(s, t);

	th->ioprio = t->ioprio;
	th->mce_kill = task_flags_mce_kill(t->task_flags);
	th->io_flusher = task_flags_io_flusher(t->task_flags);
	th->tsc = t->ti_flags & s->learned.no_tsc ? PR_TSC_SIGSEGV : 0;
	th->spec_store_bypass = store_bypass(t->atomic_flags);
	th->spec_indirect_branch = indirect_branch(t->atomic_flags);
	if (why && !id->refusal[0])
		snprintf(id->refusal, sizeof(id->refusal), "its thread %u %s, which is not supported", t->tid, why);
	if (!t->exit_state && t->session_keyring && t->session_keyring != s->learned.session_keyring)
		id->session_keyring = true;
}

void bpf_build_process_attrs(const struct bpf_state *s, struct task *task, struct mm *mm, const struct task_record *rec)
{
	const struct bpf_learned *l = &s->learned;
	uint64_t flags = rec->mm_flags;

	task->autogroup_nice = rec->autogroup_nice;
	for (size_t i = 0; i < sizeof(registrations) / sizeof(registrations[0]); i++)
		if (rec->membarrier_state & registrations[i].states)
			task->membarrier |= registrations[i].command;
	if (!rec->mm)
		return;
	mm->thp_disabled = flags & l->thp_except ? BCR_PR_THP_DISABLE_EXCEPT_ADVISED | 1 : (flags & l->thp) != 0;
	if (flags & l->mdwe)
		mm->mdwe = BCR_PR_MDWE_REFUSE_EXEC_GAIN | (flags & l->mdwe_no_inherit ? BCR_PR_MDWE_NO_INHERIT : 0);
	mm->merge_all = flags & l->memory_merge;
	mm->coredump_filter = flags >> MM_DUMP_FILTER_SHIFT & MM_DUMP_FILTER_MASK;
}
