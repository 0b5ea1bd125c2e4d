/*
 * The terminal of a shell job (--shell-job): open files of a terminal whose other side is outside the tree. Restored, the
 * job has the terminal that bcr restore runs in, with the settings of the old one. Sessions, controlling terminal and
 * foreground group are the restorer's business.
 */
#include <asm/termbits.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/tty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "kinds/common.h"
#include "kinds/path.h"
#include "observe/observe.h"
#include "sys/fdio.h"
#include "sys/proc.h"

/* <sys/ioctl.h> declares another struct termios than <asm/termbits.h>. */
extern int ioctl(int fd, unsigned long request, ...);

enum {
	MAJOR_TTY = 4,
	MAJOR_TTYAUX = 5, /* 0 /dev/tty, 1 console, 2 ptmx */
	MAJOR_PTY_SLAVE = 136,
	MAJOR_PTY_SLAVE_END = 144,
	MAJOR_USB_SERIAL = 188,
	MAJOR_LOW_DENSITY_SERIAL = 204,
	MAJOR_HVC = 229,
	RDEV_PTMX = MAJOR_TTYAUX << 20 | 2,
	RDEV_CONSOLE = MAJOR_TTYAUX << 20 | 1,
	IOCTL_TCGETS2 = 0x802c542a,
	IOCTL_TCSETS2 = 0x402c542b,
	IOCTL_TIOCGWINSZ = 0x5413,
	IOCTL_TIOCSWINSZ = 0x5414,
	STAT_SESSION = 6,
	STAT_TTY_NR = 7,
	STAT_TPGID = 8,
};

_Static_assert(sizeof(struct termios2) == 44, "kernel interface");

/* Like struct winsize of the kernel. */
struct window {
	uint16_t row, col, xpixel, ypixel;
};

static bool tty_match(const struct file_record *rec)
{
	uint32_t major = rec->rdev >> 20;

	if (!S_ISCHR(rec->mode))
		return false;
	switch (major) {
	case MAJOR_TTY:
	case MAJOR_USB_SERIAL:
	case MAJOR_LOW_DENSITY_SERIAL:
	case MAJOR_HVC:
		return true;
	case MAJOR_TTYAUX:
		return rec->rdev & 0xfffff; /* /dev/tty is opened again by path */
	}
	return major >= MAJOR_PTY_SLAVE && major < MAJOR_PTY_SLAVE_END;
}

static struct tty *find_tty(const struct model *m, uint32_t rdev)
{
	VEC_FOREACH(t, &m->ttys) {
		if ((*t)->rdev == rdev)
			return *t;
	}
	return NULL;
}

static enum tty_type type_of(uint32_t rdev)
{
	uint32_t major = rdev >> 20;

	if (major >= MAJOR_PTY_SLAVE && major < MAJOR_PTY_SLAVE_END)
		return TTY_PTY;
	if (rdev == RDEV_CONSOLE)
		return TTY_CONSOLE;
	return major == MAJOR_TTY && (rdev & 0xfffff) < 64 ? TTY_VT : TTY_EXT;
}

/* Session and foreground group, from a process that has it as its controlling terminal: only /proc tells outsiders. */
static int read_session(pid_t pid, struct tty *t)
{
	_cleanup_close_ int dir = -1;
	struct proc_stat stat;
	int err = proc_open(pid, &dir);

	if (!err)
		err = proc_read_stat(dir, "stat", &stat);
	if (err)
		return fail(err, "pid %d: read its session", pid);
	if (proc_dev((uint32_t)stat.field[STAT_TTY_NR]) != t->rdev)
		return 0;
	t->sid = stat.field[STAT_SESSION];
	t->pgrp = (int64_t)stat.field[STAT_TPGID] > 0 ? stat.field[STAT_TPGID] : 0;
	return 0;
}

static int read_settings(const struct observed_file *of, struct tty *t)
{
	_cleanup_close_ int fd = -1;
	struct termios2 termios;
	struct window window;
	int err = common_duplicate(of, &fd);

	if (err)
		return err;
	if (ioctl(fd, IOCTL_TCGETS2, &termios) || ioctl(fd, IOCTL_TIOCGWINSZ, &window))
		return fail(-errno, "pid %u fd %d: read the settings of terminal %s", of->rec.tgid, of->rec.fd, of->path);
	memcpy(t->termios, &termios, sizeof(termios));
	t->has_termios = t->has_winsize = true;
	t->winsize.row = window.row;
	t->winsize.col = window.col;
	t->winsize.xpixel = window.xpixel;
	t->winsize.ypixel = window.ypixel;
	return read_session(of->rec.tgid, t);
}

static int tty_collect(const struct collect_ctx *ctx, const struct observed_file *of, struct file *f)
{
	const struct file_record *rec = &of->rec;

	if (rec->rdev == RDEV_PTMX)
		return unsupported("pid %u fd %d: %s is the master side of a terminal, which is not supported", rec->tgid,
				   rec->fd, of->path ? of->path : "ptmx");
	if (!ctx->shell_job)
		return unsupported("pid %u fd %d: terminal %s is connected to the outside; use --shell-job, or start the program without a terminal",
				   rec->tgid, rec->fd, of->path ? of->path : rec->name);
	int err = path_check(ctx, of);
	if (err)
		return err;
	f->path = strdup(of->path);
	struct tty *t = find_tty(ctx->m, rec->rdev);
	if (f->path && !t) {
		t = model_add_tty(ctx->m, 0);
		if (t) {
			t->type = type_of(rec->rdev);
			t->index = rec->rdev & 0xfffff;
			t->rdev = rec->rdev;
			err = read_settings(of, t);
		}
	} else if (f->path && !t->sid) {
		err = read_session(rec->tgid, t);
	}
	if (!f->path || !t)
		return fail(-ENOMEM, "pid %u fd %d: note a terminal", rec->tgid, rec->fd);
	f->tty.tty_id = t->id;
	return err ? err : common_collect_owner(ctx, of, f);
}

