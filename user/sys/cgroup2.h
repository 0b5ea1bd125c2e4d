/* Where the version 2 control group of a process is. */
#ifndef BCR_SYS_CGROUP2_H
#define BCR_SYS_CGROUP2_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { CGROUP_PATH_BYTES = 4352 };

/* The cgroup as /proc/PID/cgroup names it: "/" is the root. False: none, or it does not fit. */
bool cgroup2_name(pid_t pid, char *name, size_t len);

/* The directory of that cgroup, where a cgroup2 file system is mounted that shows it. False: there is none. */
bool cgroup2_dir(const char *name, char *path, size_t len);

#endif
