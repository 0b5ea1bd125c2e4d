/* The ring of a pipe or FIFO, which several open files share: identity, size, content. Private to kinds/. */
#ifndef BCR_KINDS_RING_H
#define BCR_KINDS_RING_H

#include "kinds/kinds.h"

/* Record → struct pipe, made when it is seen first; f->pipe.pipe_id names it. Returns like collect. */
int ring_collect(const struct collect_ctx *ctx, const struct observed_file *of, struct file *f);
int ring_refresh(const struct collect_ctx *ctx, const struct observed_file *of, struct file *f);

/* Notes, of a loaded file, which ring it is open on. -ENOMEM or 0. */
int ring_add_file(struct model *m, const struct file *f);

/* Refuses rings of files of this type that are open outside the tree as well. Returns like collect. */
int ring_finish(const struct collect_ctx *ctx, enum file_type type);

/* Copies what is in the ring, which stays there; target stopped. Once for each ring. */
int ring_dump(struct model *m, struct file *f, pid_t pid, int fd);

/* Another open file of the same ring that this process holds already: its descriptor, or -ENOENT. */
int ring_held(const struct restore_ctx *ctx, const struct file *f);

/* Gives a new ring its size and content. `fd` can write and does not block. `name` is the kind's. */
int ring_fill(const struct restore_ctx *ctx, const struct file *f, const char *name, int fd);

/* "64 KiB, 17 bytes in it" */
void ring_show(const struct model *m, const struct file *f, FILE *out);

#endif
