/* Page contents: pages-N.img, raw pages and nothing else. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "image/image.h"
#include "image/io.h"
#include "image/set.h"

struct pages_writer {
	struct image_set *set;
	char name[IMAGE_NAME_MAX];
	int fd;
	int err; /* the first failure, already reported */
	uint64_t offset_bytes;
};

int pages_writer_open(struct image_set *set, uint32_t pages_id, struct pages_writer **ret)
{
	_cleanup_free_ struct pages_writer *w = calloc(1, sizeof(*w));
	int err;

	if (!w)
		return fail(-ENOMEM, "pages-%u.img: create", pages_id);
	w->set = set;
	snprintf(w->name, sizeof(w->name), "pages-%u.img", pages_id);
	err = image_set_open_raw(set, w->name, &w->fd);
	if (err)
		return err;
	*ret = take_ptr(w);
	return 0;
}

int pages_writer_append(struct pages_writer *w, const void *buf, size_t len_bytes)
{
	if (w->err)
		return w->err;
	if (len_bytes % MODEL_PAGE_SIZE) {
		w->err = fail(0, "%s: %zu bytes are not whole pages", w->name, len_bytes);
		return w->err;
	}
	w->err = image_set_write(w->set, w->name, w->fd, buf, len_bytes);
	if (!w->err)
		w->offset_bytes += len_bytes;
	return w->err;
}

uint64_t pages_writer_offset(const struct pages_writer *w)
{
	return w->offset_bytes;
}

int pages_writer_close(struct pages_writer *w)
{
	if (!w)
		return 0;
	/* Network file systems and quotas report a full disk only here. */
	if (close(w->fd) && !w->err)
		w->err = image_set_io_error(w->set, w->name, "close", -errno);

	int err = w->err ? w->err : image_set_note(w->set, w->name, w->offset_bytes, NULL);

	free(w);
	return err;
}

int images_open_pages(int dirfd, uint32_t pages_id, int *ret_fd)
{
	char name[IMAGE_NAME_MAX];

	snprintf(name, sizeof(name), "pages-%u.img", pages_id);

	int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	if (fd < 0)
		return fail(-errno, "%s: open", name);
	*ret_fd = fd;
	return 0;
}
