/* Descriptors: made once by the coordinator under high numbers, put in place by each task. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "kinds/kinds.h"
#include "restore/files.h"

/* Position of a file in the model: its held number is fd_files + that. */
static ssize_t file_index(const struct model *m, uint32_t file_id)
{
	size_t lo = 0, hi = m->files.nr;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (m->files.v[mid]->id < file_id)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < m->files.nr && m->files.v[lo]->id == file_id ? (ssize_t)lo : -1;
}

static int held_fd(const struct restore_ctx *ctx, uint32_t file_id)
{
	const struct restore *r = ctx->arg;
	ssize_t i = file_index(r->m, file_id);

	if (i < 0 || fcntl(r->plan->fd_files + i, F_GETFD) < 0)
		return -ENOENT;
	return r->plan->fd_files + i;
}

static int hold(const struct restore_ctx *ctx, uint32_t file_id, int fd)
{
	const struct restore *r = ctx->arg;
	ssize_t i = file_index(r->m, file_id);

	if (i < 0)
		return -ENOENT;
	return dup3(fd, r->plan->fd_files + i, O_CLOEXEC) < 0 ? -errno : 0;
}

int restore_open_held(int held, uint32_t flags, const char *name, int *ret)
{
	/* What concerns only the first opening. */
	uint32_t drop = O_CREAT | O_EXCL | O_TRUNC | O_ASYNC | O_NOFOLLOW | O_TMPFILE;
	char path[40];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", held);
	*ret = open(path, (flags & ~drop) | O_CLOEXEC);
	return *ret < 0 ? fail(-errno, "%s, a file without a name: open it", name) : 0;
}

int restore_open_file(const struct restore *r, const struct file *f, uint32_t flags, int *ret)
{
	if (f->type == FILE_MEMFD)
		return shmem_open_file(r, f->memfd.shmem_id, flags, ret);
	return f->reg.ghost_id ? ghost_open_file(r, f, flags, ret) : reg_open(f, flags, ret);
}

static int open_object(const struct restore_ctx *ctx, const struct file *f, uint32_t flags, int *ret)
{
	return restore_open_file(ctx->arg, f, flags, ret);
}

static struct restore_ctx context(struct restore *r, const struct task *self)
{
	return (struct restore_ctx){
		.m = r->m,
		.shell_job = r->opts.shell_job,
		.self = self,
		.held_fd = held_fd,
		.hold = hold,
		.open_object = open_object,
		.arg = r,
	};
}

/*
 * Where each file is held first: the process in which its relations are made. Files that are only mapped, executables or
 * directories have no descriptor.
 */
static int find_owners(struct restore *r)
{
	r->owners = calloc(r->m->files.nr + 1, sizeof(*r->owners));
	if (!r->owners)
		return fail(-ENOMEM, "list of open files");
	VEC_FOREACH(t, &r->m->tasks) {
		const struct fdtable *table = model_find_fdtable(r->m, t->files_id);

		for (size_t k = 0; table && k < table->fds.nr; k++) {
			ssize_t i = file_index(r->m, table->fds.v[k].file_id);

			if (i >= 0 && !r->owners[i].pid)
				r->owners[i] = (struct file_owner){ .pid = t->pid, .fd = table->fds.v[k].fd };
		}
	}
	return 0;
}

/* Moves a descriptor to the number the plan has for it. */
static int move_fd(int *fd, int to)
{
	if (dup3(*fd, to, O_CLOEXEC) < 0)
		return -errno;
	close(take_fd(fd));
	return 0;
}

static int hold_file(struct restore *r, const struct file *f, int number)
{
	const struct kind *kind = kind_of_type(f->type);
	struct restore_ctx ctx = context(r, NULL);
	_cleanup_close_ int fd = -1;

	if (!kind || !kind->restore || kind->per_task)
		return fail(0, "file %u: files of type %d cannot be restored", f->id, f->type);
	int err = kind->restore(&ctx, f, &fd);
	if (err)
		return err;
	err = move_fd(&fd, number);
	return err ? fail(err, "%s %u: keep it as descriptor %d; the limit of open files may be too low", kind->name,
			  f->id, number)
		   : 0;
}

int files_hold(struct restore *r)
{
	int err = find_owners(r);

	for (size_t i = 0; !err && i < r->m->files.nr; i++) {
		const struct file *f = r->m->files.v[i];

		/* A pipe's second end has come with the first. */
		if (r->owners[i].pid && fcntl(r->plan->fd_files + i, F_GETFD) < 0)
			err = hold_file(r, f, r->plan->fd_files + i);
	}
	return err;
}

void files_release(struct restore *r)
{
	syscall(SYS_close_range, r->plan->fd_files, r->plan->fd_files + (unsigned)r->plan->nr_fds, 0);
}

