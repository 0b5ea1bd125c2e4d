/*
 * The coordinator's part of a restore: stages up to the point where every thread waits in its restorer, and the way back.
 *
 * Whoever has been made is noted in the control block, by its maker and by itself: a number of the plan that is not
 * noted belongs to somebody else, and is left alone.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "kinds/kinds.h"
#include "restore/files.h"
#include "restore/plan.h"
#include "sys/label.h"
#include "sys/proc.h"

enum { MAX_PLANS = 4 };

/* --- create and destroy --- */

/* What is held for the tasks lies above all their numbers; the soft limit is theirs to set again. */
static int raise_nofile(struct restore *r)
{
	struct rlimit now;

	if (getrlimit(RLIMIT_NOFILE, &r->nofile))
		return fail(-errno, "read the limit of open files");
	now = r->nofile;
	now.rlim_cur = now.rlim_max;
	return setrlimit(RLIMIT_NOFILE, &now) ? fail(-errno, "raise the limit of open files") : 0;
}

static uint64_t count_bytes(const struct model *m)
{
	uint64_t pages = 0;

	VEC_FOREACH(mm, &m->mms) {
		VEC_FOREACH(run, &(*mm)->pages)
			pages += page_run_has_contents(run) ? run->nr_pages : 0;
	}
	VEC_FOREACH(s, &m->shmems) {
		VEC_FOREACH(run, &(*s)->pages)
			pages += page_run_has_contents(run) ? run->nr_pages : 0;
	}
	return pages * MODEL_PAGE_SIZE;
}

/* Plans until bcr's own memory does not get into the way of what was planned. */
static int plan_and_reserve(struct restore *r)
{
	int err = -EEXIST;

	for (int i = 0; i < MAX_PLANS && err == -EEXIST; i++) {
		restore_plan_destroy(r->plan);
		r->plan = NULL;
		err = restore_plan_create(r->m, r->opts.shell_job, &r->plan);
		if (!err)
			err = plan_reserve(r->plan);
	}
	r->reserved = !err;
	return err == -EEXIST ? fail(err, "the addresses of the tasks cannot be kept free of bcr's own memory") : err;
}

