/* A process and its threads ↔ core-N.img (CRIU's) and bcr-threads-N.bcr (what CRIU has no field for). */
#include <signal.h>
#include <sched.h>
#include <string.h>

#include "base/log.h"
#include "image/magic.h"
#include "image/parts.h"
#include "images/core.pb-c.h"
#include "sys/label.h"
#include "sys/uapi.h"

enum {
	NR_SIGACTIONS = MODEL_NSIG - 2, /* SIGKILL and SIGSTOP have none */
	NR_GROUPS_MAX = 65536,
	NR_TIMERS_MAX = 65536,
	NR_PENDING_MAX = 1 << 20,
	USEC = 1000000, NSEC = 1000000000,
	FLAT_STATE_DEAD = 2, /* how CRIU writes a zombie */
};

static bool has_no_sigaction(int signo)
{
	return signo == SIGKILL || signo == SIGSTOP;
}

/* --- model → message; everything allocated lives in the arena, NULL or -ENOMEM when there is no memory --- */

#define NEW(a, type, init)                                                                         \
	({                                                                                         \
		type *msg_ = arena_alloc((a), sizeof(type));                                       \
		if (msg_)                                                                          \
			init(msg_);                                                                \
		msg_;                                                                              \
	})

#define NEW_ARRAY(a, ptr, nr) ((ptr) = arena_alloc((a), (nr) * sizeof(*(ptr))))

static SignalQueueEntry *save_queue(struct arena *a, const struct siginfo_raw *v, size_t nr)
{
	SignalQueueEntry *q = NEW(a, SignalQueueEntry, signal_queue_entry__init);

	if (!q || !NEW_ARRAY(a, q->signals, nr))
		return NULL;
	for (size_t i = 0; i < nr; i++) {
		SiginfoEntry *e = NEW(a, SiginfoEntry, siginfo_entry__init);

		if (!e)
			return NULL;
		e->siginfo.len = sizeof(v[i].bytes);
		e->siginfo.data = (uint8_t *)v[i].bytes;
		q->signals[q->n_signals++] = e;
	}
	return q;
}

static ItimerEntry *save_itimer(struct arena *a, const struct itimer *t)
{
	ItimerEntry *e = NEW(a, ItimerEntry, itimer_entry__init);

	if (!e)
		return NULL;
	e->isec = t->interval_us / USEC;
	e->iusec = t->interval_us % USEC;
	e->vsec = t->value_us / USEC;
	e->vusec = t->value_us % USEC;
	return e;
}

static PosixTimerEntry *save_posix_timer(struct arena *a, const struct posix_timer *t)
{
	PosixTimerEntry *e = NEW(a, PosixTimerEntry, posix_timer_entry__init);

	if (!e)
		return NULL;
	e->it_id = t->id;
	e->clock_id = t->clockid;
	e->si_signo = t->signo;
	e->it_sigev_notify = t->notify;
	e->sival_ptr = t->sigval;
	e->overrun = t->overrun;
	e->isec = t->interval_ns / NSEC;
	e->insec = t->interval_ns % NSEC;
	e->vsec = t->value_ns / NSEC;
	e->vnsec = t->value_ns % NSEC;
	e->has_notify_thread_id = t->notify_tid != 0;
	e->notify_thread_id = t->notify_tid;
	return e;
}

static TaskTimersEntry *save_timers(struct arena *a, const struct task *t)
{
	TaskTimersEntry *e = NEW(a, TaskTimersEntry, task_timers_entry__init);

	if (!e || !NEW_ARRAY(a, e->posix, t->timers.nr))
		return NULL;
	e->real = save_itimer(a, &t->itimers[0]);
	e->virt = save_itimer(a, &t->itimers[1]);
	e->prof = save_itimer(a, &t->itimers[2]);
	if (!e->real || !e->virt || !e->prof)
		return NULL;
	VEC_FOREACH(timer, &t->timers) {
		e->posix[e->n_posix] = save_posix_timer(a, timer);
		if (!e->posix[e->n_posix++])
			return NULL;
	}
	return e;
}

static TaskRlimitsEntry *save_rlimits(struct arena *a, const struct task *t)
{
	TaskRlimitsEntry *e = NEW(a, TaskRlimitsEntry, task_rlimits_entry__init);

	if (!e || !NEW_ARRAY(a, e->rlimits, MODEL_NR_RLIMITS))
		return NULL;
	for (int i = 0; i < MODEL_NR_RLIMITS; i++) {
		RlimitEntry *limit = NEW(a, RlimitEntry, rlimit_entry__init);

		if (!limit)
			return NULL;
		limit->cur = t->rlimits[i].cur;
		limit->max = t->rlimits[i].max;
		e->rlimits[e->n_rlimits++] = limit;
	}
	return e;
}

