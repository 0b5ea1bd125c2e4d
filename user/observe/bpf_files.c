/* The BPF back end: descriptors. */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "bpf/file.skel.h"
#include "observe/bpf.h"

enum { EPOLL_ITEMS_MIN = 1024 };

static void files_unload(struct bpf_state *s)
{
	VEC_FOREACH(a, &s->attached) {
		bpf_link__destroy(a->files);
		a->files = NULL;
	}
	bpf_array_unmap(&s->epoll_items);
	file_bpf__destroy(s->file);
	s->file = NULL;
}

int bpf_files_load(struct bpf_state *s, size_t nr_epoll_items)
{
	size_t cap = nr_epoll_items < EPOLL_ITEMS_MIN ? EPOLL_ITEMS_MIN : nr_epoll_items;

	files_unload(s);
	s->file = file_bpf__open();
	if (!s->file)
		return fail(-errno, "open the BPF program for descriptors");
	int err = bpf_map__set_max_entries(s->file->maps.epoll_items, cap);
	if (!err)
		err = file_bpf__load(s->file);
	if (err)
		return fail(err, "load the BPF program for descriptors (-v4 shows the kernel's words)");
	return bpf_array_map(&s->epoll_items, bpf_map__fd(s->file->maps.epoll_items), "epoll_items");
}

static int add_fd(struct bpf_run *r, const struct file_record *rec, const char *path, size_t epoll_at)
{
	struct observed_file *of = VEC_ADD(&r->o->fds);

	if (!of)
		return -ENOMEM;
	of->rec = *rec;
	of->path = strdup(path);
	if (!of->path)
		return -ENOMEM;
	if (rec->sb_magic != MAGIC_ANON_INODE || strcmp(rec->name, "[eventpoll]"))
		return 0;

	size_t nr = rec->epoll.nr_items;
	if (epoll_at + nr > r->s->epoll_items.cap)
		return -EAGAIN;
	if (VEC_RESERVE(&of->epoll_items, nr))
		return -ENOMEM;
	for (size_t i = 0; i < nr; i++)
		of->epoll_items.v[i] = *(struct epoll_record *)bpf_array_at(&r->s->epoll_items, epoll_at + i);
	of->epoll_items.nr = nr;
	return 0;
}

static int parse_files(struct bpf_run *r, pid_t pid, uint64_t table, const uint8_t *bytes, size_t nr_bytes)
{
	int64_t last_fd = -1;
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
		/*
		 * Linux 6.1 shows the table of a process with threads twice. Threads with a table of their own are
		 * refused elsewhere.
		 */
		if (rec->files == table && rec->fd > last_fd) {
			last_fd = rec->fd;
			err = add_fd(r, rec, path, h->epoll_start);
		}
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
		int err = bpf_attach_process(r->s->file->progs.observe_files, pid, &a->files);
		if (err)
			return err;
		r->s->file->bss->nr_epoll_items = 0;
		r->s->file->bss->last_file = 0;
		err = bpf_iter_read(a->files, pid, &bytes, &nr_bytes);
		if (err)
			return err;
		size_t wanted = r->s->file->bss->nr_epoll_items;
		if (wanted <= r->s->epoll_items.cap)
			return parse_files(r, pid, r->records.v[at]->files, bytes, nr_bytes);
		free(bytes);
		bytes = NULL;
		err = bpf_files_load(r->s, wanted * 2);
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
