/* The image sets that an incremental set builds on. Private to image/. */
#ifndef BCR_IMAGE_PARENTS_H
#define BCR_IMAGE_PARENTS_H

#include "image/io.h"
#include "model/model.h"

/* Sets in a row; more are a mistake, and each costs time and open files. */
enum { IMAGE_PARENTS_MAX = 64 };

struct parents;

/*
 * Opens the chain of sets that begins with the link of `src`, whose manifest (NULL: none) is `manifest`.
 * -ENOENT, not reported, when there is no link; links in a loop, chains that are too long, sets that are
 * missing, damaged or not those that the one above them was made from are reported failures.
 */
int parents_open(const struct image_source *src, const struct manifest *manifest, struct parents **ret);

/* The same for a set that is to be made in the directory `dirfd`: `prev` is relative to it. */
int parents_open_for_new(int dirfd, const char *path, const char *prev, struct parents **ret);

/* Accepts NULL. */
void parents_close(struct parents *p);

/* The source of a set: level 1 is the parent, 2 its parent. */
const struct image_source *parents_at(const struct parents *p, uint32_t level);

/*
 * Finds the pages that `runs`, read from the page map `name`, says are in the parent: each run gets the level,
 * pages file and offset where they really are; runs may be split. A page that is nowhere is a reported failure.
 */
int parents_resolve(const struct parents *p, const char *name, uint64_t end_max, page_runs *runs);

/* Where the parent set has the pages of the page map `name`; nothing when it has no such map. */
int parents_find(const struct parents *p, const char *name, uint64_t end_max, page_runs *ret);

#endif