static int save_sigactions(struct arena *a, const struct task *t, TaskCoreEntry *tc)
{
	if (!NEW_ARRAY(a, tc->sigactions, NR_SIGACTIONS))
		return -ENOMEM;
	for (int signo = 1; signo <= MODEL_NSIG; signo++) {
		const struct sigaction_raw *sa = &t->sigactions[signo - 1];

		if (has_no_sigaction(signo))
			continue;

		SaEntry *e = NEW(a, SaEntry, sa_entry__init);

		if (!e)
			return -ENOMEM;
		e->sigaction = sa->handler;
		e->flags = sa->flags;
		e->restorer = sa->restorer;
		e->mask = sa->mask;
		tc->sigactions[tc->n_sigactions++] = e;
	}
	return 0;
}

static char *save_comm(struct arena *a, const char *comm)
{
	char *s = arena_alloc(a, MODEL_COMM_LEN);

	if (s)
		memcpy(s, comm, MODEL_COMM_LEN - 1);
	return s;
}

static TaskCoreEntry *save_task(struct arena *a, const struct task *t)
{
	const struct thread *leader = &t->threads.v[0];
	TaskCoreEntry *tc = NEW(a, TaskCoreEntry, task_core_entry__init);

	if (!tc)
		return NULL;
	tc->task_state = t->state;
	tc->exit_code = t->exit_code;
	tc->personality = t->personality;
	tc->blk_sigset = leader->sigmask;
	tc->comm = save_comm(a, leader->comm);
	if (!tc->comm)
		return NULL;
	if (t->state == TASK_ZOMBIE || t->state == TASK_DEAD) {
		tc->task_state = FLAT_STATE_DEAD;
		return tc;
	}
	tc->timers = save_timers(a, t);
	tc->rlimits = save_rlimits(a, t);
	tc->signals_s = save_queue(a, t->pending.v, t->pending.nr);
	tc->has_loginuid = true;
	tc->loginuid = t->loginuid;
	tc->has_oom_score_adj = true;
	tc->oom_score_adj = t->oom_score_adj;
	tc->has_child_subreaper = true;
	tc->child_subreaper = t->child_subreaper;
	tc->has_stop_signo = t->state == TASK_STOPPED;
	tc->stop_signo = t->stop_signal;
	tc->has_membarrier_registration_mask = t->membarrier != 0;
	tc->membarrier_registration_mask = t->membarrier;
	if (!tc->timers || !tc->rlimits || !tc->signals_s || save_sigactions(a, t, tc))
		return NULL;
	return tc;
}

static uint32_t *save_cap(struct arena *a, uint64_t cap, size_t *nr)
{
	uint32_t *words = arena_alloc(a, 2 * sizeof(*words));

	if (words) {
		words[0] = cap;
		words[1] = cap >> 32;
		*nr = 2;
	}
	return words;
}

static CredsEntry *save_creds(struct arena *a, const struct creds *c)
{
	CredsEntry *e = NEW(a, CredsEntry, creds_entry__init);

	if (!e)
		return NULL;
	e->uid = c->uid;
	e->gid = c->gid;
	e->euid = c->euid;
	e->egid = c->egid;
	e->suid = c->suid;
	e->sgid = c->sgid;
	e->fsuid = c->fsuid;
	e->fsgid = c->fsgid;
	e->secbits = c->securebits;
	e->has_no_new_privs = true;
	e->no_new_privs = c->no_new_privs;
	e->cap_inh = save_cap(a, c->cap_inh, &e->n_cap_inh);
	e->cap_prm = save_cap(a, c->cap_prm, &e->n_cap_prm);
	e->cap_eff = save_cap(a, c->cap_eff, &e->n_cap_eff);
	e->cap_bnd = save_cap(a, c->cap_bnd, &e->n_cap_bnd);
	e->cap_amb = save_cap(a, c->cap_amb, &e->n_cap_amb);
	e->groups = c->groups.v;
	e->n_groups = c->groups.nr;
	return e->cap_inh && e->cap_prm && e->cap_eff && e->cap_bnd && e->cap_amb ? e : NULL;
}

static int save_sas_rseq(struct arena *a, const struct thread *th, ThreadCoreEntry *tc)
{
	tc->sas = NEW(a, ThreadSasEntry, thread_sas_entry__init);
	if (!tc->sas)
		return -ENOMEM;
	tc->sas->ss_sp = th->altstack.sp;
	tc->sas->ss_size = th->altstack.size_bytes;
	tc->sas->ss_flags = th->altstack.flags;
	if (!th->rseq.ptr)
		return 0;
	tc->rseq_entry = NEW(a, RseqEntry, rseq_entry__init);
	if (!tc->rseq_entry)
		return -ENOMEM;
	tc->rseq_entry->rseq_abi_pointer = th->rseq.ptr;
	tc->rseq_entry->rseq_abi_size = th->rseq.len_bytes;
	tc->rseq_entry->signature = th->rseq.sig;
	return 0;
}

