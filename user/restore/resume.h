/* The last steps of a restore, by ptrace. Private to restore/. */
#ifndef BCR_RESTORE_RESUME_H
#define BCR_RESTORE_RESUME_H

#include "restore/plan.h"

/* Seizes the leader of every living task: from now on none outlives bcr (PTRACE_O_EXITKILL). */
int resume_trace_tasks(struct restore *r);

/* Takes every thread through its rt_sigreturn, removes the restorer, and lets the tree go. */
int resume_all(struct restore *r);

#endif