static int map_control(struct restore *r)
{
	void *at = (void *)(uintptr_t)r->plan->control;

	if (mmap(at, r->plan->control_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != at)
		return fail(-errno, "map the control block");
	r->control = at;
	return 0;
}

int restore_create(const struct model *m, const struct restore_options *opts, struct restore **ret)
{
	struct restore *r = calloc(1, sizeof(*r));

	if (!r)
		return fail(-ENOMEM, "restore");
	r->m = m;
	r->opts = *opts;
	r->coordinator = getpid();
	r->caller_ppid = getppid();
	r->caller_pgrp = getpgrp();
	r->all_bytes = count_bytes(m);
	r->nofile.rlim_cur = RLIM_INFINITY;
	int err = raise_nofile(r);
	if (!err)
		err = plan_and_reserve(r);
	if (!err)
		err = map_control(r);
	if (!err && !(r->stops = calloc(r->plan->tasks.nr, 1)))
		err = fail(-ENOMEM, "restore");
	if (err) {
		restore_destroy(r);
		return err;
	}
	*ret = r;
	return 0;
}

void restore_destroy(struct restore *r)
{
	if (!r)
		return;
	/* The control block and the shared memory lie in the hole. */
	if (r->reserved)
		plan_unreserve(r->plan);
	if (r->made_subreaper)
		prctl(PR_SET_CHILD_SUBREAPER, 0);
	if (r->plan)
		files_release(r);
	VEC_FREE(&r->segments);
	if (r->nofile.rlim_cur != RLIM_INFINITY)
		setrlimit(RLIMIT_NOFILE, &r->nofile);
	restore_plan_destroy(r->plan);
	free(r->owners);
	free(r->stops);
	free(r);
}

pid_t restore_root_pid(const struct restore *r)
{
	return r->root_pid;
}

/* --- check --- */

enum { ZOMBIE_LOOKS = 1000 }; /* ten seconds of 10 ms */

/* Reads who has the number. -ENOENT: nobody. Failure has been reported. */
static int look_up_pid(pid_t pid, struct proc_stat *ret)
{
	_cleanup_close_ int dir = -1;
	int err = proc_open(pid, &dir);

	if (!err)
		err = proc_read_stat(dir, "stat", ret);
	if (err == -ENOENT || err == -ESRCH)
		return -ENOENT;
	return err ? fail(err, "pid %d: look whether it is in use", pid) : 0;
}

/* A zombie, or one that is being collected at this moment (proc_pid_stat(5)). */
static bool has_ended(const struct proc_stat *stat)
{
	return stat->state == 'Z' || stat->state == 'X';
}

/*
 * The children of a dumped process become orphans when it ends, and init takes its time to collect them: a restore right after
 * the dump waits for that a little. Nobody tells when a number becomes free.
 */
static int look_up_ended(pid_t pid, struct proc_stat *ret)
{
	const struct timespec look_again = { .tv_nsec = 10 * 1000 * 1000 };
	int err = look_up_pid(pid, ret);

	for (int i = 0; !err && has_ended(ret) && i < ZOMBIE_LOOKS; i++) {
		nanosleep(&look_again, NULL);
		err = look_up_pid(pid, ret);
	}
	return err;
}

static int check_pid_free(pid_t pid)
{
	struct proc_stat stat;
	int err = look_up_ended(pid, &stat);

	if (err)
		return err == -ENOENT ? 0 : err;
	if (has_ended(&stat))
		return fail(0, "pid %d is still in use: %s has ended, but its parent %d has not taken notice", pid, stat.comm,
			    (pid_t)stat.field[4]);
	return fail(0, "pid %d is already in use by %s; end it, or restore in a pid namespace of its own", pid, stat.comm);
}

static int check_pids(const struct restore *r)
{
	VEC_FOREACH(tp, &r->plan->tasks) {
		int err = check_pid_free(tp->task->pid);

		VEC_FOREACH(th, &tp->task->threads) {
			if (!err && th->tid != tp->task->pid)
				err = check_pid_free(th->tid);
		}
		if (err)
			return err;
	}
	return 0;
}

/* A file as it is opened later: by what maps, executes or describes it. */
static int check_file(const struct file *f, uint32_t flags)
{
	_cleanup_close_ int fd = -1;

	return reg_open(f, flags, &fd);
}

static int check_files(const struct restore *r)
{
	VEC_FOREACH(fp, &r->m->files) {
		const struct file *f = *fp;
		int err = f->type == FILE_REG && !f->reg.ghost_id ? check_file(f, f->flags) : 0;

		if (err)
			return err;
	}
	VEC_FOREACH(mm, &r->m->mms) {
		const struct vma *prev = NULL;

		VEC_FOREACH(vma, &(*mm)->vmas) {
			const struct file *f = vma->file_id ? model_find_file(r->m, vma->file_id) : NULL;
			bool same = prev && prev->file_id == vma->file_id && prev->fdflags == vma->fdflags;
			int err = f && f->type == FILE_REG && !f->reg.ghost_id && !same ? check_file(f, vma->fdflags) : 0;

			if (err)
				return err;
			prev = vma;
		}
	}
	return 0;
}

static int check_session(const struct restore *r)
{
	const struct task *root = model_root(r->m);

	if (r->opts.shell_job || root->sid == root->pid)
		return 0;
	/* Leaders that have exited are made up for, but who still lives, or cannot even be seen, is somebody else's. */
	if (root->sid <= 0 || root->pgid <= 0 || !kill(root->sid, 0) || errno == EPERM)
		return fail(0, "pid %d: it belongs to session %d and process group %d of somebody outside the tree; use --shell-job "
			       "to put it into those of bcr",
			    root->pid, root->sid, root->pgid);
	if (r->opts.sibling)
		return fail(0, "pid %d: the leader of its session %d has exited, and such a tree cannot be restored with "
			       "--restore-sibling",
			    root->pid, root->sid);
	return 0;
}

static int check_limits(const struct restore *r)
{
	uint64_t want = r->plan->fd_files + (uint64_t)r->plan->nr_fds;

	if (want <= r->nofile.rlim_max)
		return 0;
	return fail(0, "the restore needs descriptor numbers up to %" PRIu64 ", and the hard limit of open files is %" PRIu64
		       "; raise it (ulimit -Hn)",
		    want, (uint64_t)r->nofile.rlim_max);
}

/* The instructions of the dumped vDSO against those of bcr's own: a thread may be about to return into it. */
static int compare_vdso(const struct restore *r, const struct mm *mm, const struct vma *vdso)
{
	const struct mem_range *own = NULL;
	struct pages_reader from = { .dirfd = r->opts.images_dirfd, .pages_id = mm->pages_id };
	uint8_t page[MODEL_PAGE_SIZE];
	int err = 0;

	VEC_FOREACH(special, &r->plan->own.specials) {
		if (special->is_vdso)
			own = &special->at;
	}
	VEC_FOREACH(run, &mm->pages) {
		taddr_t at = run->start > vdso->start ? run->start : vdso->start;
		taddr_t end = run->start + run->nr_pages * MODEL_PAGE_SIZE;

		for (; !err && own && page_run_has_contents(run) && at < end && at < vdso->end; at += MODEL_PAGE_SIZE) {
			err = pages_reader_read(&from, run, at - run->start, page, sizeof(page));
			if (!err && memcmp(page, (void *)(uintptr_t)(own->start + (at - vdso->start)), sizeof(page)))
				err = unsupported("pid %d: it was dumped on a kernel with another vDSO; restore it on that kernel",
						  mm->pid);
		}
	}
	pages_reader_close(&from);
	return err;
}

static int check_vdsos(const struct restore *r)
{
	VEC_FOREACH(mm, &r->m->mms) {
		VEC_FOREACH(vma, &(*mm)->vmas) {
			int err = vma->status & VMA_VDSO ? compare_vdso(r, *mm, vma) : 0;

			if (err)
				return err;
		}
	}
	return 0;
}

/* What a change of ids makes of "dumpable" is the system's setting, and only so can a process get 2. */
static int check_dumpable(const struct restore *r)
{
	uint64_t now = 0;

	VEC_FOREACH(p, &r->m->mms) {
		if ((*p)->dumpable != DUMPABLE_BY_ROOT)
			continue;
		int err = proc_read_u64(AT_FDCWD, "/proc/sys/fs/suid_dumpable", 10, &now);
		if (err)
			return fail(err, "read /proc/sys/fs/suid_dumpable");
		if (now != DUMPABLE_BY_ROOT)
			return fail(0, "pid %d: its core could be dumped for root only, which fs.suid_dumpable=%" PRIu64
				       " does not allow; set it to 2 (sysctl) for the restore",
				    (*p)->pid, now);
	}
	return 0;
}

/* What was dumped was not confined; what bcr restores has bcr's own label. */
static int check_label(void)
{
	_cleanup_free_ char *label = NULL;

	if (!label_in_use() || label_read(getpid(), getpid(), &label) || label_is_unconfined(label))
		return 0;
	return fail(0, "bcr is confined by a security module (label %.*s), and so would be what it restores; run it unconfined",
		    (int)strcspn(label, "\n"), label);
}

int restore_check(struct restore *r)
{
	int err = check_session(r);

	if (!err)
		err = check_pids(r);
	if (!err)
		err = check_dumpable(r);
	if (!err)
		err = check_label();
	if (!err)
		err = check_limits(r);
	if (!err)
		err = check_vdsos(r);
	if (!err)
		err = check_files(r);
	return err ? err : shmem_check(r);
}

/* --- files --- */

/* bcr's log and standard error move out of the way of the tasks' numbers. */
static int move_log(struct restore *r)
{
	if (log_fd() >= 0) {
		if (dup3(log_fd(), r->plan->fd_log, O_CLOEXEC) < 0)
			return fail(-errno, "keep the log as descriptor %d", r->plan->fd_log);
		close(log_fd());
		log_set_fd(r->plan->fd_log);
	}
	if (dup3(STDERR_FILENO, r->plan->fd_err, O_CLOEXEC) < 0 && errno != EBADF)
		return fail(-errno, "keep standard error as descriptor %d", r->plan->fd_err);
	return 0;
}

int restore_files(struct restore *r)
{
	int err = move_log(r);

	if (!err)
		err = shmem_make_files(r);
	if (!err)
		err = ghosts_make(r);
	return err ? err : files_hold(r);
}

/* --- fork and tasks --- */

/* What a task that dies before its parent leaves behind comes to us, and is waited for. */
static void become_subreaper(struct restore *r)
{
	int now = 0;

	if (!prctl(PR_GET_CHILD_SUBREAPER, &now) && !now && !prctl(PR_SET_CHILD_SUBREAPER, 1))
		r->made_subreaper = true;
}

int restore_fork(struct restore *r)
{
	sigset_t all, saved;
	int err = shmem_map_all(r);

	if (err)
		return err;
	become_subreaper(r);
	/* Tasks start with everything blocked and keep it so until the end; bcr itself stays interruptible. */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &saved);
	/* The root, or the helper that makes it. */
	size_t first = r->plan->tasks.v[0].birth.maker;
	pid_t pid = task_fork(r, first == TREE_OUTSIDE ? 0 : first, NULL);
	sigprocmask(SIG_SETMASK, &saved, NULL);
	if (pid < 0)
		return pid;
	r->root_pid = r->plan->tasks.v[0].task->pid;
	err = control_wait_arrivals(r, r->plan->tasks.nr);
	return err ? err : trace_tasks(r);
}