static ThreadCoreEntry *save_thread(struct arena *a, const struct thread *th)
{
	ThreadCoreEntry *tc = NEW(a, ThreadCoreEntry, thread_core_entry__init);

	if (!tc)
		return NULL;
	tc->futex_rla = th->robust_list;
	tc->futex_rla_len = th->robust_list_len;
	tc->has_sched_nice = true;
	tc->sched_nice = th->nice;
	tc->has_sched_policy = true;
	tc->sched_policy = th->sched_policy;
	tc->has_sched_prio = th->sched_priority != 0;
	tc->sched_prio = th->sched_priority;
	tc->has_blk_sigset = true;
	tc->blk_sigset = th->sigmask;
	tc->has_pdeath_sig = th->pdeath_signal != 0;
	tc->pdeath_sig = th->pdeath_signal;
	tc->has_seccomp_mode = th->seccomp_mode != 0;
	tc->seccomp_mode = th->seccomp_mode;
	tc->has_seccomp_filter = th->seccomp_filter;
	tc->seccomp_filter = th->seccomp_filter ? th->seccomp_filter - 1 : 0;
	tc->comm = save_comm(a, th->comm);
	tc->signals_p = save_queue(a, th->pending.v, th->pending.nr);
	tc->creds = save_creds(a, &th->creds);
	if (!tc->comm || !tc->signals_p || !tc->creds || save_sas_rseq(a, th, tc))
		return NULL;
	return tc;
}

static bool has_affinity(const struct thread *th)
{
	for (size_t i = 0; i < sizeof(th->affinity); i++) {
		if (th->affinity[i])
			return true;
	}
	return false;
}

static BcrThreadEntry *save_extra_thread(struct arena *a, const struct thread *th)
{
	BcrThreadEntry *e = NEW(a, BcrThreadEntry, bcr_thread_entry__init);

	if (!e)
		return NULL;
	e->tid = th->tid;
	e->timer_slack_ns = th->timer_slack_ns;
	e->rseq_flags = th->rseq.flags;
	e->has_exited = e->exited = th->exited;
	if (has_affinity(th)) {
		e->has_affinity = true;
		e->affinity.data = (uint8_t *)th->affinity;
		e->affinity.len = sizeof(th->affinity);
	}
	save_thread_attrs(th, e);
	if (th->restart.kind == RESTART_NONE)
		return e;
	e->restart = NEW(a, BcrRestartEntry, bcr_restart_entry__init);
	if (!e->restart)
		return NULL;
	e->restart->kind = th->restart.kind;
	e->restart->nr = th->restart.nr;
	e->restart->clockid = th->restart.clockid;
	e->restart->remaining_ns = th->restart.remaining_ns;
	return e;
}

/* core-TID.img; `tc` for the leader only. */
static int save_one(struct save *s, struct arena *a, const struct thread *th, TaskCoreEntry *tc,
		    BcrThreadEntry *extra)
{
	CoreEntry core = CORE_ENTRY__INIT;
	int err;

	core.thread_core = save_thread(a, th);
	if (!core.thread_core)
		return fail(-ENOMEM, "thread %d: save", th->tid);
	core.tc = tc;
	core.mtype = CORE_ENTRY__MARCH__X86_64;
	err = th->exited ? 0 : cpu_save(a, &s->xstate, th, &core, extra);
	if (err == -ENOMEM)
		return fail(err, "thread %d: save", th->tid);
	if (err)
		return err;
	return image_put(s->set, MAGIC_COMMON, MAGIC_CORE, &core.base, "core-%d.img", th->tid);
}

static int save_extra_timers(struct arena *a, const struct task *t, BcrTaskEntry *msg)
{
	if (!NEW_ARRAY(a, msg->timers, t->timers.nr))
		return -ENOMEM;
	VEC_FOREACH(timer, &t->timers) {
		if (!timer->late_ns && !timer->date_ns)
			continue;

		BcrTimerEntry *e = NEW(a, BcrTimerEntry, bcr_timer_entry__init);

		if (!e)
			return -ENOMEM;
		e->id = timer->id;
		e->has_late_ns = timer->late_ns != 0;
		e->late_ns = timer->late_ns;
		e->has_date_ns = timer->date_ns != 0;
		e->date_ns = timer->date_ns;
		msg->timers[msg->n_timers++] = e;
	}
	return 0;
}

