/*
 * Image sets: model ↔ files in CRIU's format, version 2 (docs/images.md).
 *
 * Writing. image_set_create() makes a private directory of temporary files inside the images directory; nothing
 * with a final name is touched until image_set_commit(), which syncs every file, moves an older set's files away, and
 * renames the new ones into place, the inventory last. A set without inventory does not exist. image_set_abort() leaves
 * the directory as it was. The directory itself and foreign files in it are the caller's.
 */
#ifndef BCR_IMAGE_IMAGE_H
#define BCR_IMAGE_IMAGE_H

#include <sys/uio.h>

#include "model/model.h"

struct image_set;

/* Starts a new set in the directory `dirfd` (borrowed; `path` names it in messages). */
int image_set_create(int dirfd, const char *path, struct image_set **ret);

/* Writes everything in the model except page contents (pages are written through struct pages_writer before). */
int image_set_save(struct image_set *set, const struct model *m);

/* Makes the set valid. After success the set is closed; on failure it still must be aborted. */
int image_set_commit(struct image_set *set);

/* Removes what was written; an older set is what it was. Accepts NULL. */
void image_set_abort(struct image_set *set);

/* Frees the handle after a commit. */
void image_set_close(struct image_set *set);

/* A raw file of the set (tests, `stats-dump` by stats.c): O_RDWR, owned by the caller. */
int image_set_open_raw(struct image_set *set, const char *name, int *ret_fd);

/* Appends pages to pages-<id>.img. */
struct pages_writer;
int pages_writer_open(struct image_set *set, uint32_t pages_id, struct pages_writer **ret);
/* Writes `len` bytes, a multiple of the page size, at the end. */
int pages_writer_append(struct pages_writer *w, const void *buf, size_t len_bytes);
/* File offset of the next page, bytes. */
uint64_t pages_writer_offset(const struct pages_writer *w);
/* Flushes and frees; returns the first error met. Accepts NULL (0). */
int pages_writer_close(struct pages_writer *w);

/*
 * Reads a set: every length, count, id and address is checked. `dirfd` is borrowed. Failures have been
 * reported with the file's name. *ret is owned by the caller.
 */
int images_load(int dirfd, const char *path, struct model **ret);

/* Opens pages-<id>.img of the set for reading; *ret_fd is owned by the caller. */
int images_open_pages(int dirfd, uint32_t pages_id, int *ret_fd);

/* stats-dump / stats-restore: times in microseconds. */
enum { STATS_MAX_STAGES = 12 };

struct dump_stats {
	uint32_t freezing_us, frozen_us, memdump_us, memwrite_us;
	uint64_t pages_scanned, pages_skipped_parent, pages_written;
	uint64_t shpages_scanned, shpages_written;

	/* bcr's own, in stats-dump.bcr. Back ends are those that were used in the end; "": none was needed. */
	char observe[16], freezer[16], track[16];
	uint64_t pages_saved;          /* before the target wrote them */
	uint64_t pages_copied_in_stop;
	uint64_t pages_torn;
	uint32_t retakes, restops;     /* cuts and stops made again */
	uint32_t nr_stages;
	struct stage_time {
		char name[16];
		uint32_t us;
	} stages[STATS_MAX_STAGES];    /* of the stop; of the last one when cuts were made again */
};
struct restore_stats {
	uint64_t pages_compared, pages_skipped_cow, pages_restored;
	uint32_t forking_us, restore_us;
};
/* Written into the directory `dirfd` (the work directory), beside and renamed. */
int stats_write_dump(int dirfd, const struct dump_stats *s);
int stats_write_restore(int dirfd, const struct restore_stats *s);
/* For `show`: 0, -ENOENT when the file is not there. */
int stats_read_dump(int dirfd, struct dump_stats *ret);

#endif
