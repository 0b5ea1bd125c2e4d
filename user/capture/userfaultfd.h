/* A userfaultfd of the target, for whoever tracks its memory. */
#ifndef BCR_CAPTURE_USERFAULTFD_H
#define BCR_CAPTURE_USERFAULTFD_H

#include <sys/types.h>

#include "capture/way_back.h"

struct waits;

/*
 * Stops the only thread of the running process `pid` for some 100 us, has it call userfaultfd(2), takes the descriptor
 * over and closes it in the target. The thread does not notice: a call it was in is restarted. *ret is owned by the caller.
 * Call it from the thread that ptraces. Returns 0; -ESRCH (not reported) when the process has ended; -EBUSY (not reported) when
 * it has other threads, which could fork in between: the child would keep the descriptor; or a reported negative errno.
 */
int capture_userfaultfd(pid_t pid, struct waits *waits, int *ret);

/*
 * The same of a process all threads of which are in a ptrace stop of ours (freeze_stop()). `code` is what way_back_find() found
 * before. Returns 0, -ESRCH, or as above.
 */
int capture_userfaultfd_held(pid_t pid, const struct way_back_code *code, int *ret);

#endif
