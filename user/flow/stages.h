/* The loop that runs stages. */
#ifndef BCR_FLOW_STAGES_H
#define BCR_FLOW_STAGES_H

#include "flow/flow.h"

/*
 * Runs the stages in order; each is logged with its time. When one fails, `undo` runs backwards from it (its own
 * included) and its error is returned. BCR_FAIL_AT=NAME makes a stage fail on purpose: after it ran when it can be
 * undone, else in its place. `stop` (may be NULL) is asked before each stage: nonzero means give up. `timed` (may be
 * NULL) is told how long each stage took that did not fail.
 */
int stages_run(const struct stage *stages, size_t nr, struct flow *f, bool (*stop)(void),
	       void (*timed)(struct flow *f, const char *name, uint64_t us));

void stages_list(const struct stage *stages, size_t nr);

uint64_t clock_us(void);

/* Writes the zero byte that --status-fd promises and closes the descriptor. Nothing when fd is -1. */
void status_ready(int fd);

/* "Copying memory" on a terminal, for what takes longer than a second. */
void progress_begin(const char *what);
void progress_show(uint64_t done_bytes, uint64_t all_bytes);
void progress_end(void);

#endif
