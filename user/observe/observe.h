/*
 * Observation: what a process tree consists of, gathered from outside.
 *
 * Theory of operation. observer_open() loads and attaches everything (the target runs, undisturbed). observer_run()
 * then fills a model, as often as wanted: once on the running target, so that everything bcr cannot do is refused
 * before the target is touched, and once more while it is stopped, which is what counts. A back end
 * supplies tasks, mappings and files (struct observe_ops); what is common (ids for shared objects, kinds, refusals) is
 * done here once, for all back ends.
 *
 * Kernel pointers (or kcmp order, for the /proc back end) serve as identities during one run and never leave it.
 */
#ifndef BCR_OBSERVE_OBSERVE_H
#define BCR_OBSERVE_OBSERVE_H

#include "bpf/file.h"
#include "model/model.h"

struct observer;

/* A file seen during a run, before it becomes a struct file. */
struct observed_file {
	pid_t via; /* proc: a living thread of process rec.tgid, for kcmp(2) */
	struct file_record rec;
	char *path; /* owned; as the kernel prints it, " (deleted)" included; NULL when there is none */
	VEC(struct epoll_record) epoll_items;
	uint32_t file_id; /* set by observe.c */
	char link[128];   /* set by objects.c: leads to it, below /proc/PID; "": its descriptor does */
	uint64_t stat_ino, stat_dev; /* of one known by path: what the path led to; 0: nothing, or nobody has looked */
};

/* Of one task: which objects it has, and what else a back end knows. */
struct task_idents {
	uint64_t mm, files, fs, sighand; /* 0: the task has none (zombie, kernel thread) */
	uint64_t exe, cwd, root;         /* file_record.file of entries in `others` */
	bool kernel_thread;
	bool traced; /* by somebody other than bcr */
	bool vfork_wait; /* its vfork child has not exec'ed yet */
	pid_t seccomp_notifies; /* a thread some of whose calls somebody else decides on; 0: none, or not known */
	uint32_t umask;
	uint32_t ctty_rdev; /* device of the controlling terminal, major << 20 | minor; 0: none */
	/* Layout of the mm, filled for each task; observe.c keeps one of each mm. */
	struct mm layout;
	/* Mappings, for the first task of each mm only; `files` parallel to layout.vmas: file ident or 0. */
	VEC(uint64_t) vma_files;
	bool remapped; /* by observe_ops.parts(): both of them are new */
	bool session_keyring; /* it has another one than bcr */
	/* Why this task cannot be dumped, in words; "" when nothing is known against it. */
	char refusal[160];
};

/* What a back end hands over for one run; idents are nonzero, equal means shared. */
struct observation {
	struct model *m;
	bool tracked; /* write protection by a userfaultfd is bcr's own, not the program's */
	bool outsiders; /* memory, descriptors or directories of the tree may be somebody else's as well: to be looked into */
	/*
	 * Parallel to m->tasks: identities of the objects, and of exe, cwd and root among `files` by their file ident.
	 * The back end leaves the *_id fields of struct task, mm and vma 0; observe.c sets them.
	 */
	VEC(struct task_idents) idents;
	VEC(struct observed_file) fds;    /* one per descriptor of each distinct table */
	VEC(struct observed_file) others; /* exe, cwd, root, mapped files; fd -1; distinct by ident */
};

/* What has become of a tree since it was looked at. */
enum observe_change {
	OBSERVE_SAME,
	OBSERVE_PARTS, /* the same processes, but some of their mappings or descriptors are others */
	OBSERVE_OTHER,
};

/* Of read(). */
enum observe_moment {
	OBSERVE_RUNNING,
	OBSERVE_STOPPED,
	OBSERVE_LISTED, /* stopped, and was when list() was called for the last time */
};

struct observe_ops {
	const char *name; /* as in --observe=NAME */
	/* Can this machine do it? 0 or a negative errno, nothing reported; *why says what is missing. */
	int (*probe)(const char **why);
	/* Loads and attaches; *ret is the back end's own state. Failure has been reported. */
	int (*open)(pid_t root, void **ret);
	/*
	 * Fills `o` with the tree below the root: tasks in order (parents before children), threads of each with
	 * everything but what needs a stop, mappings, files. With `stopped`, registers, FPU state and restart
	 * blocks are read as well. -EAGAIN: the tree changed under it, try again; other failures have been reported.
	 * -EOPNOTSUPP (from observe_add_vma()): the observation is complete but for what was refused.
	 */
	int (*run)(void *state, bool stopped, struct observation *o);
	/*
	 * What follows is optional, all or nothing. read(), after a run() on the running tree, reads only what
	 * changes by itself, with registers when it is stopped, and tells what has changed besides; -EOPNOTSUPP (not
	 * reported): this kernel does not say. parts(), after a read() inside a stop that said OBSERVE_PARTS: brings
	 * the observation of that run, with its model, up to the mappings (task_idents.remapped) and descriptors
	 * (file_id 0: a new one) of now. -EOPNOTSUPP: so much has changed that a whole run is better; this one is of
	 * no more use. The others give what was read, then or later: descriptor() brings the i-th of observation.fds
	 * up to date; tasks() fills an observation with tasks and identities, without paths; threads() calls fn for
	 * each live thread, with its registers. list() reads tasks and threads, for threads() (registers are NULL, or, with
	 * `stopping`, those of threads that may still run): 0, -EAGAIN (the tree changed), or a reported errno. read() with OBSERVE_LISTED need not read
	 * again what list() has.
	 */
	int (*read)(void *state, enum observe_moment moment, enum observe_change *ret);
	int (*parts)(void *state, struct observation *look);
	int (*descriptor)(void *state, size_t i, struct observed_file *of);
	int (*tasks)(void *state, struct observation *o);
	int (*threads)(void *state, int (*fn)(void *ctx, pid_t pid, pid_t tid, const struct cpu_regs *regs), void *ctx);
	int (*list)(void *state, bool stopping);
	void (*close)(void *state);
};

