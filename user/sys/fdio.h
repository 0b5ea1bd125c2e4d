/* Descriptors: exact reads and writes, duplicates of another process's descriptors, further openings of one. */
#ifndef BCR_SYS_FDIO_H
#define BCR_SYS_FDIO_H

#include <stddef.h>
#include <sys/types.h>

/* Writes or reads all of it; a negative errno otherwise (-EAGAIN: would block; -ENODATA: the end came early). */
int write_exact(int fd, const void *buf, size_t len_bytes);
int read_exact(int fd, void *buf, size_t len_bytes);

/*
 * A duplicate of descriptor `fd` of process `pid`: the same open file description, which the process does not notice.
 * *ret is owned by the caller. A negative errno; -EOPNOTSUPP as of pidfd_of_living().
 */
int fd_of_process(pid_t pid, int fd, int *ret);

/*
 * A pidfd of a thread of process `pid` that has not exited, which has the descriptors of the process: *ret, owned by the caller. A
 * negative errno; -EOPNOTSUPP (refused by unsupported()) when it is not the main thread and the kernel has no PIDFD_THREAD.
 */
int pidfd_of_living(pid_t pid, pid_t living, int *ret);

/*
 * Opens once more what `fd` refers to, as a description of its own (through /proc/self/fd). O_CLOEXEC is added. *ret is
 * owned by the caller.
 */
int fd_reopen(int fd, int flags, int *ret);

/* Sets the size of a pipe, when it differs. */
int pipe_set_size(int fd, unsigned size_bytes);

#endif
