/* What bcr does not do, found in an observation. */
#include "observe/refuse.h"

#include <dirent.h>
#include <errno.h>
#include <linux/sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "sys/label.h"
#include "sys/proc.h"

/* In the order of model.root_ns. */
static const char *const ns_names[] = { "pid", "net", "ipc", "uts", "mnt", "user", "cgroup", "time" };

static int refuse_namespaces(const struct model *m, const struct task *t)
{
	const uint32_t theirs[] = { t->ns.pid, t->ns.net,  t->ns.ipc,	 t->ns.uts,
				    t->ns.mnt, t->ns.user, t->ns.cgroup, t->ns.time };
	int err = 0;

	for (size_t i = 0; i < sizeof(theirs) / sizeof(theirs[0]); i++) {
		if (theirs[i] && m->root_ns[i] && theirs[i] != m->root_ns[i])
			err = unsupported("pid %d: is in another %s namespace than bcr; containers are not supported yet",
					  t->pid, ns_names[i]);
	}
	return err;
}

static int refuse_seccomp(const struct task *t, const struct task_idents *id)
{
	if (!id->seccomp_notifies)
		return 0;
	return unsupported("pid %d thread %d: has a seccomp filter by which another program decides on its calls "
			   "(SECCOMP_RET_USER_NOTIF), which is not supported",
			   t->pid, id->seccomp_notifies);
}

/*
 * A main thread that has exited is made again by letting one exit. It cannot be ended by a signal (a seccomp filter can, one
 * thread alone), and the end of the thread that forks a process is what its parent death signal tells of.
 */
static int refuse_main_exited(const struct model *m, const struct task *t)
{
	int err = 0;

	if (!t->threads.nr || !t->threads.v[0].exited)
		return 0;
	if (t->exit_code & 0x7f)
		err = unsupported("pid %d: its main thread was ended by signal %u while others live on, which cannot be made again",
				  t->pid, t->exit_code & 0x7f);
	VEC_FOREACH(child, &m->tasks) {
		if (child->ppid == t->pid && child->threads.nr && task_living(child)->pdeath_signal)
			err = unsupported("pid %d: it gets a signal when its parent ends, and the main thread of that, pid %d, has "
					  "exited while others live on: that is not supported",
					  child->pid, t->pid);
	}
	return err;
}

/* What a restore could not give back. */
static int refuse_scheduling(const struct task *t)
{
	enum { KSCHED_EXT = 7 };
	int err = 0;

	VEC_FOREACH(th, &t->threads) {
		uint32_t policy = th->sched_policy & ~SCHED_RESET_ON_FORK;

		if (policy == SCHED_DEADLINE || policy == KSCHED_EXT)
			err = unsupported("pid %d thread %d: is scheduled by %s, which is not supported; give it another policy "
					  "first (chrt -p)",
					  t->pid, th->tid, policy == SCHED_DEADLINE ? "deadline (SCHED_DEADLINE)" : "a BPF scheduler");
	}
	return err;
}

int refuse_task(const struct model *m, const struct task *t, const struct task_idents *id, bool final)
{
	int err = 0, one;

	if (id->kernel_thread)
		return unsupported("pid %d: is a kernel thread (%s), which cannot be dumped", t->pid,
				   t->threads.nr ? t->threads.v[0].comm : "?");
	if (id->refusal[0])
		err = unsupported("pid %d: %s", t->pid, id->refusal);
	if (id->traced)
		err = unsupported("pid %d: is traced by a debugger; detach it first", t->pid);
	if (t->state == TASK_ZOMBIE)
		return err;
	if (final && id->vfork_wait)
		err = unsupported("pid %d: waits for its vfork child to execute a program; try again", t->pid);
	one = refuse_seccomp(t, id);
	if (one)
		err = one;
	one = refuse_main_exited(m, t);
	if (one)
		err = one;
	one = refuse_scheduling(t);
	if (one)
		err = one;
	one = refuse_namespaces(m, t);
	return one ? one : err;
}