/* Threads get their filters one process after the other's common ones, each of them traced by then. */
static int pass_seccomp(struct restore *r)
{
	int err = control_wait_arrivals(r, r->plan->nr_slots);

	if (!err)
		err = trace_threads(r);
	if (err)
		return err;
	control_set_phase(r->control, PHASE_TRACED);
	err = control_wait_arrivals(r, r->plan->nr_slots);
	if (!err)
		control_set_phase(r->control, PHASE_FILTERS);
	return err;
}

static uint32_t nr_living(const struct model *m)
{
	uint32_t nr = 0;

	VEC_FOREACH(t, &m->tasks)
		nr += t->state != TASK_ZOMBIE;
	return nr;
}

int restore_tasks(struct restore *r)
{
	int err = 0;

	control_set_phase(r->control, PHASE_TASKS);
	if (r->plan->waits_for_all) {
		err = control_wait_arrivals(r, r->m->tasks.nr);
		if (!err)
			control_set_phase(r->control, PHASE_GROUPS);
		if (!err)
			err = task_reap_helpers(r, TREE_OUTSIDE);
		if (!err)
			err = control_wait_arrivals(r, nr_living(r->m));
		if (!err)
			control_set_phase(r->control, PHASE_DIRS);
	}
	if (!err && r->plan->has_seccomp)
		err = pass_seccomp(r);
	if (!err)
		err = control_wait_arrivals(r, r->plan->nr_slots);
	if (!err)
		err = shmem_finish(r);
	/* Every task has its own by now. */
	if (!err)
		files_release(r);
	return err;
}

