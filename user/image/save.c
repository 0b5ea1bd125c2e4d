/* Model → image set: which files, in which order. */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "image/manifest.h"
#include "image/parts.h"

/* Ids that exist in images only begin behind all that the model uses. */
static int choose_ids(struct save *s)
{
	s->next_id = s->m->next_id;
	VEC_FOREACH(mm, &s->m->mms) {
		if ((*mm)->pages_id > s->next_id)
			s->next_id = (*mm)->pages_id;
	}
	VEC_FOREACH(shmem, &s->m->shmems) {
		if ((*shmem)->pages_id > s->next_id)
			s->next_id = (*shmem)->pages_id;
	}
	s->mm_pages_ids = calloc(s->m->mms.nr + 1, sizeof(*s->mm_pages_ids));
	if (!s->mm_pages_ids)
		return fail(-ENOMEM, "save the images");
	for (size_t i = 0; i < s->m->mms.nr; i++) {
		uint32_t id = s->m->mms.v[i]->pages_id;

		s->mm_pages_ids[i] = id ? id : ++s->next_id;
	}
	return 0;
}

static bool is_dead(const struct task *t)
{
	return t->state == TASK_ZOMBIE || t->state == TASK_DEAD;
}

static int save_tasks(struct save *s)
{
	VEC_FOREACH(t, &s->m->tasks) {
		int err = save_core(s, t);

		if (!err && !is_dead(t))
			err = save_mm(s, t);
		if (!err && !is_dead(t))
			err = save_fs(s, t);
		if (err)
			return err;
	}
	return 0;
}

int image_set_save(struct image_set *set, const struct model *m)
{
	struct save s = { .set = set, .m = m };
	int err;

	if (!m->tasks.nr)
		return fail(0, "there is no process to save");
	xstate_layout_read(&s.xstate); /* without xsave there are x87 and SSE */
	err = choose_ids(&s);
	if (!err)
		err = save_pstree(&s);
	if (!err)
		err = save_ids(&s);
	if (!err)
		err = save_tasks(&s);
	if (!err)
		err = save_files(&s);
	if (!err)
		err = save_ghosts(&s);
	if (!err)
		err = save_shmems(&s);
	if (!err)
		err = save_objects(&s);
	if (!err)
		err = save_seccomp(&s);
	if (!err)
		err = save_inventory(&s);
	if (!err)
		err = manifest_save(set);
	free(s.mm_pages_ids);
	return err;
}

static int save_memory(struct save *s)
{
	VEC_FOREACH(t, &s->m->tasks) {
		const struct mm *mm = t->mm_id ? model_find_mm(s->m, t->mm_id) : NULL;
		int err = mm ? save_mm_pages(s, mm, t->pid) : 0;

		if (err)
			return err;
	}
	return save_shmems(s);
}

int image_set_save_memory(struct image_set *set, const struct model *m)
{
	struct save s = { .set = set, .m = m, .memory_only = true };
	int err = choose_ids(&s);

	if (!err)
		err = save_memory(&s);
	if (!err)
		err = save_inventory(&s);
	if (!err)
		err = manifest_save(set);
	free(s.mm_pages_ids);
	return err;
}
