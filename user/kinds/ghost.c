/*
 * Regular files that have been unlinked, looked at from outside. Nobody but those who have them can open them, so they are carried
 * with their contents; a restore makes them in the same directory, for a moment under a name. Likewise directories that have
 * been removed, which are empty; but from there ".." leads on, to one that may have been removed as well.
 */
#include "kinds/ghost.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "kinds/path.h"
#include "observe/observe.h"
#include "sys/proc.h"

enum { READ_BYTES = 1 << 20, LIMIT_BYTES = 900 << 20 /* of what a reader of images takes in one file */ };

static const char deleted[] = " (deleted)";

bool ghost_match(const struct file_record *rec)
{
	return (S_ISREG(rec->mode) || S_ISDIR(rec->mode)) && !rec->nlink;
}

/* Opens it; -ENOENT, not reported, when it is not there any more. */
static int ghost_open(const struct ghost *g, struct stat *st, int *ret)
{
	char path[160];

	snprintf(path, sizeof(path), "/proc/%d/%s", proc_living(g->pid), g->link);
	_cleanup_close_ int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOATIME | O_CLOEXEC);
	if (fd < 0 && errno == EPERM)
		fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 && (errno == ENOENT || errno == ESRCH))
		return -ENOENT;
	if (fd < 0 || fstat(fd, st))
		return fail(-errno, "pid %d: open the unlinked file or directory behind %s", g->pid, path);
	if (st->st_ino != g->ino)
		return -ENOENT;
	*ret = take_fd(&fd);
	return 0;
}

static uint64_t microseconds(const struct timespec *t)
{
	return t->tv_sec * 1000000ULL + t->tv_nsec / 1000;
}

static void note_stat(struct ghost *g, const struct stat *st)
{
	g->uid = st->st_uid;
	g->gid = st->st_gid;
	g->mode = st->st_mode;
	g->size_bytes = S_ISREG(st->st_mode) ? st->st_size : 0;
	g->atime_us = microseconds(&st->st_atim);
	g->mtime_us = microseconds(&st->st_mtim);
}

/*
 * Is the directory that it was in there still, or one above it, on the same file system? There a restore makes it, and for a moment
 * whatever is missing in between.
 */
static bool has_place(const char *path, const struct stat *st)
{
	_cleanup_free_ char *dir = strdup(path);
	struct stat found;
	char *slash;

	while (dir && (slash = strrchr(dir, '/'))) {
		*slash = 0;
		if (!stat(slash == dir ? "/" : dir, &found))
			return S_ISDIR(found.st_mode) && found.st_dev == st->st_dev;
		if (errno != ENOENT)
			break;
	}
	return false;
}

/* Directories that stand for objects of the kernel. Those of processes and control groups keep their links, and do not come here. */
static bool is_of_kernel(uint32_t sb_magic)
{
	enum { MAGIC_CONFIGFS = 0x62656570, MAGIC_DEBUGFS = 0x64626720, MAGIC_TRACEFS = 0x74726163 };

	return sb_magic == MAGIC_CONFIGFS || sb_magic == MAGIC_DEBUGFS || sb_magic == MAGIC_TRACEFS;
}

static int check_size(const struct collect_ctx *ctx, const struct observed_file *of, const struct stat *st)
{
	uint64_t bytes = (uint64_t)st->st_blocks * 512, limit = ctx->ghost_limit_bytes;

	if (bytes > LIMIT_BYTES)
		return unsupported("%s: %s has been unlinked and holds %" PRIu64 " bytes; more than %d are not supported; close it first",
				   path_where(of).text, of->path, bytes, LIMIT_BYTES);
	if (bytes > limit)
		return unsupported("%s: %s has been unlinked and holds %" PRIu64 " bytes; raise --ghost-limit (now %" PRIu64
				   ") to carry it inside the images",
				   path_where(of).text, of->path, bytes, limit);
	return 0;
}

