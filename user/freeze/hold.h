/* What the freezer holds: the processes and threads of the tree, shared by its back ends. Private to freeze/. */
#ifndef BCR_FREEZE_HOLD_H
#define BCR_FREEZE_HOLD_H

#include "base/ident.h"
#include "freeze/freeze.h"
#include "sys/priority.h"

struct held_task {
	pid_t pid;
	int pidfd;        /* owned */
	int threads_fd;   /* owned; /proc/PID/task: a recycled pid is never looked at */
	unsigned listed;  /* in which listing it was seen last */
	bool was_stopped; /* by a signal, before bcr came */
	bool gone;        /* has exited, or left the tree; a zombie, or nothing any more */
};

struct held_thread {
	pid_t tid;
	size_t task;      /* index into freeze.tasks */
	bool ran;         /* it was running when it was listed, or is new: stopped last and released first */
	bool seized;
	bool interrupted; /* its stop is awaited, or has come */
	bool stopped;     /* in a ptrace stop */
	bool killed;      /* while it was held: its end is to be waited for */
	bool gone;        /* has exited, was none of ours, or has been released */
};

struct cgroup_hold;

struct freeze {
	const struct freeze_ops *ops;
	const struct freeze_lister *lister; /* NULL: /proc is listed */
	struct waits *waits;                /* NULL: not known */
	pid_t root;
	unsigned timeout_s;
	uint64_t deadline_ns; /* of the stop under way */
	bool prepared;        /* between freeze_prepare() and the stop */
	bool held;            /* between a successful stop and the thaw */
	bool keep_priority;   /* until the thaw */
	struct priority priority;
	bool stopping;        /* inside freeze_stop() */
	bool listed_last;     /* by the lister, inside a stop; nobody has been interrupted, come to a stop, or been let go since */
	bool in_stop;         /* what is listed now was made by threads that ran */
	bool vfork_seen;      /* a thread waits for its vfork child */
	bool changed;         /* the tree, under the last listing: who was listed was not there any more */
	unsigned nr_listings;
	VEC(struct held_task) tasks;
	VEC(struct held_thread) threads;
	VEC(size_t) queue; /* of the listing under way, when it goes through /proc: tasks from the root on */
	struct ident_map task_ids, thread_ids; /* number to index + 1, of the last one that had it */
	VEC(pid_t) pids;            /* made for freeze_pids() */
	struct cgroup_hold *cgroup; /* of the cgroup back end; owned */
	uint64_t stop_begin_ns, stop_end_ns, thaw_end_ns;
};

struct freeze_ops {
	const char *name;
	/*
	 * Can it stop this tree? Prepares for it, or says why not (-EOPNOTSUPP); other failures have been reported.
	 * NULL: always.
	 */
	int (*probe)(struct freeze *f, const char **why);
	/* Stops the tree, which has been listed, or reports why not and holds nothing. */
	int (*stop)(struct freeze *f);
	/* Lets it go. Goes on after a failure, and returns the first. */
	int (*thaw)(struct freeze *f, enum thaw_mode mode);
	/* Makes every thread ptrace-stopped: registers can be set, system calls injected. */
	int (*need_ptrace)(struct freeze *f);
	/* Frees what the back end keeps in `f`; nothing is held any more. */
	void (*deinit)(struct freeze *f);
};

extern const struct freeze_ops freeze_ptrace_ops;
extern const struct freeze_ops freeze_cgroup_ops;

/* tree.c */

/*
 * Lists the tree once more and adds what is not known; nothing is stopped. Processes that were seen get
 * `listed` = nr_listings. Failures have been reported.
 */
int hold_list(struct freeze *f);
/*
 * The same through /proc, step by step: the first puts the root on the queue, the others add the threads of a task, and
 * put its children on the queue.
 */
int hold_list_begin(struct freeze *f);
int hold_list_threads(struct freeze *f, size_t task);
int hold_list_children(struct freeze *f, size_t task);
/* Calls `fn` for each thread of a task; a task that has exited has none and becomes `gone`. */
int hold_each_thread(struct freeze *f, size_t task,
		     int (*fn)(struct freeze *f, size_t task, pid_t tid, void *arg), void *arg);
/* NULL: not held. */
struct held_task *hold_find_task(struct freeze *f, pid_t pid);
struct held_thread *hold_find_thread(struct freeze *f, pid_t tid);
/* Forgets all processes and threads. */
void hold_clear(struct freeze *f);
/* Is it a parent that waits for its vfork child to call execve or exit? */
bool hold_waits_for_vfork(pid_t tid);
/* The kernel function a thread sleeps in. */
void hold_read_wchan(pid_t tid, char *buf, size_t len);

/* A word of /proc/TID/status as a number ("TracerPid"), or -1. */
long hold_status_number(pid_t tid, const char *field, int base);
/* The state letter of a thread, or 0 when it is gone. */
char hold_state(pid_t tid);
/* The same below a held /proc/PID/task, and quicker. */
char hold_state_in(int threads_fd, pid_t tid);

/* ptrace.c */

/*
 * Seizes and stops every thread of the tree, which has been listed; also when the cgroup freezer stopped it already. Or
 * reports why not, and holds nothing.
 */
int hold_by_ptrace(struct freeze *f);
/* release.c */

/* Detaches from a thread, if it is held. */
void hold_release_thread(struct freeze *f, struct held_thread *t, bool hide_stop);
/* Detaches from every thread; those that ran come first. */
void hold_detach(struct freeze *f, bool hide_stop);
int hold_thaw_by_ptrace(struct freeze *f, enum thaw_mode mode);
/* Sends a signal to every process. */
int hold_signal(struct freeze *f, int sig);
/* Sends SIGKILL, waits until every process is gone, and reaps what is ours. */
int hold_kill(struct freeze *f);
/* After SIGSTOP: waits until every thread is in state T. */
int hold_wait_stopped(struct freeze *f);

#endif
