/*
 * epoll(7) sets. The set is made with the other files; what it watches is added when all descriptors are in place.
 *
 * An item is known to the kernel by file and number together: a later EPOLL_CTL_MOD of the program must find it, so each is
 * added under the very number it had, even when that number stands for another file by now.
 *
 * What cannot be put back exactly: an item added anew reports at once what is ready, which is an edge that the program may
 * have seen already, and a one-shot item that has fired watches for errors and hang-ups again. epoll(7) asks programs to
 * bear the first; the second is reported once more and then disarmed by the kernel.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "kinds/common.h"
#include "observe/observe.h"

static bool epoll_match(const struct file_record *rec)
{
	return rec->sb_magic == MAGIC_ANON_INODE && !strcmp(rec->name, "[eventpoll]");
}

static int read_item(const char *line, struct epoll_record *r)
{
	unsigned long long data, pos, ino;
	unsigned events, dev;
	int fd;

	if (sscanf(line, "tfd: %d events: %x data: %llx pos:%lli ino:%llx sdev:%x", &fd, &events, &data, (long long *)&pos,
		   &ino, &dev) != 6)
		return -EPROTO;
	*r = (struct epoll_record){ .fd = fd, .events = events, .data = data, .pos = pos, .ino = ino, .dev = dev };
	return 0;
}

static int epoll_fdinfo(const char *text, struct observed_file *of)
{
	for (const char *line = text; line; line = strchr(line, '\n')) {
		struct epoll_record r;

		line += *line == '\n';
		if (strncmp(line, "tfd:", 4))
			continue;
		int err = read_item(line, &r);
		if (!err)
			err = VEC_PUSH(&of->epoll_items, r);
		if (err)
			return err;
	}
	of->rec.epoll.nr_items = of->epoll_items.nr;
	return 0;
}

static int collect_item(const struct collect_ctx *ctx, const struct observed_file *of, const struct epoll_record *r,
			struct epoll_item *item)
{
	*item = (struct epoll_item){
		.fd = r->fd,
		.file_id = r->target ? ctx->find_file(ctx, r->target) : 0,
		.events = r->events,
		.data = r->data,
		.ino = r->ino,
		.pos = r->pos,
		.dev = r->dev,
	};
	if (item->file_id)
		return 0;
	return unsupported("pid %u fd %d: the epoll set watches what was descriptor %d (inode %" PRIu64
			   "), which nobody in the tree has open any more",
			   of->rec.tgid, of->rec.fd, r->fd, (uint64_t)r->ino);
}

static int epoll_collect(const struct collect_ctx *ctx, const struct observed_file *of, struct file *f)
{
	int refused = 0;

	f->epoll.items.nr = 0;
	VEC_FOREACH(r, &of->epoll_items) {
		struct epoll_item item;
		int err = collect_item(ctx, of, r, &item);

		if (err == -EOPNOTSUPP)
			refused = err;
		else if (err || (err = VEC_PUSH(&f->epoll.items, item)))
			return fail(err, "pid %u fd %d: note an epoll item", of->rec.tgid, of->rec.fd);
	}
	int err = common_collect_owner(ctx, of, f);
	return err ? err : refused;
}

static EventpollTfdEntry *save_item(struct save_ctx *ctx, const struct file *f, const struct epoll_item *item)
{
	EventpollTfdEntry *e = NEW_MESSAGE(ctx, EventpollTfdEntry, eventpoll_tfd_entry__init);

	if (!e)
		return NULL;
	e->id = f->id;
	e->tfd = item->fd;
	e->events = item->events;
	e->data = item->data;
	e->has_dev = e->has_inode = e->has_pos = true;
	e->dev = item->dev;
	e->inode = item->ino;
	e->pos = item->pos;
	return e;
}

static int epoll_save(struct save_ctx *ctx, const struct file *f, FileEntry *msg)
{
	EventpollFileEntry *e = NEW_MESSAGE(ctx, EventpollFileEntry, eventpoll_file_entry__init);
	FownEntry *fown = common_save_owner(ctx, f);

	if (!e || !fown)
		return -ENOMEM;
	e->id = f->id;
	e->flags = f->flags;
	e->fown = fown;
	e->tfd = ctx->alloc(ctx, (f->epoll.items.nr + 1) * sizeof(*e->tfd));
	if (!e->tfd)
		return -ENOMEM;
	VEC_FOREACH(item, &f->epoll.items) {
		e->tfd[e->n_tfd] = save_item(ctx, f, item);
		if (!e->tfd[e->n_tfd])
			return -ENOMEM;
		e->n_tfd++;
	}
	msg->epfd = e;
	return 0;
}

/* Which file an item watches is in bcr-objects.bcr; without it (CRIU's images), its number tells. */
static int load_item(const EventpollTfdEntry *e, struct file *f)
{
	struct epoll_item item = {
		.fd = e->tfd,
		.events = e->events,
		.data = e->data,
		.ino = e->has_inode ? e->inode : 0,
		.pos = e->has_pos ? e->pos : 0,
		.dev = e->has_dev ? e->dev : 0,
	};

	if (e->id != f->id || e->tfd > INT32_MAX)
		return fail(0, "epoll %u: item %u of file %u is damaged", f->id, e->tfd, e->id);
	return VEC_PUSH(&f->epoll.items, item) ? fail(-ENOMEM, "epoll %u: load", f->id) : 0;
}

