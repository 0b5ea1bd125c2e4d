/* The coordinator of a restore: what is checked, opened and mapped before tasks exist, and what ends them on failure. */
#include "restore/restore.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "kinds/kinds.h"
#include "restore/files.h"
#include "restore/plan.h"
#include "sys/proc.h"
#include "sys/tracee.h"
#include "restore/resume.h"

static const uint64_t reap_timeout_ns = 10ULL * 1000 * 1000 * 1000;

int restore_create(const struct model *m, const struct restore_options *opts, struct restore **ret)
{
	struct restore *r = calloc(1, sizeof(*r));

	if (!r)
		return fail(-ENOMEM, "restore");
	r->m = m;
	r->opts = *opts;
	r->caller_pgrp = getpgrp();
	int err = restore_plan_create(m, &r->plan);
	if (err) {
		free(r);
		return err;
	}
	VEC_FOREACH(mm, &m->mms) {
		VEC_FOREACH(run, &(*mm)->pages)
			r->all_bytes += run->flags & PAGES_PRESENT ? run->nr_pages * MODEL_PAGE_SIZE : 0;
	}
	*ret = r;
	return 0;
}

/* --- check --- */

static int check_pid_free(pid_t pid)
{
	char path[48], comm[64] = "another process";

	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	_cleanup_fclose_ FILE *f = fopen(path, "re");
	if (!f)
		return 0;
	if (fgets(comm, sizeof(comm), f))
		comm[strcspn(comm, "\n")] = 0;
	return fail(0, "pid %d is already in use by %s; end it, or restore in a pid namespace of its own", pid, comm);
}

static int check_pids(const struct restore *r)
{
	VEC_FOREACH(t, &r->m->tasks) {
		int err = check_pid_free(t->pid);

		VEC_FOREACH(th, &t->threads) {
			if (!err)
				err = check_pid_free(th->tid);
		}
		if (err)
			return err;
	}
	return 0;
}

static int check_file(const struct model *m, uint32_t file_id, uint32_t flags)
{
	const struct file *f = model_find_file(m, file_id);
	_cleanup_close_ int fd = -1;

	return f && f->type == FILE_REG ? reg_open(f, flags, &fd) : 0;
}

/* Everything that is opened by path later on: better to fail now. */
static int check_files(const struct restore *r)
{
	const struct model *m = r->m;
	int err = 0;

	VEC_FOREACH(mm, &m->mms) {
		uint32_t last = 0;

		err = check_file(m, (*mm)->exe_file_id, O_RDONLY);
		VEC_FOREACH(vma, &(*mm)->vmas) {
			if (err)
				return err;
			if (vma->file_id && vma->file_id != last)
				err = check_file(m, vma->file_id, vma->fdflags);
			last = vma->file_id;
		}
	}
	VEC_FOREACH(fs, &m->fss) {
		if (!err)
			err = check_file(m, (*fs)->cwd_file_id, O_RDONLY);
		if (!err)
			err = check_file(m, (*fs)->root_file_id, O_RDONLY);
	}
	return err;
}

static int check_outside(const struct restore *r)
{
	const struct task *root = model_root(r->m);

	if (r->opts.shell_job || (model_find_task(r->m, root->sid) && model_find_task(r->m, root->pgid)))
		return 0;
	return fail(0, "pid %d: its session %d or process group %d was a shell's; use --shell-job", root->pid, root->sid,
		    root->pgid);
}

/* The dumped vDSO against bcr's own: code that was returning into it must find the same instructions. */
static int check_vdso(const struct restore *r)
{
	const struct mem_range *own = NULL;
	uint8_t page[MODEL_PAGE_SIZE];

	VEC_FOREACH(s, &r->plan->own.specials) {
		if (s->is_vdso)
			own = &s->at;
	}
	VEC_FOREACH(mmp, &r->m->mms) {
		const struct mm *mm = *mmp;
		const struct vma *vdso = NULL;

		VEC_FOREACH(vma, &mm->vmas) {
			if (vma->status & VMA_VDSO)
				vdso = vma;
		}
		if (!vdso || !own || !mm->pages_id)
			continue;
		_cleanup_close_ int fd = -1;
		int err = images_open_pages(r->opts.images_dirfd, mm->pages_id, &fd);
		if (err)
			return err;
		VEC_FOREACH(run, &mm->pages) {
			for (uint64_t i = 0; run->flags & PAGES_PRESENT && i < run->nr_pages; i++) {
				taddr_t at = run->start + i * MODEL_PAGE_SIZE;

				if (at < vdso->start)
					i += (vdso->start - at) / MODEL_PAGE_SIZE - 1;
				if (at >= vdso->end || at < vdso->start) {
					if (at >= vdso->end)
						break;
					continue;
				}
				if (pread(fd, page, sizeof(page), run->offset_bytes + i * MODEL_PAGE_SIZE) !=
				    (ssize_t)sizeof(page))
					return fail(-EIO, "pid %d: read its vDSO from the image", mm->pid);
				if (memcmp(page, (void *)(uintptr_t)(own->start + (at - vdso->start)), sizeof(page)))
					return unsupported("pid %d: it was dumped on a kernel with another vDSO; restore it "
							   "on the same kernel",
							   mm->pid);
			}
		}
	}
	return 0;
}

