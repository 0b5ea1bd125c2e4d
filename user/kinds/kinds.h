/*
 * Kinds: one class of kernel object behind a descriptor per file, all with the same verbs.
 * To add one, see docs/add-a-kind.md.
 */
#ifndef BCR_KINDS_KINDS_H
#define BCR_KINDS_KINDS_H

#include <stdio.h>

#include "bpf/file.h"
#include "model/model.h"

struct observed_file;
typedef struct FileEntry FileEntry; /* message file_entry, images/fdinfo.proto */

struct collect_ctx {
	struct model *m;
	bool shell_job, tcp_established, ext_unix_sk;
	/* Id of the struct file with this identity; 0 when nobody in the tree has it. */
	uint32_t (*find_file)(const struct collect_ctx *ctx, uint64_t ident);
	/* The memory object behind a file, made when it is new; NULL when out of memory. */
	struct shmem *(*shmem)(const struct collect_ctx *ctx, const struct observed_file *of, enum shmem_sort sort);
	/* The same for a file that has no name any more. */
	struct ghost *(*ghost)(const struct collect_ctx *ctx, const struct observed_file *of);
	uint64_t ghost_limit_bytes; /* larger ones are refused */
	void *arg; /* of these three */
	bool stopped;
};

struct restore_ctx {
	const struct model *m;
	bool shell_job;
	/* The process that restores the descriptor; NULL while the coordinator restores what all inherit. */
	const struct task *self;
	/* Number under which the open file `id` is held in this process, or -ENOENT. */
	int (*held_fd)(const struct restore_ctx *ctx, uint32_t file_id);
	/*
	 * For objects that come in pairs: while one open file is restored, hands over the other one as well,
	 * complete. Holds a duplicate of `fd`. 0 or a negative errno.
	 */
	int (*hold)(const struct restore_ctx *ctx, uint32_t file_id, int fd);
	/*
	 * Opens anew, with these flags, a file without a name that has been made already: a memory file, an unlinked one.
	 * *ret is an owned descriptor. 0 or a reported failure.
	 */
	int (*open_object)(const struct restore_ctx *ctx, const struct file *f, uint32_t flags, int *ret);
	void *arg; /* of these three */
};

struct save_ctx {
	const struct model *m;
	/* Memory that lives until the message has been packed. NULL when out of memory. */
	void *(*alloc)(struct save_ctx *ctx, size_t bytes);
	void *arg;
};

struct kind {
	const char *name; /* in messages and `show`: "pipe", "eventfd" */
	enum file_type type;
	/* Does this record belong to the kind? Cheap, no side effects. The registry asks in its own order. */
	bool (*match)(const struct file_record *rec);
	/* Fills the union of the record from the text of /proc/PID/fdinfo/FD (the /proc back end). Optional. */
	int (*fdinfo)(const char *text, struct observed_file *of);
	/*
	 * Record → model; may look from outside (pidfd_getfd, /proc/PID/fd), never disturbs the target.
	 * f->id, type, flags, pos, fown are set already. 0, a reported failure, or unsupported().
	 */
	int (*collect)(const struct collect_ctx *ctx, const struct observed_file *of, struct file *f);
	/*
	 * collect() asks the target's own descriptor for things that the record does not tell: it is called once more for
	 * the same file inside a stop, and must bear that.
	 */
	bool asks;
	/*
	 * The same for all other kinds, after a stop, where records tell of states that change by themselves: record
	 * → model, without a look at the target. Optional.
	 */
	int (*refresh)(const struct collect_ctx *ctx, const struct observed_file *of, struct file *f);
	/*
	 * After all files of a run have been collected: what only the whole tree tells (pipes whose other end is
	 * outside). Returns like collect. Optional.
	 */
	int (*finish)(const struct collect_ctx *ctx);
	/* Only what collect cannot see: target stopped, `rec.tgid`/`rec.fd` name a descriptor. Optional. */
	int (*dump)(struct model *m, struct file *f, pid_t pid, int fd);
	/* Model → message, pure. Everything but msg->type and msg->id. */
	int (*save)(struct save_ctx *ctx, const struct file *f, FileEntry *msg);
	/* Message → model, pure; checks every constraint. f->id and f->type are set. */
	int (*load)(struct model *m, const FileEntry *msg, struct file *f);
	/*
	 * Makes the object. Called in the coordinator before tasks are forked, or (per_task) in the first task that has
	 * it. *ret is an owned descriptor, CLOEXEC, flags and position set.
	 */
	int (*restore)(const struct restore_ctx *ctx, const struct file *f, int *ret);
	bool per_task;
	/*
	 * Once for each open file, in a process that has it as `fd`, after all its descriptors are in place and all tasks
	 * exist: relations (epoll items), the owner of SIGIO. Optional.
	 */
	int (*connect)(const struct restore_ctx *ctx, const struct file *f, int fd);
	/* One line for a person, without newline. Optional. */
	void (*show)(const struct model *m, const struct file *f, FILE *out);
};

/* The kind of a record, or NULL. */
const struct kind *kind_match(const struct file_record *rec);

/* The kind with this number, or NULL. */
const struct kind *kind_of_type(enum file_type type);

/* Iterates the registry: i from 0 until NULL. */
const struct kind *kind_at(size_t i);

/* Objects that several files share and that have image files of their own: kept here, saved and loaded by image/. */
extern const struct kind reg_kind, pipe_kind, fifo_kind, inet_kind, unix_kind, eventfd_kind, epoll_kind, tty_kind,
	timerfd_kind, signalfd_kind, memfd_kind;

/*
 * Opens what f->path names for a reg file, mapping, cwd or root, and checks it against the recorded mode and size.
 * Returns an owned descriptor in *ret.
 */
int reg_open(const struct file *f, uint32_t flags, int *ret);

#endif
