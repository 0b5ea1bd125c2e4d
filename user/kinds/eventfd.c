/* eventfd(2): a counter. Whether it is a semaphore travels in bcr-objects.bcr, for CRIU has no field for it. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "kinds/common.h"
#include "observe/observe.h"
#include "sys/fdio.h"
#include "sys/proc.h"

enum { SEMAPHORE_UNKNOWN = 2 };

static bool eventfd_match(const struct file_record *rec)
{
	return rec->sb_magic == MAGIC_ANON_INODE && !strcmp(rec->name, "[eventfd]");
}

static int eventfd_fdinfo(const char *text, struct observed_file *of)
{
	if (!proc_field(text, "eventfd-count"))
		return -EPROTO;
	of->rec.eventfd.counter = proc_field_u64(text, "eventfd-count", 16, 0);
	/* Since Linux commit 33d8b5d78202 ("eventfd: show the EFD_SEMAPHORE flag in fdinfo") (v6.5). */
	of->rec.eventfd.semaphore = proc_field_u64(text, "eventfd-semaphore", 10, SEMAPHORE_UNKNOWN);
	return 0;
}

static int eventfd_collect(const struct collect_ctx *ctx, const struct observed_file *of, struct file *f)
{
	f->eventfd.counter = of->rec.eventfd.counter;
	f->eventfd.semaphore = of->rec.eventfd.semaphore == 1;
	if (of->rec.eventfd.semaphore == SEMAPHORE_UNKNOWN)
		log_warn("pid %u fd %d: this kernel does not say whether the eventfd is a semaphore; restored as a plain one",
			 of->rec.tgid, of->rec.fd);
	return common_collect_owner(ctx, of, f);
}

static int eventfd_save(struct save_ctx *ctx, const struct file *f, FileEntry *msg)
{
	EventfdFileEntry *e = NEW_MESSAGE(ctx, EventfdFileEntry, eventfd_file_entry__init);
	FownEntry *fown = common_save_owner(ctx, f);

	if (!e || !fown)
		return -ENOMEM;
	e->id = f->id;
	e->flags = f->flags;
	e->fown = fown;
	e->counter = f->eventfd.counter;
	msg->efd = e;
	return 0;
}

static int eventfd_load(struct model *m, const FileEntry *msg, struct file *f)
{
	const EventfdFileEntry *e = msg->efd;

	if (!e || e->id != f->id)
		return fail(0, "eventfd %u: its entry is damaged", f->id);
	if (e->counter == UINT64_MAX)
		return fail(0, "eventfd %u: a counter cannot be %" PRIu64, f->id, e->counter);
	f->eventfd.counter = e->counter;
	return common_load("eventfd", e->flags, e->fown, f);
}

static int eventfd_restore(const struct restore_ctx *ctx, const struct file *f, int *ret)
{
	_cleanup_close_ int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | (f->eventfd.semaphore ? EFD_SEMAPHORE : 0));

	if (fd < 0)
		return fail(-errno, "eventfd %u: make it", f->id);
	int err = write_exact(fd, &f->eventfd.counter, sizeof(f->eventfd.counter));
	if (err)
		return fail(err, "eventfd %u: set its counter to %" PRIu64, f->id, f->eventfd.counter);
	err = common_set_flags("eventfd", f, fd);
	if (!err)
		*ret = take_fd(&fd);
	return err;
}

static void eventfd_show(const struct model *m, const struct file *f, FILE *out)
{
	fprintf(out, "eventfd, %s %" PRIu64, f->eventfd.semaphore ? "semaphore" : "counter", f->eventfd.counter);
}

const struct kind eventfd_kind = {
	.name = "eventfd",
	.type = FILE_EVENTFD,
	.match = eventfd_match,
	.fdinfo = eventfd_fdinfo,
	.collect = eventfd_collect,
	.refresh = eventfd_collect,
	.save = eventfd_save,
	.load = eventfd_load,
	.restore = eventfd_restore,
	.connect = common_connect,
	.show = eventfd_show,
};
