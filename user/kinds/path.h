/* Does a path still lead to what a descriptor refers to? Private to kinds/. */
#ifndef BCR_KINDS_PATH_H
#define BCR_KINDS_PATH_H

#include "kinds/kinds.h"

/*
 * Refuses, naming it, what the observed path does not lead to any more: unlinked, renamed over, hidden by a mount.
 * -EAGAIN: of a running target, the descriptor leads elsewhere by now.
 */
int path_check(const struct collect_ctx *ctx, const struct observed_file *of);

/* "pid 5 fd 3" or, for what was not seen through a descriptor, "pid 5". */
struct path_where {
	char text[40];
};
struct path_where path_where(const struct observed_file *of);

/* What to do about it: "close it first", or leave the directory. */
const char *path_way_out(const struct observed_file *of);

#endif
