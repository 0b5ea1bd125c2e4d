/*
 * A set of image files that appears in a directory as a whole, or not at all.
 *
 * Theory of operation. Files are written into a directory of their own below the images directory, WRITING_DIR, held
 * under a lock for as long as its writer lives: one without a lock is what a killed writer left, and the next one removes it.
 * Commit syncs the files and renames the directory to COMMIT_DIR: that is the one point at which the new set takes
 * the place of the older one. What follows (the older set's files go away, the inventory first; the new ones move up, the
 * inventory last) is repeated from wherever it stopped, by the next writer or reader, when the writer was killed in it:
 * a COMMIT_DIR is a complete set. CLEANED in it says that the older files are gone, so that a repetition
 * does not take the new ones for them.
 */
#include "image/set.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "image/names.h"
#include "image/parents.h"

#define WRITING_DIR ".bcr-writing"
#define COMMIT_DIR ".bcr-commit"
#define CLEANED "older-set-removed"
#define INVENTORY "inventory.img"

struct image_set {
	int dirfd;    /* the images directory */
	char *path;
	int fd;       /* WRITING_DIR, locked */
	bool committed;
	VEC(struct set_file) files; /* for the manifest */
	struct parents *parents;    /* of an incremental set */
};

/* Calls `each` for every entry but . and ..; a nonzero result ends the walk and is returned. */
static int each_entry(int dirfd, int (*each)(void *arg, int dirfd, const char *name), void *arg)
{
	int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_closedir_ DIR *d = fd < 0 ? NULL : fdopendir(fd);

	if (!d) {
		int err = -errno;

		if (fd >= 0)
			close(fd);
		return err;
	}
	for (;;) {
		errno = 0;
		struct dirent *e = readdir(d);

		if (!e)
			return -errno;
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		int err = each(arg, dirfd, e->d_name);
		if (err)
			return err;
	}
}

static int unlink_entry(void *arg, int dirfd, const char *name)
{
	return unlinkat(dirfd, name, 0) && errno != ENOENT ? -errno : 0;
}

static int unlink_image(void *arg, int dirfd, const char *name)
{
	return image_name_known(name) ? unlink_entry(arg, dirfd, name) : 0;
}

/* --- committing: each step may have been done already by a writer that was killed --- */

