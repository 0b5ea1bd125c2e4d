/*
 * The model: a process tree as plain data. Dump fills it from the kernel, restore fills it from images.
 * No system calls, no protobuf, no BPF, no pointers into other processes. Objects name each other by small ids.
 */
#ifndef BCR_MODEL_MODEL_H
#define BCR_MODEL_MODEL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/ident.h"
#include "base/vec.h"
#include "model/cpu-x86_64.h"

/* An address in the target: an integer, so that the compiler catches a local dereference. */
typedef uint64_t taddr_t;

enum { MODEL_PAGE_SIZE = 4096, MODEL_NSIG = 64, MODEL_NR_RLIMITS = 16, MODEL_COMM_LEN = 16 };

/* Kernel siginfo as PTRACE_PEEKSIGINFO gives it (siginfo_t, 128 bytes). */
struct siginfo_raw {
	uint8_t bytes[128];
};

struct sigaction_raw {
	uint64_t handler; /* SIG_DFL 0, SIG_IGN 1, or an address in the target */
	uint64_t flags;
	taddr_t restorer;
	uint64_t mask;
};

struct creds {
	uint32_t uid, gid, euid, egid, suid, sgid, fsuid, fsgid;
	uint64_t cap_inh, cap_prm, cap_eff, cap_bnd, cap_amb;
	uint32_t securebits;
	bool no_new_privs;
	VEC(uint32_t) groups; /* supplementary, in the kernel's order (sorted) */
};

/*
 * A system call that the stop interrupted and that the kernel would continue by restart_syscall(2).
 * Restored by issuing it again with the remaining time (docs/kernel.md, "Interrupted calls").
 */
enum restart_kind {
	RESTART_NONE,
	RESTART_NANOSLEEP, /* nanosleep, clock_nanosleep relative */
	RESTART_FUTEX,     /* FUTEX_WAIT with a relative timeout */
	RESTART_POLL,      /* poll */
	RESTART_UNKNOWN,   /* there is a restart block, its remaining time is not known */
	RESTART_ISSUE,     /* no restart block: the call is one that the stop broke off, and has a limit in its arguments */
};

struct restart {
	enum restart_kind kind;
	uint32_t nr;           /* of the system call; that of the first call where orig_ax is restart_syscall */
	uint32_t clockid;      /* of nanosleep */
	/* At the moment of the stop; never negative. INT64_MAX: no limit but its own arguments', issue it again as it was. */
	int64_t remaining_ns;
};

struct thread {
	pid_t tid;
	bool exited;           /* the main thread has, and left the process to others: it has no processor state any more */
	char comm[MODEL_COMM_LEN];
	struct cpu cpu;        /* valid after capture or load */
	struct restart restart;
	uint64_t sigmask;      /* what PTRACE_GETSIGMASK gives: blocked, or the saved mask inside sigsuspend */
	VEC(struct siginfo_raw) pending;
	struct {
		taddr_t sp;
		uint64_t size_bytes;
		uint32_t flags;
	} altstack;
	taddr_t clear_tid;     /* set_tid_address(2) */
	taddr_t robust_list;
	uint32_t robust_list_len;
	struct {
		taddr_t ptr; /* 0: not registered */
		uint32_t len_bytes;
		uint32_t sig;
		uint32_t flags;
	} rseq;
	struct creds creds;
	int32_t nice;
	uint32_t sched_policy;   /* SCHED_*, reset-on-fork as SCHED_RESET_ON_FORK */
	uint32_t sched_priority; /* realtime priority, 0 for SCHED_OTHER and friends */
	uint32_t pdeath_signal;
	uint32_t seccomp_mode;   /* SECCOMP_MODE_* */
	uint32_t seccomp_filter; /* its newest one: position in model.seccomp_filters, from 1; 0: none. Valid after capture or load */
	uint64_t timer_slack_ns;
	uint8_t affinity[128];   /* allowed processors, bit per processor; all zero: not recorded */
	uint16_t ioprio;         /* ioprio_get(2); 0: none, that of the nice value */
	uint8_t mce_kill;        /* 1 + PR_MCE_KILL_LATE or _EARLY; 0: as the machine is set up */
	uint8_t tsc;             /* PR_GET_TSC: PR_TSC_SIGSEGV; 0: it may read the time stamp counter */
	/* What prctl(PR_SET_SPECULATION_CTRL) has disabled: PR_SPEC_DISABLE, _FORCE_DISABLE or _DISABLE_NOEXEC; 0: nothing. */
	uint8_t spec_store_bypass, spec_indirect_branch;
	bool io_flusher;         /* PR_SET_IO_FLUSHER */
};

