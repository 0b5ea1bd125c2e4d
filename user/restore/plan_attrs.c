/*
 * The part of the plan that is neither memory nor signals nor timers: limits, scheduling, credentials, and what prctl(2)
 * sets. Pure, like all of it.
 *
 * What needs privileges comes before the credentials, which take them away.
 */
#include <inttypes.h>
#include <linux/capability.h>
#include <linux/ioprio.h>
#include <linux/prctl.h>
#include <linux/securebits.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "base/log.h"
#include "restore/plan_builder.h"
#include "sys/uapi.h"

enum {
	SECBITS_FREE = SECBIT_KEEP_CAPS | SECBIT_NO_SETUID_FIXUP, /* ids change, capabilities stay */
	NR_CAPS = 64,
};

/* --- of the process --- */

void plan_mm_attrs(struct builder *b, const struct mm *mm)
{
	if (mm->thp_disabled)
		CALL(b, "no huge pages", SYS_prctl, PR_SET_THP_DISABLE, 1, mm->thp_disabled & ~1);
	if (mm->merge_all != b->p->own.memory_merge)
		CALL(b, "merge equal pages", SYS_prctl, BCR_PR_SET_MEMORY_MERGE, mm->merge_all);
	/* Nothing becomes executable any more. */
	if (mm->mdwe)
		CALL(b, "memory is not writable and executable", SYS_prctl, BCR_PR_SET_MDWE, mm->mdwe);
}

void plan_process_attrs(struct builder *b, const struct task *t)
{
	for (uint32_t command = 1; command <= BCR_MEMBARRIER_REGISTRATIONS; command <<= 1)
		if (t->membarrier & command)
			CALL(b, "register for membarrier", SYS_membarrier, command);
}

static const char *const limit_names[MODEL_NR_RLIMITS] = {
	"CPU",	   "FSIZE", "DATA",  "STACK",	   "CORE",     "RSS",  "NPROC",	 "NOFILE",
	"MEMLOCK", "AS",    "LOCKS", "SIGPENDING", "MSGQUEUE", "NICE", "RTPRIO", "RTTIME",
};

int plan_limits(struct builder *b, const struct task *t)
{
	const struct own_layout *own = &b->p->own;

	for (int i = 0; i < MODEL_NR_RLIMITS; i++) {
		const struct rlimit_raw *want = &t->rlimits[i];
		const struct rlimit *now = &own->limits[i];

		/* Unchanged ones need no privilege. bcr has raised its own limit of files. */
		if (now->rlim_max == want->max && i != RLIMIT_NOFILE && i != RLIMIT_SIGPENDING && now->rlim_cur == want->cur)
			continue;
		if (want->max > now->rlim_max && !(own->cap_permitted >> CAP_SYS_RESOURCE & 1))
			return fail(0, "pid %d: its hard limit RLIMIT_%s (%" PRIu64 ") is above that of bcr (%" PRIu64
				       "), which may not raise it; give bcr CAP_SYS_RESOURCE or a higher limit",
				    t->pid, limit_names[i], want->max, (uint64_t)now->rlim_max);
		/* Not yet: a program may have lowered it below what was pending by then. */
		if (i == RLIMIT_SIGPENDING)
			plan_room_for_signals(b);
		else
			CALL(b, "resource limit", SYS_prlimit64, 0, i, put(b, want, sizeof(*want), 8), 0);
	}
	return 0;
}

/* --- of each thread --- */

void plan_sched(struct builder *b, const struct thread *th)
{
	struct sched_param param = { .sched_priority = th->sched_priority };
	int policy = th->sched_policy & ~SCHED_RESET_ON_FORK;
	bool has_affinity = false;

	if (policy != SCHED_FIFO && policy != SCHED_RR)
		param.sched_priority = 0;
	CALL(b, "nice value", SYS_setpriority, PRIO_PROCESS, 0, (uint64_t)(int64_t)th->nice);
	CALL(b, "scheduling policy", SYS_sched_setscheduler, 0, th->sched_policy, put(b, &param, sizeof(param), 8));
	for (size_t i = 0; i < sizeof(th->affinity); i++)
		has_affinity |= th->affinity[i];
	/* Processors that are not there any more are no reason to fail. */
	if (has_affinity)
		CALL_ANY(b, "affinity", SYS_sched_setaffinity, 0, sizeof(th->affinity),
			 put(b, th->affinity, sizeof(th->affinity), 8));
	if (th->timer_slack_ns)
		CALL(b, "timer slack", SYS_prctl, PR_SET_TIMERSLACK, th->timer_slack_ns);
}

