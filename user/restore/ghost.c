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
#include "restore/plan.h"

enum { NAME_TRIES = 100, US_PER_S = 1000000 };

static const struct file *file_of(const struct model *m, uint32_t ghost_id)
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
	const char *base = strrchr(path, '/') + 1;
	char other[PATH_MAX];
	const char *made = path;
	int fd = create(path);

	for (int i = 0; fd < 0 && (errno == EEXIST || errno == ENAMETOOLONG) && i < NAME_TRIES; i++) {
		if ((size_t)snprintf(other, sizeof(other), "%.*s.bcr-unlinked-%d-%d", (int)(base - path), path, getpid(), i) >=
		    sizeof(other))
			return -ENAMETOOLONG;
		made = other;
		fd = create(other);
	}
	if (fd < 0)
		return -errno;
	if (unlink(made)) {
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

static int fill(const struct ghost *g, int fd)
{
	const struct timespec times[2] = { time_of(g->atime_us), time_of(g->mtime_us) };
	int err = ftruncate(fd, g->size_bytes) ? -errno : 0;

	VEC_FOREACH(piece, &g->pieces)
		err = err ? err : write_piece(fd, piece);
	/* The owner first: a change of it takes away set-user-ID. */
	if (!err && (fchown(fd, g->uid, g->gid) || fchmod(fd, g->mode & 07777) || futimens(fd, times)))
		err = -errno;
	return err;
}

static int make(struct restore *r, const struct ghost *g, int number)
{
	const struct file *f = file_of(r->m, g->id);
	_cleanup_close_ int fd = -1, reads = -1;

	if (!f || !f->path || f->path[0] != '/')
		return fail(0, "unlinked file %u: nothing says where it was", g->id);
	int err = create_unlinked(f->path, &fd);
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
	int err = 0;

	for (size_t i = 0; !err && i < r->m->ghosts.nr; i++)
		err = make(r, r->m->ghosts.v[i], r->plan->fd_ghosts + (int)i);
	return err;
}

int ghost_open_file(const struct restore *r, const struct file *f, uint32_t flags, int *ret)
{
	for (size_t i = 0; i < r->m->ghosts.nr; i++) {
		if (r->m->ghosts.v[i]->id == f->reg.ghost_id)
			return restore_open_held(r->plan->fd_ghosts + (int)i, flags, f->path, ret);
	}
	return fail(0, "file %u: what was in it is not in the images", f->id);
}
