/* What all kinds share: the owner of SIGIO, status flags. */
#include "kinds/common.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "observe/observe.h"
#include "sys/fdio.h"

bool common_can_read(const struct file *f)
{
	return (f->flags & O_ACCMODE) != O_WRONLY;
}

bool common_can_write(const struct file *f)
{
	return (f->flags & O_ACCMODE) != O_RDONLY;
}

int common_duplicate(const struct observed_file *of, int *ret)
{
	int err = fd_of_process(of->rec.tgid, of->rec.fd, ret);

	/* A running target may have closed it meanwhile; -EAGAIN would say so, but the observer asks again anyway. */
	return err ? fail(err, "pid %u fd %d: duplicate the descriptor", of->rec.tgid, of->rec.fd) : 0;
}

static bool owner_in_tree(const struct model *m, const struct fown *own)
{
	VEC_FOREACH(t, &m->tasks) {
		if (own->pid_type == F_OWNER_PGRP ? t->pgid == own->pid : t->pid == own->pid)
			return true;
		if (own->pid_type != F_OWNER_TID)
			continue;
		VEC_FOREACH(th, &t->threads) {
			if (th->tid == own->pid)
				return true;
		}
	}
	return false;
}

int common_collect_owner(const struct collect_ctx *ctx, const struct observed_file *of, const struct file *f)
{
	if (!f->fown.pid || owner_in_tree(ctx->m, &f->fown))
		return 0;
	return unsupported("pid %u fd %d: its signals go to process or group %d (F_SETOWN), which is outside the tree",
			   of->rec.tgid, of->rec.fd, f->fown.pid);
}

FownEntry *common_save_owner(struct save_ctx *ctx, const struct file *f)
{
	FownEntry *msg = NEW_MESSAGE(ctx, FownEntry, fown_entry__init);

	if (!msg)
		return NULL;
	msg->uid = f->fown.uid;
	msg->euid = f->fown.euid;
	msg->signum = f->fown.signum;
	msg->pid_type = f->fown.pid_type;
	msg->pid = f->fown.pid;
	return msg;
}

int common_load(const char *name, uint32_t flags, const FownEntry *fown, struct file *f)
{
	f->flags = flags & ~O_CLOEXEC;
	if (!fown)
		return fail(0, "%s %u: its owner is missing", name, f->id);
	if (fown->signum > MODEL_NSIG || fown->pid_type > F_OWNER_PGRP || fown->pid > INT32_MAX)
		return fail(0, "%s %u: owner %u, type %u, signal %u is damaged", name, f->id, fown->pid, fown->pid_type,
			    fown->signum);
	f->fown = (struct fown){
		.uid = fown->uid,
		.euid = fown->euid,
		.signum = fown->signum,
		.pid_type = fown->pid_type,
		.pid = fown->pid,
	};
	return 0;
}

int common_set_flags(const char *name, const struct file *f, int fd)
{
	/* O_DIRECT is left to the kinds: not all files take it. O_ASYNC waits for the owner. */
	const uint32_t settable = O_APPEND | O_NONBLOCK | O_NOATIME;
	int now = fcntl(fd, F_GETFL);

	if (now < 0)
		return fail(-errno, "%s %u: read its flags", name, f->id);
	if ((now ^ f->flags) & settable && fcntl(fd, F_SETFL, (now & ~settable) | (f->flags & settable)) < 0)
		return fail(-errno, "%s %u: set its flags to 0%o", name, f->id, f->flags);
	if (f->fown.signum && fcntl(fd, F_SETSIG, f->fown.signum) < 0)
		return fail(-errno, "%s %u: set its signal to %u", name, f->id, f->fown.signum);
	return 0;
}

/*
 * The kernel keeps the credentials of whoever sets an owner, and checks them for each signal: take those of the image for
 * that moment. The raw calls, because this concerns one thread; saved uid 0 is the way back.
 */
static int set_owner_as(const struct fown *own, int fd)
{
	const struct f_owner_ex owner = { .type = own->pid_type, .pid = own->pid };
	uid_t uid, euid, suid;
	bool other;
	int err = 0;

	if (syscall(SYS_getresuid, &uid, &euid, &suid))
		return -errno;
	other = uid != own->uid || euid != own->euid;
	if (other && syscall(SYS_setresuid, own->uid, own->euid, euid))
		return -errno;
	if (fcntl(fd, F_SETOWN_EX, &owner) < 0)
		err = -errno;
	if (other && syscall(SYS_setresuid, uid, euid, suid) && !err)
		err = -errno;
	return err;
}

int common_connect(const struct restore_ctx *ctx, const struct file *f, int fd)
{
	if (f->fown.pid) {
		int err = set_owner_as(&f->fown, fd);
		if (err)
			return fail(err, "file %u: make process or group %d its owner", f->id, f->fown.pid);
	}
	if (!(f->flags & O_ASYNC))
		return 0;
	int now = fcntl(fd, F_GETFL);
	if (now < 0 || fcntl(fd, F_SETFL, now | O_ASYNC) < 0)
		return fail(-errno, "file %u: set O_ASYNC", f->id);
	return 0;
}
