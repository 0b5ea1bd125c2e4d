/* Does a path still lead to what a descriptor refers to? */
#include "kinds/path.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "observe/observe.h"
#include "sys/proc.h"

struct path_where path_where(const struct observed_file *of)
{
	struct path_where w;

	if (of->rec.fd >= 0)
		snprintf(w.text, sizeof(w.text), "pid %u fd %d", of->rec.tgid, of->rec.fd);
	else
		snprintf(w.text, sizeof(w.text), "pid %u", of->rec.tgid);
	return w;
}

const char *path_way_out(const struct observed_file *of)
{
	return of->rec.fd < 0 && S_ISDIR(of->rec.mode) ? "leave it first" : "close it first";
}

/* Through the descriptor itself: exact on every file system. */
static bool same_by_descriptor(const struct observed_file *of, const struct stat *found)
{
	char link[48];
	struct stat st;

	if (of->rec.fd < 0)
		return false;
	snprintf(link, sizeof(link), "/proc/%d/fd/%d", proc_living((pid_t)of->rec.tgid), of->rec.fd);
	return !stat(link, &st) && st.st_dev == found->st_dev && st.st_ino == found->st_ino;
}

/* On file systems that show another device or inode number than the kernel's own (overlayfs, btrfs). */
static bool has_numbers_of_its_own(const char *path)
{
	enum { MAGIC_OVERLAYFS = 0x794c7630 };
	static const uint32_t magic_btrfs = 0x9123683e;
	struct statfs fs;

	return !statfs(path, &fs) && ((uint32_t)fs.f_type == MAGIC_OVERLAYFS || (uint32_t)fs.f_type == magic_btrfs);
}

static bool same_file(const struct observed_file *of, const struct stat *found)
{
	const struct file_record *rec = &of->rec;

	if (found->st_ino == rec->ino && proc_dev(found->st_dev) == rec->dev)
		return true;
	if (same_by_descriptor(of, found))
		return true;
	return rec->fd < 0 && has_numbers_of_its_own(of->path) && (found->st_mode & S_IFMT) == (rec->mode & S_IFMT) &&
	       (!S_ISREG(rec->mode) || (uint64_t)found->st_size == rec->size);
}

static bool ends_with(const char *text, const char *end)
{
	size_t len = strlen(text), len_end = strlen(end);

	return len >= len_end && !strcmp(text + len - len_end, end);
}

/* A running target may have closed, renamed or replaced it since it was observed. */
static bool leads_elsewhere(const struct observed_file *of)
{
	char link[48], path[PATH_MAX + 1] = "";

	if (of->rec.fd < 0)
		return false;
	snprintf(link, sizeof(link), "/proc/%d/fd/%d", proc_living((pid_t)of->rec.tgid), of->rec.fd);
	return readlink(link, path, PATH_MAX) < 0 || strcmp(path, of->path);
}

int path_check(const struct collect_ctx *ctx, const struct observed_file *of)
{
	const struct file_record *rec = &of->rec;
	struct path_where where = path_where(of);
	struct stat st;

	if (!of->path || !of->path[0])
		return unsupported("%s: the path of its file (%s) is longer than %d bytes, which is not supported", where.text,
				   rec->name, PATH_MAX);
	if (of->path[0] != '/')
		return unsupported("%s: %s cannot be opened by a path, which is not supported", where.text, of->path);
	/* A symbolic link itself can be held by O_PATH | O_NOFOLLOW only. */
	if (!(S_ISLNK(rec->mode) ? lstat : stat)(of->path, &st) && same_file(of, &st))
		return 0;
	if (!ctx->stopped && leads_elsewhere(of))
		return -EAGAIN;
	if (!rec->nlink || ends_with(of->path, " (deleted)"))
		return unsupported("%s: %s has been unlinked or replaced, which is not supported; %s", where.text, of->path,
				   path_way_out(of));
	return unsupported("%s: %s is another file by now, or not reachable from bcr's mount namespace; %s", where.text, of->path,
			   path_way_out(of));
}