static int tty_save(struct save_ctx *ctx, const struct file *f, FileEntry *msg)
{
	TtyFileEntry *e = NEW_MESSAGE(ctx, TtyFileEntry, tty_file_entry__init);
	FownEntry *fown = common_save_owner(ctx, f);

	if (!e || !fown)
		return -ENOMEM;
	e->id = f->id;
	e->tty_info_id = f->tty.tty_id;
	e->flags = f->flags;
	e->fown = fown;
	msg->tty = e;
	return 0;
}

static int tty_load(struct model *m, const FileEntry *msg, struct file *f)
{
	const TtyFileEntry *e = msg->tty;

	if (!e || e->id != f->id)
		return fail(0, "terminal file %u: its entry is damaged", f->id);
	if (!model_find_tty(m, e->tty_info_id))
		return fail(0, "terminal file %u: there is no terminal %u", f->id, e->tty_info_id);
	f->tty.tty_id = e->tty_info_id;
	return common_load("terminal file", e->flags, e->fown, f);
}

/* --- restore --- */

/* Opens the terminal that bcr runs in: by the name of what is on 0 to 2, else as its controlling terminal. */
static int open_own(uint32_t flags)
{
	const int how = (flags & O_ACCMODE) | O_NOCTTY | O_CLOEXEC | O_NONBLOCK;
	char name[64];

	for (int fd = 0; fd <= 2; fd++) {
		if (!isatty(fd) || ttyname_r(fd, name, sizeof(name)))
			continue;
		int own = open(name, how);
		if (own >= 0)
			return own;
	}
	return open("/dev/tty", how);
}

/* Blocks SIGTTOU: in the background, settings could be changed only by a process that does not care for it. */
static int put_settings(const struct tty *t, int fd)
{
	struct window window = { t->winsize.row, t->winsize.col, t->winsize.xpixel, t->winsize.ypixel };
	struct termios2 termios;
	sigset_t block, old;
	int err = 0;

	sigemptyset(&block);
	sigaddset(&block, SIGTTOU);
	sigprocmask(SIG_BLOCK, &block, &old);
	memcpy(&termios, t->termios, sizeof(termios));
	if (t->has_termios && ioctl(fd, IOCTL_TCSETS2, &termios))
		err = -errno;
	if (!err && t->has_winsize && ioctl(fd, IOCTL_TIOCSWINSZ, &window))
		err = -errno;
	sigprocmask(SIG_SETMASK, &old, NULL);
	return err;
}

static bool is_first_of_terminal(const struct restore_ctx *ctx, const struct file *f)
{
	VEC_FOREACH(other, &ctx->m->files) {
		const struct file *o = *other;

		if (o != f && o->type == FILE_TTY && o->tty.tty_id == f->tty.tty_id && ctx->held_fd(ctx, o->id) >= 0)
			return false;
	}
	return true;
}

static int tty_restore(const struct restore_ctx *ctx, const struct file *f, int *ret)
{
	const struct tty *t = model_find_tty(ctx->m, f->tty.tty_id);

	if (!t)
		return fail(0, "terminal file %u: there is no terminal %u", f->id, f->tty.tty_id);
	if (!ctx->shell_job)
		return fail(0, "terminal file %u: the program needs a terminal; use --shell-job", f->id);
	if (t->has_master)
		return unsupported("terminal %u: it has its master side in the image, which is not supported", t->index);
	if (ctx->m->ttys.nr > 1)
		return unsupported("terminal %u: the program had %zu terminals, and bcr restore has one", t->index,
				   ctx->m->ttys.nr);
	_cleanup_close_ int fd = open_own(f->flags);
	if (fd < 0)
		return fail(-errno, "terminal file %u: bcr restore --shell-job must be run in a terminal", f->id);
	int err = is_first_of_terminal(ctx, f) ? put_settings(t, fd) : 0;
	if (err)
		return fail(err, "terminal %u: put its settings back", t->index);
	err = common_set_flags("terminal file", f, fd);
	if (!err)
		*ret = take_fd(&fd);
	return err;
}

static void tty_show(const struct model *m, const struct file *f, FILE *out)
{
	const struct tty *t = model_find_tty(m, f->tty.tty_id);

	fprintf(out, "terminal %s", f->path ? f->path : "");
	if (t && t->has_winsize)
		fprintf(out, ", %ux%u", t->winsize.col, t->winsize.row);
}

const struct kind tty_kind = {
	.name = "tty",
	.type = FILE_TTY,
	.match = tty_match,
	.collect = tty_collect,
	.save = tty_save,
	.load = tty_load,
	.restore = tty_restore,
	.connect = common_connect,
	.show = tty_show,
};