/* Inode number of a namespace of the thread with this directory in /proc; 0: it has none of that kind, or has ended. */
static uint32_t namespace_ino(int dir, const char *link)
{
	struct stat st;

	return fstatat(dir, link, &st, 0) ? 0 : st.st_ino;
}

int refuse_children_namespaces(const struct task *t)
{
	static const char text[] = "pid %d: its children will be in another %s namespace than itself, which is not supported";
	_cleanup_close_ int dir = -1;
	int err = 0;

	if (t->state == TASK_ZOMBIE || proc_open(proc_living(t->pid), &dir))
		return 0;
	uint32_t pid = namespace_ino(dir, "ns/pid_for_children"), time = namespace_ino(dir, "ns/time_for_children");

	/* A pid namespace in which nobody has been born is not shown. That this very thread still runs shows by another one. */
	if (t->ns.pid && pid != t->ns.pid && namespace_ino(dir, "ns/mnt"))
		err = unsupported(text, t->pid, "pid");
	if (t->ns.time && time && time != t->ns.time)
		err = unsupported(text, t->pid, "time");
	return err;
}

int refuse_labels(const struct task *t)
{
	int err = 0;

	if (t->state == TASK_ZOMBIE)
		return 0;
	VEC_FOREACH(th, &t->threads) {
		_cleanup_free_ char *label = NULL;

		/* Who has ended meanwhile is not dumped. */
		if (label_read(t->pid, th->tid, &label) || label_is_unconfined(label))
			continue;
		err = unsupported("pid %d thread %d: is confined by a security module (label %.*s), which is not supported", t->pid,
				  th->tid, (int)strcspn(label, "\n"), label);
	}
	return err;
}

/*
 * The kernel packs the auxiliary vector of a 32-bit program as such programs read it: the value of the first entry is
 * above its number, which is a small one. Whoever writes a vector of its own (PR_SET_MM) needs it to be right as
 * well.
 */
int refuse_programs(const struct model *m)
{
	int err = 0;

	VEC_FOREACH(p, &m->mms) {
		const struct mm *mm = *p;

		if (mm->auxv.nr && mm->auxv.v[0] >> 32)
			err = unsupported("pid %d: is a 32-bit program, which is not supported", mm->pid);
	}
	return err;
}

static bool has_group(const struct model *m, pid_t pgid)
{
	VEC_FOREACH(t, &m->tasks) {
		if (t->pgid == pgid)
			return true;
	}
	return false;
}

/* Somebody outside the tree who is in this session; 0: nobody. What ends meanwhile is not in it any more. */
static pid_t find_outsider(const struct model *m, pid_t sid)
{
	_cleanup_closedir_ DIR *dir = opendir("/proc");
	struct dirent *de;

	while (dir && (de = readdir(dir))) {
		pid_t pid = atoi(de->d_name);

		if (pid > 0 && getsid(pid) == sid && !model_find_task(m, pid))
			return pid;
	}
	return 0;
}

/*
 * The session of a root that does not lead it: with a leader outside the tree it is that of a shell. Without one, as
 * daemons have it, it is made again; but only where nobody else holds on to it.
 */
static int refuse_roots_session(const struct model *m)
{
	const struct task *root = model_root(m);

	if (root->sid == root->pid)
		return 0;
	pid_t other = root->sid > 0 ? find_outsider(m, root->sid) : 0;
	if (root->sid <= 0 || other == root->sid)
		return unsupported("pid %d: its session leader (pid %d) is outside the tree; use --shell-job", root->pid,
				   root->sid);
	if (other)
		return unsupported("pid %d: its session %d, whose leader has exited, is also that of pid %d, which is outside the "
				   "tree; end that one first, or use --shell-job",
				   root->pid, root->sid, other);
	return 0;
}

