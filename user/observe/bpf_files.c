/* The BPF back end: descriptors. */
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "bpf/file.skel.h"
#include "observe/bpf.h"
#include "sys/kernel_types.h"
#include "sys/proc.h"

enum { EPOLL_ITEMS_MIN = 1024, STATES_MIN = 256, TABLES_MIN = 16 };

static void files_unload(struct bpf_state *s)
{
	VEC_FOREACH(a, &s->attached) {
		bpf_link__destroy(a->files.link);
		a->files.link = NULL;
	}
	bpf_array_unmap(&s->epoll_items);
	bpf_array_unmap(&s->states);
	bpf_array_unmap(&s->tables);
	file_bpf__destroy(s->file);
	s->file = NULL;
}

int bpf_files_load(struct bpf_state *s)
{
	struct bpf_caps *c = &s->caps;

	files_unload(s);
	LIBBPF_OPTS(bpf_object_open_opts, opts, .btf_custom_path = kernel_types_path());
	s->file = file_bpf__open_opts(&opts);
	if (!s->file)
		return fail(-errno, "open the BPF program for descriptors");
	c->epoll_items = c->epoll_items ? c->epoll_items : EPOLL_ITEMS_MIN;
	c->states = c->states ? c->states : STATES_MIN;
	c->tables = c->tables ? c->tables : TABLES_MIN;
	bpf_program__set_autoload(s->file->progs.observe_states, s->open_coded);
	bpf_program__set_autoload(s->file->progs.observe_one_state, s->open_coded);
	uint32_t file_type;
	int err = kernel_types_find("file", BTF_KIND_STRUCT, &file_type);
	s->file->rodata->file_type = file_type;
	if (!err)
		err = bpf_map__set_max_entries(s->file->maps.epoll_items, c->epoll_items);
	if (!err)
		err = bpf_map__set_max_entries(s->file->maps.states, c->states);
	if (!err)
		err = bpf_map__set_max_entries(s->file->maps.wanted, c->tables);
	if (!err)
		err = kernel_types_for(s->file->obj);
	if (!err)
		err = file_bpf__load(s->file);
	if (err)
		return fail(err, "load the BPF program for descriptors (-v4 shows the kernel's words)");
	err = bpf_array_map(&s->epoll_items, bpf_map__fd(s->file->maps.epoll_items), "epoll_items");
	if (!err)
		err = bpf_array_map(&s->states, bpf_map__fd(s->file->maps.states), "states");
	return err ? err : bpf_array_map_writable(&s->tables, bpf_map__fd(s->file->maps.wanted), "tables");
}

static bool is_epoll(const struct file_record *rec)
{
	return rec->sb_magic == MAGIC_ANON_INODE && !strcmp(rec->name, "[eventpoll]");
}

/* The items of an epoll set, which lie in the array. */
static int take_epoll_items(const struct bpf_state *s, struct observed_file *of)
{
	size_t nr = of->rec.epoll.nr_items, first = of->rec.epoll.first;

	of->epoll_items.nr = 0;
	if (first + nr > s->epoll_items.cap)
		return -EAGAIN;
	if (VEC_RESERVE(&of->epoll_items, nr))
		return -ENOMEM;
	for (size_t i = 0; i < nr; i++)
		of->epoll_items.v[i] = *(struct epoll_record *)bpf_array_at(&s->epoll_items, first + i);
	of->epoll_items.nr = nr;
	return 0;
}

static int add_fd(struct bpf_run *r, const struct file_record *rec, const char *path)
{
	struct observed_file *of = VEC_ADD(&r->o->fds);

	if (!of)
		return -ENOMEM;
	of->rec = *rec;
	of->path = strdup(path);
	if (!of->path)
		return -ENOMEM;
	return is_epoll(rec) ? take_epoll_items(r->s, of) : 0;
}

static int parse_files(struct bpf_run *r, pid_t pid, uint64_t table, const uint8_t *bytes, size_t nr_bytes)
{
	int err = 0;

	for (size_t off = 0; off < nr_bytes && !err;) {
		const struct file_header *h = (const void *)(bytes + off);
		const struct file_record *rec = (const void *)(h + 1);
		const char *path = (const char *)(rec + 1);
		size_t fixed = sizeof(*h) + sizeof(*rec);

		if (nr_bytes - off < fixed || !h->path_bytes || h->path_bytes > OBSERVE_PATH_BYTES ||
		    nr_bytes - off - fixed < (h->path_bytes + 7) / 8 * 8 || path[h->path_bytes - 1])
			return fail(-EPROTO, "pid %d: descriptors as BPF shows them are cut off", pid);
		if (!*path)
			return fail(-ENAMETOOLONG, "pid %d fd %d: path of its file", pid, rec->fd);
		if (rec->files == table)
			err = add_fd(r, rec, path);
		off += fixed + (h->path_bytes + 7) / 8 * 8;
	}
	return err;
}

