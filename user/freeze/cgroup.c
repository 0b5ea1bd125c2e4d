/*
 * Freezing by the cgroup v2 freezer, when the tree has a cgroup of its own.
 *
 * Theory of operation. The kernel stops all of a cgroup at once and needs no list of threads; nothing is attached, so
 * ptrace stays free. But a frozen cgroup stays frozen when bcr dies: a watchdog process, made before the freeze and
 * in a session of its own, holds a pidfd of bcr and thaws the cgroup if bcr ends first. And like any stop this one
 * breaks off system calls of the live program: before the thaw the threads in such calls are seized, told to restart
 * (attaching works on frozen tasks), and released.
 *
 * Whoever needs more than /proc shows (need_ptrace) gets every thread seized while the cgroup is frozen; then the
 * cgroup is thawed, the threads stay in their ptrace stops, and from there on it is the ptrace back end's freeze.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "freeze/hold.h"
#include "sys/cgroup2.h"
#include "sys/interrupted-x86_64.h"
#include "sys/tracee.h"
#include "sys/waits.h"

enum { EARLY_LOOKS = 3 };

struct cgroup_hold {
	char path[CGROUP_PATH_BYTES];
	int dir_fd, freeze_fd, events_fd; /* owned */
	pid_t watchdog;
	int watchdog_fd;                  /* owned; a byte tells the watchdog to go */
	atomic_bool *frozen;              /* shared with the watchdog */
};

