/* Files opened again by their path: regular files, directories, device nodes without state, and whatever O_PATH holds. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "kinds/common.h"
#include "kinds/ghost.h"
#include "kinds/path.h"
#include "observe/observe.h"
#include "sys/proc.h"

enum { MAGIC_NSFS = 0x6e736673, RDEV_TTY = 5 << 20 };

/* __O_TMPFILE of the kernel: O_TMPFILE without O_DIRECTORY. */
enum { FLAG_TMPFILE = O_TMPFILE & ~O_DIRECTORY };

static bool reg_match(const struct file_record *rec)
{
	switch (rec->sb_magic) {
	case MAGIC_PIPEFS:
	case MAGIC_SOCKFS:
	case MAGIC_ANON_INODE:
	case MAGIC_PIDFS:
	case MAGIC_NSFS:
		return false;
	}
	return rec->flags & O_PATH || S_ISREG(rec->mode) || S_ISDIR(rec->mode) || S_ISCHR(rec->mode);
}

/* Device nodes whose open files have no state: major << 20 | minor. */
static bool device_is_stateless(uint32_t rdev)
{
	enum { MEM_MAJOR = 1 << 20 };

	switch (rdev) {
	case MEM_MAJOR | 3: /* null */
	case MEM_MAJOR | 5: /* zero */
	case MEM_MAJOR | 7: /* full */
	case MEM_MAJOR | 8: /* random */
	case MEM_MAJOR | 9: /* urandom */
		return true;
	}
	return false;
}

static int check_device(const struct collect_ctx *ctx, const struct observed_file *of)
{
	const struct file_record *rec = &of->rec;
	struct path_where where = path_where(of);

	if (!S_ISCHR(rec->mode) || rec->flags & O_PATH || device_is_stateless(rec->rdev))
		return 0;
	if (rec->rdev == RDEV_TTY && ctx->shell_job)
		return 0;
	if (rec->rdev == RDEV_TTY)
		return unsupported("%s: %s is the controlling terminal; use --shell-job", where.text,
				   of->path ? of->path : "/dev/tty");
	return unsupported("%s: device %s (%u:%u) is not supported; close it first", where.text,
			   of->path ? of->path : rec->name, rec->rdev >> 20, rec->rdev & 0xfffff);
}

/* Below /proc, what belongs to a process is not there yet when files are opened, or belongs to another one by then. */
static int check_proc(const struct observed_file *of)
{
	const char *at = of->path;

	if (of->rec.sb_magic != MAGIC_PROC || !at)
		return 0;
	for (; (at = strchr(at, '/')); at++) {
		size_t digits = strspn(at + 1, "0123456789");

		if (digits && (at[1 + digits] == '/' || !at[1 + digits]))
			return unsupported("%s: %s belongs to a process, which is not supported; close it first",
					   path_where(of).text, of->path);
	}
	return 0;
}

static int check_kind(const struct collect_ctx *ctx, const struct observed_file *of)
{
	int err = check_device(ctx, of);

	return err ? err : check_proc(of);
}

static int reg_refresh(const struct collect_ctx *ctx, const struct observed_file *of, struct file *f)
{
	const struct file_record *rec = &of->rec;

	(void)ctx;
	f->reg.mode = rec->mode;
	/* Files of /proc and /sys show no size, or any. */
	if (S_ISREG(rec->mode) && rec->sb_magic != MAGIC_PROC)
		f->reg.size_bytes = rec->size;
	return 0;
}

static int reg_collect(const struct collect_ctx *ctx, const struct observed_file *of, struct file *f)
{
	const struct file_record *rec = &of->rec;
	int err = check_kind(ctx, of);

	if (!err)
		err = ghost_match(rec) ? ghost_collect(ctx, of, f) : path_check(ctx, of);
	if (!err)
		err = common_collect_owner(ctx, of, f);
	if (err)
		return err;
	if (!f->path)
		f->path = strdup(of->path);
	if (!f->path)
		return fail(-ENOMEM, "%s: note a file", path_where(of).text);
	f->reg.rdev = rec->rdev;
	f->reg.mnt_id = -1;
	return reg_refresh(ctx, of, f);
}

static int reg_save(struct save_ctx *ctx, const struct file *f, FileEntry *msg)
{
	RegFileEntry *e = NEW_MESSAGE(ctx, RegFileEntry, reg_file_entry__init);
	FownEntry *fown = common_save_owner(ctx, f);

	if (!e || !fown)
		return -ENOMEM;
	e->id = f->id;
	e->flags = f->flags;
	e->pos = f->pos;
	e->fown = fown;
	e->name = f->path;
	e->has_mnt_id = true;
	e->mnt_id = f->reg.mnt_id;
	e->has_size = S_ISREG(f->reg.mode);
	e->size = f->reg.size_bytes;
	e->has_mode = f->reg.mode != 0;
	e->mode = f->reg.mode;
	msg->reg = e;
	return 0;
}

