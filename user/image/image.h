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

/*
 * Starts a new set in the directory `dirfd` (borrowed; `path` names it in messages). `prev`: the directory of
 * the set it builds on, relative to `dirfd`, or NULL.
 */
int image_set_create(int dirfd, const char *path, const char *prev, struct image_set **ret);

/* Writes everything in the model except page contents (pages are written through struct pages_writer before). */
int image_set_save(struct image_set *set, const struct model *m);

/* Of a pre-dump: which pages there are, and nothing else. `m` need not be complete. */
int image_set_save_memory(struct image_set *set, const struct model *m);

/* Makes the set valid. After success the set is closed; on failure it still must be aborted. */
int image_set_commit(struct image_set *set);

/* Removes what was written; an older set is what it was. Accepts NULL. */
void image_set_abort(struct image_set *set);

/* Frees the handle after a commit. */
void image_set_close(struct image_set *set);

/* A raw file of the set (tests, `stats-dump` by stats.c): O_RDWR, owned by the caller. */
int image_set_open_raw(struct image_set *set, const char *name, int *ret_fd);

/* The pages of one object, an address space or shared memory, on their way into pages-<id>.img. */
struct pages_writer;
int pages_writer_open(struct image_set *set, uint32_t pages_id, struct pages_writer **ret);

/*
 * In a set with a parent: pages that the parent has of this process, or of this shared memory object, with the
 * same contents are not written again. Without a parent, or when that has nothing of it, nothing changes.
 */
int pages_writer_compare_mm(struct pages_writer *w, pid_t pid);
int pages_writer_compare_shmem(struct pages_writer *w, uint32_t shmem_id);

/* Puts `nr` pages at `addr` behind those put before, and lists them in `runs`, in which there may be others. */
int pages_writer_put(struct pages_writer *w, taddr_t addr, const void *buf, size_t nr, page_runs *runs);

/* Writes `len` bytes, a multiple of the page size, at the end, whatever the parent has. */
int pages_writer_append(struct pages_writer *w, const void *buf, size_t len);
/* File offset of the next page, bytes. */
uint64_t pages_writer_offset(const struct pages_writer *w);
/* Pages put so far that are in this set's file, and those that are in the parent. */
uint64_t pages_writer_written(const struct pages_writer *w);
uint64_t pages_writer_in_parent(const struct pages_writer *w);
/* Flushes and frees; returns the first error met. Accepts NULL (0). */
int pages_writer_close(struct pages_writer *w);

/*
 * The pages of an address space that may be put again, and in any order, until it is known which of them are
 * for the image: what was copied while the target ran. A page that is put again takes the place it has in the
 * file; pages that come between others, or are not wanted any more, make it necessary to copy the file, once,
 * when the draft is settled.
 */
struct pages_draft;
int pages_draft_open(struct image_set *set, uint32_t pages_id, pid_t pid, struct pages_draft **ret);
int pages_draft_put(struct pages_draft *d, taddr_t addr, const void *buf, size_t nr);
/* Pages put out of order so far: with any, pages_draft_settle() copies the file. */
size_t pages_draft_nr_late(const struct pages_draft *d);
/*
 * Puts the file in order. `keep` (NULL: all) are the pages that are for the image, ascending; those that were
 * never put come back in `missing`, and it must be called again when they have been. 0 or a reported failure.
 */
int pages_draft_settle(struct pages_draft *d, const page_runs *keep, page_runs *missing);
/* Has the disk take what was put so far. */
int pages_draft_sync(struct pages_draft *d);
/* After settling: gives the runs away, and closes. */
int pages_draft_finish(struct pages_draft *d, page_runs *ret);
/* Removes the file, and frees. Accepts NULL. */
void pages_draft_drop(struct pages_draft *d);

/*
 * Reads a set: every length, count, id and address is checked. `dirfd` is borrowed. Failures have been
 * reported with the file's name. *ret is owned by the caller.
 */
int images_load(int dirfd, const char *path, struct model **ret);

/*
 * Reads what a pre-dump left: a model of mms (pid, pages) and shmems only. -ENOENT, not reported: the set is
 * not of a pre-dump.
 */
int images_load_memory(int dirfd, const char *path, struct model **ret);

/* Opens pages-<id>.img of the set for reading; *ret_fd is owned by the caller. */
int images_open_pages(int dirfd, uint32_t pages_id, int *ret_fd);

/* The pages files that the runs of one object lead to: those of this set and of its parents, opened when they are needed. */
struct pages_file {
	uint32_t level, pages_id;
	int fd;
};
struct pages_reader {
	int dirfd;         /* of the set; borrowed */
	uint32_t pages_id; /* of the object in this set */
	VEC(struct pages_file) files;
};

/* Reads `len` bytes that begin `skip` bytes behind the beginning of a loaded run with contents. 0 or a reported failure. */
int pages_reader_read(struct pages_reader *r, const struct page_run *run, uint64_t skip, void *buf, size_t len);
void pages_reader_close(struct pages_reader *r);

/* stats-dump / stats-restore: times in microseconds. */
enum { STATS_MAX_STAGES = 12 };

struct dump_stats {
	uint32_t freezing_us, frozen_us, memdump_us, memwrite_us;
	uint64_t pages_scanned, pages_skipped_parent, pages_written;
	uint64_t shpages_scanned, shpages_skipped_parent, shpages_written;

	/* bcr's own, in stats-dump.bcr. Back ends are those that were used in the end; "": none was needed. */
	char observe[16], freezer[16], track[16];
	uint64_t pages_saved;          /* before the target wrote them */
	uint64_t pages_copied_in_stop;
	uint64_t pages_torn;
	uint32_t rounds;               /* of copying ahead, before the stop */
	uint64_t pages_copied_ahead;   /* in these; a page may count in several */
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
