/* A userfaultfd of any process of the target, for whoever tracks its memory. */
#ifndef BCR_FLOW_USERFAULTFD_H
#define BCR_FLOW_USERFAULTFD_H

#include <stdint.h>
#include <sys/types.h>

struct waits;

/*
 * Makes one in the running process `pid`, and brings it here (capture/userfaultfd.h). A process with more than one thread is
 * held for that, with all that descend from it, by ptrace whatever the freezer; `timeout_s` is how long that may take, and how long it stood
 * still is added to *held_us. Returns as capture_userfaultfd() does, but for -EBUSY.
 */
int userfaultfd_take(pid_t pid, unsigned timeout_s, struct waits *waits, uint32_t *held_us, int *ret);

#endif
