/* The /proc back end: tasks and threads. */
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "model/timers.h"
#include "observe/proc.h"

enum { PF_KTHREAD = 0x00200000, CGROUP2_MAGIC = 0x63677270 };

/* --- lists in text --- */

/* Up to `nr` numbers in a row. */
static void parse_u32s(const char *p, int base, uint32_t *const *out, size_t nr)
{
	for (size_t i = 0; p && i < nr; i++) {
		char *end;

		*out[i] = strtoul(p, &end, base);
		p = end;
	}
}

static int parse_groups(const char *p, struct creds *c)
{
	while (p && *p && *p != '\n') {
		char *end;
		uint32_t gid = strtoul(p, &end, 10);

		if (end == p)
			break;
		int err = VEC_PUSH(&c->groups, gid);
		if (err)
			return err;
		p = end + strspn(end, " ");
	}
	return 0;
}

/* A pending signal whose siginfo nobody but ptrace tells. */
static int push_signals(uint64_t set, void *vec)
{
	VEC(struct siginfo_raw) *pending = vec;

	for (int sig = 1; sig <= MODEL_NSIG; sig++) {
		if (!(set & 1ULL << (sig - 1)))
			continue;
		struct siginfo_raw *info = VEC_ADD(pending);
		if (!info)
			return -ENOMEM;
		int32_t signo = sig;
		memcpy(info->bytes, &signo, sizeof(signo));
	}
	return 0;
}

/* --- threads --- */

static int thread_creds(const char *status, struct creds *c)
{
	uint32_t *const uids[] = { &c->uid, &c->euid, &c->suid, &c->fsuid };
	uint32_t *const gids[] = { &c->gid, &c->egid, &c->sgid, &c->fsgid };

	parse_u32s(proc_field(status, "Uid"), 10, uids, 4);
	parse_u32s(proc_field(status, "Gid"), 10, gids, 4);
	c->cap_inh = proc_field_u64(status, "CapInh", 16, 0);
	c->cap_prm = proc_field_u64(status, "CapPrm", 16, 0);
	c->cap_eff = proc_field_u64(status, "CapEff", 16, 0);
	c->cap_bnd = proc_field_u64(status, "CapBnd", 16, 0);
	c->cap_amb = proc_field_u64(status, "CapAmb", 16, 0);
	c->no_new_privs = proc_field_u64(status, "NoNewPrivs", 10, 0);
	return parse_groups(proc_field(status, "Groups"), c);
}

/* System calls that take a thread id. The caller checks afterwards that the thread is still the same. */
static int thread_calls(struct thread *th)
{
	struct sched_param param = {};
	uint64_t list = 0;
	size_t len = 0;

	int policy = sched_getscheduler(th->tid);
	if (policy < 0 || sched_getparam(th->tid, &param) < 0)
		return -errno;
	th->sched_policy = policy;
	th->sched_priority = param.sched_priority;
	if (syscall(SYS_sched_getaffinity, th->tid, sizeof(th->affinity), th->affinity) < 0)
		return -errno;
	if (syscall(SYS_get_robust_list, th->tid, &list, &len) < 0)
		return -errno;
	th->robust_list = list;
	th->robust_list_len = list ? len : 0;
	return 0;
}

/* A thread asleep in vfork(2), or in clone(2) with CLONE_VFORK, waits for its child's execve(2) or exit. */
static bool thread_waits_for_vfork(int dir)
{
	_cleanup_free_ char *text = NULL;
	long nr;
	unsigned long flags;

	if (proc_read(dir, "syscall", &text, NULL) || sscanf(text, "%ld %lx", &nr, &flags) != 2)
		return false; /* "running", or a zombie */
	return nr == SYS_vfork || (nr == SYS_clone && flags & CLONE_VFORK) || nr == SYS_clone3;
}

static int thread_status(struct task_idents *id, struct thread *th, const char *status)
{
	th->sigmask = proc_field_u64(status, "SigBlk", 16, 0);
	th->seccomp_mode = proc_field_u64(status, "Seccomp", 10, 0);
	const char *features = proc_field(status, "x86_Thread_features");
	if (features && !strncmp(features, "shstk", 5))
		snprintf(id->refusal, sizeof(id->refusal),
			 "its thread %d has a shadow stack (start it with GLIBC_TUNABLES=glibc.cpu.hwcaps=-SHSTK), which is not supported",
			 th->tid);
	pid_t tracer = proc_field_u64(status, "TracerPid", 10, 0);
	if (tracer && tracer != getpid())
		id->traced = true;
	int err = thread_creds(status, &th->creds);
	return err ? err : push_signals(proc_field_u64(status, "SigPnd", 16, 0), &th->pending);
}