int refuse_sessions(const struct model *m, bool shell_job)
{
	int err = 0;

	if (shell_job)
		return 0;
	err = refuse_roots_session(m);
	if (err)
		return err;
	VEC_FOREACH(p, &m->ttys) {
		const struct tty *tty = *p;

		if (tty->sid && !model_find_task(m, tty->sid))
			err = unsupported("terminal %u: its session leader (pid %d) is outside the tree; use --shell-job",
					  tty->index, tty->sid);
		else if (tty->pgrp > 0 && !has_group(m, tty->pgrp))
			err = unsupported(
				"terminal %u: its foreground process group %d is outside the tree; use --shell-job",
				tty->index, tty->pgrp);
	}
	return err;
}

/* Which tasks wait for a vfork child; *ret is owned by the caller. */
static int find_waiting(const struct observation *obs, uint8_t **ret)
{
	*ret = calloc(obs->idents.nr, 1);
	if (!*ret)
		return -ENOMEM;
	for (size_t i = 0; i < obs->idents.nr; i++)
		(*ret)[i] = obs->idents.v[i].vfork_wait;
	return 0;
}

int refuse_tree(const struct observation *obs, bool shell_job, struct tree_flaw *flaw)
{
	const struct model *m = obs->m;
	_cleanup_free_ uint8_t *waiting = NULL;
	struct tree_births births = {};
	int refused = 0;

	if (model_root(m)->state == TASK_ZOMBIE && model_root(m)->threads.nr <= 1)
		refused = unsupported("pid %d: has ended already; only its parent has not taken notice", model_root(m)->pid);
	int err = find_waiting(obs, &waiting);
	if (!err)
		err = tree_check(m, shell_job, waiting, &births, flaw);
	tree_births_deinit(&births);
	return err ? err : refused;
}

static const char *file_word(const struct file_record *rec)
{
	switch (rec->sb_magic) {
	case MAGIC_ANON_INODE:
		return "a kernel object";
	case MAGIC_PIDFS:
		return "a pidfd";
	}
	switch (rec->mode & S_IFMT) {
	case S_IFREG:
		return "a file";
	case S_IFDIR:
		return "a directory";
	case S_IFCHR:
		return "a character device";
	case S_IFBLK:
		return "a block device";
	case S_IFIFO:
		return "a pipe";
	case S_IFSOCK:
		return "a socket";
	case S_IFLNK:
		return "a symbolic link opened by O_PATH";
	}
	return "an object";
}

int refuse_descriptor(const struct observed_file *of)
{
	const struct file_record *rec = &of->rec;
	char what[160];

	snprintf(what, sizeof(what), "%s", file_word(rec));
	if (S_ISSOCK(rec->mode))
		snprintf(what, sizeof(what), "a socket of family %u, type %u, protocol %u", rec->sock.family,
			 rec->sock.type, rec->sock.proto);
	return unsupported("pid %u fd %d: %s (%s) is not supported; close it first", rec->tgid, rec->fd, what,
			   of->path ? of->path : rec->name[0] ? rec->name : "no name");
}

bool observed_file_deleted(const struct observed_file *of)
{
	static const char suffix[] = " (deleted)";
	size_t len = of->path ? strlen(of->path) : 0;

	/*
	 * A file whose name really ends so is taken for a deleted one: the kernel's text does not tell them
	 * apart, and to refuse is the safe mistake.
	 */
	return !of->rec.nlink ||
	       (len >= sizeof(suffix) - 1 && !strcmp(of->path + len - (sizeof(suffix) - 1), suffix));
}

