/* Named pipes. The ring belongs to the inode; a FIFO is opened again by its path, which image/ keeps in an entry of its own. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "kinds/common.h"
#include "kinds/path.h"
#include "kinds/ring.h"
#include "observe/observe.h"

static bool fifo_match(const struct file_record *rec)
{
	return S_ISFIFO(rec->mode) && rec->sb_magic != MAGIC_PIPEFS;
}

static int fifo_collect(const struct collect_ctx *ctx, const struct observed_file *of, struct file *f)
{
	int err = path_check(ctx, of);

	if (err)
		return err;
	f->path = strdup(of->path);
	if (!f->path)
		return fail(-ENOMEM, "pid %u fd %d: note a FIFO", of->rec.tgid, of->rec.fd);
	return ring_collect(ctx, of, f);
}

static int fifo_finish(const struct collect_ctx *ctx)
{
	return ring_finish(ctx, FILE_FIFO);
}

static int fifo_save(struct save_ctx *ctx, const struct file *f, FileEntry *msg)
{
	FifoEntry *e = NEW_MESSAGE(ctx, FifoEntry, fifo_entry__init);

	if (!e)
		return -ENOMEM;
	e->id = f->id;
	e->pipe_id = f->pipe.pipe_id;
	msg->fifo = e;
	return 0;
}

/* Path, flags and owner have been taken from the entry that the message names. */
static int fifo_load(struct model *m, const FileEntry *msg, struct file *f)
{
	const FifoEntry *e = msg->fifo;

	if (!e || e->id != f->id || !e->pipe_id)
		return fail(0, "FIFO %u: its entry is damaged", f->id);
	if (!f->path)
		return fail(0, "FIFO %u: it has no path", f->id);
	f->pipe.pipe_id = e->pipe_id;
	return ring_add_file(m, f) ? fail(-ENOMEM, "FIFO %u: note it", f->id) : 0;
}

/*
 * Opens the FIFO for reading and writing: this never blocks, and as long as it is open no other opening does, nor is
 * content lost. The first time, the content is put back.
 */
static int open_both(const struct restore_ctx *ctx, const struct file *f, int *ret)
{
	_cleanup_close_ int fd = open(f->path, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	struct stat st;
	int used = 0, err = 0;

	if (fd < 0 || fstat(fd, &st))
		return fail(-errno, "FIFO %u: open %s", f->id, f->path);
	if (!S_ISFIFO(st.st_mode))
		return fail(0, "FIFO %u: %s is no FIFO any more", f->id, f->path);
	if (ring_held(ctx, f) < 0) {
		if (ioctl(fd, FIONREAD, &used) < 0)
			return fail(-errno, "FIFO %u: look into %s", f->id, f->path);
		if (used)
			return fail(-EBUSY, "FIFO %u: %s is in use: there are %d bytes in it", f->id, f->path, used);
		err = ring_fill(ctx, f, "FIFO", fd);
	}
	if (!err)
		*ret = take_fd(&fd);
	return err;
}

static int fifo_restore(const struct restore_ctx *ctx, const struct file *f, int *ret)
{
	_cleanup_close_ int both = -1;
	int err = open_both(ctx, f, &both);

	if (err)
		return err;
	_cleanup_close_ int fd = open(f->path, (f->flags & O_ACCMODE) | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return fail(-errno, "FIFO %u: open %s", f->id, f->path);
	err = common_set_flags("FIFO", f, fd);
	if (!err)
		*ret = take_fd(&fd);
	return err;
}

static void fifo_show(const struct model *m, const struct file *f, FILE *out)
{
	fprintf(out, "FIFO %s", f->path ? f->path : "?");
	ring_show(m, f, out);
}

const struct kind fifo_kind = {
	.name = "fifo",
	.type = FILE_FIFO,
	.match = fifo_match,
	.collect = fifo_collect,
	.refresh = ring_refresh,
	.finish = fifo_finish,
	.dump = ring_dump,
	.save = fifo_save,
	.load = fifo_load,
	.restore = fifo_restore,
	.connect = common_connect,
	.show = fifo_show,
};
