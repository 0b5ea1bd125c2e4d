/*
 * signalfd(2): the set of signals that can be read from it. What is read are the reader's own pending signals, so there is
 * nothing else to keep.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "kinds/common.h"
#include "observe/observe.h"
#include "sys/proc.h"

static bool signalfd_match(const struct file_record *rec)
{
	return rec->sb_magic == MAGIC_ANON_INODE && !strcmp(rec->name, "[signalfd]");
}

static int signalfd_fdinfo(const char *text, struct observed_file *of)
{
	if (!proc_field(text, "sigmask"))
		return -EPROTO;
	of->rec.signalfd.mask = proc_field_u64(text, "sigmask", 16, 0);
	return 0;
}

static int signalfd_collect(const struct collect_ctx *ctx, const struct observed_file *of, struct file *f)
{
	f->signalfd.mask = of->rec.signalfd.mask;
	return common_collect_owner(ctx, of, f);
}

static int signalfd_save(struct save_ctx *ctx, const struct file *f, FileEntry *msg)
{
	SignalfdEntry *e = NEW_MESSAGE(ctx, SignalfdEntry, signalfd_entry__init);
	FownEntry *fown = common_save_owner(ctx, f);

	if (!e || !fown)
		return -ENOMEM;
	e->id = f->id;
	e->flags = f->flags;
	e->fown = fown;
	e->sigmask = f->signalfd.mask;
	msg->sgfd = e;
	return 0;
}

static int signalfd_load(struct model *m, const FileEntry *msg, struct file *f)
{
	const SignalfdEntry *e = msg->sgfd;

	if (!e || e->id != f->id)
		return fail(0, "signalfd %u: its entry is damaged", f->id);
	f->signalfd.mask = e->sigmask;
	return common_load("signalfd", e->flags, e->fown, f);
}

/* The system call itself: the C library has a set of its own, of another size. */
static int signalfd_restore(const struct restore_ctx *ctx, const struct file *f, int *ret)
{
	_cleanup_close_ int fd = syscall(SYS_signalfd4, -1, &f->signalfd.mask, sizeof(f->signalfd.mask), O_CLOEXEC);

	if (fd < 0)
		return fail(-errno, "signalfd %u: make it", f->id);
	int err = common_set_flags("signalfd", f, fd);
	if (!err)
		*ret = take_fd(&fd);
	return err;
}

static void signalfd_show(const struct model *m, const struct file *f, FILE *out)
{
	fprintf(out, "signalfd, signals %#" PRIx64, f->signalfd.mask);
}

const struct kind signalfd_kind = {
	.name = "signalfd",
	.type = FILE_SIGNALFD,
	.match = signalfd_match,
	.fdinfo = signalfd_fdinfo,
	.collect = signalfd_collect,
	.refresh = signalfd_collect,
	.save = signalfd_save,
	.load = signalfd_load,
	.restore = signalfd_restore,
	.connect = common_connect,
	.show = signalfd_show,
};