static int read_files(struct bpf_run *r, size_t at)
{
	pid_t pid = r->o->m->tasks.v[at].pid;
	_cleanup_free_ uint8_t *bytes = NULL;
	size_t nr_bytes = 0;

	for (;;) {
		struct bpf_attached *a = bpf_attached_to(r->s, pid);
		if (!a)
			return -ENOMEM;
		int err = bpf_attach_thread(r->s->file->progs.observe_files, r->records.v[at]->living, &a->files);
		if (err)
			return err;
		r->s->file->bss->nr_epoll_items = 0;
		r->s->file->bss->last_file = 0;
		err = bpf_iter_read(a->files.link, pid, &bytes, &nr_bytes);
		if (err)
			return err;
		size_t wanted = r->s->file->bss->nr_epoll_items;
		if (wanted <= r->s->epoll_items.cap)
			return parse_files(r, pid, r->records.v[at]->files, bytes, nr_bytes);
		free(bytes);
		bytes = NULL;
		r->s->caps.epoll_items = wanted * 2;
		err = bpf_files_load(r->s);
		if (err)
			return err;
	}
}

int bpf_files_build(struct bpf_run *r)
{
	struct ident_map seen = {};
	int err = 0;

	for (size_t i = 0; i < r->records.nr && !err; i++) {
		uint64_t files = r->records.v[i]->files;

		if (!files || ident_map_find(&seen, files))
			continue;
		err = ident_map_add(&seen, files, 1);
		if (!err)
			err = read_files(r, i);
	}
	ident_map_deinit(&seen);
	return err;
}

/* --- again, inside a stop --- */

static int read_states(struct bpf_state *s, const struct bpf_table *tables, size_t nr)
{
	uint32_t ended;

	s->file->bss->nr_states = 0;
	s->file->bss->nr_epoll_items = 0;
	s->file->bss->last_file = 0;
	for (size_t i = 0; i < nr; i++)
		*(uint64_t *)bpf_array_at(&s->tables, i) = tables[i].global_living;
	s->file->bss->nr_wanted = nr;
	int err = bpf_run_program(s->file->progs.observe_states, &ended);
	return !err && ended ? -EAGAIN : err;
}

static bool is_same(const struct file_record *now, const struct bpf_seen_fd *then)
{
	return now->same == then->same && now->fd == then->fd;
}

/* -EAGAIN: only a whole run can tell; -EOPNOTSUPP: and no later one will be of help. */
int bpf_files_read_again(struct bpf_state *s, bool *same)
{
	const struct bpf_seen *seen = &s->seen;
	int err = read_states(s, seen->tables.v, seen->tables.nr);
	size_t nr = s->file->bss->nr_states;

	*same = false;
	if (err || nr > s->states.cap || s->file->bss->nr_epoll_items > s->epoll_items.cap)
		return err ? err : -EAGAIN;
	*same = nr == seen->fds.nr;
	for (size_t i = 0; i < nr; i++) {
		const struct file_record *rec = bpf_array_at(&s->states, i);

		/* Whose a lock is takes a look at /proc/locks. */
		if (rec->has_locks)
			return -EOPNOTSUPP;
		*same = *same && is_same(rec, &seen->fds.v[i]);
	}
	return 0;
}

/* What is plain in the stop has only been read in part: the rest is as it was. */
int bpf_files_take_state(const struct bpf_state *s, size_t i, struct observed_file *of)
{
	const struct file_record *rec = bpf_array_at(&s->states, i);

	if (S_ISREG(rec->mode) || S_ISDIR(rec->mode) || S_ISCHR(rec->mode)) {
		of->rec.pos = rec->pos;
		of->rec.flags = rec->flags;
		of->rec.size = rec->size;
		of->rec.mode = rec->mode;
		of->rec.fown_pid = rec->fown_pid;
		of->rec.fown_type = rec->fown_type;
		of->rec.fown_uid = rec->fown_uid;
		of->rec.fown_euid = rec->fown_euid;
		of->rec.fown_signum = rec->fown_signum;
	} else {
		of->rec = *rec;
	}
	of->rec.cloexec = rec->cloexec;
	return is_epoll(&of->rec) ? take_epoll_items(s, of) : 0;
}

