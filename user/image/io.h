/* Image files as sequences of records: framing, bounded reading, writing. Private to image/. */
#ifndef BCR_IMAGE_IO_H
#define BCR_IMAGE_IO_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/vec.h"

struct image_set;
struct manifest;

enum {
	IMAGE_NAME_MAX = 64,
	/* No record of a real process comes near; a length beyond it is damage. */
	IMAGE_RECORD_MAX = 64 << 20,
	/* No file that is read as a whole comes near either (pages are not read here). */
	IMAGE_FILE_MAX = 1 << 30,
};

/* Where a set is read from: a directory, or memory in tests. */
struct image_source {
	const char *path; /* names the set in messages */
	/* The whole file; *ret is owned by the caller. -ENOENT without a report when there is none, others reported. */
	int (*read)(const struct image_source *src, const char *name, uint8_t **ret, size_t *ret_len);
	/* Length of a file; -ENOENT as above. */
	int (*size)(const struct image_source *src, const char *name, uint64_t *ret);
	/* The set that the link `parent` leads to, to be closed with image_source_close(). -ENOENT as above; NULL: there are no links. */
	int (*parent)(const struct image_source *src, struct image_source *ret);
	int dirfd;
	void *arg;
	const struct manifest *manifest; /* what the files must be like; NULL when that is not known */
};

/* A source that reads the directory `dirfd`; both are borrowed. */
struct image_source image_source_dir(int dirfd, const char *path);

/* Frees what a source that `parent` gave owns: path, dirfd and arg. */
void image_source_close(struct image_source *src);

/* Memory that lives until all messages of a file, or of a set, have been written. Zeroed; NULL when out of memory. */
struct arena {
	VEC(void *) blocks;
};

void *arena_alloc(struct arena *a, size_t bytes);
void arena_free(struct arena *a);

struct image_reader {
	const char *path;
	char name[IMAGE_NAME_MAX];
	uint8_t *data;
	size_t len, pos;
	unsigned nr_records; /* read so far; the number of the current one, from 1 */
	size_t quota;        /* bytes a record may still take in memory */
};

/*
 * Opens a file of the set by printf-like name and checks its magic numbers. `front` is MAGIC_COMMON, MAGIC_SERVICE or 0 (none).
 * 0; -ENOENT, not reported, when there is no such file; or a reported failure.
 */
__attribute__((format(printf, 5, 6))) int reader_open(struct image_reader *r,
						      const struct image_source *src, uint32_t front,
						      uint32_t magic, const char *name, ...);

/* The same for a file the set cannot do without: absence is reported, as -EINVAL. */
__attribute__((format(printf, 4, 5))) int reader_open_needed(struct image_reader *r,
							     const struct image_source *src,
							     uint32_t magic, const char *name, ...);

/*
 * Unpacks the next record. 1: *ret is a message owned by the caller; 0: end of file; or a reported failure.
 * reader_next() also refuses fields and enum values that our messages do not know: they would be state lost.
 */
int reader_next(struct image_reader *r, const ProtobufCMessageDescriptor *type, void *ret);
int reader_next_any(struct image_reader *r, const ProtobufCMessageDescriptor *type, void *ret);
int reader_check_known(const struct image_reader *r, const ProtobufCMessage *msg);

/* The only record of a file: more or fewer than one is a reported failure. */
int reader_single(struct image_reader *r, const ProtobufCMessageDescriptor *type, void *ret);

/* Bytes behind a record; valid until the reader is closed. */
int reader_payload(struct image_reader *r, size_t len_bytes, const uint8_t **ret);

void reader_close(struct image_reader *r);

/* Reports what is wrong with the current record and returns -EINVAL. */
#define bad_image(r, fmt, ...)                                                                     \
	fail(0, "%s/%s: record %u: " fmt, (r)->path, (r)->name, (r)->nr_records, ##__VA_ARGS__)

/* The file behind the name, for messages without a record. */
#define bad_file(r, fmt, ...) fail(0, "%s/%s: " fmt, (r)->path, (r)->name, ##__VA_ARGS__)

static inline void cleanup_reader(struct image_reader *r)
{
	reader_close(r);
}

static inline void cleanup_message(void *p)
{
	ProtobufCMessage **msg = p;

	if (*msg)
		protobuf_c_message_free_unpacked(*msg, NULL);
}

#define _cleanup_reader_ __attribute__((cleanup(cleanup_reader)))
#define _cleanup_message_ __attribute__((cleanup(cleanup_message)))

/* Writes a file of a set. Errors stick: the first one is reported, and returned by every later call. */
struct image_writer {
	struct image_set *set;
	char name[IMAGE_NAME_MAX];
	int fd;
	int err;
	uint64_t size_bytes;
	uint32_t crc32;
	VEC(uint8_t) buf;
};

__attribute__((format(printf, 5, 6))) int writer_open(struct image_writer *w, struct image_set *set,
						      uint32_t front, uint32_t magic,
						      const char *name, ...);
int writer_put(struct image_writer *w, const ProtobufCMessage *msg);
int writer_put_bytes(struct image_writer *w, const void *bytes, size_t len);

/* Flushes and closes. Must be called whatever happened before. */
int writer_close(struct image_writer *w);

/* One file with one record. */
#define image_put(set, front, magic, msg, ...)                                                     \
	({                                                                                         \
		struct image_writer w_;                                                            \
		writer_open(&w_, (set), (front), (magic), __VA_ARGS__);                            \
		writer_put(&w_, (msg));                                                            \
		writer_close(&w_);                                                                 \
	})

#endif
