/* What the set is and which processes are in it ↔ inventory.img, pstree.img, ids-N.img, fs-N.img. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "image/magic.h"
#include "image/parts.h"
#include "images/fs.pb-c.h"
#include "images/inventory.pb-c.h"
#include "images/pstree.pb-c.h"

enum { IMG_VERSION = 2, PID_MAX = 1 << 22, TASKS_MAX = 1 << 20, NR_NS = 8, PRE_DUMP_READ = 2 /* as CRIU numbers it */ };

/* --- namespaces: images have small numbers for them, equal for equal inodes --- */

/* In the order of model.root_ns, task.ns and task_kobj_ids_entry. */
static const char *const ns_names[NR_NS] = { "pid", "network", "ipc", "uts", "mount", "user", "cgroup", "time" };

static void task_ns(const struct task *t, uint32_t ret[NR_NS])
{
	const uint32_t inodes[NR_NS] = { t->ns.pid, t->ns.net, t->ns.ipc, t->ns.uts,
					 t->ns.mnt, t->ns.user, t->ns.cgroup, t->ns.time };

	memcpy(ret, inodes, sizeof(inodes));
}

static void ids_set_ns(TaskKobjIdsEntry *ids, const uint32_t ns[NR_NS])
{
	ids->has_pid_ns_id = ids->has_net_ns_id = ids->has_ipc_ns_id = ids->has_uts_ns_id = true;
	ids->has_mnt_ns_id = ids->has_user_ns_id = ids->has_cgroup_ns_id = ids->has_time_ns_id = true;
	ids->pid_ns_id = ns[0];
	ids->net_ns_id = ns[1];
	ids->ipc_ns_id = ns[2];
	ids->uts_ns_id = ns[3];
	ids->mnt_ns_id = ns[4];
	ids->user_ns_id = ns[5];
	ids->cgroup_ns_id = ns[6];
	ids->time_ns_id = ns[7];
}

/* 0 where the message has none. */
static void ids_get_ns(const TaskKobjIdsEntry *ids, uint32_t ret[NR_NS])
{
	ret[0] = ids->pid_ns_id;
	ret[1] = ids->net_ns_id;
	ret[2] = ids->ipc_ns_id;
	ret[3] = ids->uts_ns_id;
	ret[4] = ids->mnt_ns_id;
	ret[5] = ids->user_ns_id;
	ret[6] = ids->cgroup_ns_id;
	ret[7] = ids->time_ns_id;
}

/*
 * The observer's own namespaces are 1 to 8, and each other one is refused: a set must say that a tree was in
 * namespaces of its own only together with what is in them. An inode that is not known (0) counts as the observer's.
 */
static int save_ns(const struct save *s, const struct task *t, TaskKobjIdsEntry *ids)
{
	uint32_t inodes[NR_NS], ns[NR_NS];

	task_ns(t, inodes);
	for (uint32_t i = 0; i < NR_NS; i++) {
		if (inodes[i] && s->m->root_ns[i] && inodes[i] != s->m->root_ns[i])
			return unsupported("pid %d: a %s namespace of its own", t->pid, ns_names[i]);
		ns[i] = i + 1;
	}
	ids_set_ns(ids, ns);
	return 0;
}

static int load_ns(const struct load *l, const struct image_reader *r, const TaskKobjIdsEntry *ids,
		   struct task *t)
{
	uint32_t ns[NR_NS];

	ids_get_ns(ids, ns);
	for (int i = 0; i < NR_NS; i++) {
		if (ns[i] && l->m->root_ns[i] && ns[i] != l->m->root_ns[i])
			return unsupported("%s/%s: pid %d had a %s namespace of its own", r->path, r->name,
					   t->pid, ns_names[i]);
	}
	t->ns.pid = ns[0];
	t->ns.net = ns[1];
	t->ns.ipc = ns[2];
	t->ns.uts = ns[3];
	t->ns.mnt = ns[4];
	t->ns.user = ns[5];
	t->ns.cgroup = ns[6];
	t->ns.time = ns[7];
	return 0;
}

/* --- inventory --- */

int save_inventory(struct save *s)
{
	InventoryEntry inv = INVENTORY_ENTRY__INIT;
	TaskKobjIdsEntry root = TASK_KOBJ_IDS_ENTRY__INIT;
	static const uint32_t root_ns[NR_NS] = { 1, 2, 3, 4, 5, 6, 7, 8 };

	/* Of the dumping tool, which shares none of these with the tree. */
	root.vm_id = ++s->next_id;
	root.files_id = ++s->next_id;
	root.fs_id = ++s->next_id;
	root.sighand_id = ++s->next_id;
	ids_set_ns(&root, root_ns);
	inv.img_version = IMG_VERSION;
	inv.has_fdinfo_per_id = inv.fdinfo_per_id = true;
	inv.has_ns_per_id = inv.ns_per_id = true;
	inv.root_ids = &root;
	inv.has_lsmtype = true;
	inv.lsmtype = LSMTYPE__NO_LSM;
	inv.has_dump_uptime = true;
	inv.dump_uptime = s->m->uptime_us;
	inv.has_pre_dump_mode = s->memory_only;
	inv.pre_dump_mode = PRE_DUMP_READ;
	return image_put(s->set, 0, MAGIC_INVENTORY, &inv.base, "inventory.img");
}

