/* Is a thread in a wait for a futex that processes may share? Told from its registers. */
#ifndef BCR_TRACK_FUTEX_X86_64_H
#define BCR_TRACK_FUTEX_X86_64_H

#include <stdbool.h>

struct cpu_regs;

bool futex_wait_is_shared(const struct cpu_regs *r);

#endif