/* --- abort --- */

static bool is_made(const struct restore *r, size_t i)
{
	return __atomic_load_n(&task_slot(r, i)->status, __ATOMIC_SEQ_CST) == RESTORER_READY;
}

/* Waits for the end of a process that has been killed, our child or not. */
static void await_end(pid_t pid)
{
	_cleanup_close_ int fd = syscall(SYS_pidfd_open, pid, 0);
	struct pollfd pfd = { .fd = fd, .events = POLLIN };

	while (fd >= 0 && poll(&pfd, 1, -1) < 0 && errno == EINTR)
		;
	while (waitpid(pid, NULL, __WALL) < 0 && errno == EINTR)
		;
}

/* Ends all that are noted, until nobody is noted any more who has not been ended. */
void restore_abort(struct restore *r)
{
	size_t nr = r && r->control ? r->plan->tasks.nr : 0;
	bool again = nr && !r->released;

	if (again)
		__atomic_store_n(&r->control->failed, 1, __ATOMIC_SEQ_CST);
	while (again) {
		again = false;
		for (size_t i = 0; i < nr; i++) {
			if (is_made(r, i))
				kill(r->plan->tasks.v[i].task->pid, SIGKILL);
		}
		/* Parents first: their children are ours to wait for once they are gone. */
		for (size_t i = 0; i < nr; i++) {
			if (!is_made(r, i))
				continue;
			await_end(r->plan->tasks.v[i].task->pid);
			task_slot(r, i)->status = RESTORER_RUNNING;
			again = true;
		}
	}
	if (r && !r->released)
		shmem_undo(r);
	if (r)
		r->root_pid = 0;
}
