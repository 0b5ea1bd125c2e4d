/* The list of a set's files with sizes and checksums. Private to image/. */
#ifndef BCR_IMAGE_MANIFEST_H
#define BCR_IMAGE_MANIFEST_H

#include "image/io.h"

struct manifest;

/* Writes the list of all files written so far; the last file of a set. Failure is reported. */
int manifest_save(struct image_set *set);

/*
 * Reads the list and checks that all files are there with their sizes. *ret is NULL when the set has no list (CRIU
 * wrote it, or somebody who has changed the images on purpose removed it).
 */
int manifest_load(const struct image_source *src, struct manifest **ret);

/* Accepts NULL. */
void manifest_destroy(struct manifest *m);

/*
 * Is the set of `parent` the one that the set of the manifest `m` (NULL: says nothing) was made from? The list
 * of its files, with their checksums, says who it is. Failure is reported.
 */
int manifest_check_parent(const struct manifest *m, const struct image_source *parent);

/* Is what was read what was written? Failure is reported. */
int manifest_check(const struct manifest *m, const struct image_reader *r);

#endif