static int remove_older(int dirfd, int new_fd)
{
	if (!faccessat(new_fd, CLEANED, F_OK, 0))
		return 0;

	int err = unlink_entry(NULL, dirfd, INVENTORY);

	if (!err)
		err = fsync(dirfd) ? -errno : 0;
	if (!err)
		err = each_entry(dirfd, unlink_image, NULL);
	if (err)
		return err;

	_cleanup_close_ int mark = openat(new_fd, CLEANED, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	return mark < 0 || fsync(new_fd) || fsync(dirfd) ? -errno : 0;
}

static int move_up(void *arg, int from_fd, const char *name)
{
	const int *to_fd = arg;

	if (!strcmp(name, CLEANED) || !strcmp(name, INVENTORY))
		return 0;
	return renameat(from_fd, name, *to_fd, name) ? -errno : 0;
}

static int put_in_place(int dirfd, int fd)
{
	int err = remove_older(dirfd, fd);

	if (!err)
		err = each_entry(fd, move_up, &dirfd);
	if (!err && fsync(dirfd))
		err = -errno;
	if (!err && renameat(fd, INVENTORY, dirfd, INVENTORY))
		err = -errno;
	return !err && fsync(dirfd) ? -errno : err;
}

/* `fd` is COMMIT_DIR, locked. */
static int roll_forward(int dirfd, int fd)
{
	int err = 0;

	/* The inventory moves last: without it only tidying up was interrupted. */
	if (!faccessat(fd, INVENTORY, F_OK, 0))
		err = put_in_place(dirfd, fd);
	if (!err)
		err = unlink_entry(NULL, fd, CLEANED);
	if (!err && unlinkat(dirfd, COMMIT_DIR, AT_REMOVEDIR) && errno != ENOENT)
		err = -errno;
	return err;
}

/* Is `fd`, opened by this name, still what the name means? */
static bool is_named(int dirfd, const char *name, int fd)
{
	struct stat held, named;

	return !fstat(fd, &held) && !fstatat(dirfd, name, &named, AT_SYMLINK_NOFOLLOW) &&
	       held.st_dev == named.st_dev && held.st_ino == named.st_ino;
}

int image_set_recover(int dirfd, const char *path)
{
	_cleanup_close_ int fd = openat(dirfd, COMMIT_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0 && errno == ENOENT)
		return 0;
	/* A writer that lives holds the lock; when it has finished, there is nothing left to do here. */
	if (fd < 0 || flock(fd, LOCK_EX))
		return fail(-errno, "images %s: open " COMMIT_DIR, path);
	if (!is_named(dirfd, COMMIT_DIR, fd))
		return 0;

	int err = roll_forward(dirfd, fd);

	if (err)
		return fail(err, "images %s: finishing a dump that was interrupted at its very end (" COMMIT_DIR ")",
			    path);
	log_info("images %s: finished a dump that was interrupted at its very end", path);
	return 0;
}

/* --- creating --- */

/* Removes WRITING_DIR, open as `fd`, with what is in it. */
static int remove_writing(int dirfd, int fd)
{
	int err = each_entry(fd, unlink_entry, NULL);

	if (!err && unlinkat(dirfd, WRITING_DIR, AT_REMOVEDIR))
		err = -errno;
	return err;
}

static int lock_writing(int dirfd, const char *path, int *ret)
{
	if (mkdirat(dirfd, WRITING_DIR, 0700) && errno != EEXIST)
		return fail(-errno, "images %s: create a directory for temporary files", path);

	_cleanup_close_ int fd = openat(dirfd, WRITING_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0)
		return fail(-errno, "images %s: open " WRITING_DIR, path);
	if (flock(fd, LOCK_EX | LOCK_NB)) {
		if (errno == EWOULDBLOCK)
			return fail(-EBUSY, "images %s: another dump is writing into this directory", path);
		return fail(-errno, "images %s: lock " WRITING_DIR, path);
	}

	/* Between mkdir and flock another writer may have committed or removed it. */
	if (!is_named(dirfd, WRITING_DIR, fd))
		return fail(-EBUSY, "images %s: another dump is writing into this directory", path);

	int err = each_entry(fd, unlink_entry, NULL);

	if (err)
		return fail(err, "images %s: remove what an interrupted dump left in " WRITING_DIR, path);
	*ret = take_fd(&fd);
	return 0;
}

/* The link is in the new set's own directory already: it goes where the other files go. */
static int link_parent(struct image_set *set, const char *prev)
{
	int err = parents_open_for_new(set->dirfd, set->path, prev, &set->parents);

	if (err)
		return err;
	if (symlinkat(prev, set->fd, IMAGE_PARENT))
		return image_set_io_error(set, IMAGE_PARENT, "make the link to the parent image set", -errno);
	return 0;
}

static int create_set(int dirfd, const char *path, struct image_set **ret)
{
	_cleanup_close_ int own = fcntl(dirfd, F_DUPFD_CLOEXEC, 0);
	_cleanup_close_ int fd = -1;
	_cleanup_free_ char *name = strdup(path);
	struct image_set *set;
	int err;

	if (own < 0 || !name)
		return fail(own < 0 ? -errno : -ENOMEM, "images %s: begin a set", path);
	err = image_set_recover(own, path);
	if (!err)
		err = lock_writing(own, path, &fd);
	if (err)
		return err;
	set = calloc(1, sizeof(*set));
	if (!set)
		return fail(-ENOMEM, "images %s: begin a set", path);
	set->dirfd = take_fd(&own);
	set->fd = take_fd(&fd);
	set->path = take_ptr(name);
	*ret = set;
	return 0;
}

int image_set_create(int dirfd, const char *path, const char *prev, struct image_set **ret)
{
	struct image_set *set = NULL;
	int err = create_set(dirfd, path, &set);

	if (!err && prev) {
		err = link_parent(set, prev);
		if (err)
			image_set_abort(set);
	}
	if (!err)
		*ret = set;
	return err;
}

const struct parents *image_set_parents(const struct image_set *set)
{
	return set->parents;
}

/* --- writing --- */

int image_set_io_error(const struct image_set *set, const char *name, const char *what, int err)
{
	if (err == -ENOSPC || err == -EDQUOT)
		return fail(err, "images %s: the disk is too full for %s; free some space or choose another directory",
			    set->path, name);
	return fail(err, "images %s: %s: %s", set->path, name, what);
}

int image_set_open_raw(struct image_set *set, const char *name, int *ret_fd)
{
	int fd = openat(set->fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd < 0)
		return image_set_io_error(set, name, "create", -errno);
	*ret_fd = fd;
	return 0;
}

int image_set_replace(struct image_set *set, const char *from, const char *to)
{
	return renameat(set->fd, from, set->fd, to) ? image_set_io_error(set, to, "replace", -errno) : 0;
}

int image_set_remove(struct image_set *set, const char *name)
{
	return unlinkat(set->fd, name, 0) ? image_set_io_error(set, name, "remove", -errno) : 0;
}

int image_set_write(struct image_set *set, const char *name, int fd, const void *buf, size_t len)
{
	const uint8_t *p = buf;

	while (len) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return image_set_io_error(set, name, "write", -errno);
		p += n;
		len -= n;
	}
	return 0;
}

