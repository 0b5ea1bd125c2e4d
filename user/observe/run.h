/* One run of an observer: what its steps share. Internal to observe.c, objects.c and descriptors.c. */
#ifndef BCR_OBSERVE_RUN_H
#define BCR_OBSERVE_RUN_H

#include "observe/ident.h"
#include "observe/observe.h"

struct observer {
	pid_t root;
	struct observe_options opts;
	const struct observe_ops *ops;
	void *state;
	uint32_t root_ns[8];
	bool tracked;
};

/* One run. The maps take identities to ids, `others` to the index + 1 in obs.others. */
struct run {
	const struct observer *o;
	struct observation obs;
	struct model *m;
	bool stopped;
	bool last_try;
	bool refused;
	struct ident_map mms, fss, sighands, tables, files, others, mapped, shmems;
};

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

/* descriptors.c: descriptor tables, open file descriptions by their kinds, controlling terminals. */
int run_files(struct run *r);
int run_terminals(struct run *r);

#endif