static int raise_file_limit(const struct restore_plan *p)
{
	struct rlimit lim;
	rlim_t want = p->fd_files + p->m->files.nr + 1;

	if (getrlimit(RLIMIT_NOFILE, &lim))
		return fail(-errno, "limit of open files");
	if (lim.rlim_cur >= want)
		return 0;
	lim.rlim_cur = lim.rlim_max < want ? lim.rlim_max : want;
	if (lim.rlim_cur < want)
		return fail(0, "restoring needs %ju open files and the hard limit is %ju; raise it (ulimit -Hn)",
			    (uintmax_t)want, (uintmax_t)lim.rlim_max);
	return setrlimit(RLIMIT_NOFILE, &lim) ? fail(-errno, "limit of open files: set to %ju", (uintmax_t)want) : 0;
}

int restore_check(struct restore *r)
{
	int err = check_outside(r);

	if (!err)
		err = check_pids(r);
	if (!err)
		err = check_files(r);
	if (!err)
		err = check_vdso(r);
	return err ? err : raise_file_limit(r->plan);
}

/* --- files --- */

static int keep_own_fds(struct restore *r)
{
	const struct restore_plan *p = r->plan;
	int log = log_fd();

	if (log >= 0) {
		if (dup3(log, p->fd_log, O_CLOEXEC) < 0)
			return fail(-errno, "keep the log file as descriptor %d", p->fd_log);
		log_set_fd(p->fd_log);
		close(log);
	}
	if (dup3(STDERR_FILENO, p->fd_err, O_CLOEXEC) < 0 && errno != EBADF)
		return fail(-errno, "keep standard error as descriptor %d", p->fd_err);
	return 0;
}

int restore_files(struct restore *r)
{
	sigset_t all;
	int err = keep_own_fds(r);

	if (err)
		return err;
	/* Tasks inherit it: nothing may be delivered to them before they are what they were. */
	sigfillset(&all);
	if (sigprocmask(SIG_BLOCK, &all, &r->old_mask))
		return fail(-errno, "block signals");
	r->mask_saved = true;
	return files_hold(r);
}

/* --- addresses, shared memory, fork --- */

static int reserve(taddr_t start, taddr_t end)
{
	void *at = mmap((void *)(uintptr_t)start, end - start, PROT_NONE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);

	if (at == MAP_FAILED)
		return -errno;
	return (uintptr_t)at == start ? 0 : -EEXIST;
}

/* Keeps the C library and the kernel from putting anything where the target's memory goes. */
static int reserve_all(const struct restore *r)
{
	const struct restore_plan *p = r->plan;
	int err = reserve(p->hole.start, p->hole.end);

	if (err)
		return fail(err, "reserve addresses %" PRIx64 "-%" PRIx64 " for the restorer", p->hole.start, p->hole.end);
	VEC_FOREACH(mm, &r->m->mms) {
		VEC_FOREACH(vma, &(*mm)->vmas) {
			if (vma->status & (VMA_VDSO | VMA_VVAR) || plan_vma_at(p, vma) != vma->start)
				continue;
			/* EEXIST: another task's memory has reserved (part of) it; pieces are enough. */
			err = reserve(vma->start, vma->end);
			for (taddr_t at = vma->start; err == -EEXIST && at < vma->end && vma->end - at <= 64 << 20;
			     at += MODEL_PAGE_SIZE)
				reserve(at, at + MODEL_PAGE_SIZE);
			if (err && err != -EEXIST)
				return fail(err, "reserve addresses %" PRIx64 "-%" PRIx64 " of pid %d", vma->start, vma->end,
					    (*mm)->pid);
		}
	}
	return 0;
}

