/*
 * Directories that had been removed, made anew by the coordinator. Unlike a file, one that has been removed takes nothing in any
 * more: all are made first, one inside the other where it was so, then the files that were in them, and only then they are removed, from the
 * innermost outwards. What is missing above them is made as well, and removed. Being killed in between leaves empty directories behind.
 */
#include "restore/ghost_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"

static const struct ghost *child_of(const struct model *m, uint32_t ghost_id)
{
	VEC_FOREACH(g, &m->ghosts) {
		if ((*g)->parent_id == ghost_id)
			return *g;
	}
	return NULL;
}

/* As /proc showed it; of one that nobody has in use, from what was in it. Owned by the caller; NULL: no memory, or damaged images. */
static char *path_of(const struct model *m, const struct ghost *g)
{
	const struct file *f;
	unsigned levels = 0;

	while (!(f = ghost_file(m, g->id)) && (g = child_of(m, g->id)))
		levels++;
	char *path = f && f->path && f->path[0] == '/' ? strdup(f->path) : NULL;
	char *end = path ? strrchr(path, '/') : NULL;
	for (; end && levels; levels--) {
		*end = 0;
		end = strrchr(path, '/');
	}
	if (!end) {
		free(path);
		path = NULL;
	}
	return path;
}

static int note_made(struct ghost_dirs *d, const char *path)
{
	char *copy = strdup(path);

	if (copy && !VEC_PUSH(&d->made, copy))
		return 0;
	free(copy);
	rmdir(path);
	return -ENOMEM;
}

int ghost_dirs_need(struct ghost_dirs *d, const char *path)
{
	_cleanup_free_ char *dir = strdup(path);
	int err = dir ? 0 : -ENOMEM;

	for (char *slash = dir ? strchr(dir + 1, '/') : NULL; slash && !err; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		if (!mkdir(dir, 0700))
			err = note_made(d, dir);
		else if (errno != EEXIST)
			err = -errno;
		*slash = '/';
	}
	return err;
}

bool ghost_name(const char *path, int i, char *name)
{
	enum { TRIES = 100 };
	int dir = (int)(strrchr(path, '/') + 1 - path);
	int len = i ? snprintf(name, PATH_MAX, "%.*s.bcr-unlinked-%d-%d", dir, path, getpid(), i) : snprintf(name, PATH_MAX, "%s", path);

	return i <= TRIES && len < PATH_MAX;
}

static const struct ghost_dir *find(const struct ghost_dirs *d, uint32_t ghost_id)
{
	VEC_FOREACH(dir, &d->dirs) {
		if (dir->ghost->id == ghost_id)
			return dir;
	}
	return NULL;
}

/* Where it is to be, but for its own name: in the one above it, or where that was. Owned by the caller. */
static int place(struct ghost_dirs *d, const struct ghost_dir *dir, char **ret)
{
	const struct ghost_dir *above = dir->ghost->parent_id ? find(d, dir->ghost->parent_id) : NULL;
	int err = 0;

	if (!dir->ghost->parent_id) {
		*ret = strdup(dir->path);
		err = *ret ? ghost_dirs_need(d, *ret) : -ENOMEM;
	} else if (!above || !above->at) {
		err = -EINVAL; /* it was not above by its path */
	} else if (asprintf(ret, "%s%s", above->at, strrchr(dir->path, '/')) < 0) {
		*ret = NULL;
		err = -ENOMEM;
	}
	return err;
}

static int make_dir(struct ghost_dirs *d, struct ghost_dir *dir)
{
	_cleanup_free_ char *wanted = NULL;
	_cleanup_close_ int fd = -1;
	char name[PATH_MAX];
	int err = place(d, dir, &wanted);

	if (err)
		return err;
	for (int i = 0; !dir->at; i++) {
		if (!ghost_name(wanted, i, name))
			return -ENAMETOOLONG;
		if (!mkdir(name, 0700))
			dir->at = strdup(name);
		else if (errno != EEXIST && errno != ENAMETOOLONG)
			return -errno;
		else
			continue;
		err = note_made(d, name);
		if (err || !dir->at)
			return -ENOMEM;
	}
	fd = open(dir->at, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 || dup3(fd, dir->number, O_CLOEXEC) < 0 ? -errno : 0;
}

static int compare_dirs(const void *a, const void *b)
{
	const struct ghost_dir *x = a, *y = b;
	size_t len_x = strlen(x->path), len_y = strlen(y->path);

	return (len_x > len_y) - (len_x < len_y);
}

int ghost_dirs_make(struct restore *r, struct ghost_dirs *d)
{
	for (size_t i = 0; i < r->m->ghosts.nr; i++) {
		struct ghost_dir dir = { .ghost = r->m->ghosts.v[i], .number = r->plan->fd_ghosts + (int)i };

		if (!S_ISDIR(dir.ghost->mode))
			continue;
		dir.path = path_of(r->m, dir.ghost);
		if (!dir.path)
			return fail(0, "removed directory %u: nothing says where it was", dir.ghost->id);
		if (VEC_PUSH(&d->dirs, dir)) {
			free(dir.path);
			return fail(-ENOMEM, "removed directory %u: make it", dir.ghost->id);
		}
	}
	if (d->dirs.nr)
		qsort(d->dirs.v, d->dirs.nr, sizeof(*d->dirs.v), compare_dirs);
	VEC_FOREACH(dir, &d->dirs) {
		int err = make_dir(d, dir);

		if (err)
			return fail(err, "removed directory %u: make %s, and keep it as descriptor %d", dir->ghost->id, dir->path,
				    dir->number);
	}
	return 0;
}

int ghost_dirs_remove(struct ghost_dirs *d, int err)
{
	for (size_t i = d->made.nr; i-- > 0;) {
		if (rmdir(d->made.v[i])) {
			int why = -errno;

			err = err ? err : fail(why, "remove the directory %s again, which was made for this restore", d->made.v[i]);
		}
		free(d->made.v[i]);
	}
	VEC_FOREACH(dir, &d->dirs) {
		int set = err ? 0 : ghost_set_attributes(dir->ghost, dir->number);

		if (set)
			err = fail(set, "removed directory %u (%s): set its owner, mode and times", dir->ghost->id, dir->path);
		free(dir->path);
		free(dir->at);
	}
	VEC_FREE(&d->made);
	VEC_FREE(&d->dirs);
	return err;
}