/* Everything is read below /proc/TID: unlike task/TID it has timerslack_ns. */
static int fill_thread(struct task_idents *id, struct thread *th, bool zombie)
{
	_cleanup_close_ int dir = -1;
	_cleanup_free_ char *status = NULL;
	struct proc_stat st;
	int err = proc_open(th->tid, &dir);

	if (!err)
		err = proc_read_stat(dir, "stat", &st);
	if (!err)
		err = proc_read(dir, "status", &status, NULL);
	if (!err)
		err = thread_status(id, th, status);
	if (err)
		return err;
	snprintf(th->comm, sizeof(th->comm), "%.15s", st.comm);
	th->nice = (int32_t)st.field[19];
	th->exited = !zombie && (st.state == 'Z' || st.state == 'X');
	if (zombie || th->exited || id->kernel_thread)
		return 0;
	err = thread_calls(th);
	if (!err)
		err = proc_thread_attrs(th, st.field[9], status);
	if (!err)
		err = proc_read_u64(dir, "timerslack_ns", 10, &th->timer_slack_ns);
	if (thread_waits_for_vfork(dir))
		id->vfork_wait = true;
	/* The calls above went by number: is it still the thread that the directory holds? */
	return err ? err : proc_read_stat(dir, "stat", &st);
}

static int fill_threads(struct task *t, struct task_idents *id, int dir)
{
	proc_numbers tids = {};
	int err = proc_list(dir, "task", &tids);

	/* The leader first, the others in ascending order. */
	for (size_t i = 0; !err && i < tids.nr + 1; i++) {
		if (i && tids.v[i - 1] == t->pid)
			continue;
		struct thread *th = VEC_ADD(&t->threads);
		if (!th) {
			err = -ENOMEM;
			break;
		}
		th->tid = i ? tids.v[i - 1] : t->pid;
		err = fill_thread(id, th, t->state == TASK_ZOMBIE);
		/* Threads that are on their way out are no part of the model. */
		if (!err && i && th->exited)
			thread_deinit(&t->threads.v[--t->threads.nr]);
	}
	VEC_FREE(&tids);
	/* It has ended as a whole since its state was read. */
	if (!err && t->threads.v[0].exited && t->threads.nr == 1)
		err = -EAGAIN;
	return err;
}

/* --- processes --- */

static int fill_limits(struct task *t, int dir)
{
	enum { COLUMN_SOFT = 26 }; /* names are padded to 25 characters */
	_cleanup_free_ char *text = NULL;
	int err = proc_read(dir, "limits", &text, NULL);

	if (err)
		return err;
	/* A headline, then one line for each limit, in the order of their numbers. */
	char *line = strchr(text, '\n');
	for (int i = 0; i < MODEL_NR_RLIMITS; i++) {
		char soft[24], hard[24];

		if (!line || strnlen(line + 1, COLUMN_SOFT) < COLUMN_SOFT ||
		    sscanf(line + 1 + COLUMN_SOFT, "%23s %23s", soft, hard) != 2)
			return -EPROTO;
		t->rlimits[i].cur = strcmp(soft, "unlimited") ? strtoull(soft, NULL, 10) : UINT64_MAX;
		t->rlimits[i].max = strcmp(hard, "unlimited") ? strtoull(hard, NULL, 10) : UINT64_MAX;
		line = strchr(line + 1, '\n');
	}
	return 0;
}

static int fill_timer(struct task *t, const char *text)
{
	struct posix_timer timer = {};
	char how[16], whom[8];
	unsigned long long sigval;

	if (sscanf(text, "ID: %d\nsignal: %d/%llx\nnotify: %15[a-z]/%7[a-z].%d\nClockID: %d", &timer.id, &timer.signo,
		   &sigval, how, whom, &timer.notify_tid, &timer.clockid) != 7)
		return -EPROTO;
	timer.sigval = sigval;
	timer.notify = !strcmp(how, "none") ? SIGEV_NONE : !strcmp(how, "thread") ? SIGEV_THREAD : SIGEV_SIGNAL;
	if (!strcmp(whom, "tid"))
		timer.notify |= SIGEV_THREAD_ID;
	else
		timer.notify_tid = 0;
	return VEC_PUSH(&t->timers, timer);
}