static int save_extra(struct save *s, struct arena *a, const struct task *t, BcrTaskEntry *msg)
{
	const struct mm *mm = t->mm_id ? model_find_mm(s->m, t->mm_id) : NULL;

	msg->pid = t->pid;
	msg->exit_signal = t->exit_signal;
	msg->ctty_id = t->ctty_id;
	msg->has_stop_reported = t->state == TASK_STOPPED;
	msg->stop_reported = t->stop_reported;
	msg->has_continued = msg->continued = t->continued;
	msg->cgroup_id = t->cgroup_id;
	save_process_attrs(t, mm, msg);
	if ((mm && (save_guards(a, mm, msg) || save_memory_extra(a, mm, msg))) || save_extra_timers(a, t, msg))
		return fail(-ENOMEM, "pid %d: save", t->pid);
	return image_put(s->set, MAGIC_COMMON, MAGIC_BCR_THREADS, &msg->base, "bcr-threads-%d.bcr", t->pid);
}

static int save_zombie(struct save *s, struct arena *a, const struct task *t, TaskCoreEntry *tc)
{
	CoreEntry core = CORE_ENTRY__INIT;
	BcrTaskEntry extra = BCR_TASK_ENTRY__INIT;

	core.mtype = CORE_ENTRY__MARCH__X86_64;
	core.tc = tc;
	extra.has_zombie_uid = true;
	extra.zombie_uid = t->threads.v[0].creds.uid;

	int err = image_put(s->set, MAGIC_COMMON, MAGIC_CORE, &core.base, "core-%d.img", t->pid);

	return err ? err : save_extra(s, a, t, &extra);
}

static int save_threads(struct save *s, struct arena *a, const struct task *t, TaskCoreEntry *tc)
{
	BcrTaskEntry extra = BCR_TASK_ENTRY__INIT;

	if (!NEW_ARRAY(a, extra.threads, t->threads.nr))
		return fail(-ENOMEM, "pid %d: save", t->pid);
	VEC_FOREACH(th, &t->threads) {
		BcrThreadEntry *e = save_extra_thread(a, th);

		if (!e)
			return fail(-ENOMEM, "pid %d: save", t->pid);
		extra.threads[extra.n_threads++] = e;

		int err = save_one(s, a, th, th == t->threads.v ? tc : NULL, e);

		if (err)
			return err;
	}
	return save_extra(s, a, t, &extra);
}

int save_core(struct save *s, const struct task *t)
{
	struct arena a = {};
	int err;

	if (!t->threads.nr)
		return fail(0, "pid %d: the model has no threads of it", t->pid);

	TaskCoreEntry *tc = save_task(&a, t);

	if (!tc)
		err = fail(-ENOMEM, "pid %d: save", t->pid);
	else if (tc->task_state == FLAT_STATE_DEAD)
		err = save_zombie(s, &a, t, tc);
	else
		err = save_threads(s, &a, t, tc);
	arena_free(&a);
	return err;
}

/* --- message → model --- */

static int load_comm(const struct image_reader *r, const char *from, char *to)
{
	size_t len = strlen(from);

	if (len >= MODEL_COMM_LEN)
		return bad_image(r, "comm has %zu bytes, more than %d", len, MODEL_COMM_LEN - 1);
	memcpy(to, from, len);
	return 0;
}

#define LOAD_QUEUE(r, q, vec)                                                                      \
	({                                                                                         \
		int err_ = 0;                                                                      \
		for (size_t i_ = 0; !err_ && (q) && i_ < (q)->n_signals; i_++)                     \
			err_ = load_siginfo((r), (q)->signals[i_], i_, VEC_ADD(vec));              \
		err_;                                                                              \
	})

static int load_siginfo(const struct image_reader *r, const SiginfoEntry *e, size_t i,
			struct siginfo_raw *to)
{
	int32_t signo;

	if (!to)
		return fail(-ENOMEM, "%s/%s: read", r->path, r->name);
	if (i >= NR_PENDING_MAX)
		return bad_image(r, "more than %d pending signals", NR_PENDING_MAX);
	if (e->siginfo.len != sizeof(to->bytes))
		return bad_image(r, "pending signal %zu has %zu bytes instead of %zu", i, e->siginfo.len,
				 sizeof(to->bytes));
	memcpy(to->bytes, e->siginfo.data, sizeof(to->bytes));
	memcpy(&signo, to->bytes, sizeof(signo));
	if (signo < 1 || signo > MODEL_NSIG)
		return bad_image(r, "pending signal %zu has the number %d", i, signo);
	return 0;
}

/* seconds * unit + fraction, or a report. */
static int load_time(const struct image_reader *r, const char *what, uint64_t sec, uint64_t frac,
		     uint64_t unit, uint64_t *ret)
{
	if (frac >= unit || sec > INT64_MAX / unit - 1)
		return bad_image(r, "%s: %llu seconds and %llu are not a time", what,
				 (unsigned long long)sec, (unsigned long long)frac);
	*ret = sec * unit + frac;
	return 0;
}

static int load_itimer(const struct image_reader *r, const ItimerEntry *e, struct itimer *to)
{
	int err = load_time(r, "interval timer", e->isec, e->iusec, USEC, &to->interval_us);

	return err ? err : load_time(r, "interval timer", e->vsec, e->vusec, USEC, &to->value_us);
}

