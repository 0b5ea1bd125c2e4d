/* Image files as sequences of records: framing, bounded reading, writing. */
#include "image/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "base/log.h"
#include "image/image.h"
#include "image/magic.h"
#include "image/manifest.h"
#include "image/names.h"
#include "image/set.h"

/* A record may take this much more in memory than in the file: lists of short messages do. */
enum { QUOTA_PER_BYTE = 128, QUOTA_BASE = 65536, WRITE_CHUNK = 1 << 20 };

void *arena_alloc(struct arena *a, size_t bytes)
{
	void *p = calloc(1, bytes ? bytes : 1);

	if (!p || VEC_PUSH(&a->blocks, p)) {
		free(p);
		return NULL;
	}
	return p;
}

void arena_free(struct arena *a)
{
	VEC_FOREACH(p, &a->blocks)
		free(*p);
	VEC_FREE(&a->blocks);
}

/* O_NONBLOCK: the open of a FIFO that somebody left in the directory must not hang. */
static int open_image(const struct image_source *src, const char *name, uint64_t *ret_size)
{
	_cleanup_close_ int fd = openat(src->dirfd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;

	if (fd < 0) {
		if (errno == ENOENT)
			return -ENOENT;
		return fail(-errno, "%s/%s: open", src->path, name);
	}
	if (fstat(fd, &st))
		return fail(-errno, "%s/%s: stat", src->path, name);
	if (!S_ISREG(st.st_mode))
		return fail(0, "%s/%s: not a regular file", src->path, name);
	*ret_size = st.st_size;
	return take_fd(&fd);
}

static int dir_size(const struct image_source *src, const char *name, uint64_t *ret)
{
	int fd = open_image(src, name, ret);

	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}

static int dir_read(const struct image_source *src, const char *name, uint8_t **ret, size_t *ret_len)
{
	uint64_t size;
	_cleanup_close_ int fd = open_image(src, name, &size);

	if (fd < 0)
		return fd;
	if (size > IMAGE_FILE_MAX)
		return fail(0, "%s/%s: %llu bytes is more than an image file can have", src->path, name,
			    (unsigned long long)size);

	_cleanup_free_ uint8_t *data = malloc(size + 1);
	size_t len = 0;

	if (!data)
		return fail(-ENOMEM, "%s/%s: read", src->path, name);
	while (len < size) {
		ssize_t n = read(fd, data + len, size - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail(-errno, "%s/%s: read", src->path, name);
		if (!n)
			return fail(0, "%s/%s: became shorter while it was read", src->path, name);
		len += n;
	}
	*ret = take_ptr(data);
	*ret_len = len;
	return 0;
}

static int dir_parent(const struct image_source *src, struct image_source *ret)
{
	char *path;

	if (faccessat(src->dirfd, IMAGE_PARENT, F_OK, AT_SYMLINK_NOFOLLOW))
		return errno == ENOENT ? -ENOENT : fail(-errno, "%s/" IMAGE_PARENT ": look for it", src->path);

	_cleanup_close_ int fd = openat(src->dirfd, IMAGE_PARENT, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return fail(-errno, "%s/" IMAGE_PARENT ": open the parent image set", src->path);
	if (asprintf(&path, "%s/" IMAGE_PARENT, src->path) < 0)
		return fail(-ENOMEM, "%s/" IMAGE_PARENT ": open", src->path);

	int err = image_set_recover(fd, path);

	if (err) {
		free(path);
		return err;
	}
	*ret = image_source_dir(take_fd(&fd), path);
	return 0;
}

struct image_source image_source_dir(int dirfd, const char *path)
{
	return (struct image_source){
		.path = path, .read = dir_read, .size = dir_size, .parent = dir_parent, .dirfd = dirfd
	};
}

void image_source_close(struct image_source *src)
{
	cleanup_close(&src->dirfd);
	free((char *)src->path);
	free(src->arg);
	*src = (struct image_source){ .dirfd = -1 };
}

static uint32_t get_u32(const uint8_t *p)
{
	return p[0] | p[1] << 8 | p[2] << 16 | (uint32_t)p[3] << 24;
}

static int read_magic(struct image_reader *r, uint32_t want, const char *what)
{
	if (r->len - r->pos < 4)
		return bad_file(r, "cut off in the %s number at its beginning", what);

	uint32_t magic = get_u32(r->data + r->pos);

	if (magic != want)
		return bad_file(r, "begins with 0x%08x instead of the %s number 0x%08x: not such an image, or damaged",
				magic, what, want);
	r->pos += 4;
	return 0;
}

static int reader_vopen(struct image_reader *r, const struct image_source *src, uint32_t front,
			uint32_t magic, const char *name, va_list ap)
{
	memset(r, 0, sizeof(*r));
	r->path = src->path;
	vsnprintf(r->name, sizeof(r->name), name, ap);

	int err = src->read(src, r->name, &r->data, &r->len);

	if (!err && src->manifest)
		err = manifest_check(src->manifest, r);
	if (!err && front)
		err = read_magic(r, front, front == MAGIC_SERVICE ? "service file" : "common");
	return err ? err : read_magic(r, magic, "type");
}

int reader_open(struct image_reader *r, const struct image_source *src, uint32_t front,
		uint32_t magic, const char *name, ...)
{
	va_list ap;

	va_start(ap, name);
	int err = reader_vopen(r, src, front, magic, name, ap);
	va_end(ap);
	return err;
}

int reader_open_needed(struct image_reader *r, const struct image_source *src, uint32_t magic,
		       const char *name, ...)
{
	va_list ap;

	va_start(ap, name);
	int err = reader_vopen(r, src, MAGIC_COMMON, magic, name, ap);
	va_end(ap);
	if (err == -ENOENT)
		return bad_file(r, "missing: the image set is not complete");
	return err;
}

void reader_close(struct image_reader *r)
{
	free(r->data);
	r->data = NULL;
}

static void *quota_alloc(void *arg, size_t bytes)
{
	size_t *quota = arg;

	if (bytes > *quota)
		return NULL;
	*quota -= bytes;
	return malloc(bytes);
}

static void quota_free(void *arg, void *p)
{
	free(p);
}

int reader_next_any(struct image_reader *r, const ProtobufCMessageDescriptor *type, void *ret)
{
	ProtobufCAllocator alloc = { quota_alloc, quota_free, &r->quota };
	size_t left = r->len - r->pos;
	ProtobufCMessage *msg;

	*(void **)ret = NULL;
	if (!left)
		return 0;
	r->nr_records++;
	if (left < 4)
		return bad_image(r, "cut off in its length");

	uint32_t len = get_u32(r->data + r->pos);

	left -= 4;
	if (len > left || len > IMAGE_RECORD_MAX)
		return bad_image(r, "its length %u is more than the %zu bytes that follow: cut off or damaged",
				 len, left);
	r->quota = (size_t)len * QUOTA_PER_BYTE + QUOTA_BASE;
	msg = protobuf_c_message_unpack(type, &alloc, len, r->data + r->pos + 4);
	if (!msg)
		return bad_image(r, "not a valid %s message: damaged", type->name);
	r->pos += 4 + (size_t)len;
	*(void **)ret = msg;
	return 1;
}

static int check_enum(const struct image_reader *r, const ProtobufCFieldDescriptor *f, int value)
{
	if (protobuf_c_enum_descriptor_get_value(f->descriptor, value))
		return 0;
	return bad_image(r, "%s is %d, which this version of bcr does not know", f->name, value);
}

static int check_field(const struct image_reader *r, const ProtobufCMessage *msg,
		       const ProtobufCFieldDescriptor *f)
{
	const uint8_t *at = (const uint8_t *)msg + f->offset;

	if (f->type == PROTOBUF_C_TYPE_ENUM && f->label != PROTOBUF_C_LABEL_REPEATED)
		return check_enum(r, f, *(const int *)at);
	if (f->type != PROTOBUF_C_TYPE_MESSAGE)
		return 0;
	if (f->label != PROTOBUF_C_LABEL_REPEATED) {
		const ProtobufCMessage *sub = *(const ProtobufCMessage *const *)at;

		return sub ? reader_check_known(r, sub) : 0;
	}

	size_t nr = *(const size_t *)((const uint8_t *)msg + f->quantifier_offset);
	const ProtobufCMessage *const *subs = *(const ProtobufCMessage *const *const *)at;

	for (size_t i = 0; i < nr; i++) {
		int err = reader_check_known(r, subs[i]);

		if (err)
			return err;
	}
	return 0;
}

/* The depth is that of our .proto files, none of which is recursive. */
int reader_check_known(const struct image_reader *r, const ProtobufCMessage *msg)
{
	if (msg->n_unknown_fields)
		return bad_image(r, "%s has a field %u, which this version of bcr does not know",
				 msg->descriptor->name, msg->unknown_fields[0].tag);
	for (unsigned i = 0; i < msg->descriptor->n_fields; i++) {
		int err = check_field(r, msg, &msg->descriptor->fields[i]);

		if (err)
			return err;
	}
	return 0;
}

int reader_next(struct image_reader *r, const ProtobufCMessageDescriptor *type, void *ret)
{
	int got = reader_next_any(r, type, ret);

	if (got <= 0)
		return got;

	int err = reader_check_known(r, *(ProtobufCMessage **)ret);

	if (err) {
		cleanup_message(ret);
		*(void **)ret = NULL;
	}
	return err ? err : 1;
}

int reader_single(struct image_reader *r, const ProtobufCMessageDescriptor *type, void *ret)
{
	int got = reader_next(r, type, ret);

	if (got < 0)
		return got;
	if (!got)
		return bad_file(r, "has no record: cut off");
	if (r->pos != r->len) {
		cleanup_message(ret);
		*(void **)ret = NULL;
		return bad_file(r, "has %zu bytes behind its only record: damaged", r->len - r->pos);
	}
	return 0;
}

int reader_payload(struct image_reader *r, size_t len_bytes, const uint8_t **ret)
{
	if (len_bytes > r->len - r->pos)
		return bad_image(r, "%zu bytes of data should follow and only %zu do: cut off or damaged",
				 len_bytes, r->len - r->pos);
	*ret = r->data + r->pos;
	r->pos += len_bytes;
	return 0;
}

static int flush(struct image_writer *w)
{
	if (w->err || !w->buf.nr)
		return w->err;
	w->err = image_set_write(w->set, w->name, w->fd, w->buf.v, w->buf.nr);
	w->size_bytes += w->buf.nr;
	w->crc32 = crc32(w->crc32, w->buf.v, w->buf.nr);
	w->buf.nr = 0;
	return w->err;
}

static int reserve(struct image_writer *w, size_t bytes)
{
	if (w->err)
		return w->err;
	if (VEC_RESERVE(&w->buf, w->buf.nr + bytes))
		w->err = fail(-ENOMEM, "%s: write", w->name);
	return w->err;
}

static int put_u32(struct image_writer *w, uint32_t value)
{
	uint8_t bytes[4] = { value, value >> 8, value >> 16, value >> 24 };

	return writer_put_bytes(w, bytes, sizeof(bytes));
}

int writer_open(struct image_writer *w, struct image_set *set, uint32_t front, uint32_t magic,
		const char *name, ...)
{
	va_list ap;

	memset(w, 0, sizeof(*w));
	w->set = set;
	w->fd = -1;
	va_start(ap, name);
	vsnprintf(w->name, sizeof(w->name), name, ap);
	va_end(ap);

	w->err = image_set_open_raw(set, w->name, &w->fd);
	if (front)
		put_u32(w, front);
	return put_u32(w, magic);
}

int writer_put(struct image_writer *w, const ProtobufCMessage *msg)
{
	size_t len = protobuf_c_message_get_packed_size(msg);

	if (!w->err && len > IMAGE_RECORD_MAX)
		w->err = fail(-EFBIG, "%s: a record of %zu bytes", w->name, len);
	if (put_u32(w, len) || reserve(w, len))
		return w->err;
	protobuf_c_message_pack(msg, w->buf.v + w->buf.nr);
	w->buf.nr += len;
	return w->buf.nr < WRITE_CHUNK ? 0 : flush(w);
}

int writer_put_bytes(struct image_writer *w, const void *bytes, size_t len)
{
	if (!len)
		return w->err;
	if (reserve(w, len))
		return w->err;
	memcpy(w->buf.v + w->buf.nr, bytes, len);
	w->buf.nr += len;
	return w->buf.nr < WRITE_CHUNK ? 0 : flush(w);
}

int writer_close(struct image_writer *w)
{
	flush(w);
	if (w->fd >= 0 && close(w->fd) && !w->err)
		w->err = image_set_io_error(w->set, w->name, "close", -errno);
	if (!w->err)
		w->err = image_set_note(w->set, w->name, w->size_bytes, &w->crc32);
	w->fd = -1;
	VEC_FREE(&w->buf);
	return w->err;
}