/* Which timers there are; their values are read when the target is stopped. */
static int fill_timers(struct task *t, struct task_idents *id, int dir)
{
	_cleanup_free_ char *text = NULL;
	int err = proc_read(dir, "timers", &text, NULL);

	if (err == -ENOENT) /* exists with CONFIG_CHECKPOINT_RESTORE only */
		return fail(err, "pid %d: /proc/%d/timers", t->pid, t->pid);
	for (const char *p = err ? NULL : strstr(text, "ID: "); !err && p; p = strstr(p + 1, "\nID: ")) {
		err = fill_timer(t, *p == '\n' ? p + 1 : p);
	}
	VEC_FOREACH(timer, &t->timers) {
		if (clock_is_of_thread_itself(timer->clockid) && t->threads.nr > 1)
			snprintf(id->refusal, sizeof(id->refusal),
				 "its timer %d counts the processor time of one of its threads, and only BPF tells of which; use --observe=bpf",
				 timer->id);
	}
	return err;
}

static int fill_namespaces(struct task *t, int dir)
{
	const struct {
		const char *name;
		uint32_t *out;
	} all[] = {
		{ "ns/pid", &t->ns.pid }, { "ns/net", &t->ns.net },   { "ns/ipc", &t->ns.ipc },
		{ "ns/uts", &t->ns.uts }, { "ns/mnt", &t->ns.mnt },   { "ns/user", &t->ns.user },
		{ "ns/time", &t->ns.time }, { "ns/cgroup", &t->ns.cgroup },
	};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		struct stat st;

		if (!fstatat(dir, all[i].name, &st, 0))
			*all[i].out = st.st_ino;
		else if (errno != ENOENT) /* a kernel without this kind has no link, and a zombie is in none */
			return -errno;
	}
	return 0;
}

/* The id of a v2 cgroup is the inode number of its directory. Stays 0 where the hierarchy is not mounted. */
static int fill_cgroup(struct task *t, int dir)
{
	static const char *const mounts[] = { "/sys/fs/cgroup", "/sys/fs/cgroup/unified" };
	_cleanup_free_ char *text = NULL;
	int err = proc_read(dir, "cgroup", &text, NULL);

	if (err == -ENOENT)
		return 0;
	char *path = err ? NULL : strncmp(text, "0::", 3) ? strstr(text, "\n0::") : text;
	if (!path)
		return err;
	path = strchr(path, '/');
	if (!path)
		return 0;
	path[strcspn(path, "\n")] = 0;
	for (size_t i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++) {
		_cleanup_free_ char *full = NULL;
		struct statfs fs;
		struct stat st;

		if (asprintf(&full, "%s%s", mounts[i], path) < 0)
			return -ENOMEM;
		if (!statfs(full, &fs) && fs.f_type == CGROUP2_MAGIC && !stat(full, &st))
			t->cgroup_id = st.st_ino;
	}
	return 0;
}

static int fill_numbers(struct task *t, int dir)
{
	uint64_t n = 0;
	int err = proc_read_u64(dir, "personality", 16, &n);

	if (err)
		return err;
	t->personality = n;
	err = proc_read_u64(dir, "oom_score_adj", 10, &n);
	if (err)
		return err;
	t->oom_score_adj = (int32_t)n;
	t->loginuid = UINT32_MAX;
	err = proc_read_u64(dir, "loginuid", 10, &n);
	if (err == -ENOENT) /* a kernel without auditing */
		return 0;
	t->loginuid = n;
	return err;
}

static int fill_state(struct task *t, const struct proc_stat *st)
{
	switch (st->state) {
	case 'Z':
		t->state = TASK_ZOMBIE;
		return 0;
	case 'X':
	case 'x':
		return -EAGAIN;
	case 'T':
	case 't':
		/* Forgotten when somebody has waited for the stop. Which signal it was is not to be had then. */
		t->stop_reported = !(st->field[52] & 0x7f);
		t->stop_signal = t->stop_reported ? SIGSTOP : st->field[52] & 0x7f;
	}
	/* "t" is a stop by ptrace: whether a signal had stopped the task before, only the tracer knows. */
	t->state = st->state == 'T' ? TASK_STOPPED : TASK_ALIVE;
	return 0;
}

