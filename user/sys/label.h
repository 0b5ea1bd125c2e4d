/* Labels that security modules (SELinux, AppArmor, Smack) give to processes. */
#ifndef BCR_SYS_LABEL_H
#define BCR_SYS_LABEL_H

#include <stdbool.h>

/* Does this label (a line break at its end does not count) leave the process all that its user may do? */
bool label_is_unconfined(const char *label);

/* Does a module label processes on this machine? */
bool label_in_use(void);

/* The label of a thread, owned by the caller. 0 or a negative errno; -ENOENT: it has ended. */
int label_read(int pid, int tid, char **ret);

#endif