enum task_state { TASK_ALIVE = 1, TASK_DEAD = 2, TASK_STOPPED = 3, TASK_ZOMBIE = 6 };

struct itimer {
	uint64_t interval_us;
	uint64_t value_us; /* remaining; 0: not armed */
};

struct posix_timer {
	int32_t id;
	int32_t clockid;
	int32_t notify; /* SIGEV_* */
	int32_t signo;
	uint64_t sigval;
	pid_t notify_tid;
	uint32_t overrun; /* of the last signal that was delivered */
	uint64_t interval_ns;
	uint64_t value_ns; /* remaining; 0: not armed */
	uint64_t late_ns;  /* its signal is pending: how long ago it fired for the first time; 0: not known */
	uint64_t date_ns;  /* set to a date of CLOCK_REALTIME: which; 0: to a time from now, or of another clock */
};

struct rlimit_raw {
	uint64_t cur, max; /* UINT64_MAX: unlimited */
};

struct task {
	pid_t pid, ppid, pgid, sid; /* in the pid namespace of the caller */
	enum task_state state;
	uint32_t exit_code;   /* wait status of a zombie, or of a main thread that has exited */
	uint32_t stop_signal; /* stopped: the signal that did it */
	bool stop_reported;   /* stopped: its parent has waited for the stop already (WUNTRACED) */
	bool continued;       /* alive: goes on after a stop, and its parent has not waited for that yet (WCONTINUED) */
	uint32_t personality;
	uint32_t mm_id, files_id, fs_id, sighand_id; /* equal id: shared object (CLONE_VM, ...); 0: none (zombie) */
	struct sigaction_raw sigactions[MODEL_NSIG]; /* [n - 1] for signal n */
	VEC(struct siginfo_raw) pending;             /* process-wide */
	struct itimer itimers[3];                    /* ITIMER_REAL, _VIRTUAL, _PROF */
	VEC(struct posix_timer) timers;
	struct rlimit_raw rlimits[MODEL_NR_RLIMITS];
	bool child_subreaper;
	int32_t oom_score_adj;
	int32_t autogroup_nice;      /* of the scheduling group of its session */
	uint32_t membarrier;         /* MEMBARRIER_CMD_REGISTER_* it has done, as MEMBARRIER_CMD_GET_REGISTRATIONS says it */
	uint32_t loginuid;
	int32_t exit_signal; /* sent to the parent; SIGCHLD mostly */
	uint32_t ctty_id;    /* struct tty, 0: no controlling terminal */
	/* Inode numbers of the namespaces it is in. */
	struct {
		uint32_t pid, net, ipc, uts, mnt, user, cgroup, time;
	} ns;
	uint64_t cgroup_id;          /* v2 cgroup, 0 when unknown */
	VEC(struct thread) threads;  /* the leader first */
};

/* vma.status: the bits of CRIU's images. */
enum vma_status {
	VMA_REGULAR = 1 << 0,
	VMA_STACK = 1 << 1,
	VMA_VSYSCALL = 1 << 2,
	VMA_VDSO = 1 << 3,
	VMA_HEAP = 1 << 5,
	VMA_FILE_PRIVATE = 1 << 6,
	VMA_FILE_SHARED = 1 << 7,
	VMA_ANON_SHARED = 1 << 8,
	VMA_ANON_PRIVATE = 1 << 9,
	VMA_SYSVIPC = 1 << 10,
	VMA_VVAR = 1 << 12,
	VMA_MEMFD = 1 << 14,
};

