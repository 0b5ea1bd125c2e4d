/* Directories that had been removed, for the time of making what was in them. Private to restore/. */
#ifndef BCR_RESTORE_GHOST_DIR_H
#define BCR_RESTORE_GHOST_DIR_H

#include "restore/plan.h"

struct ghost_dir {
	const struct ghost *ghost;
	int number; /* of the descriptor it is held by */
	char *path; /* where it was; owned */
	char *at;   /* where it has been made, under another name if somebody has that one by now; owned */
};

struct ghost_dirs {
	VEC(struct ghost_dir) dirs; /* those above others first */
	VEC(char *) made;           /* all directories that are to be removed again, in the order of their making */
};

/* Makes all of them, empty, and holds them under the numbers of the plan. Failure has been reported. */
int ghost_dirs_make(struct restore *r, struct ghost_dirs *d);

/* Makes what is missing of the directory of `path`. 0 or a negative errno, not reported. */
int ghost_dirs_need(struct ghost_dirs *d, const char *path);

/*
 * Removes all that has been made, and frees `d`; without an error so far (`err`) the removed ones then get their owners, modes and times.
 * Returns `err`, or a failure that has been reported.
 */
int ghost_dirs_remove(struct ghost_dirs *d, int err);

/* Owner, mode and times. 0 or a negative errno, not reported. */
int ghost_set_attributes(const struct ghost *g, int fd);

/* The open file with this struct ghost, or NULL. */
const struct file *ghost_file(const struct model *m, uint32_t ghost_id);

/*
 * A name that is free, next to `path`: itself first, then others for i from 1. False: there is none left, or it is too long.
 * `name` has PATH_MAX bytes.
 */
bool ghost_name(const char *path, int i, char *name);

#endif