/* Why a file cannot be mapped again, in words; NULL when it can. */
static const char *mapped_file_obstacle(const struct vma *vma, const struct observed_file *of)
{
	static const struct {
		const char *prefix, *why;
	} unnamed[] = {
		{ "/[aio]", "an AIO ring (io_setup) is not supported" },
		{ "anon_inode:[io_uring]", "an io_uring ring is not supported" },
		{ "anon_inode:[perf_event]", "a perf event buffer is not supported" },
		{ "anon_inode:", "a kernel object is mapped, which is not supported" },
		{ "socket:", "a socket is mapped, which is not supported" },
	};

	if (!of->path)
		return "its file has no path";
	for (size_t i = 0; i < sizeof(unnamed) / sizeof(unnamed[0]); i++) {
		if (!strncmp(of->path, unnamed[i].prefix, strlen(unnamed[i].prefix)))
			return unnamed[i].why;
	}
	if (vma->status & (VMA_ANON_SHARED | VMA_MEMFD))
		return NULL;
	/* One without any name is carried with its contents. */
	if (observed_file_deleted(of) && of->rec.nlink)
		return "its file has been deleted but has another name still, or has been replaced, which is not supported";
	/* A private mapping of /dev/zero has the device as its file, and is mapped again in the same way. */
	if (S_ISCHR(of->rec.mode) && of->rec.rdev == (1 << 20 | 5))
		return NULL;
	if (!S_ISREG(of->rec.mode))
		return "it maps a device, which is not supported";
	return NULL;
}

int refuse_mapped_file(pid_t pid, const struct vma *vma, const struct observed_file *of)
{
	const char *why = mapped_file_obstacle(vma, of);

	if (!why)
		return 0;
	return unsupported("pid %d mapping %llx-%llx %s: %s", pid, (unsigned long long)vma->start,
			   (unsigned long long)vma->end, of->path ? of->path : "", why);
}

/* One line of /proc/locks: "1: POSIX  ADVISORY  WRITE 812 fe:01:1234 0 EOF"; waiters have "->" in front. */
static bool parse_lock(const char *line, char type[16], uint32_t *dev, uint64_t *ino)
{
	unsigned major, minor;
	unsigned long long n;

	if (sscanf(line, "%*d: %15s %*s %*s %*d %x:%x:%llu", type, &major, &minor, &n) != 4)
		return false;
	*dev = major << 20 | minor;
	*ino = n;
	return true;
}

/* fdinfo lists the locks that were taken through this very descriptor. */
static bool descriptor_holds_lock(const struct observed_file *of)
{
	char path[64], line[256];

	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", proc_living((pid_t)of->rec.tgid), of->rec.fd);
	_cleanup_fclose_ FILE *f = fopen(path, "re");
	if (!f) /* closed meanwhile: its locks are gone as well */
		return false;
	while (fgets(line, sizeof(line), f)) {
		if (!strncmp(line, "lock:", 5))
			return true;
	}
	return false;
}

/* Reading /proc/locks may take milliseconds, of a stop: only when a file of the tree may be locked. */
static bool may_hold_locks(const struct observation *obs)
{
	VEC_FOREACH(of, &obs->fds)
		if (of->rec.has_locks)
			return true;
	return false;
}

int refuse_locks(const struct observation *obs, bool file_locks)
{
	_cleanup_fclose_ FILE *f = NULL;
	char line[256], type[16];
	uint32_t dev;
	uint64_t ino;
	int err = 0;

	if (!may_hold_locks(obs))
		return 0;
	f = fopen("/proc/locks", "re");
	if (!f) /* a kernel without file locking has none to lose */
		return errno == ENOENT ? 0 : fail(-errno, "/proc/locks: open");
	while (fgets(line, sizeof(line), f)) {
		if (!parse_lock(line, type, &dev, &ino))
			continue;
		VEC_FOREACH(of, &obs->fds) {
			if (of->rec.ino != ino || of->rec.dev != dev || !descriptor_holds_lock(of))
				continue;
			err = unsupported("pid %u fd %d %s: holds a file lock (%s)%s, which is not supported yet",
					  of->rec.tgid, of->rec.fd, of->path ? of->path : "", type,
					  file_locks ? "" : "; it would need --file-locks");
		}
	}
	return err;
}
