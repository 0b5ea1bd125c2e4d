/* Page indexes ↔ pagemap-N.img, pagemap-shmem-N.img. Private to image/. */
#ifndef BCR_IMAGE_PAGEMAP_H
#define BCR_IMAGE_PAGEMAP_H

#include "image/io.h"
#include "model/model.h"

/* Writes the page map `name`; its pages must be in pages-<pages_id>.img already, unless there are none. */
int pagemap_image_save(struct image_set *set, const char *name, uint32_t pages_id, const page_runs *runs);

/* Are the `nr_pages` pages at `start` below `end_max`? Reports what is wrong. */
int pagemap_check_run(const struct image_reader *r, taddr_t start, uint64_t nr_pages, uint64_t end_max);

/*
 * Reads a page map whose runs must end at or below `end_max`, and checks it with the size of its pages file;
 * *pages_id is 0 when there are no pages. Runs in the parent set come without a place (parents_resolve()).
 * -ENOENT, not reported: there is no such file.
 */
int pagemap_image_load(const struct image_source *src, const char *name, uint64_t end_max, uint32_t *pages_id, page_runs *ret);

#endif
