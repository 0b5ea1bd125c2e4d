/* Flags of a task that say what prctl(2) has set: PF_* of include/linux/sched.h, which /proc/PID/stat shows as well. */
#ifndef BCR_SYS_TASK_FLAGS_H
#define BCR_SYS_TASK_FLAGS_H

#include <stdbool.h>
#include <stdint.h>

enum {
	TASK_MCE_PROCESS = 0x00000080,     /* it has a policy of its own for memory errors */
	TASK_MCE_EARLY = 0x08000000,       /* which is: told at once */
	TASK_MEMALLOC_NOIO = 0x00080000,
	TASK_LOCAL_THROTTLE = 0x00100000,
};

/* As thread.mce_kill of the model. */
static inline uint8_t task_flags_mce_kill(uint64_t flags)
{
	return flags & TASK_MCE_PROCESS ? 1 + (flags & TASK_MCE_EARLY ? 1 : 0) : 0;
}

/* PR_SET_IO_FLUSHER sets both; one alone is the kernel's own doing. */
static inline bool task_flags_io_flusher(uint64_t flags)
{
	return (flags & (TASK_MEMALLOC_NOIO | TASK_LOCAL_THROTTLE)) == (TASK_MEMALLOC_NOIO | TASK_LOCAL_THROTTLE);
}

#endif