static int epoll_load(struct model *m, const FileEntry *msg, struct file *f)
{
	const EventpollFileEntry *e = msg->epfd;

	if (!e || e->id != f->id)
		return fail(0, "epoll %u: its entry is damaged", f->id);
	for (size_t i = 0; i < e->n_tfd; i++) {
		int err = load_item(e->tfd[i], f);
		if (err)
			return err;
	}
	return common_load("epoll", e->flags, e->fown, f);
}

static int epoll_restore(const struct restore_ctx *ctx, const struct file *f, int *ret)
{
	_cleanup_close_ int fd = epoll_create1(EPOLL_CLOEXEC);

	if (fd < 0)
		return fail(-errno, "epoll %u: make it", f->id);
	int err = common_set_flags("epoll", f, fd);
	if (!err)
		*ret = take_fd(&fd);
	return err;
}

static int add_item(int epfd, int number, const struct epoll_item *item)
{
	struct epoll_event ev = { .events = item->events, .data.u64 = item->data };

	return epoll_ctl(epfd, EPOLL_CTL_ADD, number, &ev) ? -errno : 0;
}

/* Lets `number`, which is open, stand for the file that is held as `held`, adds the item, and gives the number back. */
static int add_under_taken_number(int epfd, int held, int number, const struct epoll_item *item)
{
	int fd_flags = fcntl(number, F_GETFD);
	_cleanup_close_ int saved = fcntl(number, F_DUPFD_CLOEXEC, 0);
	/* The set itself may be what has the number. */
	_cleanup_close_ int set = fcntl(epfd, F_DUPFD_CLOEXEC, 0);

	if (fd_flags < 0 || saved < 0 || set < 0 || dup3(held, number, O_CLOEXEC) < 0)
		return -errno;
	int err = add_item(set, number, item);
	if (dup3(saved, number, fd_flags & FD_CLOEXEC ? O_CLOEXEC : 0) < 0)
		return -errno;
	return err;
}

/* The same for a number that is free. Nothing may be opened before the number is taken: it would get the number. */
static int add_under_free_number(int epfd, int held, int number, const struct epoll_item *item)
{
	if (dup3(held, number, O_CLOEXEC) < 0)
		return -errno;
	int err = add_item(epfd, number, item);
	close(number);
	return err;
}

static int add_under_number(int epfd, int held, int number, const struct epoll_item *item)
{
	return fcntl(number, F_GETFD) < 0 ? add_under_free_number(epfd, held, number, item) :
					    add_under_taken_number(epfd, held, number, item);
}

static int connect_item(const struct restore_ctx *ctx, const struct file *f, int fd, const struct epoll_item *item)
{
	int held = item->file_id ? ctx->held_fd(ctx, item->file_id) : item->fd;
	int err;

	if (held < 0)
		return fail(held, "epoll %u: file %u, which it watches as descriptor %d, is not at hand", f->id,
			    item->file_id, item->fd);
	if (held == item->fd)
		err = add_item(fd, item->fd, item);
	else
		err = add_under_number(fd, held, item->fd, item);
	return err ? fail(err, "epoll %u: watch descriptor %d for 0x%x", f->id, item->fd, item->events) : 0;
}

static int epoll_connect(const struct restore_ctx *ctx, const struct file *f, int fd)
{
	VEC_FOREACH(item, &f->epoll.items) {
		int err = connect_item(ctx, f, fd, item);
		if (err)
			return err;
	}
	return common_connect(ctx, f, fd);
}

static void epoll_show(const struct model *m, const struct file *f, FILE *out)
{
	fprintf(out, "epoll, watches");
	if (!f->epoll.items.nr)
		fprintf(out, " nothing");
	VEC_FOREACH(item, &f->epoll.items)
		fprintf(out, "%s fd %d for 0x%x", item == f->epoll.items.v ? "" : ",", item->fd, item->events);
}

const struct kind epoll_kind = {
	.name = "epoll",
	.type = FILE_EPOLL,
	.match = epoll_match,
	.fdinfo = epoll_fdinfo,
	.collect = epoll_collect,
	.refresh = epoll_collect,
	.save = epoll_save,
	.load = epoll_load,
	.restore = epoll_restore,
	.connect = epoll_connect,
	.show = epoll_show,
};