void plan_thread_attrs(struct builder *b, const struct thread *th)
{
	const struct own_layout *own = &b->p->own;

	if (th->ioprio != own->ioprio)
		CALL(b, "I/O priority", SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, th->ioprio);
	if (th->io_flusher)
		CALL(b, "I/O flusher", SYS_prctl, PR_SET_IO_FLUSHER, 1);
	if (th->mce_kill)
		CALL(b, "policy for memory errors", SYS_prctl, PR_MCE_KILL, PR_MCE_KILL_SET, th->mce_kill - 1);
	else if (own->mce_kill)
		CALL(b, "policy for memory errors", SYS_prctl, PR_MCE_KILL, PR_MCE_KILL_CLEAR);
	if (th->spec_store_bypass)
		CALL(b, "speculative store bypass", SYS_prctl, PR_SET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS,
		     th->spec_store_bypass);
	if (th->spec_indirect_branch)
		CALL(b, "indirect branch speculation", SYS_prctl, PR_SET_SPECULATION_CTRL, PR_SPEC_INDIRECT_BRANCH,
		     th->spec_indirect_branch);
	if (th->tsc)
		CALL(b, "time stamp counter", SYS_prctl, PR_SET_TSC, th->tsc);
}

/* --- credentials, last --- */

static void plan_capset(struct builder *b, const char *what, uint64_t eff, uint64_t prm, uint64_t inh)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = {
		{ .effective = eff, .permitted = prm, .inheritable = inh },
		{ .effective = eff >> 32, .permitted = prm >> 32, .inheritable = inh >> 32 },
	};

	CALL(b, what, SYS_capset, put(b, &head, sizeof(head), 8), put(b, data, sizeof(data), 8));
}

static int check_creds(const struct builder *b, const struct thread *th)
{
	const struct own_layout *own = &b->p->own;
	const struct creds *c = &th->creds;
	uint64_t missing = c->cap_prm & ~own->cap_permitted, unbound = (c->cap_bnd | c->cap_inh) & ~own->cap_bounding;
	pid_t pid = b->tp->task->pid;

	if (missing)
		return fail(0, "pid %d thread %d: it had capabilities that bcr does not have (%#" PRIx64 "); run bcr with them", pid,
			    th->tid, missing);
	if (unbound)
		return fail(0, "pid %d thread %d: capabilities in its bounding or inheritable set are not in bcr's bounding set (%#" PRIx64
			       "); run bcr where they are",
			    pid, th->tid, unbound);
	if (own->no_new_privs && !c->no_new_privs)
		return fail(0, "pid %d thread %d: bcr itself may gain no new privileges (PR_SET_NO_NEW_PRIVS), and nor could what it "
			       "restores; run it without",
			    pid, th->tid);
	return 0;
}

/* Thousands of them are possible, and threads mostly have those of their leader: in the area once. */
static void plan_groups(struct builder *b, const struct thread *th)
{
	const struct thread *leader = b->tp->threads.v[0].thread;
	taddr_t at = b->groups_at;

	if (th == leader || !plan_same_groups(th, leader))
		at = put(b, th->creds.groups.v, th->creds.groups.nr * sizeof(uint32_t), 8);
	if (th == leader)
		b->groups_at = at;
	CALL(b, "supplementary groups", SYS_setgroups, th->creds.groups.nr, th->creds.groups.nr ? at : 0);
}

/*
 * Ids first, with securebits that keep the capabilities; then sets from the widest to the narrowest, since each step
 * needs what the next one may take away.
 */
int plan_creds(struct builder *b, const struct thread *th)
{
	const struct creds *c = &th->creds;
	uint64_t own = b->p->own.cap_permitted;
	int err = check_creds(b, th);

	if (err)
		return err;
	CALL(b, "keep capabilities", SYS_prctl, PR_SET_SECUREBITS, SECBITS_FREE);
	CALL(b, "no ambient capabilities", SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL);
	plan_groups(b, th);
	/* The kernel takes away "dumpable" when ids change: where it was 2, only the system's setting gives it that again. */
	if (b->tp->mm->dumpable == DUMPABLE_BY_ROOT)
		CALL_ANY(b, "another file system user id", SYS_setfsuid, c->fsuid == 1 ? 2 : 1);
	CALL(b, "group ids", SYS_setresgid, c->gid, c->egid, c->sgid);
	CALL(b, "user ids", SYS_setresuid, c->uid, c->euid, c->suid);
	CALL_ANY(b, "file system group id", SYS_setfsgid, c->fsgid);
	CALL_ANY(b, "file system user id", SYS_setfsuid, c->fsuid);
	plan_capset(b, "all own capabilities", own, own, c->cap_inh);
	for (int cap = 0; cap < NR_CAPS; cap++) {
		if (b->p->own.cap_bounding >> cap & 1 && !(c->cap_bnd >> cap & 1))
			CALL(b, "capability bounding set", SYS_prctl, PR_CAPBSET_DROP, cap);
		if (c->cap_amb >> cap & 1)
			CALL(b, "ambient capability", SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap);
	}
	CALL(b, "securebits", SYS_prctl, PR_SET_SECUREBITS, c->securebits);
	plan_capset(b, "capabilities", c->cap_eff, c->cap_prm, c->cap_inh);
	if (c->no_new_privs)
		CALL(b, "no new privileges", SYS_prctl, PR_SET_NO_NEW_PRIVS, 1);
	return 0;
}
