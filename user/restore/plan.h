/* What restore/ shares: the plan, and a restore under way. Private to restore/. */
#ifndef BCR_RESTORE_PLAN_H
#define BCR_RESTORE_PLAN_H

#include <signal.h>
#include <sys/resource.h>

#include "model/tree_check.h"
#include "pie/restorer.h"
#include "restore/restore.h"

struct mem_range {
	taddr_t start, end;
};

/* A kernel-made mapping of bcr itself: [vvar], [vvar_vclock], [vdso]. */
struct own_special {
	struct mem_range at;
	bool is_vdso;
};

/* bcr's own address space, before anything of the target is mapped. */
struct own_layout {
	VEC(struct mem_range) ranges;      /* ascending */
	VEC(struct own_special) specials;  /* ascending */
	bool can_set_timer_ids;            /* PR_TIMER_CREATE_RESTORE_IDS (Linux 6.15) */
	uint64_t cap_permitted, cap_bounding;
	struct rlimit limits[MODEL_NR_RLIMITS];
	/* What tasks have from bcr, if they do not set their own. */
	uint32_t ioprio;
	bool mce_kill, memory_merge;       /* PR_MCE_KILL_GET is another one than the default */
	bool no_new_privs;
	int max_fd;                        /* highest descriptor in use */
	uint64_t max_map_count;            /* vm.max_map_count; 0: not known */
};

/* Reads it from /proc/self/maps. Failure has been reported. */
int own_layout_read(struct own_layout *ret);
void own_layout_deinit(struct own_layout *l);

/* A range of the target that cannot be mapped at its own address at first, and where it is mapped instead. */
struct staged_range {
	struct mem_range range;
	taddr_t at;
};

/* Where a shared memory object is mapped for the tasks to map it from. */
struct shmem_place {
	taddr_t at;
	uint64_t bytes; /* mappings may reach beyond the end of the object */
};

struct plan_op {
	struct restorer_op op;
	const char *what; /* "move mapping", for people; a literal */
};

/* In the area of each process: what calls for stops need in its memory. */
struct stop_scratch {
	uint64_t sigchld, sigcont; /* sets of these signals */
	uint64_t no_time[2];       /* struct timespec */
	struct siginfo_raw info;   /* written when it is needed */
};

struct thread_plan {
	const struct thread *thread;
	uint32_t slot; /* in the control block */
	VEC(struct plan_op) ops;
};

/* Pages in which this process holds other contents than its own while it forks some of its children (kin.c). */
struct late_range {
	taddr_t start, end;
	const struct mm *source;  /* whose contents; NULL: those it has inherited */
	uint64_t first, last;     /* from which child on to which: plan_fork_order() */
	bool done;                /* in the process: it has its own contents since */
};
typedef VEC(struct late_range) late_ranges;

struct task_plan {
	const struct task *task; /* of the model; of plan.helpers for a helper */
	const struct mm *mm;     /* NULL for a zombie and for a helper */
	struct tree_birth birth; /* as there, but `parent` of the root is TREE_OUTSIDE; indices are those of plan.tasks */
	bool is_helper;
	int fd_exe;              /* number for its executable; differs among tasks that share a table of descriptors */
	late_ranges late;        /* ascending; two of them are apart, or equal and of different sources */
	VEC(struct thread_plan) threads; /* the leader first */
	size_t mm_first;         /* index of the first task that has this memory, which maps it; mostly its own */
	size_t nr_sharers;       /* of the first: tasks that share its memory (birth.with_vm) */
	taddr_t area_at;         /* the restorer area: plan.area, or behind that of the sharer before */
	taddr_t areas_end;       /* of the first: where the area of the next sharer begins */
	VEC(uint8_t) area;       /* its contents */
	uint64_t area_bytes;     /* with the stacks behind the contents */
	uint64_t args_offset;    /* of struct restorer_args in the area */
	taddr_t stop_scratch;    /* in the area: struct stop_scratch */
	taddr_t timespecs;       /* in the area: one struct timespec per thread, for restart calls */
};

