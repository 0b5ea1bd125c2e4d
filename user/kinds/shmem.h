/* Memory objects of a target, looked at from outside: what they say of themselves, and their contents. */
#ifndef BCR_KINDS_SHMEM_H
#define BCR_KINDS_SHMEM_H

#include "model/model.h"

/*
 * Opens the object by the task that has it; *ret is an owned descriptor, for reading only. -ENOENT, not reported: it is not
 * there any more. Others have been reported.
 */
int shmem_open(const struct shmem *s, int *ret);

/* Size, page size, owner, seals, keys: fills what the target may have changed. Returns as shmem_open(). */
int shmem_look(struct shmem *s);

/* Attachments of a System V segment in the whole system; 0: it is gone. */
uint64_t shmem_nr_attached(const struct shmem *s);

/*
 * Finds the next range [*start, *end) of the open object that has contents, at or behind *start, in whole pages. 1: found;
 * 0: there is none; or a negative errno that has been reported.
 */
int shmem_next_data(const struct shmem *s, int fd, uint64_t *start, uint64_t *end);

/* Reads pages at `offset`; what lies behind the end of the object reads as zeros. 0, or a reported failure. */
int shmem_read(const struct shmem *s, int fd, uint64_t offset, void *buf, size_t bytes);

#endif