static bool has_thread(const struct task *t, pid_t tid)
{
	VEC_FOREACH(th, &t->threads) {
		if (th->tid == tid)
			return true;
	}
	return false;
}

static int load_posix_timer(const struct image_reader *r, const PosixTimerEntry *e, struct task *t)
{
	VEC_FOREACH(other, &t->timers) {
		if ((uint32_t)other->id == e->it_id)
			return bad_image(r, "two POSIX timers with id %u", e->it_id);
	}

	struct posix_timer *to = VEC_ADD(&t->timers);

	if (!to)
		return fail(-ENOMEM, "%s/%s: read", r->path, r->name);
	if (e->it_id > INT32_MAX)
		return bad_image(r, "POSIX timer id %u", e->it_id);
	/* SIGEV_SIGNAL, SIGEV_NONE, SIGEV_THREAD, SIGEV_THREAD_ID of asm-generic/siginfo.h. */
	if (e->it_sigev_notify > 2 && e->it_sigev_notify != 4)
		return bad_image(r, "POSIX timer %u: notification %u", e->it_id, e->it_sigev_notify);
	if (e->si_signo > MODEL_NSIG)
		return bad_image(r, "POSIX timer %u: signal %u", e->it_id, e->si_signo);
	if (!e->si_signo && e->it_sigev_notify != SIGEV_NONE)
		return bad_image(r, "POSIX timer %u: no signal", e->it_id);
	if (e->overrun > INT32_MAX)
		return bad_image(r, "POSIX timer %u: %u overruns", e->it_id, e->overrun);
	if (e->notify_thread_id && !has_thread(t, e->notify_thread_id))
		return bad_image(r, "POSIX timer %u: notifies thread %d, which is not one of pid %d",
				 e->it_id, e->notify_thread_id, t->pid);
	to->id = e->it_id;
	to->clockid = e->clock_id;
	to->notify = e->it_sigev_notify;
	to->signo = e->si_signo;
	to->sigval = e->sival_ptr;
	to->notify_tid = e->notify_thread_id;
	to->overrun = e->overrun;

	int err = load_time(r, "POSIX timer", e->isec, e->insec, NSEC, &to->interval_ns);

	return err ? err : load_time(r, "POSIX timer", e->vsec, e->vnsec, NSEC, &to->value_ns);
}

static int load_timers(const struct image_reader *r, const TaskTimersEntry *e, struct task *t)
{
	if (!e)
		return bad_image(r, "tc.timers is missing");

	int err = load_itimer(r, e->real, &t->itimers[0]);

	if (!err)
		err = load_itimer(r, e->virt, &t->itimers[1]);
	if (!err)
		err = load_itimer(r, e->prof, &t->itimers[2]);
	if (!err && e->n_posix > NR_TIMERS_MAX)
		err = bad_image(r, "%zu POSIX timers", e->n_posix);
	for (size_t i = 0; !err && i < e->n_posix; i++)
		err = load_posix_timer(r, e->posix[i], t);
	return err;
}

static int load_rlimits(const struct image_reader *r, const TaskRlimitsEntry *e, struct task *t)
{
	if (!e || e->n_rlimits != MODEL_NR_RLIMITS)
		return bad_image(r, "%zu resource limits instead of %d", e ? e->n_rlimits : 0,
				 MODEL_NR_RLIMITS);
	for (size_t i = 0; i < e->n_rlimits; i++) {
		if (e->rlimits[i]->cur > e->rlimits[i]->max)
			return bad_image(r, "resource limit %zu is above its maximum", i);
		t->rlimits[i].cur = e->rlimits[i]->cur;
		t->rlimits[i].max = e->rlimits[i]->max;
	}
	return 0;
}

static int load_sigactions(const struct image_reader *r, const TaskCoreEntry *tc, struct task *t)
{
	size_t i = 0;

	if (tc->n_sigactions != NR_SIGACTIONS)
		return bad_image(r, "%zu signal actions instead of %d", tc->n_sigactions, NR_SIGACTIONS);
	for (int signo = 1; signo <= MODEL_NSIG; signo++) {
		if (has_no_sigaction(signo))
			continue;

		const SaEntry *e = tc->sigactions[i++];

		if (e->compat_sigaction)
			return bad_image(r, "the action for signal %d is a 32-bit program's, which is not supported",
					 signo);
		t->sigactions[signo - 1] = (struct sigaction_raw){ e->sigaction, e->flags, e->restorer,
								   e->mask };
	}
	return 0;
}

