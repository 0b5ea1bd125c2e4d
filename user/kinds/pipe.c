/* Pipes (pipe2(2)): one file for each end, one ring for all files of a pipe. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "kinds/common.h"
#include "kinds/ring.h"
#include "sys/fdio.h"

static bool pipe_match(const struct file_record *rec)
{
	return S_ISFIFO(rec->mode) && rec->sb_magic == MAGIC_PIPEFS;
}

static int pipe_finish(const struct collect_ctx *ctx)
{
	return ring_finish(ctx, FILE_PIPE);
}

static int pipe_save(struct save_ctx *ctx, const struct file *f, FileEntry *msg)
{
	PipeEntry *e = NEW_MESSAGE(ctx, PipeEntry, pipe_entry__init);
	FownEntry *fown = common_save_owner(ctx, f);

	if (!e || !fown)
		return -ENOMEM;
	e->id = f->id;
	e->pipe_id = f->pipe.pipe_id;
	e->flags = f->flags;
	e->fown = fown;
	msg->pipe = e;
	return 0;
}

static int pipe_load(struct model *m, const FileEntry *msg, struct file *f)
{
	const PipeEntry *e = msg->pipe;

	if (!e || e->id != f->id || !e->pipe_id)
		return fail(0, "pipe %u: its entry is damaged", f->id);
	f->pipe.pipe_id = e->pipe_id;
	if (ring_add_file(m, f))
		return fail(-ENOMEM, "pipe %u: note it", f->id);
	return common_load("pipe", e->flags, e->fown, f);
}

/* Packet mode and status flags of an end: after the content, which would have become one packet. */
static int finish_end(const struct file *f, int fd)
{
	if (f->flags & O_DIRECT && fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_DIRECT) < 0)
		return fail(-errno, "pipe %u: packet mode", f->id);
	return common_set_flags("pipe", f, fd);
}

/* The first file of the tree that is the other end of f's pipe, or NULL. */
static const struct file *other_end(const struct restore_ctx *ctx, const struct file *f)
{
	uint32_t want = (f->flags & O_ACCMODE) == O_RDONLY ? O_WRONLY : O_RDONLY;

	const struct pipe *p = model_find_pipe(ctx->m, f->pipe.pipe_id);

	for (size_t i = 0; p && i < p->files.nr; i++) {
		const struct file *o = model_find_file(ctx->m, p->files.v[i]);

		if (o && o->type == FILE_PIPE && (o->flags & O_ACCMODE) == want)
			return o;
	}
	return NULL;
}

/*
 * An end that is opened again through /proc shows O_LARGEFILE, as pipe2's own do not: the end that comes with this one is
 * therefore given to its file at once.
 */
static int keep_other_end(const struct restore_ctx *ctx, const struct file *f, int fd)
{
	const struct file *other = other_end(ctx, f);

	if (!other)
		return 0;
	int err = finish_end(other, fd);
	if (err)
		return err;
	err = ctx->hold(ctx, other->id, fd);
	return err ? fail(err, "pipe %u: keep its other end", f->id) : 0;
}

/* The first end: makes the pipe and keeps both ends. */
static int make_pipe(const struct restore_ctx *ctx, const struct file *f, int *ret)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK))
		return fail(-errno, "pipe %u: make it", f->id);
	_cleanup_close_ int r = ends[0];
	_cleanup_close_ int w = ends[1];
	int err = ring_fill(ctx, f, "pipe", w);
	if (err)
		return err;
	switch (f->flags & O_ACCMODE) {
	case O_RDONLY:
		*ret = take_fd(&r);
		return keep_other_end(ctx, f, w);
	case O_WRONLY:
		*ret = take_fd(&w);
		return keep_other_end(ctx, f, r);
	}
	/* Somebody opened /proc/PID/fd/N for both. */
	err = fd_reopen(r, O_RDWR | O_NONBLOCK, ret);
	return err ? fail(err, "pipe %u: open both ends", f->id) : 0;
}

static int pipe_restore(const struct restore_ctx *ctx, const struct file *f, int *ret)
{
	_cleanup_close_ int fd = -1;
	int held = ring_held(ctx, f);
	int err;

	if (held >= 0) {
		err = fd_reopen(held, (f->flags & O_ACCMODE) | O_NONBLOCK, &fd);
		if (err)
			return fail(err, "pipe %u: open another end", f->id);
	} else {
		err = make_pipe(ctx, f, &fd);
		if (err)
			return err;
	}
	err = finish_end(f, fd);
	if (!err)
		*ret = take_fd(&fd);
	return err;
}

static void pipe_show(const struct model *m, const struct file *f, FILE *out)
{
	static const char *const ends[] = { "read end", "write end", "both ends", "no end" };

	fprintf(out, "pipe %u, %s", f->pipe.pipe_id, ends[f->flags & O_ACCMODE]);
	ring_show(m, f, out);
}

const struct kind pipe_kind = {
	.name = "pipe",
	.type = FILE_PIPE,
	.match = pipe_match,
	.collect = ring_collect,
	.refresh = ring_refresh,
	.finish = pipe_finish,
	.dump = ring_dump,
	.save = pipe_save,
	.load = pipe_load,
	.restore = pipe_restore,
	.connect = common_connect,
	.show = pipe_show,
};