struct restore_plan {
	const struct model *m;
	struct own_layout own;
	/*
	 * A hole that neither bcr nor any task of the tree uses. All that has to be somewhere for a while is in it, at the
	 * same addresses in every process: control block, restorer area, parked vDSO, staged mappings, shared memory.
	 */
	struct mem_range hole;
	taddr_t control, area, park, staging, shmem;
	uint64_t control_bytes;
	VEC(struct staged_range) staged; /* ascending */
	/* Parallel to m->shmems; memory files have no place there. */
	VEC(struct shmem_place) shmems;
	VEC(struct task_plan) tasks;     /* parallel to m->tasks, then the helpers */
	struct task *helpers;            /* number, session, group and exit signal of each (model/tree_check.h) */
	size_t nr_helpers;
	bool waits_for_all;              /* no task goes on to its descriptors and directories before all are in their groups */
	pid_t max_id;                    /* the largest number of a process or thread */
	uint32_t nr_slots;
	bool has_seccomp;                /* some thread is confined: its calls are not judged before it is let go */
	/* Descriptor numbers above all that tasks use. */
	int fd_log, fd_err, fd_exe, fd_files; /* fd_files + i: m->files.v[i] */
	int fd_objects;                       /* fd_objects + i: m->shmems.v[i], when it is a memory file */
	int fd_ghosts;                        /* fd_ghosts + i: m->ghosts.v[i] */
	int nr_fds;                           /* from fd_files on, of all three */
};

/* Where a mapping lies until the restorer moves it: its own address, or a staged one. */
taddr_t plan_vma_at(const struct restore_plan *p, const struct vma *vma);

/* Position of a shared memory object in the model, and of its place; -1: there is none. */
ssize_t plan_shmem_index(const struct restore_plan *p, uint32_t shmem_id);

/* How everybody is made: fills `birth` of each task, and adds the helpers. Refuses what cannot be built. */
int plan_tree(struct restore_plan *p, bool shell_job);

/* Fills task_plan.late from the hints of the images. Failure has been reported. */
int plan_kin(struct restore_plan *p);

/* A number that is the smaller the earlier a task is forked, among those of one maker. */
uint64_t plan_fork_order(const struct restore_plan *p, size_t index);

/* Addresses: the hole and everything in it. */
int plan_addresses(struct restore_plan *p);

/*
 * Occupies all planned addresses in bcr, so that nothing of its own (heap, buffers) comes to lie there before the tasks use
 * them. Failure has been reported; -EEXIST, when something has got there already, has not: plan again.
 */
int plan_reserve(const struct restore_plan *p);
void plan_unreserve(const struct restore_plan *p);

/* The ops of one task, and the contents of its area. */
int plan_task_ops(struct restore_plan *p, struct task_plan *tp);

/* Bytes of filters of the largest task, for its area. */
uint64_t plan_seccomp_bytes(const struct model *m);

/* Offset of a `syscall` instruction in the area. */
uint64_t plan_syscall_insn(void);

enum { DUMPABLE_BY_ROOT = 2 }; /* mm.dumpable: what fs.suid_dumpable gives to programs that change ids */

bool plan_same_groups(const struct thread *a, const struct thread *b);

struct restore {
	const struct model *m;
	struct restore_options opts;
	struct restore_plan *plan;
	struct restorer_control *control; /* shared mapping at plan->control */
	uint64_t all_bytes;               /* of memory contents */
	pid_t root_pid;                   /* 0: not forked */
	pid_t coordinator, caller_ppid;   /* bcr and its parent */
	pid_t caller_pgrp;                /* bcr's own process group, for --shell-job */
	bool reserved;                    /* the planned addresses are occupied */
	bool threads_traced;              /* and every other thread */
	bool traced;                      /* the leader of every live task is seized */
	bool released;                    /* the tree runs on its own */
	bool made_subreaper;
	bool shares_table;                /* in a task: its descriptors are also those of another, who puts them in place */
	uint32_t *turn;                   /* in a task whose memory others share: who has it runs bcr's code; else NULL */
	VEC(int) segments;                /* System V: numbers of those that this restore has made */
	struct file_owner {
		pid_t pid; /* 0: no descriptor leads to it */
		int fd;
	} *owners;                        /* per file of the model: the process that has it first */
	uint8_t *stops;                   /* per task: a SIGSTOP came while it was traced */
	struct rlimit nofile;             /* bcr's own limit, as it was */
};

/* The slot in which a task (not a thread) notes that it exists: what an abort has to kill. */
struct restorer_slot *task_slot(const struct restore *r, size_t index);