struct vma {
	taddr_t start, end; /* page aligned, start < end */
	uint64_t pgoff;     /* offset into the file, bytes */
	uint32_t prot;      /* PROT_* */
	uint32_t flags;     /* MAP_SHARED, MAP_PRIVATE or MAP_DROPPABLE, MAP_ANONYMOUS, MAP_GROWSDOWN, MAP_NORESERVE, MAP_LOCKED */
	uint32_t status;    /* enum vma_status */
	uint64_t madv;      /* bit n: madvise(n) was given (MADV_DONTFORK, MADV_HUGEPAGE, ...) */
	uint32_t file_id;   /* struct file for FILE_*, 0 otherwise */
	uint32_t shmem_id;  /* struct shmem for ANON_SHARED, 0 otherwise; a memfd is a file */
	uint32_t fdflags;   /* O_RDONLY or O_RDWR the mapping's file needs */
	bool lock_on_fault; /* MAP_LOCKED by MLOCK_ONFAULT: what is not there is not made */
	bool sealed;        /* mseal(2) */
	bool reserved;      /* private, not writable now, but was: memory is reserved for it */
	uint64_t uffd;      /* observe only: identity of the userfaultfd it is registered with; 0: none, or not known */
	bool has_anon;      /* observe only: may hold private pages (an anon_vma exists, or can come to be) */
};

enum page_run_flags {
	PAGES_PARENT = 1 << 0,  /* in a parent image set */
	PAGES_LAZY = 1 << 1,
	PAGES_PRESENT = 1 << 2, /* in this set's pages file */
	PAGES_GUARD = 1 << 8,   /* guard region; carried in an image file of bcr's own */
};

/* Consecutive pages of one mm or shmem, in ascending order of address. */
struct page_run {
	taddr_t start;        /* for shmem: offset in the object */
	uint64_t nr_pages;
	uint32_t flags;       /* enum page_run_flags */
	uint64_t offset_bytes; /* of the first page in the pages file, when PRESENT, or PARENT and loaded */
	uint32_t level;        /* loaded PARENT: 1 the parent set, 2 its parent, ... */
	uint32_t pages_id;     /* loaded PARENT: pages-N.img of that set */
};
typedef VEC(struct page_run) page_runs;

/* Does an image set, this one or a parent, hold the contents of these pages? */
static inline bool page_run_has_contents(const struct page_run *run)
{
	return run->flags & (PAGES_PRESENT | PAGES_PARENT);
}

enum { MM_DUMP_FILTER_UNKNOWN = UINT32_MAX };

/* Pages that are the same page of memory as those of another process at the same addresses, but not as those of the parent. */
struct kin_run {
	taddr_t start;
	uint64_t nr_pages;
	pid_t pid; /* of mm.pid of the other, who comes before in the tree. A hint: it may be anybody */
};

struct mm {
	uint32_t id;
	pid_t pid; /* of the task whose images (mm-PID, pagemap-PID) carry it */
	taddr_t start_code, end_code, start_data, end_data, start_stack, start_brk, brk;
	taddr_t arg_start, arg_end, env_start, env_end;
	VEC(uint64_t) auxv;
	uint32_t exe_file_id;
	int32_t dumpable;
	uint8_t thp_disabled; /* PR_GET_THP_DISABLE: 1, or 3: except where madvise(2) asks for huge pages */
	uint8_t mdwe;         /* PR_GET_MDWE: memory is never writable and executable */
	bool merge_all;       /* PR_SET_MEMORY_MERGE */
	uint32_t lock_future; /* mlockall(2): MCL_FUTURE, MCL_ONFAULT; 0: mappings to come are not locked */
	uint32_t coredump_filter; /* /proc/PID/coredump_filter; MM_DUMP_FILTER_UNKNOWN: not recorded */
	VEC(struct vma) vmas; /* ascending, not overlapping */
	bool remapped;        /* observe only: `vmas` are those of the stop, after a look before it that showed others */
	uint32_t pages_id;    /* pages-N.img; 0: none */
	page_runs pages;
	VEC(struct kin_run) kin; /* ascending, not overlapping */
};

enum shmem_sort {
	SHMEM_ANON,  /* MAP_SHARED|MAP_ANONYMOUS, /dev/zero */
	SHMEM_MEMFD, /* memfd_create(2) */
	SHMEM_SYSV,  /* shmget(2) */
};