bool images_memory_only(const struct image_source *src)
{
	_cleanup_reader_ struct image_reader r = {};
	_cleanup_message_ InventoryEntry *inv = NULL;
	uint64_t size;

	return src->size(src, "pstree.img", &size) == -ENOENT && !reader_open(&r, src, 0, MAGIC_INVENTORY, "inventory.img") &&
	       !reader_single(&r, &inventory_entry__descriptor, &inv) && inv->has_pre_dump_mode;
}

int load_inventory(struct load *l)
{
	_cleanup_reader_ struct image_reader r = {};
	_cleanup_message_ InventoryEntry *inv = NULL;
	int err = reader_open(&r, l->src, 0, MAGIC_INVENTORY, "inventory.img");

	if (err == -ENOENT)
		return bad_file(&r, "missing: there is no complete image set here");
	if (!err)
		err = reader_single(&r, &inventory_entry__descriptor, &inv);
	if (err)
		return err;
	if (inv->img_version != IMG_VERSION)
		return bad_image(&r, "image version %u, only version %d is supported", inv->img_version,
				 IMG_VERSION);
	if (!inv->fdinfo_per_id || !inv->ns_per_id)
		return bad_image(&r, "written by a version of CRIU that is too old (no fdinfo_per_id or ns_per_id)");
	if (inv->tcp_close)
		return bad_image(&r, "dumped with --tcp-close, which is not supported");
	if (inv->root_ids)
		ids_get_ns(inv->root_ids, l->m->root_ns);
	l->m->uptime_us = inv->dump_uptime;
	if (!images_memory_only(l->src))
		return 0;
	return fail(0, "%s: is of a pre-dump, which holds memory only: restore from the dump that was made after it", l->src->path);
}

/* --- pstree --- */

int save_pstree(struct save *s)
{
	struct image_writer w;

	writer_open(&w, s->set, MAGIC_COMMON, MAGIC_PSTREE, "pstree.img");
	VEC_FOREACH(t, &s->m->tasks) {
		PstreeEntry e = PSTREE_ENTRY__INIT;
		_cleanup_free_ uint32_t *tids = calloc(t->threads.nr + 1, sizeof(*tids));

		if (!tids) {
			writer_close(&w);
			return fail(-ENOMEM, "pstree.img: write");
		}
		for (size_t i = 0; i < t->threads.nr; i++)
			tids[i] = t->threads.v[i].tid;
		e.pid = t->pid;
		e.ppid = t == s->m->tasks.v ? 0 : t->ppid;
		e.pgid = t->pgid;
		e.sid = t->sid;
		e.threads = tids;
		e.n_threads = t->threads.nr;
		writer_put(&w, &e.base);
	}
	return writer_close(&w);
}

static int load_threads(const struct image_reader *r, const PstreeEntry *e, struct task *t)
{
	bool leader = false;

	/* The leader first, wherever the writer put it. */
	if (VEC_RESERVE(&t->threads, e->n_threads + 1))
		return fail(-ENOMEM, "%s/%s: read", r->path, r->name);

	struct thread *first = VEC_ADD(&t->threads);

	first->tid = e->pid;
	for (size_t i = 0; i < e->n_threads; i++) {
		if (e->threads[i] == e->pid) {
			if (leader)
				return bad_image(r, "thread %u is there twice", e->pid);
			leader = true;
			continue;
		}
		if (e->threads[i] < 1 || e->threads[i] > PID_MAX)
			return bad_image(r, "thread id %u", e->threads[i]);

		struct thread *th = VEC_ADD(&t->threads);

		th->tid = e->threads[i];
	}
	if (!leader)
		return bad_image(r, "the threads of pid %u do not contain it", e->pid);
	return 0;
}

static int load_pstree_entry(struct load *l, const struct image_reader *r, const PstreeEntry *e)
{
	bool first = l->m->tasks.nr == 0;

	if (e->pid < 1 || e->pid > PID_MAX || e->ppid > PID_MAX)
		return bad_image(r, "pid %u, ppid %u", e->pid, e->ppid);
	if (e->pgid > PID_MAX || e->sid > PID_MAX)
		return bad_image(r, "pid %u: pgid %u, sid %u", e->pid, e->pgid, e->sid);
	if (l->m->tasks.nr >= TASKS_MAX)
		return bad_image(r, "more than %d processes", TASKS_MAX);
	if (!first && !model_find_task(l->m, e->ppid))
		return bad_image(r, "the parent %u of pid %u is not in front of it", e->ppid, e->pid);

	struct task *t = VEC_ADD(&l->m->tasks);

	if (!t)
		return fail(-ENOMEM, "%s/%s: read", r->path, r->name);
	t->pid = e->pid;
	t->ppid = first ? 0 : e->ppid;
	t->pgid = e->pgid;
	t->sid = e->sid;
	return load_threads(r, e, t);
}

static int compare_ids(const void *a, const void *b)
{
	pid_t x = *(const pid_t *)a, y = *(const pid_t *)b;

	return x < y ? -1 : x > y;
}