static int load_task(const struct image_reader *r, const TaskCoreEntry *tc, struct task *t)
{
	int err = load_comm(r, tc->comm, t->threads.v[0].comm);

	if (err)
		return err;
	t->exit_code = tc->exit_code;
	t->personality = tc->personality;
	switch (tc->task_state) {
	case TASK_DEAD:
	case TASK_ZOMBIE:
		t->state = TASK_ZOMBIE;
		if (t->threads.nr != 1)
			return bad_image(r, "a zombie with %zu threads", t->threads.nr);
		return 0;
	case TASK_STOPPED:
		t->stop_signal = tc->has_stop_signo ? tc->stop_signo : SIGSTOP;
		if (t->stop_signal < 1 || t->stop_signal > MODEL_NSIG)
			return bad_image(r, "stopped by signal %u", t->stop_signal);
		/* fall through */
	case TASK_ALIVE:
		t->state = tc->task_state;
		break;
	default:
		return bad_image(r, "task_state %u", tc->task_state);
	}
	if (tc->membarrier_registration_mask & ~BCR_MEMBARRIER_REGISTRATIONS)
		return bad_image(r, "membarrier registrations %#x", tc->membarrier_registration_mask);
	if (tc->oom_score_adj < -1000 || tc->oom_score_adj > 1000)
		return bad_image(r, "oom_score_adj %d", tc->oom_score_adj);
	t->loginuid = tc->has_loginuid ? tc->loginuid : UINT32_MAX;
	t->oom_score_adj = tc->oom_score_adj;
	t->child_subreaper = tc->child_subreaper;
	t->membarrier = tc->membarrier_registration_mask;
	err = load_timers(r, tc->timers, t);
	if (!err)
		err = load_rlimits(r, tc->rlimits, t);
	if (!err)
		err = load_sigactions(r, tc, t);
	return err ? err : LOAD_QUEUE(r, tc->signals_s, &t->pending);
}

static int load_cap(const struct image_reader *r, const char *what, size_t nr, const uint32_t *words,
		    uint64_t *ret)
{
	if (nr != 2)
		return bad_image(r, "%s has %zu words instead of 2", what, nr);
	*ret = words[0] | (uint64_t)words[1] << 32;
	return 0;
}

static int load_creds(const struct image_reader *r, const CredsEntry *e, struct creds *c)
{
	if (!e)
		return bad_image(r, "thread_core.creds is missing");
	if (e->lsm_profile && !label_is_unconfined(e->lsm_profile))
		return unsupported("%s/%s: the thread was confined by a security module (label %s)", r->path, r->name,
				   e->lsm_profile);

	int err = load_cap(r, "cap_inh", e->n_cap_inh, e->cap_inh, &c->cap_inh);

	if (!err)
		err = load_cap(r, "cap_prm", e->n_cap_prm, e->cap_prm, &c->cap_prm);
	if (!err)
		err = load_cap(r, "cap_eff", e->n_cap_eff, e->cap_eff, &c->cap_eff);
	if (!err)
		err = load_cap(r, "cap_bnd", e->n_cap_bnd, e->cap_bnd, &c->cap_bnd);
	/* Sets written before CRIU knew ambient capabilities have none. */
	if (!err && e->n_cap_amb)
		err = load_cap(r, "cap_amb", e->n_cap_amb, e->cap_amb, &c->cap_amb);
	if (err)
		return err;
	if (e->n_groups > NR_GROUPS_MAX)
		return bad_image(r, "%zu groups, more than %d", e->n_groups, NR_GROUPS_MAX);
	if (VEC_RESERVE(&c->groups, e->n_groups))
		return fail(-ENOMEM, "%s/%s: read", r->path, r->name);
	for (size_t i = 0; i < e->n_groups; i++)
		c->groups.v[c->groups.nr++] = e->groups[i];
	c->uid = e->uid;
	c->gid = e->gid;
	c->euid = e->euid;
	c->egid = e->egid;
	c->suid = e->suid;
	c->sgid = e->sgid;
	c->fsuid = e->fsuid;
	c->fsgid = e->fsgid;
	c->securebits = e->secbits;
	c->no_new_privs = e->no_new_privs;
	return 0;
}

static int load_sched(const struct image_reader *r, const ThreadCoreEntry *tc, struct thread *th)
{
	uint32_t policy = tc->sched_policy & ~SCHED_RESET_ON_FORK;
	bool realtime = policy == SCHED_FIFO || policy == SCHED_RR;

	if (tc->sched_nice < -20 || tc->sched_nice > 19)
		return bad_image(r, "nice %d", tc->sched_nice);
	if (policy != SCHED_OTHER && policy != SCHED_BATCH && policy != SCHED_IDLE && !realtime)
		return bad_image(r, "scheduling policy %u is not supported", policy);
	if (realtime ? tc->sched_prio < 1 || tc->sched_prio > 99 : tc->sched_prio != 0)
		return bad_image(r, "scheduling policy %u with priority %u", policy, tc->sched_prio);
	th->nice = tc->sched_nice;
	th->sched_policy = tc->sched_policy;
	th->sched_priority = tc->sched_prio;
	return 0;
}

