/* What all kinds share: the owner of SIGIO, status flags, reading numbers of fdinfo. Private to kinds/. */
#ifndef BCR_KINDS_COMMON_H
#define BCR_KINDS_COMMON_H

#include "images/fdinfo.pb-c.h"
#include "images/fown.pb-c.h"
#include "kinds/kinds.h"

/* A zeroed message that lives as long as the save; evaluates to NULL when out of memory. */
#define NEW_MESSAGE(ctx, type, init)                                                               \
	({                                                                                         \
		type *msg_ = (ctx)->alloc((ctx), sizeof(*msg_));                                   \
		if (msg_)                                                                          \
			init(msg_);                                                                \
		msg_;                                                                              \
	})

/* Refuses an owner (F_SETOWN) outside the tree. Returns like collect. */
int common_collect_owner(const struct collect_ctx *ctx, const struct observed_file *of, const struct file *f);

/* The message of an owner; NULL when out of memory. */
FownEntry *common_save_owner(struct save_ctx *ctx, const struct file *f);

/* Flags and owner of a message into f, checked. `name` is the kind's. */
int common_load(const char *name, uint32_t flags, const FownEntry *fown, struct file *f);

/* Gives a descriptor just made the status flags of f that can be set (O_NONBLOCK, O_APPEND, ...), and F_SETSIG. */
int common_set_flags(const char *name, const struct file *f, int fd);

/* The connect verb of kinds without relations of their own: owner and O_ASYNC. */
int common_connect(const struct restore_ctx *ctx, const struct file *f, int fd);

/* Access mode of f: may it read, may it write? */
bool common_can_read(const struct file *f);
bool common_can_write(const struct file *f);

/* A duplicate of the observed descriptor; reports its failure. *ret is owned by the caller. */
int common_duplicate(const struct observed_file *of, int *ret);

#endif