/* Memory that is an object of its own, whoever maps it or has it open: a file of the kernel's that has no name. */
struct shmem {
	uint32_t id;
	enum shmem_sort sort;
	uint64_t size_bytes; /* of a memfd and a System V segment, any number; else whole pages */
	uint64_t huge_bytes; /* size of its pages when they are those of hugetlbfs; else 0 */
	char *name;          /* of a memfd: what memfd_create() was told; owned. NULL for others */
	uint32_t seals;      /* of a memfd: F_SEAL_* */
	uint32_t uid, gid, mode; /* of a memfd and a System V segment */
	struct {
		int32_t id, key;
		uint32_t cuid, cgid;
	} sysv;
	uint64_t ino;      /* observe only: identity; of a memfd, when loaded, what memfd_file_entry names it by */
	/* Observe only: a task that has it mapped, and where; or, when start is 0, one that has it open as fd. */
	pid_t pid;
	int32_t fd;
	taddr_t start;
	uint64_t map_files_end;
	uint32_t pages_id;
	page_runs pages;
};

/* Its size in whole pages, those it is made of. */
static inline uint64_t shmem_whole_bytes(const struct shmem *s)
{
	uint64_t page = s->huge_bytes ? s->huge_bytes : MODEL_PAGE_SIZE;

	return (s->size_bytes + page - 1) / page * page;
}

/* Bytes of a file, between holes. */
struct ghost_piece {
	uint64_t offset_bytes, len_bytes;
	uint8_t *data; /* owned */
};

/*
 * A regular file that has no name any more, and what is in it, for whoever has it open, mapped or as executable; or such a
 * directory, for whoever is in it or has it open.
 */
struct ghost {
	uint32_t id;
	uint32_t parent_id; /* of a directory: struct ghost of the one above it, if that has no name either; else 0 */
	uint32_t uid, gid;
	uint32_t mode; /* st_mode */
	uint32_t dev;  /* major << 20 | minor */
	uint64_t ino;
	uint64_t atime_us, mtime_us;
	uint64_t size_bytes;
	VEC(struct ghost_piece) pieces; /* ascending; after capture or load */
	/* Observe only: where it can be opened while the target lives, /proc/PID/LINK. */
	pid_t pid;
	char link[128];
};

struct fs {
	uint32_t id;
	pid_t pid; /* of the task whose image (fs-PID) carries it */
	uint32_t cwd_file_id, root_file_id;
	uint32_t umask;
};

struct fd {
	int32_t fd;
	uint32_t file_id;
	bool cloexec;
};

struct fdtable {
	uint32_t id; /* files_id: fdinfo-N */
	VEC(struct fd) fds; /* ascending */
};

/* The numbers are those of fd_types in CRIU's images. */
enum file_type {
	FILE_UNKNOWN = 0,
	FILE_REG = 1, /* regular files, directories and device nodes: whatever is reopened by path */
	FILE_PIPE = 2,
	FILE_FIFO = 3,
	FILE_INET = 4,
	FILE_UNIX = 5,
	FILE_EVENTFD = 6,
	FILE_EPOLL = 7,
	FILE_SIGNALFD = 9,
	FILE_TTY = 11,
	FILE_TIMERFD = 17,
	FILE_MEMFD = 18,
	FILE_NR = 21,
};

struct fown {
	uint32_t uid, euid, signum;
	uint32_t pid_type; /* F_OWNER_TID 0, _PID 1, _PGRP 2 */
	pid_t pid;
};

struct epoll_item {
	int32_t fd;       /* number it was added under */
	uint32_t file_id; /* struct file watched; 0: its descriptor is closed or belongs to nobody in the tree */
	uint32_t events;
	uint64_t data;
	uint64_t ino, pos;
	uint32_t dev;
};

