/* What the writers of page contents share. Private to image/. */
#ifndef BCR_IMAGE_PAGES_H
#define BCR_IMAGE_PAGES_H

#include "image/image.h"
#include "image/io.h"

enum { PAGE = MODEL_PAGE_SIZE, PIECE_PAGES = 256 };

struct pages_writer {
	struct image_set *set;
	char name[IMAGE_NAME_MAX];
	int fd;
	int err; /* the first failure, already reported */
	uint64_t offset_bytes;
	uint64_t nr_written, nr_in_parent;
	page_runs parent; /* where the parent set has pages of this object; levels as this set sees them */
	VEC(struct pages_file) parent_files;
	uint8_t *buf; /* PIECE_PAGES, for the parent's pages */
};

static inline taddr_t page_run_end(const struct page_run *run)
{
	return run->start + run->nr_pages * PAGE;
}

/* Removes the file, and frees. */
void pages_writer_drop(struct pages_writer *w);

/* Index of the first run that ends behind `addr`. */
size_t pages_first_run(const page_runs *runs, taddr_t addr);

/* Lists the pages with the run in front of them, if they go on where it ends. 0 or -ENOMEM. */
int pages_add_run(page_runs *runs, taddr_t addr, size_t nr, uint32_t flags, uint64_t offset_bytes);

/* Sets the byte of each of the pages that the parent has with the same contents; at most PIECE_PAGES. 0 or a reported failure. */
int pages_find_equal(struct pages_writer *w, taddr_t addr, const uint8_t *buf, size_t nr, bool *equal);

#endif
