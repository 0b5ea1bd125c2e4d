/*
 * Image set → model: which files, in which order.
 *
 * Nothing an image says is believed. What refers to something is read after it, so that each reference is checked when it is
 * met: processes, then files, then what uses files.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "image/manifest.h"
#include "image/names.h"
#include "image/parents.h"
#include "image/parts.h"
#include "image/set.h"

/* A process that lives has all four; zombies have none. */
static int check_ids(const struct load *l, struct task *t)
{
	if (t->state == TASK_ZOMBIE) {
		t->mm_id = t->files_id = t->fs_id = t->sighand_id = 0;
		return 0;
	}
	if (t->mm_id && t->files_id && t->fs_id && t->sighand_id)
		return 0;
	return fail(0, "%s/ids-%d.img: missing, or an id in it is 0", l->src->path, t->pid);
}

/* Sets of CRIU's: the terminal whose session the process is in. */
static void find_ctty(struct load *l, struct task *t)
{
	VEC_FOREACH(tty, &l->m->ttys) {
		if ((*tty)->sid && (*tty)->sid == t->sid)
			t->ctty_id = (*tty)->id;
	}
}

static int load_one(struct load *l, struct task *t)
{
	_cleanup_message_ BcrTaskEntry *extra = NULL;
	int err = load_core(l, t, &extra);

	if (!err)
		err = check_ids(l, t);
	if (err || t->state == TASK_ZOMBIE)
		return err;
	if (!extra)
		find_ctty(l, t);
	err = load_mm(l, t, extra);
	return err ? err : load_fs(l, t);
}

/* The root was alive, and lives again. */
static int check_root(const struct load *l)
{
	if (model_root(l->m)->state != TASK_ZOMBIE)
		return 0;
	return fail(0, "%s/core-%d.img: the root of the tree is a zombie", l->src->path,
		    model_root(l->m)->pid);
}

static int load_all(struct load *l)
{
	int err = load_inventory(l);

	if (!err)
		err = load_pstree(l);
	if (!err)
		err = load_ids(l);
	if (!err)
		err = load_seccomp(l);
	if (!err)
		err = load_objects(l);
	if (!err)
		err = load_shmem_objects(l);
	if (!err)
		err = load_files(l);
	if (!err)
		err = load_ghosts(l);
	for (size_t i = 0; !err && i < l->m->tasks.nr; i++)
		err = load_one(l, &l->m->tasks.v[i]);
	if (!err)
		err = check_root(l);
	return err ? err : load_shmems(l);
}

int load_parents(struct load *l)
{
	int err = l->parents ? 0 : parents_open(l->src, l->src->manifest, &l->parents);

	if (err == -ENOENT)
		return fail(0, "%s: pages are in a parent image set, but the link " IMAGE_PARENT " to it is missing",
			    l->src->path);
	return err;
}

int images_load_from(const struct image_source *src, struct model **ret)
{
	struct image_source checked = *src;
	struct load l = { .src = &checked, .m = model_create() };
	struct manifest *manifest = NULL;
	int err;

	if (!l.m)
		return fail(-ENOMEM, "%s: read the images", src->path);
	xstate_layout_read(&l.xstate); /* without xsave there are x87 and SSE */
	err = manifest_load(src, &manifest);
	checked.manifest = manifest;
	if (!err)
		err = load_all(&l);
	parents_close(l.parents);
	manifest_destroy(manifest);
	if (l.objects)
		bcr_objects_entry__free_unpacked(l.objects, NULL);
	if (err) {
		model_destroy(l.m);
		return err;
	}
	*ret = l.m;
	return 0;
}

int images_load(int dirfd, const char *path, struct model **ret)
{
	struct image_source src = image_source_dir(dirfd, path);
	int err = image_set_recover(dirfd, path);

	return err ? err : images_load_from(&src, ret);
}
