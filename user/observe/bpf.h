/* Inside of the BPF back end: what its files share. */
#ifndef BCR_OBSERVE_BPF_H
#define BCR_OBSERVE_BPF_H

#include "bpf/task.h"
#include "bpf/vma.h"
#include "base/ident.h"
#include "observe/observe.h"
#include "sys/xstate-x86_64.h"

struct bpf_link;
struct bpf_program;
struct task_bpf;
struct vma_bpf;
struct file_bpf;

/* An array of a BPF object, mapped. */
struct bpf_array {
	void *v;
	size_t stride_bytes;
	size_t cap;
	size_t mapped_bytes;
};

/* Iterators attached to one process, by its number: they find whoever has it when they run. */
struct bpf_attached {
	pid_t pid;
	struct bpf_link *task, *finish; /* without open-coded iterators only */
	struct bpf_thread_link {
		pid_t tid;
		struct bpf_link *link;
	} vmas, files;
};

/* What the last run saw, for reading again inside a stop: is it the same tree, are mappings and descriptors the same? */
struct bpf_seen {
	bool valid;
	bool tells; /* can it be told whether mappings have changed? */
	VEC(struct task_record) tasks;
	VEC(struct bpf_table {
		uint64_t files;
		uint32_t global_living; /* a thread that has it */
	}) tables;
	/* In the order of observation.fds. */
	VEC(struct bpf_seen_fd {
		uint64_t same;
		int32_t fd;
	}) fds;
};

struct bpf_state {
	pid_t root;
	bool open_coded; /* the kernel has open-coded task iterators */
	bool listed;     /* the arrays hold what bpf_tasks_list() has read, registers included, of threads none of which was on a processor */
	bool roomy;      /* during a run on the running tree: arrays get room for more than there is */
	struct task_bpf *task;
	struct vma_bpf *vma;
	struct file_bpf *file;
	struct bpf_caps {
		size_t procs, tasks, threads, extras, epoll_items, states, tables;
	} caps; /* elements that the arrays have or shall have */
	struct bpf_array procs, wanted, tasks, threads, fpus, extras, epoll_items, states, tables;
	struct bpf_link *procs_iter; /* without open-coded iterators only */
	VEC(struct bpf_attached) attached;
	struct xstate_layout xstate;
	uint8_t online[128];     /* processors that can be used */
	/* What the kernel's BTF does not tell (bpf_learn.c); 0: not known, or this kernel does not have it. */
	struct bpf_learned {
		uint64_t thp, thp_except, mdwe, mdwe_no_inherit, memory_merge; /* bits of mm_flags */
		uint64_t no_tsc;                                               /* bit of ti_flags */
		int landlock; /* which word of what security modules keep is Landlock's; -1: none */
		uint64_t session_keyring, lsm[OBSERVE_NR_LSM]; /* bcr's own */
	} learned;
	uint64_t special_ops;    /* vm_ops of the kernel's own mappings ([vdso], ...); 0: not known */
	struct bpf_seen seen;
};

/* One run. */
struct bpf_run {
	struct bpf_state *s;
	struct observation *o;
	bool stopped;
	bool again; /* tasks only, after a stop: paths are known, and the target may be gone */
	bool refused;
	/* Parallel to the tasks: the record of each. */
	VEC(const struct task_record *) records;
	struct ident_map others; /* file ident → index in o->others plus one */
	struct ident_map dirs;   /* (mount, dentry) → the same */
};

/* Parts of opening and closing; failures have been reported. */
int bpf_tasks_load(struct bpf_state *s);
void bpf_tasks_unload(struct bpf_state *s);

/*
 * Records of all processes below and with `root`, parents before children, in the arrays; grows these as needed.
 * -EAGAIN: the tree changed meanwhile.
 */
int bpf_tasks_read(struct bpf_state *s, pid_t root, bool stopped);

/*
 * The same while some may still run. With `stopping`, s->listed says until the next reading whether it was as good as one of a
 * stopped tree: no thread was on a processor, everything had room.
 */