/* The slot of the first task that has the memory of this one: where its sharers meet. */
static inline uint64_t plan_crowd_offset(const struct restore_plan *p, const struct task_plan *tp)
{
	return offsetof(struct restorer_control, slots) + (p->nr_slots + tp->mm_first) * sizeof(struct restorer_slot);
}

/* Seizes the leaders: from here on no task outlives bcr. Failure has been reported. */
int trace_tasks(struct restore *r);

/* And all other threads, when a tree with seccomp has them. Failure has been reported. */
int trace_threads(struct restore *r);

/* Has a live task ended, or been stopped (which is put off)? -ECANCELED when one has ended; it has been reported. */
int trace_look(struct restore *r);

/* --- in a task being restored (task.c, memory.c, files.c) --- */

/*
 * Coordinator, shmem.c: memory objects that all tasks inherit. Is there place for System V segments? Makes and fills memory
 * files, held as descriptors; maps and fills the others; and when every task has mapped them, seals what was sealed and
 * removes what was removed. Undo, for objects that outlive a restore that failed. Failures have been reported.
 */
int shmem_check(const struct restore *r);
int shmem_make_files(struct restore *r);
int shmem_map_all(struct restore *r);
int shmem_finish(struct restore *r);
void shmem_undo(struct restore *r);

/* In any process of the restore: opens a memory file (id of its struct shmem) anew. Failure has been reported. */
int shmem_open_file(const struct restore *r, uint32_t id, uint32_t flags, int *ret);

/* Coordinator, ghost.c: makes the unlinked files and directories, held as descriptors. Failure has been reported. */
int ghosts_make(struct restore *r);

/* In any process of the restore: opens one of them anew. Failure has been reported. */
int ghost_open_file(const struct restore *r, const struct file *f, uint32_t flags, int *ret);

/* Opens anew a file that is held as a descriptor, and has no name. Failure has been reported. */
int restore_open_held(int held, uint32_t flags, const char *name, int *ret);

/* What a mapping, or an executable, was opened from. Failure has been reported. */
int restore_open_file(const struct restore *r, const struct file *f, uint32_t flags, int *ret);

/* Maps and fills the memory of a task. `parent` is the mm this process inherited, or NULL. Failure has been reported. */
int task_map_memory(struct restore *r, const struct task_plan *tp, const struct mm *parent);

/* Opens the executable. The last descriptor that a task needs for itself. */
int task_open_exe(struct restore *r, const struct task_plan *tp);

/* Puts into late ranges what the child has to inherit that is forked next: plan_fork_order() of it; UINT64_MAX: none is. */
int task_memory_before_fork(struct restore *r, size_t index, uint64_t order);

/*
 * Puts working directory, root and umask in place; of those that are shared, only the first task does. It takes descriptors for a while:
 * nobody may put those of a shared table in place before all are through with it. Failure has been reported.
 */
int task_enter_dirs(struct restore *r, const struct task_plan *tp);

/* Puts descriptors in place and closes bcr's; of a shared table, only the first task does. Failure has been reported. */
int task_install_files(struct restore *r, const struct task_plan *tp);

/* The process of a task; never returns. */
void task_main(struct restore *r, size_t index, const struct mm *inherited) __attribute__((noreturn));

/* Makes the task, whose maker the caller is. Returns its pid or a reported negative errno. */
pid_t task_fork(struct restore *r, size_t index, const struct mm *inherited);

/* Waits for the end of the helpers that are children of the task. */
int task_reap_helpers(struct restore *r, size_t parent);

/* Counts an arrival at the current barrier. */
void control_arrive(struct restorer_control *c);
/* In a task; ends it when the restore has failed or the coordinator is gone. */
void control_wait_phase(struct restore *r, uint32_t phase);
/* Coordinator: waits until `nr` have arrived, then sets the count back. -ECANCELED when somebody failed or died. */
int control_wait_arrivals(struct restore *r, uint32_t nr);
void control_set_phase(struct restorer_control *c, uint32_t phase);
/* In a task that shares its memory: waits until no other process runs bcr's code in it; lets another one do so. */
void control_take_turn(const struct restore *r);
void control_give_turn(const struct restore *r);
/* Ends the task, which has nothing more to say. */
void control_end_task(const struct restore *r) __attribute__((noreturn));

#endif
