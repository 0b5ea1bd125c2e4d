/* The parts of a draft. Private to image/. */
#ifndef BCR_IMAGE_DRAFT_H
#define BCR_IMAGE_DRAFT_H

#include "image/pages.h"

struct late_page {
	taddr_t addr;
	uint64_t offset_bytes;
	uint32_t flags; /* PAGES_PRESENT or PAGES_PARENT */
	uint32_t order;
};

struct pages_draft {
	struct pages_writer *w;
	page_runs runs; /* ascending, and so in the file */
	VEC(struct late_page) late;
	enum { SHIFT_UNKNOWN, SHIFT_YES, SHIFT_NO } can_shift;
};

/* Can the file system of the set insert and remove ranges of a file? */
bool draft_can_shift(struct pages_draft *d);

/*
 * Makes the file hold the present pages of `out`, whose offsets are those in the file now, in their order;
 * `ret` says where they are then.
 * -EOPNOTSUPP, not reported: the file system cannot, or it would take too long; nothing was changed.
 */
int draft_shift(struct pages_draft *d, const page_runs *out, page_runs *ret);

#endif
