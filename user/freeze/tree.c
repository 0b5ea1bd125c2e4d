/* The process tree: which processes and threads there are to be stopped, as a lister or /proc tells. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/syscall.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "freeze/hold.h"

enum { LISTER_TRIES = 100 };

static const size_t NOT_HELD = (size_t)-1;

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
		f->tasks.v[task].gone = f->changed = true;
	return 0;
}

struct held_task *hold_find_task(struct freeze *f, pid_t pid)
{
	uint32_t at = ident_map_find(&f->task_ids, (uint64_t)pid);

	return at && !f->tasks.v[at - 1].gone ? &f->tasks.v[at - 1] : NULL;
}

struct held_thread *hold_find_thread(struct freeze *f, pid_t tid)
{
	uint32_t at = ident_map_find(&f->thread_ids, (uint64_t)tid);

	return at && !f->threads.v[at - 1].gone ? &f->threads.v[at - 1] : NULL;
}

/*
 * Adds a process if it is not known; it has been seen. *ret is its index, NOT_HELD when it is gone, or seems to be:
 * while a thread that called execve takes the place of its leader, there is nobody of that number for a moment.
 */
static int add_task(struct freeze *f, pid_t pid, size_t *ret)
{
	struct held_task *t = hold_find_task(f, pid);

	*ret = NOT_HELD;
	if (!t) {
		_cleanup_close_ int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
		if (pidfd < 0 && errno != ESRCH)
			return fail(-errno, "pid %d: open a pidfd", pid);

		char path[64];
		snprintf(path, sizeof(path), "/proc/%d/task", pid);
		_cleanup_close_ int threads_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (threads_fd < 0 && errno != ENOENT && errno != ESRCH)
			return fail(-errno, "pid %d: open %s", pid, path);
		if (pidfd < 0 || threads_fd < 0) {
			f->changed = true;
			return 0;
		}

		if (VEC_RESERVE(&f->tasks, f->tasks.nr + 1) ||
		    ident_map_add(&f->task_ids, (uint64_t)pid, (uint32_t)f->tasks.nr + 1))
			return fail(-ENOMEM, "pid %d: stop", pid);
		t = VEC_ADD(&f->tasks);
		t->pid = pid;
		t->pidfd = take_fd(&pidfd);
		t->threads_fd = take_fd(&threads_fd);
	}
	t->listed = f->nr_listings;
	*ret = (size_t)(t - f->tasks.v);
	return 0;
}

char hold_state_in(int threads_fd, pid_t tid)
{
	char name[32], text[256];

	snprintf(name, sizeof(name), "%d/stat", tid);
	_cleanup_close_ int fd = openat(threads_fd, name, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (got <= 0)
		return 0;
	text[got] = 0;
	/* The name in parentheses may hold anything. */
	const char *end = strrchr(text, ')');
	return end && end[1] == ' ' ? end[2] : 0;
}

static int add_thread(struct freeze *f, size_t task, pid_t tid, void *arg)
{
	(void)arg;
	if (hold_find_thread(f, tid))
		return 0;
	if (VEC_RESERVE(&f->threads, f->threads.nr + 1) ||
	    ident_map_add(&f->thread_ids, (uint64_t)tid, (uint32_t)f->threads.nr + 1))
		return fail(-ENOMEM, "pid %d thread %d: stop", f->tasks.v[task].pid, tid);

	struct held_thread *t = VEC_ADD(&f->threads);

	t->tid = tid;
	t->task = task;
	t->ran = true; /* or, inside the stop, was made by a thread that ran */
	if (f->in_stop)
		return 0;
	char state = hold_state_in(f->tasks.v[task].threads_fd, tid);
	t->ran = state == 'R';
	f->vfork_seen = f->vfork_seen || (state == 'D' && hold_waits_for_vfork(tid));
	return 0;
}

/* What a lister tells: threads of one process come in a row. */
struct listing {
	struct freeze *f;
	pid_t pid;
	size_t task;
};

static int add_listed(void *ctx, pid_t pid, pid_t tid)
{
	struct listing *l = ctx;
	int err = pid == l->pid ? 0 : add_task(l->f, pid, &l->task);

	l->pid = pid;
	return err || l->task == NOT_HELD ? err : add_thread(l->f, l->task, tid, NULL);
}

static int list_by_lister(struct freeze *f)
{
	struct listing l = { .f = f };

	f->nr_listings++;
	f->changed = false;
	int err = f->lister->list(f->lister->arg, f->stopping, add_listed, &l);
	f->listed_last = !err && f->stopping;
	return err;
}

static int queue_task(struct freeze *f, pid_t pid)
{
	struct held_task *t = hold_find_task(f, pid);
	size_t task;

	if (t && t->listed == f->nr_listings)
		return 0;
	int err = add_task(f, pid, &task);
	if (err || task == NOT_HELD)
		return err;
	return VEC_PUSH(&f->queue, task) ? fail(-ENOMEM, "pid %d: stop", pid) : 0;
}

int hold_list_begin(struct freeze *f)
{
	f->nr_listings++;
	f->changed = false;
	f->queue.nr = 0;
	return queue_task(f, f->root);
}

int hold_list_threads(struct freeze *f, size_t task)
{
	return hold_each_thread(f, task, add_thread, NULL);
}

static int list_by_proc(struct freeze *f)
{
	int err = hold_list_begin(f);

	for (size_t i = 0; !err && i < f->queue.nr; i++) {
		err = hold_list_threads(f, f->queue.v[i]);
		if (!err)
			err = hold_list_children(f, f->queue.v[i]);
	}
	return err;
}

int hold_list(struct freeze *f)
{
	/* A tree that never keeps still long enough for the lister is listed piece by piece. */
	for (unsigned tries = 0; f->lister && tries < LISTER_TRIES; tries++) {
		int err = list_by_lister(f);

		if (err == -EOPNOTSUPP)
			break;
		if (err != -EAGAIN)
			return err;
	}
	return list_by_proc(f);
}

static int add_children_of(struct freeze *f, size_t task, pid_t tid, void *arg)
{
	char path[64];

	(void)arg;
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
		int err = queue_task(f, child);

		if (err)
			return err;
	}
	return 0;
}

int hold_list_children(struct freeze *f, size_t task)
{
	return hold_each_thread(f, task, add_children_of, NULL);
}

void hold_clear(struct freeze *f)
{
	VEC_FOREACH(t, &f->tasks) {
		close(t->pidfd);
		close(t->threads_fd);
	}
	VEC_FREE(&f->tasks);
	VEC_FREE(&f->threads);
	VEC_FREE(&f->queue);
	VEC_FREE(&f->pids);
	ident_map_deinit(&f->task_ids);
	ident_map_deinit(&f->thread_ids);
	f->nr_listings = 0;
	f->vfork_seen = false;
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

void hold_read_wchan(pid_t tid, char *buf, size_t len)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/wchan", tid);
	_cleanup_fclose_ FILE *in = fopen(path, "re");
	if (!in || !fgets(buf, (int)len, in) || buf[0] == '0')
		snprintf(buf, len, "the kernel");
}

bool hold_waits_for_vfork(pid_t tid)
{
	char wchan[128];

	hold_read_wchan(tid, wchan, sizeof(wchan));
	return strcmp(wchan, "kernel_clone") == 0 || strcmp(wchan, "wait_for_vfork_done") == 0;
}
