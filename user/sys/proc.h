/*
 * Small readers of /proc. A process is a held descriptor of its /proc/PID directory: the kernel then answers for that
 * very process or, once it is gone, with ESRCH, never for another one that got its number. Nothing is reported here:
 * a process may end at any time, and the caller knows whether that matters.
 */
#ifndef BCR_SYS_PROC_H
#define BCR_SYS_PROC_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/vec.h"

/* Opens /proc/PID (a thread's number does as well); *ret is owned by the caller. 0 or a negative errno. */
int proc_open(pid_t pid, int *ret);

/* Reads a file below the directory whole: owned text with a NUL behind. `ret_len` may be NULL. */
int proc_read(int dirfd, const char *name, char **ret, size_t *ret_len);

/*
 * A thread through which the memory, descriptors and directories of a process are reached: its main thread, or another one
 * when that has exited and left the process to others. The same number when there is none, or no such process.
 */
pid_t proc_living(pid_t pid);

/* What a link below the directory says, owned. */
int proc_readlink(int dirfd, const char *name, char **ret);

typedef VEC(int) proc_numbers;

/* The numeric names in a directory below (`task`, `fd`), ascending. */
int proc_list(int dirfd, const char *name, proc_numbers *ret);

/* The value of "key:" in text made of such lines (status, fdinfo), blanks skipped; NULL when there is none. */
const char *proc_field(const char *text, const char *key);

/* The same as a number of this base; `missing` when there is none. */
uint64_t proc_field_u64(const char *text, const char *key, int base, uint64_t missing);

/* A file below that holds one number (base 0: as written); negative errno or 0. */
int proc_read_u64(int dirfd, const char *name, int base, uint64_t *ret);

enum { PROC_STAT_FIELDS = 52 };

/* /proc/PID/stat; numbered as in proc(5): field[4] is ppid. Negative values are two's complement. */
struct proc_stat {
	char comm[64];
	char state;
	uint64_t field[PROC_STAT_FIELDS + 1];
};

/* `name` is "stat" or "task/TID/stat". -EPROTO when the text is not what it should be. */
int proc_read_stat(int dirfd, const char *name, struct proc_stat *ret);

/* st_dev and st_rdev as the kernel counts: major << 20 | minor. */
uint32_t proc_dev(uint64_t st_dev);

#endif