static int map_control(struct restore *r)
{
	const struct restore_plan *p = r->plan;
	void *at = mmap((void *)(uintptr_t)p->control, p->control_bytes, PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	if (at == MAP_FAILED)
		return fail(-errno, "map the control block");
	r->control = at;
	return 0;
}

static int fill_shmem(struct restore *r, const struct shmem *s, uint8_t *at)
{
	_cleanup_close_ int fd = -1;
	int err = s->pages_id ? images_open_pages(r->opts.images_dirfd, s->pages_id, &fd) : 0;

	if (err)
		return err;
	VEC_FOREACH(run, &s->pages) {
		size_t len = run->nr_pages * MODEL_PAGE_SIZE;

		for (size_t done = 0; run->flags & PAGES_PRESENT && done < len;) {
			ssize_t got = pread(fd, at + run->start + done, len - done, run->offset_bytes + done);

			if (got <= 0)
				return fail(got ? -errno : -EIO, "shared memory %u: read its pages from the image", s->id);
			done += got;
		}
	}
	return 0;
}

static int map_shmems(struct restore *r)
{
	const struct restore_plan *p = r->plan;

	for (size_t i = 0; i < r->m->shmems.nr; i++) {
		const struct shmem *s = r->m->shmems.v[i];
		void *want = (void *)(uintptr_t)p->shmem_at.v[i];
		uint64_t bytes = (s->size_bytes + MODEL_PAGE_SIZE - 1) & ~(uint64_t)(MODEL_PAGE_SIZE - 1);

		if (!bytes)
			continue;
		if (mmap(want, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
			 0) != want)
			return fail(-errno, "shared memory %u: map %" PRIu64 " bytes", s->id, bytes);
		int err = fill_shmem(r, s, want);
		if (err)
			return err;
	}
	return 0;
}

int restore_fork(struct restore *r)
{
	int err = reserve_all(r);

	if (!err)
		err = map_control(r);
	if (!err)
		err = map_shmems(r);
	if (err)
		return err;
	pid_t pid = task_fork(r, 0, NULL);
	if (pid < 0)
		return pid;
	r->root_pid = pid;
	return control_wait_arrivals(r, r->plan->tasks.nr);
}

int restore_tasks(struct restore *r)
{
	int err = resume_trace_tasks(r);

	if (err)
		return err;
	control_set_phase(r->control, PHASE_TASKS);
	err = control_wait_arrivals(r, r->plan->nr_slots);
	if (!err)
		files_release(r);
	return err;
}

static void restore_mask(struct restore *r)
{
	if (r->mask_saved)
		sigprocmask(SIG_SETMASK, &r->old_mask, NULL);
	r->mask_saved = false;
}

int restore_resume(struct restore *r, struct restore_stats *stats)
{
	int err = resume_all(r);

	if (err)
		return err;
	stats->pages_compared = r->control->pages_compared;
	stats->pages_skipped_cow = r->control->pages_skipped_cow;
	stats->pages_restored = r->control->pages_restored;
	restore_mask(r);
	return 0;
}

pid_t restore_root_pid(const struct restore *r)
{
	return r->root_pid;
}

/* --- the end of a failed one --- */

static pid_t parent_of(pid_t pid)
{
	struct proc_stat stat;
	_cleanup_close_ int dir = -1;

	if (proc_open(pid, &dir) || proc_read_stat(dir, "stat", &stat))
		return 0;
	return stat.field[4];
}

/* Is it one of the processes made here, and not a stranger that had the number before? */
static bool is_ours(const struct restore *r, pid_t pid)
{
	for (int depth = 0; pid > 1 && depth < 10000; depth++) {
		if (pid == r->root_pid)
			return true;
		pid = parent_of(pid);
	}
	return false;
}

static void reap(pid_t pid)
{
	uint64_t deadline = ptrace_now_ns() + reap_timeout_ns;
	struct ptrace_stop stop = { .kind = PTRACE_STOP_OTHER };

	while (stop.kind != PTRACE_GONE && !ptrace_wait(pid, deadline, &stop))
		;
}

void restore_abort(struct restore *r)
{
	if (r && r->root_pid) {
		/* Children first: an orphan would not be found any more. */
		for (size_t i = r->plan->tasks.nr; i-- > 0;) {
			const struct task_plan *tp = &r->plan->tasks.v[i];

			if (is_ours(r, tp->task->pid))
				kill(tp->task->pid, SIGKILL);
		}
		for (size_t i = r->plan->tasks.nr; i-- > 0 && r->traced;) {
			const struct task_plan *tp = &r->plan->tasks.v[i];

			VEC_FOREACH(th, &tp->threads) {
				if (th->thread->tid != tp->task->pid)
					reap(th->thread->tid);
			}
			if (tp->mm)
				reap(tp->task->pid);
		}
		reap(r->root_pid);
		r->root_pid = 0;
	}
	if (r)
		restore_mask(r);
}

void restore_destroy(struct restore *r)
{
	if (!r)
		return;
	if (r->control)
		munmap((void *)(uintptr_t)r->plan->hole.start, r->plan->hole.end - r->plan->hole.start);
	restore_plan_destroy(r->plan);
	free(r);
}
