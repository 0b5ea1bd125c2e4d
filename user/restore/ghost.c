/*
 * Files that had been unlinked: made anew by the coordinator where they were, and unlinked again at once, so that nothing is left
 * should bcr be killed; then filled, and held for reading only, because nobody may have a program open for writing that is run.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "restore/ghost_dir.h"

enum { US_PER_S = 1000000 };

const struct file *ghost_file(const struct model *m, uint32_t ghost_id)
{
	VEC_FOREACH(f, &m->files) {
		if ((*f)->type == FILE_REG && (*f)->reg.ghost_id == ghost_id)
			return *f;
	}
	return NULL;
}

static int create(const char *path)
{
	return open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
}

/* Under its own name, as /proc shows it; or under another one, when somebody has that by now. */
static int create_unlinked(const char *path, int *ret)
{
	char name[PATH_MAX];
	int fd = -1;

	for (int i = 0; fd < 0; i++) {
		if (!ghost_name(path, i, name))
			return -ENAMETOOLONG;
		fd = create(name);
		if (fd < 0 && errno != EEXIST && errno != ENAMETOOLONG)
			return -errno;
	}
	if (unlink(name)) {
		int err = -errno;

		close(fd);
		return err;
	}
	*ret = fd;
	return 0;
}

static int write_piece(int fd, const struct ghost_piece *piece)
{
	for (uint64_t done = 0; done < piece->len_bytes;) {
		ssize_t n = pwrite(fd, piece->data + done, piece->len_bytes - done, piece->offset_bytes + done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		done += n;
	}
	return 0;
}

static struct timespec time_of(uint64_t us)
{
	return (struct timespec){ .tv_sec = us / US_PER_S, .tv_nsec = us % US_PER_S * 1000 };
}

int ghost_set_attributes(const struct ghost *g, int fd)
{
	const struct timespec times[2] = { time_of(g->atime_us), time_of(g->mtime_us) };

	/* The owner first: a change of it takes away set-user-ID. */
	return fchown(fd, g->uid, g->gid) || fchmod(fd, g->mode & 07777) || futimens(fd, times) ? -errno : 0;
}

static int fill(const struct ghost *g, int fd)
{
	int err = ftruncate(fd, g->size_bytes) ? -errno : 0;

	VEC_FOREACH(piece, &g->pieces)
		err = err ? err : write_piece(fd, piece);
	return err ? err : ghost_set_attributes(g, fd);
}

static int make(struct restore *r, struct ghost_dirs *dirs, const struct ghost *g, int number)
{
	const struct file *f = ghost_file(r->m, g->id);
	_cleanup_close_ int fd = -1, reads = -1;

	if (!f || !f->path || f->path[0] != '/')
		return fail(0, "unlinked file %u: nothing says where it was", g->id);
	int err = ghost_dirs_need(dirs, f->path);
	if (!err)
		err = create_unlinked(f->path, &fd);
	if (err)
		return fail(err, "unlinked file %u: make %s", g->id, f->path);
	err = fill(g, fd);
	if (err)
		return fail(err, "unlinked file %u (%s): write its %" PRIu64 " bytes", g->id, f->path, g->size_bytes);
	err = restore_open_held(fd, O_RDONLY, f->path, &reads);
	if (err)
		return err;
	if (dup3(reads, number, O_CLOEXEC) < 0)
		return fail(-errno, "unlinked file %u (%s): keep it as descriptor %d; the limit of open files may be too low", g->id, f->path,
			    number);
	return 0;
}

int ghosts_make(struct restore *r)
{
	struct ghost_dirs dirs = {};
	int err = ghost_dirs_make(r, &dirs);

	for (size_t i = 0; !err && i < r->m->ghosts.nr; i++) {
		if (!S_ISDIR(r->m->ghosts.v[i]->mode))
			err = make(r, &dirs, r->m->ghosts.v[i], r->plan->fd_ghosts + (int)i);
	}
	return ghost_dirs_remove(&dirs, err);
}

int ghost_open_file(const struct restore *r, const struct file *f, uint32_t flags, int *ret)
{
	for (size_t i = 0; i < r->m->ghosts.nr; i++) {
		if (r->m->ghosts.v[i]->id == f->reg.ghost_id)
			return restore_open_held(r->plan->fd_ghosts + (int)i, flags, f->path, ret);
	}
	return fail(0, "file %u: what was in it is not in the images", f->id);
}