/* An open file description. */
struct file {
	uint32_t id;
	enum file_type type;
	uint32_t flags; /* O_* as F_GETFL gives, without O_CLOEXEC */
	uint64_t pos;
	struct fown fown;
	char *path;     /* owned; NULL where the type has none */
	union {
		struct {
			uint64_t size_bytes;
			uint32_t mode; /* st_mode */
			uint32_t rdev;
			int32_t mnt_id;
			uint32_t ghost_id; /* struct ghost: what `path` led to; 0: it does */
		} reg;
		struct {
			uint32_t pipe_id; /* struct pipe */
		} pipe;
		struct {
			uint64_t counter;
			bool semaphore;
		} eventfd;
		struct {
			VEC(struct epoll_item) items;
		} epoll;
		struct {
			uint32_t clockid;
			uint64_t ticks; /* expirations not read yet */
			uint32_t settime_flags;
			uint64_t value_ns; /* remaining; 0: not armed */
			uint64_t interval_ns;
			uint64_t date_ns; /* armed with TFD_TIMER_ABSTIME: when, by its clock; 0: not, or not known */
		} timerfd;
		struct {
			uint64_t mask; /* signals it hands out, bit n - 1 for signal n */
		} signalfd;
		struct {
			uint32_t shmem_id; /* struct shmem */
		} memfd;
		struct {
			uint32_t tty_id; /* struct tty */
		} tty;
		struct {
			uint32_t ino;
			uint32_t family, type, proto, state;
			uint32_t port;
			uint32_t addr[4]; /* network order; addr[0] only for IPv4 */
			uint32_t backlog;
			uint32_t ifindex;
			uint32_t so_sndbuf, so_rcvbuf, so_priority, so_mark, so_rcvlowat;
			uint64_t so_rcvtimeo_us, so_sndtimeo_us;
			uint32_t so_buf_lock; /* which buffer sizes were set by the program: SOCK_SNDBUF_LOCK 1, _RCVBUF_ 2 */
			bool reuseaddr, reuseport, keepalive, v6only, nodelay, freebind;
			uint32_t keepcnt, keepidle, keepintvl;
			uint32_t uid;
		} inet;
		struct {
			uint32_t ino;
			uint32_t type, state, backlog;
			uint8_t name[108]; /* sun_path; abstract names begin with 0 */
			uint32_t name_len;
			uint32_t mode, uid, gid; /* of the socket file */
			uint32_t so_sndbuf, so_rcvbuf, so_buf_lock;
			bool passcred, reuseaddr;
			/* Of a pair: */
			uint32_t peer_ino; /* of the other end; 0: it is closed */
			uint32_t peer_id;  /* struct file of the other end; 0: closed */
			uint32_t shutdown; /* directions: receiving 1, sending 2 */
			uint32_t cred_pid, cred_uid, cred_gid; /* SO_PEERCRED */
			uint8_t *data;     /* waits to be read; owned */
			uint32_t len_bytes;
		} unix_sk;
	};
};

struct pipe {
	uint32_t id;
	VEC(uint32_t) files; /* ids of those that are open on it, and of some that have been closed */
	uint64_t ino;        /* observe only: identity */
	uint32_t size_bytes; /* F_GETPIPE_SZ */
	uint8_t *data;       /* owned */
	uint32_t len_bytes;
	bool captured;
	bool unknown_ends;         /* observe only: the back end does not know the next two */
	uint32_t readers, writers; /* observe only: open file descriptions of each end, in the whole system */
	/* Where it can be opened from outside while the target lives: /proc/PID/fd/FD. Observe only. */
	pid_t pid;
	int32_t fd;
};

enum tty_type { TTY_PTY = 1, TTY_CONSOLE = 2, TTY_VT = 3, TTY_CTTY = 4, TTY_EXT = 5 };

struct tty {
	uint32_t id;
	enum tty_type type;
	uint32_t index; /* of a pty */
	uint32_t rdev;
	pid_t sid, pgrp;
	bool exclusive, packet_mode, locked;
	bool has_termios, has_winsize;
	uint8_t termios[60]; /* kernel struct termios2, 44 bytes used */
	struct {
		uint16_t row, col, xpixel, ypixel;
	} winsize;
	bool has_master; /* the master side is in the tree */
};

/* A program of seccomp(2), as it was installed; all that were installed before it in the same thread judge as well. */
struct seccomp_filter {
	uint32_t prev;      /* the one before it: position in model.seccomp_filters, from 1, below its own; 0: none */
	uint32_t flags;     /* SECCOMP_FILTER_FLAG_LOG */
	uint32_t len_bytes; /* of struct sock_filter, 8 bytes each */
	uint8_t *insns;     /* owned */
};

