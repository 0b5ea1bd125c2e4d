/* Names of image files. Private to image/. */
#ifndef BCR_IMAGE_NAMES_H
#define BCR_IMAGE_NAMES_H

#include <stdbool.h>

/*
 * Is this the name of a file of an image set, bcr's or CRIU's? Such files belong to the set in a directory and go when another
 * takes its place; all others (logs, statistics, what container engines put there) are the caller's.
 */
bool image_name_known(const char *name);

#endif
