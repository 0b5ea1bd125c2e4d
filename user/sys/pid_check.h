/* Is a pid something that can be dumped? Answers before anything is done to it. */
#ifndef BCR_SYS_PID_CHECK_H
#define BCR_SYS_PID_CHECK_H

#include <sys/types.h>

/*
 * Refuses, each with a sentence of its own: a number that is no pid, no such process, a thread that is not a
 * process, a kernel thread, a zombie, bcr itself or an ancestor of bcr. Returns 0 or a reported negative errno.
 */
int pid_check_target(pid_t pid);

#endif
