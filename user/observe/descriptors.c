/*
 * Descriptors of a run → open file descriptions of the model. Two passes: the first gives every description its id, the
 * second lets its kind collect it, so that an epoll set finds whatever it watches.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/sysmacros.h>

#include "base/log.h"
#include "kinds/kinds.h"
#include "observe/refuse.h"
#include "observe/run.h"

void run_set_file(struct file *f, const struct file_record *rec)
{
	f->flags = rec->flags & ~O_CLOEXEC;
	f->pos = rec->pos;
	f->fown = (struct fown){ .uid = rec->fown_uid,
				 .euid = rec->fown_euid,
				 .signum = rec->fown_signum,
				 .pid_type = rec->fown_type,
				 .pid = rec->fown_pid };
}

/* The struct file of a descriptor: new for the first descriptor of each open file description. */
static int descriptor_file(struct run *r, struct observed_file *of)
{
	const struct file_record *rec = &of->rec;

	of->file_id = ident_map_find(&r->files, rec->file);
	if (of->file_id)
		return 0;
	const struct kind *kind = kind_match(rec);
	if (!kind)
		return run_note(r, refuse_descriptor(of));

	struct file *f = model_add_file(r->m, 0);
	if (!f)
		return -ENOMEM;
	f->type = kind->type;
	run_set_file(f, rec);
	of->file_id = f->id;
	return ident_map_add(&r->files, rec->file, f->id);
}

static int install_descriptor(struct run *r, const struct observed_file *of)
{
	struct fdtable *table = model_find_fdtable(r->m, ident_map_find(&r->tables, of->rec.files));
	struct fd fd = { .fd = of->rec.fd, .file_id = of->file_id, .cloexec = of->rec.cloexec };

	if (!table)
		return run_changed(r, of->rec.tgid, "a descriptor belongs to no table that is known");
	return VEC_PUSH(&table->fds, fd);
}

static int compare_fds(const void *a, const void *b)
{
	const struct fd *x = a, *y = b;

	return (x->fd > y->fd) - (x->fd < y->fd);
}

static uint32_t run_find_file(const struct collect_ctx *ctx, uint64_t ident)
{
	const struct run *r = ctx->arg;

	return ident_map_find(&r->files, ident);
}

static struct shmem *run_find_shmem(const struct collect_ctx *ctx, const struct observed_file *of, enum shmem_sort sort)
{
	return run_shmem(ctx->arg, of, sort, of->rec.tgid, NULL);
}

static struct ghost *run_find_ghost(const struct collect_ctx *ctx, const struct observed_file *of)
{
	return run_ghost(ctx->arg, of);
}

struct collect_ctx run_collect_ctx(struct run *r)
{
	return (struct collect_ctx){
		.m = r->m,
		.shell_job = r->o->opts.shell_job,
		.tcp_established = r->o->opts.tcp_established,
		.ext_unix_sk = r->o->opts.ext_unix_sk,
		.find_file = run_find_file,
		.shmem = run_find_shmem,
		.ghost = run_find_ghost,
		.ghost_limit_bytes = r->o->opts.ghost_limit_bytes,
		.arg = r,
		.stopped = r->stopped,
	};
}

int run_finish_kinds(struct run *r)
{
	const struct collect_ctx ctx = run_collect_ctx(r);
	const struct kind *kind;

	for (size_t i = 0; (kind = kind_at(i)); i++) {
		int err = kind->finish ? run_note(r, kind->finish(&ctx)) : 0;
		if (err)
			return err;
	}
	return 0;
}

/* Pass two. A file is collected through the first descriptor that showed it: ids and descriptors ascend together. */
static int collect_files(struct run *r)
{
	const struct collect_ctx ctx = run_collect_ctx(r);
	uint32_t done = 0;

	VEC_FOREACH(of, &r->obs.fds) {
		if (of->file_id <= done)
			continue;
		done = of->file_id;
		struct file *f = model_find_file(r->m, of->file_id);
		int err = run_note(r, kind_of_type(f->type)->collect(&ctx, of, f));
		if (err)
			return err;
	}
	return run_finish_kinds(r);
}

int run_files(struct run *r)
{
	VEC_FOREACH(of, &r->obs.fds) {
		int err = descriptor_file(r, of);
		if (!err)
			err = install_descriptor(r, of);
		if (err)
			return err;
	}
	VEC_FOREACH(t, &r->m->fdtables)
		if ((*t)->fds.nr)
			qsort((*t)->fds.v, (*t)->fds.nr, sizeof(struct fd), compare_fds);
	return collect_files(r);
}

/* Files that have a descriptor still are known by their identities, and no others: addresses are used again. */
static int keep_identities(struct run *r)
{
	ident_map_deinit(&r->files);
	VEC_FOREACH(of, &r->obs.fds) {
		if (!of->file_id || ident_map_find(&r->files, of->rec.file))
			continue;
		if (ident_map_add(&r->files, of->rec.file, of->file_id))
			return -ENOMEM;
	}
	return 0;
}

int run_refile(struct run *r)
{
	const struct collect_ctx ctx = run_collect_ctx(r);
	uint32_t last_id = r->m->next_id;
	int err = keep_identities(r);

	VEC_FOREACH(t, &r->m->fdtables)
		(*t)->fds.nr = 0;
	VEC_FOREACH(of, &r->obs.fds) {
		if (!err && !of->file_id)
			err = descriptor_file(r, of);
		/* Refused: the whole observation says so in full. */
		if (!err && !of->file_id)
			err = -EOPNOTSUPP;
		if (!err)
			err = install_descriptor(r, of);
		if (err)
			return err;
	}
	err = model_prune_files(r->m);
	run_place_shmems(r);
	VEC_FOREACH(of, &r->obs.fds) {
		struct file *f = of->file_id > last_id ? model_find_file(r->m, of->file_id) : NULL;

		if (!err && f) {
			last_id = f->id; /* ids of new ones ascend with their descriptors */
			err = kind_of_type(f->type)->collect(&ctx, of, f);
		}
	}
	return err;
}

/* --- terminals --- */

static const struct tty *find_tty(const struct model *m, uint32_t rdev)
{
	enum { UNIX98_PTY_SLAVE_MAJOR = 136 };
	uint32_t major = rdev >> 20, minor = rdev & 0xfffff;

	VEC_FOREACH(p, &m->ttys) {
		const struct tty *tty = *p;

		if (tty->type == TTY_PTY && major == UNIX98_PTY_SLAVE_MAJOR && tty->index == minor)
			return tty;
		if (tty->type != TTY_PTY && (tty->rdev == rdev || tty->rdev == makedev(major, minor)))
			return tty;
	}
	return NULL;
}

int run_terminals(struct run *r)
{
	for (size_t i = 0; i < r->m->tasks.nr; i++) {
		struct task *t = &r->m->tasks.v[i];
		uint32_t rdev = r->obs.idents.v[i].ctty_rdev;
		const struct tty *tty = rdev ? find_tty(r->m, rdev) : NULL;

		if (tty)
			t->ctty_id = tty->id;
		/* A session from outside brings its terminal along by itself; one from inside is made again, with it. */
		if (!rdev || tty || !model_find_task(r->m, t->sid))
			continue;
		int err = run_note(r, unsupported("pid %d: its controlling terminal (device %u:%u) is not open in the tree, which is not supported",
						  t->pid, rdev >> 20, rdev & 0xfffff));
		if (err)
			return err;
	}
	return 0;
}