static int load_seccomp_state(const struct load *l, const struct image_reader *r, const ThreadCoreEntry *tc, struct thread *th)
{
	th->seccomp_mode = tc->seccomp_mode;
	if (tc->seccomp_mode > SECCOMP_MODE__filter)
		return bad_image(r, "seccomp mode %u", tc->seccomp_mode);
	if (tc->seccomp_mode != SECCOMP_MODE__filter || !tc->has_seccomp_filter)
		return 0;
	if (tc->seccomp_filter >= l->m->seccomp_filters.nr)
		return bad_image(r, "seccomp filter %u is not in seccomp.img", tc->seccomp_filter);
	th->seccomp_filter = tc->seccomp_filter + 1;
	return 0;
}

static int load_thread(const struct load *l, const struct image_reader *r, const ThreadCoreEntry *tc, struct thread *th)
{
	int err = load_sched(r, tc, th);

	if (!err)
		err = load_seccomp_state(l, r, tc, th);
	if (err)
		return err;
	if (tc->pdeath_sig > MODEL_NSIG)
		return bad_image(r, "pdeath_sig %u", tc->pdeath_sig);
	th->robust_list = tc->futex_rla;
	th->robust_list_len = tc->futex_rla_len;
	th->sigmask = tc->blk_sigset;
	th->pdeath_signal = tc->pdeath_sig;
	if (tc->sas) {
		th->altstack.sp = tc->sas->ss_sp;
		th->altstack.size_bytes = tc->sas->ss_size;
		th->altstack.flags = tc->sas->ss_flags;
	}
	if (tc->rseq_entry) {
		th->rseq.ptr = tc->rseq_entry->rseq_abi_pointer;
		th->rseq.len_bytes = tc->rseq_entry->rseq_abi_size;
		th->rseq.sig = tc->rseq_entry->signature;
	}
	if (tc->comm) {
		memset(th->comm, 0, sizeof(th->comm));
		err = load_comm(r, tc->comm, th->comm);
	}
	if (!err)
		err = load_creds(r, tc->creds, &th->creds);
	return err ? err : LOAD_QUEUE(r, tc->signals_p, &th->pending);
}

static int load_restart(const struct image_reader *r, const BcrRestartEntry *e, struct restart *to)
{
	if (!e)
		return 0;
	if (e->kind < RESTART_NANOSLEEP || e->kind > RESTART_ISSUE)
		return bad_image(r, "restart kind %u", e->kind);
	if (e->remaining_ns > INT64_MAX)
		return bad_image(r, "restart.remaining_ns %llu", (unsigned long long)e->remaining_ns);
	to->kind = e->kind;
	to->nr = e->nr;
	to->clockid = e->clockid;
	to->remaining_ns = e->remaining_ns;
	return 0;
}

/* bcr-threads-N: the part that belongs to one thread. */
static int load_extra_thread(const struct image_reader *r, const BcrThreadEntry *e, struct thread *th)
{
	if (e->affinity.len > sizeof(th->affinity))
		return bad_image(r, "thread %u: affinity has %zu bytes", e->tid, e->affinity.len);
	if (e->affinity.len)
		memcpy(th->affinity, e->affinity.data, e->affinity.len);
	th->exited = e->exited;
	th->timer_slack_ns = e->timer_slack_ns;
	th->rseq.flags = e->rseq_flags;
	int err = load_thread_attrs(r, e, th);
	if (err)
		return err;
	return load_restart(r, e->restart, &th->restart);
}

static const BcrThreadEntry *extra_of(const BcrTaskEntry *extra, pid_t tid)
{
	for (size_t i = 0; extra && i < extra->n_threads; i++) {
		if (extra->threads[i]->tid == (uint32_t)tid)
			return extra->threads[i];
	}
	return NULL;
}

static int load_extra_timer(const struct image_reader *r, const BcrTimerEntry *e, struct task *t)
{
	if (e->late_ns > INT64_MAX || e->date_ns > INT64_MAX)
		return bad_image(r, "POSIX timer %u: late_ns %llu, date_ns %llu", e->id, (unsigned long long)e->late_ns,
				 (unsigned long long)e->date_ns);
	VEC_FOREACH(timer, &t->timers) {
		if ((uint32_t)timer->id != e->id)
			continue;
		timer->late_ns = e->late_ns;
		timer->date_ns = e->date_ns;
		return 0;
	}
	return bad_image(r, "POSIX timer %u is not in the process's core image", e->id);
}

