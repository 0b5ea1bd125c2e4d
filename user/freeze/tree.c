/* The process tree as /proc shows it: which processes and threads there are to be stopped. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/syscall.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "freeze/hold.h"

static struct held_task *find_task(struct freeze *f, pid_t pid)
{
	VEC_FOREACH(t, &f->tasks)
		if (t->pid == pid && !t->gone)
			return t;
	return NULL;
}

struct held_thread *hold_find_thread(struct freeze *f, pid_t tid)
{
	/* Threads are asked for in the order they were added: the next one is where the last one was. */
	for (size_t n = 0; n < f->threads.nr; n++) {
		size_t i = (f->find_hint + n) % f->threads.nr;

		if (f->threads.v[i].tid == tid && !f->threads.v[i].gone) {
			f->find_hint = i + 1;
			return &f->threads.v[i];
		}
	}
	return NULL;
}

int hold_add_task(struct freeze *f, pid_t pid, bool *ret_new)
{
	if (find_task(f, pid))
		return 0;

	_cleanup_close_ int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0)
		return errno == ESRCH ? 0 : fail(-errno, "pid %d: open a pidfd", pid);

	char path[64];
	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	_cleanup_close_ int threads_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (threads_fd < 0)
		return errno == ENOENT ? 0 : fail(-errno, "pid %d: open %s", pid, path);

	struct held_task *t = VEC_ADD(&f->tasks);
	if (!t)
		return fail(-ENOMEM, "pid %d: stop", pid);
	t->pid = pid;
	t->pidfd = take_fd(&pidfd);
	t->threads_fd = take_fd(&threads_fd);
	if (ret_new)
		*ret_new = true;
	return 0;
}

int hold_each_thread(struct freeze *f, size_t task,
		     int (*fn)(struct freeze *f, size_t task, pid_t tid, void *arg), void *arg)
{
	int dup_fd = fcntl(f->tasks.v[task].threads_fd, F_DUPFD_CLOEXEC, 0);
	if (dup_fd < 0)
		return fail(-errno, "pid %d: list threads", f->tasks.v[task].pid);
	_cleanup_closedir_ DIR *dir = fdopendir(dup_fd);
	if (!dir) {
		close(dup_fd);
		return fail(-errno, "pid %d: list threads", f->tasks.v[task].pid);
	}
	/* The duplicate shares its position with the original, which was read to its end before. */
	rewinddir(dir);

	bool any = false;
	const struct dirent *e;

	while ((e = readdir(dir))) {
		pid_t tid = (pid_t)strtol(e->d_name, NULL, 10);

		if (tid <= 0)
			continue;
		any = true;
		int err = fn(f, task, tid, arg);
		if (err)
			return err;
	}
	if (!any)
		f->tasks.v[task].gone = true;
	return 0;
}

static int add_children_of(struct freeze *f, size_t task, pid_t tid, void *arg)
{
	char path[64];

	snprintf(path, sizeof(path), "%d/children", tid);
	int fd = openat(f->tasks.v[task].threads_fd, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 && (errno == ENOENT || errno == ESRCH)) {
		/* A thread that exited meanwhile; or the kernel has no such files at all. */
		if (access("/proc/thread-self/children", F_OK) != 0)
			return unsupported("this kernel has no /proc/PID/task/TID/children (CONFIG_PROC_CHILDREN)");
		return 0;
	}
	_cleanup_fclose_ FILE *in = fd < 0 ? NULL : fdopen(fd, "r");
	if (!in) {
		int err = -errno;

		if (fd >= 0)
			close(fd);
		return fail(err, "pid %d: list children", f->tasks.v[task].pid);
	}

	int child;

	while (fscanf(in, "%d", &child) == 1) {
		int err = hold_add_task(f, child, arg);

		if (err)
			return err;
	}
	return 0;
}

int hold_add_children(struct freeze *f, size_t task, bool *ret_new)
{
	return hold_each_thread(f, task, add_children_of, ret_new);
}

void hold_clear(struct freeze *f)
{
	VEC_FOREACH(t, &f->tasks) {
		close(t->pidfd);
		close(t->threads_fd);
	}
	VEC_FREE(&f->tasks);
	VEC_FREE(&f->threads);
	VEC_FREE(&f->pids);
	f->find_hint = 0;
}

static FILE *open_status(pid_t tid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/status", tid);
	return fopen(path, "re");
}

long hold_status_number(pid_t tid, const char *field, int base)
{
	_cleanup_fclose_ FILE *in = open_status(tid);
	char line[512];
	size_t len = strlen(field);

	while (in && fgets(line, sizeof(line), in))
		if (strncmp(line, field, len) == 0 && line[len] == ':')
			return strtol(line + len + 1, NULL, base);
	return -1;
}

char hold_state(pid_t tid)
{
	_cleanup_fclose_ FILE *in = open_status(tid);
	char line[512], state = 0;

	while (in && fgets(line, sizeof(line), in))
		if (sscanf(line, "State: %c", &state) == 1)
			return state;
	return 0;
}
