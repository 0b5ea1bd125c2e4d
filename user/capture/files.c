/* What kinds have to read from the stopped target: each open file description once. */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "capture/capture.h"
#include "kinds/ghost.h"
#include "kinds/kinds.h"

static const struct task *table_owner(const struct model *m, uint32_t files_id)
{
	VEC_FOREACH(t, &m->tasks) {
		if (t->files_id == files_id)
			return t;
	}
	return NULL;
}

static bool has_content(const struct file *f)
{
	const struct kind *kind = kind_of_type(f->type);

	return kind && kind->dump;
}

/* Most programs have thousands of files, or none, that have to be read now. */
static bool any_has_content(const struct model *m)
{
	VEC_FOREACH(f, &m->files)
		if (has_content(*f))
			return true;
	return false;
}

/* Files without a name are read once, whoever has them. */
static int capture_ghosts(struct model *m)
{
	int err = 0;

	for (size_t i = 0; !err && i < m->ghosts.nr; i++)
		err = ghost_read(m->ghosts.v[i]);
	return err;
}

int capture_files(struct model *m)
{
	int ghosts_err = capture_ghosts(m);

	if (ghosts_err || !any_has_content(m))
		return ghosts_err;

	_cleanup_free_ bool *done = calloc(m->next_id + 1, sizeof(*done));
	if (!done)
		return fail(-ENOMEM, "list of files");
	VEC_FOREACH(table, &m->fdtables) {
		const struct task *owner = table_owner(m, (*table)->id);

		VEC_FOREACH(fd, &(*table)->fds) {
			struct file *f = model_find_file(m, fd->file_id);

			if (!owner || !f || done[f->id] || !has_content(f))
				continue;
			done[f->id] = true;
			int err = kind_of_type(f->type)->dump(m, f, owner->pid, fd->fd);
			if (err)
				return err;
		}
	}
	return 0;
}
