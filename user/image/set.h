/* What image/ uses of struct image_set. Private to image/. */
#ifndef BCR_IMAGE_SET_H
#define BCR_IMAGE_SET_H

#include <stddef.h>

#include "image/image.h"
#include "image/io.h"

struct parents;

/* Writes all of `buf` to a file of the set; failure is reported. */
int image_set_write(struct image_set *set, const char *name, int fd, const void *buf, size_t len);

/* Has the file `from` of the set take the place of `to`; removes a file of the set. Failure is reported. */
int image_set_replace(struct image_set *set, const char *from, const char *to);
int image_set_remove(struct image_set *set, const char *name);

/* Reports a failed operation on a file of the set, a full disk in words of its own; returns `err`. */
int image_set_io_error(const struct image_set *set, const char *name, const char *what, int err);

/* A file of the set that has been written to its end. */
struct set_file {
	char name[IMAGE_NAME_MAX];
	uint64_t size_bytes;
	bool has_crc32;
	uint32_t crc32;
};

/* Notes such a file for the manifest; `crc32` may be NULL. Failure is reported. */
int image_set_note(struct image_set *set, const char *name, uint64_t size_bytes, const uint32_t *crc32);
const struct set_file *image_set_noted(const struct image_set *set, size_t *ret_nr);

/* What the set builds on; NULL: it is complete. */
const struct parents *image_set_parents(const struct image_set *set);

/* Does the set that is being written have this file? */
int image_set_size(const struct image_set *set, const char *name, uint64_t *ret);

/* Finishes a commit that was interrupted between its point of no return and its end; 0 when there is none. */
int image_set_recover(int dirfd, const char *path);

#endif
