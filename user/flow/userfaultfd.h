/* A userfaultfd of any process of the target, for whoever tracks its memory. */
#ifndef BCR_FLOW_USERFAULTFD_H
#define BCR_FLOW_USERFAULTFD_H

#include <stdint.h>
#include <sys/types.h>

#include "sys/proc.h"

struct waits;

/*
 * Makes one in the running process `pid`, and brings it here (capture/userfaultfd.h). `sharers` are the processes that
 * have its table of descriptors, itself included. When that is more than one thread, all of them are held for it, by
 * ptrace whatever the freezer; `timeout_s` is how long that may take, and how long they stood still is added to
 * *held_us. Returns as capture_userfaultfd() does, but for -EBUSY.
 */
int userfaultfd_take(pid_t pid, const proc_numbers *sharers, unsigned timeout_s, struct waits *waits, uint32_t *held_us,
		     int *ret);

#endif
