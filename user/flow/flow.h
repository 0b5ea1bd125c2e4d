/* The order of events, as data: stages run forwards, and on failure undone backwards. */
#ifndef BCR_FLOW_FLOW_H
#define BCR_FLOW_FLOW_H

#include "image/image.h"
#include "model/model.h"

struct flow;

struct stage {
	const char *name;
	int (*run)(struct flow *f);
	void (*undo)(struct flow *f); /* may be NULL: nothing to undo */
};

struct dump_request {
	pid_t root;
	const char *images_dir, *work_dir; /* work_dir NULL: images_dir */
	int images_dirfd, work_dirfd;      /* open; borrowed */
	bool leave_running, leave_stopped, shell_job, file_locks, tcp_established, ext_unix_sk;
	const char *prev_images_dir; /* of the set to build on, relative to the images directory; NULL: none */
	const char *observe;  /* "bpf", "proc" or NULL */
	const char *freezer;  /* "ptrace", "cgroup" or NULL */
	const char *track;    /* for leave_running: a name of track_ops_at(), or NULL: the best */
	unsigned timeout_s;
	uint64_t ghost_limit_bytes;
	int status_fd;        /* -1: none */
	bool display_stats;
	bool progress;        /* stderr is a terminal */
	struct dump_stats *stats; /* filled on success; memory shared with children (MAP_SHARED). NULL: not wanted */
};

struct restore_request {
	const char *images_dir, *work_dir;
	int images_dirfd, work_dirfd;
	bool shell_job, detached, sibling, leave_stopped;
	const char *pidfile;
	int status_fd;
	bool display_stats;
	bool progress;
	char **exec_cmd;      /* --exec-cmd: NULL-terminated, or NULL */
};

/* 0 or a reported negative errno; the target is as it was after any failure. */
int flow_dump(const struct dump_request *req);

/* Memory only, of the running target: what a later dump with this set as its parent need not write. */
int flow_pre_dump(const struct dump_request *req);

/* Returns the exit code of bcr: 0, or the root's status when attached. */
int flow_restore(const struct restore_request *req);

/* Names of the stages, one a line, as --fail-at takes them: of "dump" (two orders of events), "pre-dump" or "restore". */
void flow_list_stages(const char *verb, bool leave_running);
void restore_list_stages(void);

#endif