int image_set_note(struct image_set *set, const char *name, uint64_t size_bytes, const uint32_t *crc32)
{
	struct set_file f = { .size_bytes = size_bytes, .has_crc32 = crc32 != NULL, .crc32 = crc32 ? *crc32 : 0 };

	snprintf(f.name, sizeof(f.name), "%s", name);
	return VEC_PUSH(&set->files, f) ? fail(-ENOMEM, "images %s: %s: write", set->path, name) : 0;
}

const struct set_file *image_set_noted(const struct image_set *set, size_t *ret_nr)
{
	*ret_nr = set->files.nr;
	return set->files.v;
}

int image_set_size(const struct image_set *set, const char *name, uint64_t *ret)
{
	struct stat st;

	if (fstatat(set->fd, name, &st, AT_SYMLINK_NOFOLLOW))
		return errno == ENOENT ? -ENOENT : image_set_io_error(set, name, "stat", -errno);
	*ret = st.st_size;
	return 0;
}

/* --- the end of a set --- */

static int sync_entry(void *arg, int dirfd, const char *name)
{
	struct image_set *set = arg;

	/* A link is synced with its directory. */
	if (!strcmp(name, IMAGE_PARENT))
		return 0;

	_cleanup_close_ int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0 || fsync(fd))
		return image_set_io_error(set, name, "sync", -errno);
	return 0;
}

static int count_entry(void *arg, int dirfd, const char *name)
{
	++*(size_t *)arg;
	return 0;
}

/* A sync per file waits for the journal each time: beyond some files one sync of the file system is quicker. */
static int sync_all(struct image_set *set)
{
	enum { SYNC_FILES_MAX = 64 };
	size_t nr = 0;
	int err = each_entry(set->fd, count_entry, &nr);

	if (err)
		return image_set_io_error(set, WRITING_DIR, "list", err);
	if (nr > SYNC_FILES_MAX)
		return syncfs(set->fd) ? image_set_io_error(set, "the image files", "sync", -errno) : 0;
	err = each_entry(set->fd, sync_entry, set);
	if (!err && fsync(set->fd))
		err = image_set_io_error(set, WRITING_DIR, "sync", -errno);
	return err;
}

int image_set_commit(struct image_set *set)
{
	uint64_t size;
	int err = image_set_size(set, INVENTORY, &size);

	if (err == -ENOENT)
		return fail(0, "images %s: the set has no inventory yet", set->path);
	if (!err)
		err = sync_all(set);
	if (err)
		return err;
	if (renameat(set->dirfd, WRITING_DIR, set->dirfd, COMMIT_DIR))
		return image_set_io_error(set, WRITING_DIR, "put into place", -errno);

	/* From here on the new set is the set: a failure below leaves it to be finished by the next reader. */
	set->committed = true;
	err = fsync(set->dirfd) ? -errno : roll_forward(set->dirfd, set->fd);
	if (err)
		log_warn("images %s: the set is complete in " COMMIT_DIR " but could not be put into place: %s",
			 set->path, strerror(-err));
	return 0;
}

void image_set_close(struct image_set *set)
{
	if (!set)
		return;
	close(set->fd);
	close(set->dirfd);
	parents_close(set->parents);
	VEC_FREE(&set->files);
	free(set->path);
	free(set);
}

void image_set_abort(struct image_set *set)
{
	if (!set)
		return;
	if (!set->committed) {
		int err = remove_writing(set->dirfd, set->fd);

		if (err)
			log_warn("images %s: remove " WRITING_DIR ": %s", set->path, strerror(-err));
	}
	image_set_close(set);
}
