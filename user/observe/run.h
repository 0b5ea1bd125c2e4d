/* One run of an observer: what its steps share. Internal to observe.c, objects.c, descriptors.c and again.c. */
#ifndef BCR_OBSERVE_RUN_H
#define BCR_OBSERVE_RUN_H

#include "base/ident.h"
#include "kinds/kinds.h"
#include "observe/observe.h"

struct observer;

/* One run. The maps take identities to ids, `others` to the index + 1 in obs.others. */
struct run {
	const struct observer *o;
	struct observation obs;
	struct model *m;
	bool stopped;
	bool last_try;
	bool refused;
	struct ident_map mms, fss, sighands, tables, files, others, mapped, shmems, ghosts;
};

struct observer {
	pid_t root;
	struct observe_options opts;
	const struct observe_ops *ops;
	void *state;
	uint32_t root_ns[8];
	bool tracked;
	bool has_labels; /* a security module labels processes */
	bool warned;     /* of what is lost without being refused */
	/* The last run on the running tree, without its model; for again.c. */
	struct run look;
	bool has_look;
	VEC(size_t) asking; /* those of look.obs.fds that have to be collected again inside a stop */
};

/* Frees everything in it. */
void run_deinit(struct run *r);

/* again.c: keeps a run to come back to; takes what is in it. 0 or -ENOMEM. */
int run_keep(struct observer *o, struct run *r, const struct model *m);
void run_forget(struct observer *o);

/* observe.c: everything that is refused, apart from single mappings and descriptors. */
int run_refusals(struct run *r);

/* A refusal is remembered and the run goes on, so that the user sees all of them; other failures end it. */
int run_note(struct run *r, int err);

/* What does not fit together on a running tree is seen again; on a stopped one it is a failure. */
int run_changed(const struct run *r, pid_t pid, const char *what);

/*
 * The steps, in this order; each returns 0, -EAGAIN (the tree changed), -ENOMEM, or an errno that has been reported.
 * objects.c: what tasks have, apart from their descriptors: one object for each identity; files known by path.
 */
int run_index_others(struct run *r);
int run_objects(struct run *r);
void run_normalise_task(struct task *t);

/* The id of the file that is opened by this path and with these flags, or 0. */
uint32_t run_find_by_path(const struct run *r, const struct observed_file *of, uint32_t flags);

/* The mappings of task number i are those of its identities now. -EOPNOTSUPP: not in this way. */
int run_remap(struct run *r, size_t i);

/*
 * shmems.c: the memory object behind a file, made when it is new (NULL: out of memory), shown by this mapping of a
 * task or, without one, by the descriptor; the same for an unlinked file; what System V says of a segment; refuses segments that others have
 * attached; and, after mappings and descriptors have changed, finds out who has each object.
 */
struct shmem *run_shmem(struct run *r, const struct observed_file *of, enum shmem_sort sort, pid_t pid, const struct vma *vma);
struct ghost *run_ghost(struct run *r, const struct observed_file *of);
int run_sysv(struct run *r, struct shmem *s);
int run_foreign_shmems(struct run *r);
void run_place_shmems(struct run *r);

/*
 * descriptors.c: descriptor tables, open file descriptions by their kinds, controlling terminals. run_set_file()
 * notes what all kinds have in common.
 */
int run_files(struct run *r);
int run_finish_kinds(struct run *r);

/* Descriptors are those of obs.fds now; those with file_id 0 are new. */
int run_refile(struct run *r);

struct collect_ctx run_collect_ctx(struct run *r);
void run_set_file(struct file *f, const struct file_record *rec);
int run_terminals(struct run *r);

#endif
