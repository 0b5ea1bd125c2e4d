/* Files of a restore that all tasks inherit. Private to restore/. */
#ifndef BCR_RESTORE_FILES_H
#define BCR_RESTORE_FILES_H

#include "restore/plan.h"

/* Opens every file that a task has a descriptor of, under the numbers of the plan. Failure has been reported. */
int files_hold(struct restore *r);

/* Closes them in the coordinator, once all tasks have theirs. */
void files_release(struct restore *r);

#endif