static int load_extra(struct load *l, struct task *t, BcrTaskEntry **ret)
{
	_cleanup_reader_ struct image_reader r = {};
	_cleanup_message_ BcrTaskEntry *msg = NULL;
	int err = reader_open(&r, l->src, MAGIC_COMMON, MAGIC_BCR_THREADS, "bcr-threads-%d.bcr", t->pid);

	/* A set that CRIU wrote has none; what it says is then the default. */
	if (err == -ENOENT && !l->objects) {
		t->exit_signal = SIGCHLD;
		return 0;
	}
	if (err == -ENOENT)
		return bad_file(&r, "missing: the image set is not complete");
	if (!err)
		err = reader_single(&r, &bcr_task_entry__descriptor, &msg);
	if (err)
		return err;
	if (msg->pid != (uint32_t)t->pid)
		return bad_image(&r, "is about pid %u", msg->pid);
	if (msg->exit_signal < 0 || msg->exit_signal > MODEL_NSIG)
		return bad_image(&r, "exit_signal %d", msg->exit_signal);
	if (msg->ctty_id && !model_find_tty(l->m, msg->ctty_id))
		return bad_image(&r, "the controlling terminal %u is not in tty-info.img", msg->ctty_id);
	t->exit_signal = msg->exit_signal;
	t->ctty_id = msg->ctty_id;
	if (t->state == TASK_ZOMBIE)
		t->threads.v[0].creds.uid = msg->zombie_uid;
	t->stop_reported = t->state == TASK_STOPPED && msg->stop_reported;
	t->continued = t->state == TASK_ALIVE && msg->continued;
	t->cgroup_id = msg->cgroup_id;
	err = load_task_attrs(&r, msg, t);
	if (err)
		return err;
	VEC_FOREACH(th, &t->threads) {
		const BcrThreadEntry *e = extra_of(msg, th->tid);

		if (!e && t->state != TASK_ZOMBIE)
			return bad_image(&r, "thread %d is missing", th->tid);
		err = e ? load_extra_thread(&r, e, th) : 0;
		if (err)
			return err;
		if (th->exited && (th->tid != t->pid || t->threads.nr == 1 || t->exit_code & ~0xff00u))
			return bad_image(&r, "thread %d has exited, with status %#x", th->tid, t->exit_code);
	}
	for (size_t i = 0; i < msg->n_timers; i++) {
		err = load_extra_timer(&r, msg->timers[i], t);
		if (err)
			return err;
	}
	*ret = take_ptr(msg);
	return 0;
}

/* Opens core-TID and reads its only record; the architecture is checked before anything else. */
static int read_core(struct load *l, pid_t tid, struct image_reader *r, CoreEntry **ret)
{
	int err = reader_open_needed(r, l->src, MAGIC_CORE, "core-%d.img", tid);
	int got;

	if (err)
		return err;
	got = reader_next_any(r, &core_entry__descriptor, ret);
	if (got < 0)
		return got;
	if (!got)
		return bad_file(r, "has no record: cut off");
	err = cpu_check_march(r, *ret);
	if (!err)
		err = reader_check_known(r, &(*ret)->base);
	if (!err && r->pos != r->len)
		err = bad_file(r, "has %zu bytes behind its only record: damaged", r->len - r->pos);
	return err;
}

static int load_thread_core(const struct image_reader *r, struct load *l, const CoreEntry *core,
			    const BcrTaskEntry *extra, struct thread *th)
{
	if (!core->thread_core)
		return bad_image(r, "thread_core is missing");

	int err = load_thread(l, r, core->thread_core, th);

	return err || th->exited ? err : cpu_load(r, &l->xstate, core, extra_of(extra, th->tid), th);
}

static int load_leader(struct load *l, struct task *t, BcrTaskEntry **ret_extra)
{
	_cleanup_reader_ struct image_reader r = {};
	_cleanup_message_ CoreEntry *core = NULL;
	int err = read_core(l, t->pid, &r, &core);

	if (err)
		return err;
	if (!core->tc)
		return bad_image(&r, "tc is missing");
	err = load_task(&r, core->tc, t);
	if (!err)
		err = load_extra(l, t, ret_extra);
	if (err || t->state == TASK_ZOMBIE)
		return err;
	err = load_thread_core(&r, l, core, *ret_extra, &t->threads.v[0]);
	/* Older images have the leader's mask here only. */
	if (!err && !core->thread_core->has_blk_sigset)
		t->threads.v[0].sigmask = core->tc->blk_sigset;
	return err;
}

static int load_other(struct load *l, struct thread *th, const BcrTaskEntry *extra)
{
	_cleanup_reader_ struct image_reader r = {};
	_cleanup_message_ CoreEntry *core = NULL;
	int err = read_core(l, th->tid, &r, &core);

	if (err)
		return err;
	if (core->tc)
		return bad_image(&r, "belongs to a process, not to a thread of another");
	return load_thread_core(&r, l, core, extra, th);
}

int load_core(struct load *l, struct task *t, BcrTaskEntry **ret_extra)
{
	int err = load_leader(l, t, ret_extra);

	for (size_t i = 1; !err && i < t->threads.nr; i++)
		err = load_other(l, &t->threads.v[i], *ret_extra);
	return err;
}