int bpf_tasks_list(struct bpf_state *s, bool stopping);

/* Records → model: everything but mappings and descriptors. */
int bpf_tasks_build(struct bpf_run *r);

/* After the mappings: the executable of each task, which mostly is a mapped file. */
int bpf_exes_build(struct bpf_run *r);

/* Finds out from processes of bcr's own what the kernel's BTF does not tell. */
int bpf_learn(struct bpf_state *s);

/* Records → model: the attributes that few programs have (bpf_attrs.c); refusals go to `id`. */
void bpf_build_thread_attrs(const struct bpf_state *s, struct task_idents *id, struct thread *th, const struct thread_record *t);
void bpf_build_process_attrs(const struct bpf_state *s, struct task *task, struct mm *mm, const struct task_record *rec);

/* Says nothing when it fails: it is also how the kernel is asked whether it lets programs in. */
int bpf_vmas_load(struct vma_bpf **ret);
int bpf_vmas_learn(struct bpf_state *s);
int bpf_vmas_build(struct bpf_run *r);

int bpf_files_load(struct bpf_state *s);
int bpf_files_build(struct bpf_run *r);

/*
 * Reading again inside a stop. remember() after a run, read_again() inside the stop: *same says whether the same
 * descriptors lead to the same files; take_state() then brings the i-th of observation.fds up to what was read.
 */
int bpf_files_remember(struct bpf_run *r);
int bpf_files_read_again(struct bpf_state *s, bool *same);
int bpf_files_take_state(const struct bpf_state *s, size_t i, struct observed_file *of);

/* The same for processes, and for their mappings. Threads may come and go. */
int bpf_tasks_remember(struct bpf_run *r);
bool bpf_tasks_same(const struct bpf_state *s);
bool bpf_mappings_same(const struct bpf_state *s);

/* Bring the observation of a run up to other mappings and descriptors: observe_ops.parts(). */
int bpf_vmas_replace(struct bpf_run *r);
int bpf_files_replace(struct bpf_run *r);

/* Calls fn for each live thread that was read, with its registers when it was read inside a stop (NULL otherwise). */
int bpf_each_thread(struct bpf_state *s, int (*fn)(void *ctx, pid_t pid, pid_t tid, const struct cpu_regs *regs), void *ctx);

/* Runs a `syscall` program; its return value goes to *ret. */
int bpf_run_program(const struct bpf_program *prog, uint32_t *ret);

/* Finds or makes the entry for `pid`, to attach to. NULL when out of memory (reported). */
struct bpf_attached *bpf_attached_to(struct bpf_state *s, pid_t pid);

/* Attaches `prog` to the process, once: *link is kept for the next time. */
int bpf_attach_process(const struct bpf_program *prog, pid_t pid, struct bpf_link **link);

/*
 * The same for one thread: iterators over mappings and descriptors, attached to a process, differ between kernels in which of its threads
 * they go to, and Linux 6.1 to none when the main one has exited.
 */
int bpf_attach_thread(const struct bpf_program *prog, pid_t tid, struct bpf_thread_link *l);

/* Runs an iterator to its end and returns all it wrote, owned by the caller. */
int bpf_iter_read(const struct bpf_link *link, pid_t pid, uint8_t **ret, size_t *ret_bytes);

/* Maps an array of a loaded object; to read it, or to write into it as well. */
int bpf_array_map(struct bpf_array *a, int map_fd, const char *name);
int bpf_array_map_writable(struct bpf_array *a, int map_fd, const char *name);
void bpf_array_unmap(struct bpf_array *a);

/* Element `i` of a mapped array. */
static inline void *bpf_array_at(const struct bpf_array *a, size_t i)
{
	return (uint8_t *)a->v + i * a->stride_bytes;
}

/* Makes `rec` with its path (may be NULL, copied) one of o->others, once. 0 or -ENOMEM. */
int bpf_add_other(struct bpf_run *r, const struct file_record *rec, const char *path);

#endif