/* What read_again() will compare with: taken from the observation that has just been made. */
int bpf_files_remember(struct bpf_run *r)
{
	struct bpf_seen *seen = &r->s->seen;
	struct ident_map known = {};
	bool same;
	int err = 0;

	seen->tables.nr = seen->fds.nr = 0;
	for (size_t i = 0; i < r->records.nr && !err; i++) {
		const struct task_record *rec = r->records.v[i];

		if (!rec->files || ident_map_find(&known, rec->files))
			continue;
		err = ident_map_add(&known, rec->files, 1);
		if (!err)
			err = VEC_PUSH(&seen->tables,
				       ((struct bpf_table){ .files = rec->files, .global_living = rec->global_living }));
	}
	ident_map_deinit(&known);
	for (size_t i = 0; i < r->o->fds.nr && !err; i++) {
		const struct file_record *rec = &r->o->fds.v[i].rec;

		err = VEC_PUSH(&seen->fds, ((struct bpf_seen_fd){ .same = rec->same, .fd = rec->fd }));
	}
	if (!err && (seen->fds.nr > r->s->states.cap || seen->tables.nr > r->s->tables.cap)) {
		r->s->caps.states = seen->fds.nr * 2;
		r->s->caps.tables = seen->tables.nr * 2;
		err = bpf_files_load(r->s);
	}
	/* Once for nothing: the pages of the array are there then. */
	if (!err)
		err = bpf_files_read_again(r->s, &same);
	return err == -EAGAIN || err == -EOPNOTSUPP ? 0 : err;
}

/* --- other descriptors than before --- */

/* More are read in one go by a whole run. */
enum { MAX_NEW_FDS = 64 };

/* One that was not there before: its record in full, and its path. `at` is its place among the states. */
static int new_fd(struct bpf_run *r, size_t at, size_t table, struct observed_file *of)
{
	struct file_bpf *b = r->s->file;
	const struct file_record *state = bpf_array_at(&r->s->states, at);
	_cleanup_close_ int dir = -1;
	char name[32];
	uint32_t ret;

	memset(of, 0, sizeof(*of));
	b->bss->wanted_pid = r->s->seen.tables.v[table].global_living;
	b->bss->wanted_fd = state->fd;
	b->bss->wanted_slot = at;
	int err = bpf_run_program(b->progs.observe_one_state, &ret);
	if (!err && ret)
		err = -EOPNOTSUPP;
	if (err)
		return err;
	of->rec = *state;
	snprintf(name, sizeof(name), "fd/%d", state->fd);
	err = proc_open(proc_living(of->rec.tgid), &dir);
	if (!err)
		err = proc_readlink(dir, name, &of->path);
	if (!err && is_epoll(&of->rec))
		err = take_epoll_items(r->s, of);
	return err == -ENOMEM ? err : err ? -EOPNOTSUPP : 0;
}

static uint64_t fd_key(const struct file_record *rec)
{
	return ident_mix(ident_mix(1, rec->files), rec->fd);
}

/* Index plus one among the descriptors of before, by table and number. */
static int index_fds(const struct observation *o, struct ident_map *ret)
{
	int err = 0;

	for (size_t i = 0; i < o->fds.nr && !err; i++)
		err = ident_map_add(ret, fd_key(&o->fds.v[i].rec), i + 1);
	return err;
}

struct fd_list {
	VEC(struct observed_file) fds;
};

static int gather_fds(struct bpf_run *r, const struct ident_map *known, struct fd_list *to)
{
	size_t nr = r->s->file->bss->nr_states, nr_new = 0, table = 0;
	uint64_t files = 0;

	for (size_t i = 0; i < nr; i++) {
		const struct file_record *state = bpf_array_at(&r->s->states, i);
		uint32_t at = ident_map_find(known, fd_key(state));
		struct observed_file *of = VEC_ADD(&to->fds);

		if (!of)
			return -ENOMEM;
		/* Tables come one after the other; one without descriptors does not show. */
		while (state->files != files && table < r->s->seen.tables.nr)
			files = r->s->seen.tables.v[table++].files;
		if (at && is_same(state, &r->s->seen.fds.v[at - 1])) {
			*of = r->o->fds.v[at - 1];
			memset(&r->o->fds.v[at - 1], 0, sizeof(*of));
			continue;
		}
		if (state->files != files || ++nr_new > MAX_NEW_FDS)
			return -EOPNOTSUPP;
		int err = new_fd(r, i, table - 1, of);
		if (err)
			return err;
	}
	return 0;
}

int bpf_files_replace(struct bpf_run *r)
{
	struct bpf_seen *seen = &r->s->seen;
	struct ident_map known = {};
	struct fd_list now = {};
	int err = index_fds(r->o, &known);

	if (!err)
		err = gather_fds(r, &known, &now);
	ident_map_deinit(&known);
	/* Also after a failure: what was moved is there, and nothing is compared with either any more. */
	VEC_FOREACH(of, &r->o->fds) {
		free(of->path);
		VEC_FREE(&of->epoll_items);
	}
	VEC_FREE(&r->o->fds);
	memcpy(&r->o->fds, &now.fds, sizeof(r->o->fds));
	seen->valid = !err;
	return err;
}
