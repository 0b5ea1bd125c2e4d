/* A userfaultfd of the target, for whoever tracks its memory. */
#ifndef BCR_CAPTURE_USERFAULTFD_H
#define BCR_CAPTURE_USERFAULTFD_H

#include <sys/types.h>

/*
 * Stops one thread of the running process `pid` for some 150 us, has it call userfaultfd(2), takes the descriptor
 * over and closes it in the target; the other threads go on. The thread does not notice: a call it was in is
 * restarted. *ret is owned by the caller. Call it from the thread that ptraces. Returns 0, -ESRCH (not reported) when
 * the process has ended, or a reported negative errno.
 */
struct waits;

int capture_userfaultfd(pid_t pid, struct waits *waits, int *ret);

#endif
