/* What kinds have to read from the stopped target: each open file description once. */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "capture/capture.h"
#include "kinds/kinds.h"

static const struct task *table_owner(const struct model *m, uint32_t files_id)
{
	VEC_FOREACH(t, &m->tasks) {
		if (t->files_id == files_id)
			return t;
	}
	return NULL;
}

int capture_files(struct model *m)
{
	_cleanup_free_ bool *done = calloc(m->next_id + 1, sizeof(*done));

	if (!done)
		return fail(-ENOMEM, "list of files");
	VEC_FOREACH(table, &m->fdtables) {
		const struct task *owner = table_owner(m, (*table)->id);

		VEC_FOREACH(fd, &(*table)->fds) {
			struct file *f = model_find_file(m, fd->file_id);
			const struct kind *kind = f ? kind_of_type(f->type) : NULL;

			if (!owner || !kind || !kind->dump || done[f->id])
				continue;
			done[f->id] = true;
			int err = kind->dump(m, f, owner->pid, fd->fd);
			if (err)
				return err;
		}
	}
	return 0;
}