/* The one above, and those above it, as long as they have been removed as well. */
static int collect_parents(const struct collect_ctx *ctx, const struct observed_file *of, struct ghost *g, int dir)
{
	struct observed_file above = { .rec = of->rec };
	_cleanup_close_ int fd = fcntl(dir, F_DUPFD_CLOEXEC, 0);

	above.rec.fd = -1;
	for (g->parent_id = 0;; g->parent_id = 0) {
		int up = openat(fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		struct stat st;

		close(fd);
		fd = up;
		if (fd < 0 || fstat(fd, &st))
			return fail(-errno, "%s: look at the directory above %s", path_where(of).text, of->path);
		if (st.st_nlink)
			return 0;
		if ((size_t)snprintf(above.link, sizeof(above.link), "%s/..", g->link) >= sizeof(above.link))
			return unsupported("%s: %s has been removed with so many directories above it that it is not supported",
					   path_where(of).text, of->path);
		above.rec.ino = st.st_ino;
		struct ghost *parent = ctx->ghost(ctx, &above);
		if (!parent)
			return -ENOMEM;
		g->parent_id = parent->id;
		note_stat(parent, &st);
		g = parent;
	}
}

static int note_path(const struct observed_file *of, struct file *f)
{
	size_t len = of->path ? strlen(of->path) : 0, end = sizeof(deleted) - 1;

	if (len <= end || of->path[0] != '/' || strcmp(of->path + len - end, deleted))
		return unsupported("%s: %s is a file without a name, which is not supported; close it first", path_where(of).text,
				   of->path ? of->path : of->rec.name);
	f->path = strndup(of->path, len - end);
	return f->path ? 0 : fail(-ENOMEM, "%s: note a file", path_where(of).text);
}

int ghost_collect(const struct collect_ctx *ctx, const struct observed_file *of, struct file *f)
{
	struct ghost *g = ctx->ghost(ctx, of);
	_cleanup_close_ int fd = -1;
	struct stat st;

	if (!g)
		return -ENOMEM;
	int err = note_path(of, f);
	if (!err)
		err = ghost_open(g, &st, &fd);
	if (err)
		return err == -ENOENT ? -EAGAIN : err;
	if (!has_place(f->path, &st) || (S_ISDIR(st.st_mode) && is_of_kernel(of->rec.sb_magic)))
		return unsupported("%s: %s has been unlinked, and so has the file system it was on, or it is a kernel object; %s",
				   path_where(of).text, of->path, path_way_out(of));
	note_stat(g, &st);
	f->reg.ghost_id = g->id;
	return S_ISDIR(st.st_mode) ? collect_parents(ctx, of, g, fd) : check_size(ctx, of, &st);
}

/* --- contents --- */

static int read_piece(struct ghost *g, int fd, uint64_t start, uint64_t end)
{
	_cleanup_free_ uint8_t *data = malloc(end - start);
	struct ghost_piece piece = { .offset_bytes = start, .data = data };

	if (!data)
		return fail(-ENOMEM, "pid %d: read the unlinked file %s", g->pid, g->link);
	while (piece.len_bytes < end - start) {
		uint64_t left = end - start - piece.len_bytes;
		ssize_t got = pread(fd, data + piece.len_bytes, left < READ_BYTES ? left : READ_BYTES, start + piece.len_bytes);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return fail(-errno, "pid %d: read the unlinked file behind %s", g->pid, g->link);
		if (!got)
			break;
		piece.len_bytes += got;
	}
	if (!piece.len_bytes)
		return 0;
	if (VEC_PUSH(&g->pieces, piece))
		return fail(-ENOMEM, "pid %d: read the unlinked file %s", g->pid, g->link);
	(void)take_ptr(data);
	return 0;
}

int ghost_read(struct ghost *g)
{
	_cleanup_close_ int fd = -1;
	struct stat st;
	int err = ghost_open(g, &st, &fd);

	if (err == -ENOENT)
		return fail(0, "pid %d: the unlinked file behind %s is not there any more", g->pid, g->link);
	if (err)
		return err;
	ghost_clear(g);
	note_stat(g, &st);
	for (off_t at = 0, end; !err && at < st.st_size; at = end) {
		at = lseek(fd, at, SEEK_DATA);
		if (at < 0 && errno == ENXIO)
			break;
		end = at < 0 ? -1 : lseek(fd, at, SEEK_HOLE);
		if (end < 0)
			return fail(-errno, "pid %d: size up the unlinked file behind %s", g->pid, g->link);
		err = read_piece(g, fd, at, end);
	}
	return err;
}
