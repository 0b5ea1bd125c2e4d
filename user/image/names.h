/* Names of image files. Private to image/. */
#ifndef BCR_IMAGE_NAMES_H
#define BCR_IMAGE_NAMES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* The link of an incremental set to the one before it. */
#define IMAGE_PARENT "parent"

/*
 * Is this the name of a file of an image set, bcr's or CRIU's? Such files belong to the set in a directory and go when another
 * takes its place; all others (logs, statistics, what container engines put there) are the caller's.
 */
bool image_name_known(const char *name);

/* "pagemap-12.img", the page map of a process, and that of a shared memory object; both return `buf`. */
const char *image_name_pagemap(char *buf, pid_t pid);
const char *image_name_pagemap_shmem(char *buf, uint32_t shmem_id);

#endif