/* Process and thread ids are one number space. */
static int check_unique(const struct load *l, const struct image_reader *r)
{
	size_t nr = model_nr_threads(l->m), i = 0;
	_cleanup_free_ pid_t *ids = calloc(nr + 1, sizeof(*ids));

	if (!ids)
		return fail(-ENOMEM, "%s/%s: read", r->path, r->name);
	VEC_FOREACH(t, &l->m->tasks) {
		VEC_FOREACH(th, &t->threads)
			ids[i++] = th->tid;
	}
	qsort(ids, nr, sizeof(*ids), compare_ids);
	for (i = 1; i < nr; i++) {
		if (ids[i] == ids[i - 1])
			return bad_file(r, "pid %d is there twice", ids[i]);
	}
	return 0;
}

int load_pstree(struct load *l)
{
	_cleanup_reader_ struct image_reader r = {};
	int err = reader_open_needed(&r, l->src, MAGIC_PSTREE, "pstree.img");

	while (!err) {
		_cleanup_message_ PstreeEntry *e = NULL;
		int got = reader_next(&r, &pstree_entry__descriptor, &e);

		if (got < 0)
			return got;
		if (!got)
			break;
		err = load_pstree_entry(l, &r, e);
	}
	if (!err && !l->m->tasks.nr)
		err = bad_file(&r, "has no process");
	return err ? err : check_unique(l, &r);
}

/* --- ids --- */

static bool is_dead(const struct task *t)
{
	return t->state == TASK_ZOMBIE || t->state == TASK_DEAD;
}

int save_ids(struct save *s)
{
	VEC_FOREACH(t, &s->m->tasks) {
		TaskKobjIdsEntry ids = TASK_KOBJ_IDS_ENTRY__INIT;
		int err = save_ns(s, t, &ids);

		if (err)
			return err;
		ids.vm_id = t->mm_id;
		ids.files_id = t->files_id;
		ids.fs_id = t->fs_id;
		ids.sighand_id = t->sighand_id;
		if (!is_dead(t) && (!t->mm_id || !t->files_id || !t->fs_id || !t->sighand_id))
			return fail(0, "pid %d: the model lacks its memory, files, directories or signal handlers",
				    t->pid);
		err = image_put(s->set, MAGIC_COMMON, MAGIC_IDS, &ids.base, "ids-%d.img", t->pid);
		if (err)
			return err;
	}
	return 0;
}

int load_ids(struct load *l)
{
	VEC_FOREACH(t, &l->m->tasks) {
		_cleanup_reader_ struct image_reader r = {};
		_cleanup_message_ TaskKobjIdsEntry *ids = NULL;
		int err = reader_open(&r, l->src, MAGIC_COMMON, MAGIC_IDS, "ids-%d.img", t->pid);

		/* load.c refuses the absence for all but zombies, which have none in CRIU's sets. */
		if (err == -ENOENT)
			continue;
		if (!err)
			err = reader_single(&r, &task_kobj_ids_entry__descriptor, &ids);
		if (!err)
			err = load_ns(l, &r, ids, t);
		if (err)
			return err;
		t->mm_id = ids->vm_id;
		t->files_id = ids->files_id;
		t->fs_id = ids->fs_id;
		t->sighand_id = ids->sighand_id;
	}
	return 0;
}

/* --- fs --- */

int save_fs(struct save *s, const struct task *t)
{
	const struct fs *fs = model_find_fs(s->m, t->fs_id);
	FsEntry e = FS_ENTRY__INIT;

	if (!fs)
		return fail(0, "pid %d: the model lacks its directories", t->pid);
	e.cwd_id = fs->cwd_file_id;
	e.root_id = fs->root_file_id;
	e.has_umask = true;
	e.umask = fs->umask;
	return image_put(s->set, MAGIC_COMMON, MAGIC_FS, &e.base, "fs-%d.img", t->pid);
}

/* Tasks that share it have a file each, with the same in it: the first one counts. */
int load_fs(struct load *l, const struct task *t)
{
	_cleanup_reader_ struct image_reader r = {};
	_cleanup_message_ FsEntry *e = NULL;
	struct fs *fs;
	int err;

	if (model_find_fs(l->m, t->fs_id))
		return 0;
	err = reader_open_needed(&r, l->src, MAGIC_FS, "fs-%d.img", t->pid);
	if (!err)
		err = reader_single(&r, &fs_entry__descriptor, &e);
	if (err)
		return err;
	if (!model_find_file(l->m, e->cwd_id) || !model_find_file(l->m, e->root_id))
		return bad_image(&r, "the directories %u and %u are not both in files.img", e->cwd_id,
				 e->root_id);
	if (e->umask > 0777)
		return bad_image(&r, "umask 0%o", e->umask);
	fs = model_add_fs(l->m, t->fs_id);
	if (!fs)
		return fail(-ENOMEM, "%s/%s: read", r.path, r.name);
	fs->pid = t->pid;
	fs->cwd_file_id = e->cwd_id;
	fs->root_file_id = e->root_id;
	fs->umask = e->umask;
	return 0;
}
