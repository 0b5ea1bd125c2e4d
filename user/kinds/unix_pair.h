/* Both ends of a connection of Unix sockets, socketpair(2). Private to kinds/unix.c. */
#ifndef BCR_KINDS_UNIX_PAIR_H
#define BCR_KINDS_UNIX_PAIR_H

#include "kinds/kinds.h"

/* Who SO_PEERCRED names, of a connected socket. Returns like collect. */
int unix_pair_collect(const struct observed_file *of, int fd, struct file *f);

/* Names each connected socket's other end by id, and refuses those whose other end is outside the tree. */
int unix_pair_finish(const struct collect_ctx *ctx);

/* Copies what waits to be read, which stays there; target stopped. */
int unix_pair_dump(struct file *f, pid_t pid, int fd);

/* Two connected sockets of f's type, made by who made the old ones, with what waited to be read in them. Owned. */
int unix_pair_make(const struct file *f, const struct file *other, int ret[2]);

#endif