static int connect_files(struct restore *r, const struct task *self, const struct fdtable *table)
{
	struct restore_ctx ctx = context(r, self);

	VEC_FOREACH(fd, &table->fds) {
		ssize_t i = file_index(r->m, fd->file_id);
		const struct file *f = i < 0 ? NULL : r->m->files.v[i];
		const struct kind *kind = f ? kind_of_type(f->type) : NULL;

		if (!kind || !kind->connect || r->owners[i].pid != self->pid || r->owners[i].fd != fd->fd)
			continue;
		int err = kind->connect(&ctx, f, fd->fd);
		if (err)
			return err;
	}
	return 0;
}

static int place_fds(struct restore *r, const struct task *self, const struct fdtable *table)
{
	VEC_FOREACH(fd, &table->fds) {
		ssize_t i = file_index(r->m, fd->file_id);

		if (i < 0)
			return fail(0, "pid %d fd %d: its file %u is not in the images", self->pid, fd->fd, fd->file_id);
		if (dup3(r->plan->fd_files + i, fd->fd, fd->cloexec ? O_CLOEXEC : 0) < 0)
			return fail(-errno, "pid %d fd %d: put it in place", self->pid, fd->fd);
	}
	return 0;
}

static int close_between(int from, int to)
{
	if (from > to)
		return 0;
	return syscall(SYS_close_range, (unsigned)from, (unsigned)to, 0) ? -errno : 0;
}

/* Numbers the table does not have, below those that bcr keeps for a little longer. */
static int close_unused(const struct restore *r, const struct fdtable *table)
{
	int from = 0, err = 0;

	VEC_FOREACH(fd, &table->fds) {
		if (!err)
			err = close_between(from, fd->fd - 1);
		from = fd->fd + 1;
	}
	return err ? err : close_between(from, r->plan->fd_log - 1);
}

/* By its path; or, if it has been removed, by the descriptor it is held by. */
static int open_dir(const struct restore *r, const struct task *t, const char *what, uint32_t file_id, int *ret)
{
	const struct file *f = model_find_file(r->m, file_id);

	if (!f || f->type != FILE_REG || !f->path)
		return fail(0, "pid %d: its %s is not in the images", t->pid, what);
	if (f->reg.ghost_id)
		return ghost_open_file(r, f, O_RDONLY | O_DIRECTORY, ret);
	*ret = open(f->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return *ret < 0 ? fail(-errno, "pid %d: open its %s %s", t->pid, what, f->path) : 0;
}

int task_enter_dirs(struct restore *r, const struct task_plan *tp)
{
	const struct task *t = tp->task;
	const struct fs *fs = model_find_fs(r->m, t->fs_id);
	_cleanup_close_ int cwd = -1, root = -1;

	if (tp->birth.with_fs)
		return 0;
	if (!fs)
		return fail(0, "pid %d: its directories are not in the images", t->pid);
	int err = open_dir(r, t, "working directory", fs->cwd_file_id, &cwd);
	if (!err)
		err = open_dir(r, t, "root directory", fs->root_file_id, &root);
	if (err)
		return err;
	if (strcmp(model_find_file(r->m, fs->root_file_id)->path, "/") && (fchdir(root) || chroot(".")))
		return fail(-errno, "pid %d: change its root to %s", t->pid, model_find_file(r->m, fs->root_file_id)->path);
	if (fchdir(cwd))
		return fail(-errno, "pid %d: enter its working directory %s", t->pid, model_find_file(r->m, fs->cwd_file_id)->path);
	umask(fs->umask);
	return 0;
}

int task_open_exe(struct restore *r, const struct task_plan *tp)
{
	const struct file *exe = model_find_file(r->m, tp->mm->exe_file_id);
	_cleanup_close_ int fd = -1;

	if (!exe)
		return fail(0, "pid %d: its executable is not in the images", tp->task->pid);
	int err = restore_open_file(r, exe, O_RDONLY, &fd);
	if (err)
		return err;
	err = move_fd(&fd, tp->fd_exe);
	return err ? fail(err, "pid %d: keep its executable as descriptor %d", tp->task->pid, tp->fd_exe) : 0;
}

int task_install_files(struct restore *r, const struct task_plan *tp)
{
	const struct task *t = tp->task;
	const struct restore_plan *p = r->plan;
	const struct fdtable none = { 0 };
	const struct fdtable *table = model_find_fdtable(r->m, t->files_id);

	if (!table)
		table = &none;
	if (tp->birth.with_files)
		return 0;
	/* From here on 0 to 2 may be the program's. */
	int err = place_fds(r, t, table);
	if (!err)
		err = connect_files(r, t, table);
	if (err)
		return err;
	err = close_unused(r, table);
	if (!err)
		err = close_between(p->fd_files, ~0U >> 1);
	return err ? fail(err, "pid %d: close what is not its own", t->pid) : 0;
}