static void fill_layout(struct mm *mm, const struct proc_stat *st, const char *status)
{
	mm->start_code = st->field[26];
	mm->end_code = st->field[27];
	mm->start_stack = st->field[28];
	mm->start_data = st->field[45];
	mm->end_data = st->field[46];
	mm->start_brk = st->field[47];
	mm->arg_start = st->field[48];
	mm->arg_end = st->field[49];
	mm->env_start = st->field[50];
	mm->env_end = st->field[51];
	mm->thp_disabled = !proc_field_u64(status, "THP_enabled", 10, 1);
}

/* Kernels whose file does not say it (before Linux 6.12), or that hide the file: asked of the stopped process (capture/). */
static bool merges_all(int dir)
{
	_cleanup_free_ char *text = NULL;

	return !proc_read(dir, "ksm_stat", &text, NULL) && strstr(text, "ksm_merge_any: yes");
}

/*
 * Files of a process that is not dumpable belong to root, whoever it runs as; a process of root itself hides the
 * difference, and then it is taken for dumpable.
 */
static int fill_dumpable(struct mm *mm, int dir, const struct proc_stat *pstat, const char *status)
{
	struct stat st;
	uint32_t uid = 0, euid = 0;
	uint32_t *const uids[] = { &uid, &euid };

	if (fstatat(dir, "maps", &st, 0) < 0)
		return -errno;
	parse_u32s(proc_field(status, "Uid"), 10, uids, 2);
	mm->dumpable = st.st_uid == euid;
	return 0;
}

static void fill_ignored(struct task *t, const char *status)
{
	uint64_t ignored = proc_field_u64(status, "SigIgn", 16, 0);

	for (int sig = 1; sig <= MODEL_NSIG; sig++)
		if (ignored & 1ULL << (sig - 1))
			t->sigactions[sig - 1].handler = (uintptr_t)SIG_IGN;
}

static void fill_stat(struct task *t, struct task_idents *id, const struct proc_stat *st)
{
	uint32_t tty = st->field[7];

	t->ppid = st->field[4];
	t->pgid = st->field[5];
	t->sid = st->field[6];
	id->kernel_thread = st->field[9] & PF_KTHREAD;
	/* tty_nr: minor in bits 31..20 and 7..0, major in bits 15..8. */
	id->ctty_rdev = (tty >> 8 & 0xfff) << 20 | (tty & 0xff) | (tty >> 12 & 0xfff00);
}

/* What the main thread has, dead or alive. */
static int fill_leader(struct task *t, int dir)
{
	struct proc_stat st;
	char name[48];

	snprintf(name, sizeof(name), "task/%d/stat", t->pid);
	int err = proc_read_stat(dir, name, &st);
	if (err)
		return err;
	t->exit_signal = (int32_t)st.field[38];
	if (st.state == 'Z')
		t->exit_code = st.field[52];
	return 0;
}

static int fill_live_task(struct task *t, struct task_idents *id, int dir, const struct proc_stat *st,
			  const char *status)
{
	id->umask = proc_field_u64(status, "Umask", 8, 0);
	fill_layout(&id->layout, st, status);
	id->layout.merge_all = merges_all(dir);
	fill_ignored(t, status);
	int err = fill_dumpable(&id->layout, dir, st, status);
	if (!err)
		err = proc_process_attrs(t, id, dir);
	if (!err)
		err = fill_timers(t, id, dir);
	if (!err)
		err = push_signals(proc_field_u64(status, "ShdPnd", 16, 0), &t->pending);
	return err;
}

int proc_task(struct proc_run *r, size_t at)
{
	struct task *t = &r->o->m->tasks.v[at];
	struct task_idents *id = &r->o->idents.v[at];
	_cleanup_free_ char *status = NULL;
	int dir = r->dirs.v[at];
	struct proc_stat st;
	int err = proc_read_stat(dir, "stat", &st);

	if (!err)
		err = proc_read(dir, "status", &status, NULL);
	if (!err)
		err = fill_state(t, &st);
	if (err)
		return proc_fail(err, t->pid, "read its state");
	fill_stat(t, id, &st);
	err = fill_leader(t, dir);
	if (!err)
		err = fill_threads(t, id, dir);
	if (err)
		return proc_fail(err, t->pid, "read its threads");
	if (id->kernel_thread)
		return 0;
	err = fill_limits(t, dir);
	if (!err)
		err = fill_namespaces(t, dir);
	if (!err)
		err = fill_cgroup(t, dir);
	if (!err)
		err = fill_numbers(t, dir);
	if (!err && t->state != TASK_ZOMBIE)
		err = fill_live_task(t, id, dir, &st, status);
	return proc_fail(err, t->pid, "read its state");
}