static int reg_load(struct model *m, const FileEntry *msg, struct file *f)
{
	const RegFileEntry *e = msg->reg;

	if (!e || e->id != f->id)
		return fail(0, "file %u: its entry is damaged", f->id);
	if (!e->name || e->name[0] != '/')
		return fail(0, "file %u: its path '%s' is not absolute", f->id, e->name ? e->name : "");
	if (e->pos > INT64_MAX)
		return fail(0, "file %u (%s): position %" PRIu64 " is damaged", f->id, e->name, e->pos);
	if (e->has_ext && e->ext)
		return unsupported("file %u (%s): files outside the mount namespace are not supported", f->id, e->name);
	f->path = strdup(e->name);
	if (!f->path)
		return fail(-ENOMEM, "file %u (%s): load", f->id, e->name);
	f->pos = e->pos;
	f->reg.mnt_id = e->has_mnt_id ? e->mnt_id : -1;
	f->reg.mode = e->has_mode ? e->mode : 0;
	f->reg.size_bytes = e->has_size ? e->size : S_ISREG(f->reg.mode) ? UINT64_MAX : 0;
	return common_load("file", e->flags, e->fown, f);
}

/* --- restore --- */

static const char *type_word(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return "regular file";
	case S_IFDIR:
		return "directory";
	case S_IFCHR:
		return "character device";
	case S_IFLNK:
		return "symbolic link";
	case S_IFSOCK:
		return "socket";
	case S_IFIFO:
		return "FIFO";
	}
	return "block device";
}

/* A file that is only read must be as it was; one that is written may have grown by others' doing. */
static int check_unchanged(const struct file *f, uint32_t flags, const struct stat *st)
{
	bool has_size = S_ISREG(f->reg.mode) && f->reg.size_bytes != UINT64_MAX;
	struct statfs fs;

	if (f->reg.mode && (st->st_mode & S_IFMT) != (f->reg.mode & S_IFMT))
		return fail(0, "file %u: %s was a %s and is a %s now", f->id, f->path, type_word(f->reg.mode),
			    type_word(st->st_mode));
	if (f->reg.rdev && proc_dev(st->st_rdev) != f->reg.rdev)
		return fail(0, "file %u: %s was device %u:%u and is another one now", f->id, f->path, f->reg.rdev >> 20,
			    f->reg.rdev & 0xfffff);
	if (!has_size || (flags & O_ACCMODE) != O_RDONLY || (uint64_t)st->st_size == f->reg.size_bytes)
		return 0;
	if (!statfs(f->path, &fs) && fs.f_type == MAGIC_PROC)
		return 0;
	return fail(0, "file %u: %s has changed: it had %" PRIu64 " bytes and has %jd now", f->id, f->path,
		    f->reg.size_bytes, (intmax_t)st->st_size);
}

int reg_open(const struct file *f, uint32_t flags, int *ret)
{
	/* What concerns only the first opening, and what is set afterwards. */
	uint32_t drop = O_CREAT | O_EXCL | O_TRUNC | O_ASYNC | FLAG_TMPFILE;
	struct stat st;

	if (!f->path)
		return fail(0, "file %u: it has no path", f->id);
	if (f->reg.mode && !S_ISDIR(f->reg.mode))
		drop |= O_DIRECTORY;
	if (S_ISLNK(f->reg.mode))
		flags |= O_NOFOLLOW;
	else
		drop |= O_NOFOLLOW;
	/* O_NONBLOCK: should a FIFO or device have taken the file's place, we must not hang before saying so. */
	_cleanup_close_ int fd = open(f->path, (flags & ~drop) | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return fail(-errno, "file %u: open %s", f->id, f->path);
	if (fstat(fd, &st))
		return fail(-errno, "file %u: look at %s", f->id, f->path);
	int err = check_unchanged(f, flags, &st);
	if (!err)
		*ret = take_fd(&fd);
	return err;
}

static int reg_restore(const struct restore_ctx *ctx, const struct file *f, int *ret)
{
	_cleanup_close_ int fd = -1;
	int err = f->reg.ghost_id ? ctx->open_object(ctx, f, f->flags, &fd) : reg_open(f, f->flags, &fd);

	if (!err && !(f->flags & O_PATH)) {
		if (f->pos && lseek(fd, f->pos, SEEK_SET) < 0)
			return fail(-errno, "file %u: go to position %" PRIu64 " of %s", f->id, f->pos, f->path);
		err = common_set_flags("file", f, fd);
	}
	if (!err)
		*ret = take_fd(&fd);
	return err;
}

static int reg_connect(const struct restore_ctx *ctx, const struct file *f, int fd)
{
	return f->flags & O_PATH ? 0 : common_connect(ctx, f, fd);
}

static void reg_show(const struct model *m, const struct file *f, FILE *out)
{
	static const char *const access[] = { "reads", "writes", "reads and writes", "no access" };

	fprintf(out, "%s", f->reg.mode ? type_word(f->reg.mode) : "file");
	fputc(' ', out);
	for (const char *at = f->path ? f->path : "?"; *at; at++)
		fputc(iscntrl((unsigned char)*at) ? '?' : *at, out);
	if (f->reg.ghost_id)
		fprintf(out, ", unlinked");
	fprintf(out, ", %s", f->flags & O_PATH ? "path only" : access[f->flags & O_ACCMODE]);
	if (f->pos)
		fprintf(out, " at %" PRIu64, f->pos);
}

const struct kind reg_kind = {
	.name = "file",
	.type = FILE_REG,
	.match = reg_match,
	.collect = reg_collect,
	.refresh = reg_refresh,
	.save = reg_save,
	.load = reg_load,
	.restore = reg_restore,
	.connect = reg_connect,
	.show = reg_show,
};