extern const struct observe_ops observe_bpf_ops;
extern const struct observe_ops observe_proc_ops;

struct observe_options {
	const char *backend; /* "bpf", "proc" or NULL: the best that works */
	bool shell_job;
	bool any_tree; /* do not refuse trees that restore could not build (model/tree_check.h): whoever asks only looks at them */
	bool file_locks, tcp_established, ext_unix_sk;
	uint64_t ghost_limit_bytes;
};

/* Opens an observer for the tree of `root`. Returns 0 or a negative errno that has been reported. */
int observer_open(pid_t root, const struct observe_options *opts, struct observer **ret);

const char *observer_backend(const struct observer *o);

/* Says that bcr itself write-protects the target's memory now, or no more: mappings that show it are not refused. */
void observer_set_tracked(struct observer *o, bool tracked);

/*
 * Observes the tree. Unsupported things are given to unsupported(): call refusals_begin() first.
 * *ret is owned by the caller. Retries by itself (bounded) when a running tree changes under it.
 * Returns 0 or a negative errno that has been reported; -EOPNOTSUPP alone when something was refused, with *ret set.
 */
int observer_run(struct observer *o, bool stopped, struct model **ret);

/*
 * The short way through a stop: a model made by observer_run() right before it is brought up to date. `m` is that
 * model.
 *
 * observer_read(), inside the stop: reads what changes by itself, and sees to mappings and descriptors that changed
 * meanwhile: `m` gets them at once (mm.remapped). With `listed`, all stood still already when observer_list() was called for the
 * last time, and what it read of tasks and threads counts. *same: it could; otherwise observer_run() has to observe
 * everything. -EOPNOTSUPP (not reported): the back end, or this kernel, cannot tell. observer_refresh(), when *same,
 * at any time until the next call of another function here: brings `m` to the moment of the read; it looks at paths,
 * not at the target. -EAGAIN (not reported): a path that it names leads to something else by now. -EOPNOTSUPP:
 * refused, as by observer_run(). Other failures have been reported.
 */
int observer_read(struct observer *o, struct model *m, bool listed, bool *same);

/*
 * While the target still runs: is everything as it was, so that observer_read() would have little to do? Returns as
 * observer_read().
 */
int observer_recheck(struct observer *o, bool *same);
int observer_refresh(struct observer *o, struct model *m);

/* After observer_read(): calls fn for each thread of the stopped tree; returns what it returned first that was not 0. */
int observer_each_thread(struct observer *o,
			 int (*fn)(void *ctx, pid_t pid, pid_t tid, const struct cpu_regs *regs), void *ctx);

/*
 * Lists the live threads of the tree, as it is now, fast: parents before children, leaders first; `stopping`: inside a stop, perhaps
 * before all of it stands still. `observer` is a struct observer: this is a struct freeze_lister's list(), and returns as
 * it does.
 */
int observer_list(void *observer, bool stopping, int (*add)(void *ctx, pid_t pid, pid_t tid), void *ctx);

/* Accepts NULL. */
void observer_close(struct observer *o);

/* Frees what a back end put into an observation (not the model). */
void observation_deinit(struct observation *o);

/* vma.status, flags and madv of a mapping from what both back ends know. `special` is "[vdso]", "[vvar]", ... or "". */
struct vma_facts {
	taddr_t start, end;
	uint64_t pgoff_bytes;
	bool read, write, exec, shared, grows_down, no_reserve, locked, hugetlb;
	bool may_write;     /* VM_MAYWRITE: a shared file mapping's descriptor was opened for writing */
	bool dont_copy, wipe_on_fork, dont_dump, hugepage, nohugepage, mergeable, seq_read, rand_read;
	bool io, pfnmap;    /* device memory */
	bool sealed, droppable, lock_on_fault, reserved, uffd;
	bool uffd_wp;       /* registered for write protection only; counts as uffd unless bcr did it */
	bool has_file;
	bool is_shmem_anon; /* MAP_ANONYMOUS or /dev/zero, shared or in huge pages: a file on a mount of the kernel's own */
	bool is_memfd, is_sysv; /* so is this */
	uint64_t huge_bytes; /* with hugetlb: size of its pages */
	bool has_anon;
	uint64_t uffd_ident; /* of the userfaultfd; 0: none, or not known */
	const char *special;
};

/* Sets is_shmem_anon, is_memfd and is_sysv by the path of the file, as the kernel prints it. */
void vma_facts_name(struct vma_facts *facts, const char *path);

/*
 * Appends a vma to `mm`. Refuses what is not supported with "pid N mapping A-B: ..."; 0, -ENOMEM or -EOPNOTSUPP.
 * Nothing is appended for what was refused and for [vsyscall]: mm->vmas.nr tells.
 */
int observe_add_vma(struct mm *mm, pid_t pid, const struct vma_facts *facts);

/*
 * What the link `name` below /proc/PID (dirfd) leads to: inode, device, file system and name go to `rec`, where it points to
 * *path, which is owned. 0 or a negative errno, not reported; *path may be set all the same.
 */
int observe_link(int dirfd, const char *name, struct file_record *rec, char **path);

#endif