static void read_small(int dir_fd, const char *file, char *buf, size_t len)
{
	_cleanup_close_ int fd = openat(dir_fd, file, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : read(fd, buf, len - 1);

	buf[got > 0 ? got : 0] = 0;
}

/*
 * Marks what the last listing did not show, and zombies, as gone. A dead leader with living threads is a process all
 * the same.
 */
static void note_tasks(struct freeze *f)
{
	VEC_FOREACH(t, &f->tasks) {
		char state = t->gone || t->listed != f->nr_listings ? 0 : hold_state_in(t->threads_fd, t->pid);

		t->was_stopped = state == 'T';
		t->gone = !state || state == 'X' || (state == 'Z' && hold_status_number(t->pid, "Threads", 10) <= 1);
	}
}

/* Are the processes of the cgroup exactly those of the tree? Zombies belong to no cgroup any more. */
static bool holds_exactly_the_tree(struct freeze *f)
{
	int fd = openat(f->cgroup->dir_fd, "cgroup.procs", O_RDONLY | O_CLOEXEC);
	_cleanup_fclose_ FILE *in = fd < 0 ? NULL : fdopen(fd, "r");
	size_t nr_there = 0, nr_alive = 0;
	int pid;

	if (!in)
		return false;
	for (; fscanf(in, "%d", &pid) == 1; nr_there++)
		if (!hold_find_task(f, pid))
			return false;
	VEC_FOREACH(t, &f->tasks)
		nr_alive += !t->gone;
	return nr_there == nr_alive && nr_there > 0;
}

/* Lists the tree and says whether it is what the cgroup holds. */
static bool list_is_cgroup(struct freeze *f)
{
	if (hold_list(f))
		return false;
	note_tasks(f);
	return holds_exactly_the_tree(f);
}

static int thaw_cgroup(struct freeze *f)
{
	struct cgroup_hold *c = f->cgroup;

	if (!atomic_load(c->frozen))
		return 0;
	if (pwrite(c->freeze_fd, "0", 1, 0) != 1)
		return fail(-errno, "cgroup %s: thaw", c->path);
	atomic_store(c->frozen, false);
	return 0;
}

static void cgroup_deinit(struct freeze *f)
{
	struct cgroup_hold *c = f->cgroup;

	if (!c)
		return;
	/*
	 * A thaw that has failed is tried once more, and then left to the watchdog: it thaws when the pipe ends
	 * without a word.
	 */
	bool done = !c->frozen || !thaw_cgroup(f);

	/* A word and not the end of the pipe: children of bcr may hold it, too. */
	if (done && c->watchdog > 0 && write(c->watchdog_fd, "", 1) != 1)
		kill(c->watchdog, SIGKILL);
	cleanup_close(&c->watchdog_fd);
	if (done && c->watchdog > 0)
		while (waitpid(c->watchdog, NULL, 0) < 0 && errno == EINTR)
			;
	if (c->frozen)
		munmap(c->frozen, sizeof(*c->frozen));
	cleanup_close(&c->dir_fd);
	cleanup_close(&c->freeze_fd);
	cleanup_close(&c->events_fd);
	free(c);
	f->cgroup = NULL;
}

/* Opens the cgroup's files. Returns why the freezer cannot be used, or NULL. */
static const char *open_cgroup(struct freeze *f)
{
	char name[CGROUP_PATH_BYTES], text[256];
	struct cgroup_hold *c = f->cgroup;

	if (!cgroup2_name(f->root, name, sizeof(name)) || !cgroup2_dir(name, c->path, sizeof(c->path)))
		return "no cgroup v2 directory of it is mounted here";
	if (strcmp(name, "/") == 0)
		return "it is in the root cgroup";
	c->dir_fd = open(c->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (c->dir_fd < 0)
		return "its cgroup directory cannot be opened";
	c->freeze_fd = openat(c->dir_fd, "cgroup.freeze", O_RDWR | O_CLOEXEC);
	c->events_fd = openat(c->dir_fd, "cgroup.events", O_RDONLY | O_CLOEXEC);
	if (c->freeze_fd < 0 || c->events_fd < 0)
		return "its cgroup has no freezer that bcr may write to";
	read_small(c->dir_fd, "cgroup.freeze", text, sizeof(text));
	if (text[0] == '1')
		return "somebody else has frozen its cgroup";
	read_small(c->dir_fd, "cgroup.stat", text, sizeof(text));
	if (!strstr(text, "nr_descendants 0\n"))
		return "its cgroup has cgroups below it";

	bool exactly = list_is_cgroup(f);
	hold_clear(f);
	return exactly ? NULL : "its cgroup does not hold exactly its process tree";
}

static bool is_frozen(const struct cgroup_hold *c)
{
	char text[256];
	ssize_t got = pread(c->events_fd, text, sizeof(text) - 1, 0);

	text[got > 0 ? got : 0] = 0;
	return strstr(text, "frozen 1") != NULL;
}

static int freeze_cgroup(struct freeze *f)
{
	struct cgroup_hold *c = f->cgroup;

	/* Said before it is done: thawing what is not frozen does no harm. */
	atomic_store(c->frozen, true);
	if (pwrite(c->freeze_fd, "1", 1, 0) != 1) {
		int err = -errno;

		atomic_store(c->frozen, false);
		return err;
	}
	for (int look = 0; !is_frozen(c); look++) {
		uint64_t now_ns = ptrace_now_ns();
		struct pollfd p = { .fd = c->events_fd, .events = POLLPRI };

		if (now_ns >= f->deadline_ns)
			return -ETIMEDOUT;
		/* Few tasks are frozen by the next look; for more of them, and lest we keep them from running, wait. */
		if (look >= EARLY_LOOKS)
			poll(&p, 1, (int)((f->deadline_ns - now_ns) / 1000000 + 1));
	}
	return 0;
}

/* From here on the freeze is one by ptrace. */
static int fall_back(struct freeze *f, const char *why)
{
	int err = thaw_cgroup(f);

	if (err)
		return err;
	log_info("pid %d: %s; stopping it by ptrace instead", f->root, why);
	cgroup_deinit(f);
	hold_clear(f);
	f->ops = &freeze_ptrace_ops;
	f->deadline_ns = ptrace_now_ns() + (uint64_t)f->timeout_s * 1000000000u;
	err = hold_list(f);
	return err ? err : f->ops->stop(f);
}

static int cgroup_stop(struct freeze *f)
{
	int err = freeze_cgroup(f);

	if (err)
		return fall_back(f, err == -ETIMEDOUT ? "its cgroup does not freeze in time" : "its cgroup cannot be frozen");
	if (!list_is_cgroup(f))
		return fall_back(f, "its cgroup does not hold exactly its process tree any more");
	return 0;
}

/* The number of the call a thread is in, or -1. */
static long current_call(int threads_fd, pid_t tid)
{
	char path[32], text[64];

	snprintf(path, sizeof(path), "%d/syscall", tid);
	read_small(threads_fd, path, text, sizeof(text));
	return text[0] >= '0' && text[0] <= '9' ? strtol(text, NULL, 10) : -1;
}

static int hide_stop_of(struct freeze *f, size_t task, pid_t tid, void *arg)
{
	struct ptrace_stop stop = { .kind = PTRACE_STOP_OTHER };
	long nr = current_call(f->tasks.v[task].threads_fd, tid);

	if (nr < 0 || !call_is_never_restarted((uint64_t)nr))
		return 0;
	int err = ptrace_seize(tid, 0);
	if (!err)
		err = ptrace_interrupt(tid);
	while (!err && stop.kind != PTRACE_STOP_TRAP && stop.kind != PTRACE_STOP_GROUP && stop.kind != PTRACE_GONE) {
		err = ptrace_wait(tid, f->deadline_ns, &stop);
		if (!err && (stop.kind == PTRACE_STOP_SIGNAL || stop.kind == PTRACE_STOP_OTHER))
			err = ptrace_cont(tid, stop.kind == PTRACE_STOP_SIGNAL ? stop.sig : 0);
	}
	if (!err && stop.kind != PTRACE_GONE) {
		err = waits_hide_stop(f->waits, tid);
		int err_detach = ptrace_detach(tid, 0);
		err = err ? err : err_detach;
	}
	if (err && err != -ESRCH)
		log_warn("pid %d thread %d may see EINTR from system call %ld: %s", f->tasks.v[task].pid, tid, nr, strerror(-err));
	return 0;
}

static void hide_stop(struct freeze *f)
{
	f->deadline_ns = ptrace_now_ns() + (uint64_t)f->timeout_s * 1000000000u;
	for (size_t i = 0; i < f->tasks.nr; i++)
		if (!f->tasks.v[i].gone && !f->tasks.v[i].was_stopped)
			hold_each_thread(f, i, hide_stop_of, NULL);
}

/*
 * The watchdog: ends when its pipe says so; thaws if bcr ended first. It never returns. Besides what it needs it keeps no
 * descriptor open, so that nobody waits for it.
 */
static _Noreturn void watch(struct freeze *f, int bcr_pidfd, int pipe_fd)
{
	int keep[3] = { bcr_pidfd, pipe_fd, f->cgroup->freeze_fd };
	sigset_t all;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	setsid();
	prctl(PR_SET_NAME, "bcr-watchdog");
	for (int i = 0; i < 3; i++)
		for (int j = i + 1; j < 3; j++)
			if (keep[j] < keep[i]) {
				int swap = keep[i];
				keep[i] = keep[j];
				keep[j] = swap;
			}
	for (int i = 0, from = 0; i <= 3; i++) {
		if (i == 3 || keep[i] > from)
			close_range((unsigned)from, i == 3 ? ~0u : (unsigned)keep[i] - 1, 0);
		from = i < 3 ? keep[i] + 1 : 0;
	}

	struct pollfd p[2] = { { .fd = pipe_fd, .events = POLLIN }, { .fd = bcr_pidfd, .events = POLLIN } };
	while (poll(p, 2, -1) < 0)
		;
	if (!atomic_load(f->cgroup->frozen))
		_exit(0);
	hold_clear(f);
	if (!hold_list(f)) {
		note_tasks(f);
		f->timeout_s = 1;
		hide_stop(f);
	}
	_exit(thaw_cgroup(f) ? 1 : 0);
}

static int start_watchdog(struct freeze *f)
{
	struct cgroup_hold *c = f->cgroup;
	int fds[2];

	c->frozen = mmap(NULL, sizeof(*c->frozen), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (c->frozen == MAP_FAILED) {
		c->frozen = NULL;
		return fail(-errno, "pid %d: memory for the freezer's watchdog", f->root);
	}
	_cleanup_close_ int pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	if (pidfd < 0 || pipe2(fds, O_CLOEXEC))
		return fail(-errno, "pid %d: prepare the freezer's watchdog", f->root);

	c->watchdog = fork();
	if (c->watchdog == 0) {
		close(fds[1]);
		watch(f, pidfd, fds[0]);
	}
	close(fds[0]);
	c->watchdog_fd = fds[1];
	if (c->watchdog < 0)
		return fail(-errno, "pid %d: start the freezer's watchdog", f->root);
	return 0;
}

static int cgroup_probe(struct freeze *f, const char **why)
{
	f->cgroup = calloc(1, sizeof(*f->cgroup));
	if (!f->cgroup)
		return fail(-ENOMEM, "pid %d: prepare the cgroup freezer", f->root);
	f->cgroup->dir_fd = f->cgroup->freeze_fd = f->cgroup->events_fd = f->cgroup->watchdog_fd = -1;
	*why = open_cgroup(f);
	if (*why) {
		cgroup_deinit(f);
		return -EOPNOTSUPP;
	}
	int err = start_watchdog(f);
	if (err)
		cgroup_deinit(f);
	return err;
}

static int cgroup_thaw(struct freeze *f, enum thaw_mode mode)
{
	int err, err_thaw;

	if (!atomic_load(f->cgroup->frozen))
		return hold_thaw_by_ptrace(f, mode);

	switch (mode) {
	case THAW_KILL:
		/* SIGKILL ends frozen processes, too. */
		err = hold_kill(f);
		err_thaw = thaw_cgroup(f);
		return err ? err : err_thaw;
	case THAW_STOP:
		hide_stop(f);
		/* Queued while it is frozen: the first thing a thawed thread meets. */
		err = hold_signal(f, SIGSTOP);
		err_thaw = thaw_cgroup(f);
		err = err ? err : err_thaw;
		return err ? err : hold_wait_stopped(f);
	case THAW_RUN:
		break;
	}
	hide_stop(f);
	return thaw_cgroup(f);
}

static int cgroup_need_ptrace(struct freeze *f)
{
	if (!atomic_load(f->cgroup->frozen))
		return 0;
	f->deadline_ns = ptrace_now_ns() + (uint64_t)f->timeout_s * 1000000000u;
	int err = hold_by_ptrace(f);

	return err ? err : thaw_cgroup(f);
}

const struct freeze_ops freeze_cgroup_ops = {
	.name = "cgroup",
	.probe = cgroup_probe,
	.stop = cgroup_stop,
	.thaw = cgroup_thaw,
	.need_ptrace = cgroup_need_ptrace,
	.deinit = cgroup_deinit,
};
