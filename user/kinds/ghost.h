/* Regular files and directories that have been unlinked, looked at from outside. */
#ifndef BCR_KINDS_GHOST_H
#define BCR_KINDS_GHOST_H

#include "kinds/kinds.h"

/* Has it no name left, and is it a file that can be carried with its contents, or a directory? */
bool ghost_match(const struct file_record *rec);

/* Notes it in the model, as f->reg.ghost_id and f->path. Returns like collect. */
int ghost_collect(const struct collect_ctx *ctx, const struct observed_file *of, struct file *f);

/* Reads it, of a stopped target. Failure has been reported. */
int ghost_read(struct ghost *g);

#endif