struct model {
	uint64_t uptime_us;            /* CLOCK_MONOTONIC at the stop */
	char clocks[128];              /* which CLOCK_MONOTONIC and BOOTTIME its dates are of (sys/clocks.h); "": not known */
	uint32_t root_ns[8];           /* observer's own: pid, net, ipc, uts, mnt, user, cgroup, time */
	VEC(struct task) tasks;        /* root first, parents before children */
	VEC(struct mm *) mms;
	VEC(struct shmem *) shmems;
	VEC(struct ghost *) ghosts;
	VEC(struct fs *) fss;
	VEC(struct fdtable *) fdtables;
	VEC(struct file *) files;
	VEC(struct pipe *) pipes;
	VEC(struct tty *) ttys;
	struct ident_map rings;        /* observe only: identity of a pipe or FIFO → its id in pipes */
	VEC(struct seccomp_filter) seccomp_filters;
	uint32_t next_id;              /* ids are unique over all object classes, from 1 */
};

/* An empty model. Returns NULL when out of memory. */
struct model *model_create(void);

/* Frees the model and everything in it; accepts NULL. */
void model_destroy(struct model *m);

/* A fresh id, never 0. */
uint32_t model_new_id(struct model *m);

/* Each adds a zeroed object with a fresh id (or the given one, when not 0) and returns it; NULL when out of memory. */
struct mm *model_add_mm(struct model *m, uint32_t id);
struct shmem *model_add_shmem(struct model *m, uint32_t id);
struct ghost *model_add_ghost(struct model *m, uint32_t id);
struct fs *model_add_fs(struct model *m, uint32_t id);
struct fdtable *model_add_fdtable(struct model *m, uint32_t id);
struct file *model_add_file(struct model *m, uint32_t id);
struct pipe *model_add_pipe(struct model *m, uint32_t id);
struct tty *model_add_tty(struct model *m, uint32_t id);

/* Frees what a thread has; for one that is taken out of its task. */
void thread_deinit(struct thread *th);

/* The first thread that lives; one does, in a task that is no zombie. */
struct thread *task_living(const struct task *t);

/* Lookup by id (task: by pid; thread: by tid). NULL when there is none. Linear for tasks, hashed by position otherwise. */
struct task *model_find_task(const struct model *m, pid_t pid);
struct mm *model_find_mm(const struct model *m, uint32_t id);
struct shmem *model_find_shmem(const struct model *m, uint32_t id);
struct ghost *model_find_ghost(const struct model *m, uint32_t id);
struct fs *model_find_fs(const struct model *m, uint32_t id);
struct fdtable *model_find_fdtable(const struct model *m, uint32_t id);
struct file *model_find_file(const struct model *m, uint32_t id);
struct pipe *model_find_pipe(const struct model *m, uint32_t id);
struct tty *model_find_tty(const struct model *m, uint32_t id);

/*
 * Removes files that nothing in the model names any more (no descriptor, mapping, executable or directory), and then pipes, shared
 * memory and files without names. -ENOMEM or 0.
 */
int model_prune_files(struct model *m);

/*
 * May this mapping have pages that a restore can get from the image only? The vDSO's are among them: readers of the image
 * find the old entry points there.
 */
bool vma_has_own_pages(const struct vma *vma);

/* Forgets what has been read of the file. */
void ghost_clear(struct ghost *g);

/* The root task; asserts that there is one. */
struct task *model_root(const struct model *m);

/* Counts threads of all tasks. */
size_t model_nr_threads(const struct model *m);

/*
 * Compares what two observations of the same tree say, field by field: ids by the sharing they express, not by
 * number; times within `slack_ns`. Calls `differ` for each difference with a path such as "pid 12 thread 13 sigmask".
 * Returns the number of differences.
 */
size_t model_compare(const struct model *a, const struct model *b, uint64_t slack_ns,
		     void (*differ)(void *arg, const char *what, const char *a, const char *b),
		     void *arg);

#endif
