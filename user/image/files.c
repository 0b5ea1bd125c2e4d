/*
 * Descriptors and open files, and what open files share ↔ fdinfo-N.img, files.img, pipes-data.img, fifo-data.img,
 * tty-info.img, bcr-objects.bcr (sockets.c: what is in sockets). What is in a file_entry is the business of the kinds.
 *
 * A FIFO or terminal has its path in a second file_entry, of type REG, which it names (regf_id). Those entries are
 * made and taken apart here: they are not open files of their own.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "image/magic.h"
#include "image/parts.h"
#include "images/fdinfo.pb-c.h"
#include "images/pipe-data.pb-c.h"
#include "images/tty.pb-c.h"
#include "kinds/kinds.h"

enum {
	FD_MAX = 1 << 20,          /* the kernel's own limit of fs.nr_open */
	PIPE_SIZE_DEFAULT = 65536,
	PIPE_SIZE_MAX = 1 << 30,   /* of F_SETPIPE_SZ, whoever asks */
	NR_CC = 19,                /* of struct termios2 */
};

static const char *type_name(int type)
{
	const ProtobufCEnumValue *v = protobuf_c_enum_descriptor_get_value(&fd_types__descriptor, type);

	return v ? v->name : "unknown";
}

/* --- saving --- */

struct file_arena {
	struct save_ctx ctx;
	struct arena arena;
};

static void *ctx_alloc(struct save_ctx *ctx, size_t bytes)
{
	return arena_alloc(ctx->arg, bytes);
}

static uint32_t *regf_id_of(FileEntry *msg)
{
	if (msg->fifo && msg->fifo->has_regf_id)
		return &msg->fifo->regf_id;
	if (msg->tty && msg->tty->has_regf_id)
		return &msg->tty->regf_id;
	return NULL;
}

/* Gives `msg` a file_entry that holds the path of `f`, written in front of it. */
static int save_path_entry(struct save *s, struct image_writer *w, struct save_ctx *ctx,
			   const struct file *f, FileEntry *msg)
{
	FileEntry entry = FILE_ENTRY__INIT;
	struct file by_path = { .id = ++s->next_id, .type = FILE_REG, .flags = f->flags, .pos = f->pos,
				.fown = f->fown, .path = f->path };
	const struct kind *reg = kind_of_type(FILE_REG);
	int err;

	if (!reg)
		return unsupported("file %u: no kind for paths", f->id);
	entry.type = FD_TYPES__REG;
	entry.id = by_path.id;
	by_path.reg.mnt_id = -1;
	err = reg->save(ctx, &by_path, &entry);
	if (err)
		return err;
	if (entry.reg) {
		entry.reg->has_size = false;
		entry.reg->has_mode = false;
	}
	if (msg->fifo) {
		msg->fifo->has_regf_id = true;
		msg->fifo->regf_id = by_path.id;
	}
	if (msg->tty) {
		msg->tty->has_regf_id = true;
		msg->tty->regf_id = by_path.id;
	}
	return writer_put(w, &entry.base);
}

static int save_file(struct save *s, struct image_writer *w, struct save_ctx *ctx, const struct file *f)
{
	const struct kind *kind = kind_of_type(f->type);
	FileEntry msg = FILE_ENTRY__INIT;
	int err;

	if (!kind || !kind->save)
		return unsupported("file %u: files of type %s", f->id, type_name(f->type));
	msg.type = (FdTypes)f->type;
	msg.id = f->id;
	err = kind->save(ctx, f, &msg);
	if (!err && (f->type == FILE_FIFO || f->type == FILE_TTY) && f->path)
		err = save_path_entry(s, w, ctx, f, &msg);
	return err ? err : writer_put(w, &msg.base);
}

static int save_files_img(struct save *s)
{
	struct image_writer w;

	writer_open(&w, s->set, MAGIC_COMMON, MAGIC_FILES, "files.img");
	VEC_FOREACH(f, &s->m->files) {
		struct arena a = {};
		struct save_ctx ctx = { .m = s->m, .alloc = ctx_alloc, .arg = &a };
		int err = save_file(s, &w, &ctx, *f);

		arena_free(&a);
		if (err) {
			writer_close(&w);
			return err == -ENOMEM ? fail(err, "file %u: save", (*f)->id) : err;
		}
	}
	return writer_close(&w);
}

static int save_fdtable(struct save *s, const struct fdtable *table)
{
	struct image_writer w;

	writer_open(&w, s->set, MAGIC_COMMON, MAGIC_FDINFO, "fdinfo-%u.img", table->id);
	VEC_FOREACH(fd, &table->fds) {
		const struct file *f = model_find_file(s->m, fd->file_id);
		FdinfoEntry e = FDINFO_ENTRY__INIT;

		if (!f) {
			writer_close(&w);
			return fail(0, "descriptor %d: the model lacks its file %u", fd->fd, fd->file_id);
		}
		e.id = fd->file_id;
		e.flags = fd->cloexec ? FD_CLOEXEC : 0;
		e.type = (FdTypes)f->type;
		e.fd = fd->fd;
		writer_put(&w, &e.base);
	}
	return writer_close(&w);
}

static bool pipe_is_fifo(const struct model *m, const struct pipe *p)
{
	VEC_FOREACH(id, &p->files) {
		const struct file *f = model_find_file(m, *id);

		if (f)
			return f->type == FILE_FIFO;
	}
	return false;
}

/* Both files have the same records; FIFOs are in one of their own. */
static int save_pipes(struct save *s, bool fifos, uint32_t magic, const char *name)
{
	struct image_writer w;

	writer_open(&w, s->set, MAGIC_COMMON, magic, "%s", name);
	VEC_FOREACH(p, &s->m->pipes) {
		PipeDataEntry e = PIPE_DATA_ENTRY__INIT;

		if (pipe_is_fifo(s->m, *p) != fifos)
			continue;
		e.pipe_id = (*p)->id;
		e.bytes = (*p)->len_bytes;
		e.has_size = true;
		e.size = (*p)->size_bytes;
		writer_put(&w, &e.base);
		writer_put_bytes(&w, (*p)->data, (*p)->len_bytes);
	}
	return writer_close(&w);
}

static bool has_fifos(const struct model *m)
{
	VEC_FOREACH(f, &m->files) {
		if ((*f)->type == FILE_FIFO)
			return true;
	}
	return false;
}

static uint32_t get_u32_at(const uint8_t *raw, size_t at)
{
	uint32_t value;

	memcpy(&value, raw + at, sizeof(value));
	return value;
}

/* Offsets in struct termios2 (asm-generic/termbits.h). */
enum { T_IFLAG = 0, T_OFLAG = 4, T_CFLAG = 8, T_LFLAG = 12, T_LINE = 16, T_CC = 17, T_ISPEED = 36, T_OSPEED = 40 };

static void save_termios(const struct tty *tty, TermiosEntry *e, uint32_t cc[NR_CC])
{
	e->c_iflag = get_u32_at(tty->termios, T_IFLAG);
	e->c_oflag = get_u32_at(tty->termios, T_OFLAG);
	e->c_cflag = get_u32_at(tty->termios, T_CFLAG);
	e->c_lflag = get_u32_at(tty->termios, T_LFLAG);
	e->c_line = tty->termios[T_LINE];
	e->c_ispeed = get_u32_at(tty->termios, T_ISPEED);
	e->c_ospeed = get_u32_at(tty->termios, T_OSPEED);
	for (int i = 0; i < NR_CC; i++)
		cc[i] = tty->termios[T_CC + i];
	e->n_c_cc = NR_CC;
	e->c_cc = cc;
}

static void save_tty(struct image_writer *w, const struct tty *tty)
{
	TtyInfoEntry e = TTY_INFO_ENTRY__INIT;
	TermiosEntry termios = TERMIOS_ENTRY__INIT;
	WinsizeEntry winsize = WINSIZE_ENTRY__INIT;
	TtyPtyEntry pty = TTY_PTY_ENTRY__INIT;
	uint32_t cc[NR_CC];

	e.id = tty->id;
	e.type = (TtyType)tty->type;
	e.locked = tty->locked;
	e.exclusive = tty->exclusive;
	e.packet_mode = tty->packet_mode;
	e.sid = tty->sid;
	e.pgrp = tty->pgrp;
	e.rdev = tty->rdev;
	if (tty->has_termios) {
		save_termios(tty, &termios, cc);
		e.termios = &termios;
	}
	if (tty->has_winsize) {
		winsize.ws_row = tty->winsize.row;
		winsize.ws_col = tty->winsize.col;
		winsize.ws_xpixel = tty->winsize.xpixel;
		winsize.ws_ypixel = tty->winsize.ypixel;
		e.winsize = &winsize;
	}
	if (tty->type == TTY_PTY) {
		pty.index = tty->index;
		e.pty = &pty;
	}
	writer_put(w, &e.base);
}

static int save_ttys(struct save *s)
{
	struct image_writer w;

	if (!s->m->ttys.nr)
		return 0;
	writer_open(&w, s->set, MAGIC_COMMON, MAGIC_TTY_INFO, "tty-info.img");
	VEC_FOREACH(tty, &s->m->ttys)
		save_tty(&w, *tty);
	return writer_close(&w);
}

int save_files(struct save *s)
{
	int err = save_files_img(s);

	for (size_t i = 0; !err && i < s->m->fdtables.nr; i++)
		err = save_fdtable(s, s->m->fdtables.v[i]);
	if (!err)
		err = save_pipes(s, false, MAGIC_PIPES_DATA, "pipes-data.img");
	if (!err && has_fifos(s->m))
		err = save_pipes(s, true, MAGIC_FIFO_DATA, "fifo-data.img");
	if (!err)
		err = save_queues(s);
	return err ? err : save_ttys(s);
}

/* --- bcr-objects.bcr --- */

static BcrFileEntry *save_file_extra(struct arena *a, const struct file *f)
{
	BcrFileEntry *e = arena_alloc(a, sizeof(*e));

	if (!e)
		return NULL;
	bcr_file_entry__init(e);
	e->id = f->id;
	if (f->type == FILE_EVENTFD) {
		e->has_semaphore = true;
		e->semaphore = f->eventfd.semaphore;
	} else if (f->type == FILE_UNIX) {
		save_socket_extra(f, e);
	} else if (f->type == FILE_TIMERFD) {
		e->has_date_ns = f->timerfd.date_ns != 0;
		e->date_ns = f->timerfd.date_ns;
	} else if (f->type == FILE_REG) {
		e->has_rdev = f->reg.rdev != 0;
		e->rdev = f->reg.rdev;
	} else if (f->type == FILE_EPOLL) {
		e->epoll_files = arena_alloc(a, f->epoll.items.nr * sizeof(*e->epoll_files));
		if (!e->epoll_files)
			return NULL;
		VEC_FOREACH(item, &f->epoll.items)
			e->epoll_files[e->n_epoll_files++] = item->file_id;
	}
	return e;
}

static int fill_objects(struct arena *a, const struct model *m, BcrObjectsEntry *msg)
{
	msg->files = arena_alloc(a, m->files.nr * sizeof(*msg->files));
	msg->ttys = arena_alloc(a, m->ttys.nr * sizeof(*msg->ttys));
	if (!msg->files || !msg->ttys)
		return -ENOMEM;
	if (m->clocks[0])
		msg->clocks = (char *)m->clocks;
	VEC_FOREACH(f, &m->files) {
		msg->files[msg->n_files] = save_file_extra(a, *f);
		if (!msg->files[msg->n_files++])
			return -ENOMEM;
	}
	VEC_FOREACH(tty, &m->ttys) {
		BcrTtyEntry *e = arena_alloc(a, sizeof(*e));

		if (!e)
			return -ENOMEM;
		bcr_tty_entry__init(e);
		e->id = (*tty)->id;
		e->has_master = (*tty)->has_master;
		msg->ttys[msg->n_ttys++] = e;
	}
	int err = fill_removed(a, m, msg);
	return err ? err : fill_shmem_objects(a, m, msg);
}

int save_objects(struct save *s)
{
	BcrObjectsEntry msg = BCR_OBJECTS_ENTRY__INIT;
	struct arena a = {};
	int err = fill_objects(&a, s->m, &msg);

	if (err)
		err = fail(err, "bcr-objects.bcr: write");
	else
		err = image_put(s->set, MAGIC_COMMON, MAGIC_BCR_OBJECTS, &msg.base, "bcr-objects.bcr");
	arena_free(&a);
	return err;
}

int load_objects(struct load *l)
{
	_cleanup_reader_ struct image_reader r = {};
	int err = reader_open(&r, l->src, MAGIC_COMMON, MAGIC_BCR_OBJECTS, "bcr-objects.bcr");

	if (err == -ENOENT)
		return 0;
	return err ? err : reader_single(&r, &bcr_objects_entry__descriptor, &l->objects);
}

static int apply_epoll(const struct image_reader *r, struct load *l, const BcrFileEntry *e,
		       struct file *f)
{
	if (e->n_epoll_files != f->epoll.items.nr)
		return bad_image(r, "epoll file %u: %zu files for %zu items", e->id, e->n_epoll_files,
				 f->epoll.items.nr);
	for (size_t i = 0; i < e->n_epoll_files; i++) {
		if (e->epoll_files[i] && !model_find_file(l->m, e->epoll_files[i]))
			return bad_image(r, "epoll file %u: it watches file %u, which is not in files.img",
					 e->id, e->epoll_files[i]);
		f->epoll.items.v[i].file_id = e->epoll_files[i];
	}
	return 0;
}

static int apply_timerfd(const struct image_reader *r, const BcrFileEntry *e, struct file *f)
{
	if (e->date_ns > INT64_MAX || (e->date_ns && !f->timerfd.value_ns))
		return bad_image(r, "timerfd %u: date_ns %llu", e->id, (unsigned long long)e->date_ns);
	f->timerfd.date_ns = e->date_ns;
	return 0;
}

static int apply_objects(const struct image_reader *r, struct load *l)
{
	if (l->objects->clocks && strlen(l->objects->clocks) >= sizeof(l->m->clocks))
		return bad_image(r, "clocks is a name of %zu bytes", strlen(l->objects->clocks));
	if (l->objects->clocks)
		strcpy(l->m->clocks, l->objects->clocks);
	for (size_t i = 0; i < l->objects->n_files; i++) {
		const BcrFileEntry *e = l->objects->files[i];
		struct file *f = model_find_file(l->m, e->id);
		int err = 0;

		if (!f)
			return bad_image(r, "file %u is not in files.img", e->id);
		if (f->type == FILE_EVENTFD)
			f->eventfd.semaphore = e->semaphore;
		else if (f->type == FILE_TIMERFD)
			err = apply_timerfd(r, e, f);
		else if (f->type == FILE_REG)
			f->reg.rdev = e->rdev;
		else if (f->type == FILE_EPOLL)
			err = apply_epoll(r, l, e, f);
		else if (f->type == FILE_UNIX)
			err = apply_socket_extra(r, e, f);
		if (err)
			return err;
	}
	for (size_t i = 0; i < l->objects->n_ttys; i++) {
		struct tty *tty = model_find_tty(l->m, l->objects->ttys[i]->id);

		if (!tty)
			return bad_image(r, "terminal %u is not in tty-info.img", l->objects->ttys[i]->id);
		tty->has_master = l->objects->ttys[i]->has_master;
	}
	return 0;
}

/* --- loading: descriptors --- */

static int compare_fds(const void *a, const void *b)
{
	const struct fd *x = a, *y = b;

	return x->fd < y->fd ? -1 : x->fd > y->fd;
}

static int load_fd(struct load *l, const struct image_reader *r, const FdinfoEntry *e,
		   struct fdtable *table)
{
	struct fd *fd = VEC_ADD(&table->fds);
	const struct file *f = model_find_file(l->m, e->id);

	if (!fd)
		return fail(-ENOMEM, "%s/%s: read", r->path, r->name);
	if (e->fd >= FD_MAX)
		return bad_image(r, "descriptor %u", e->fd);
	if (!f)
		return bad_image(r, "descriptor %u: its file %u is not in files.img", e->fd, e->id);
	if ((int)f->type != (int)e->type)
		return bad_image(r, "descriptor %u: of type %s, its file %u is of type %s", e->fd,
				 type_name(e->type), e->id, type_name(f->type));
	if (e->flags & ~FD_CLOEXEC)
		return bad_image(r, "descriptor %u: flags 0x%x", e->fd, e->flags);
	fd->fd = e->fd;
	fd->file_id = e->id;
	fd->cloexec = e->flags & FD_CLOEXEC;
	return 0;
}

static int load_fdtable(struct load *l, uint32_t id)
{
	_cleanup_reader_ struct image_reader r = {};
	struct fdtable *table;
	int err = reader_open_needed(&r, l->src, MAGIC_FDINFO, "fdinfo-%u.img", id);

	if (err)
		return err;
	table = model_add_fdtable(l->m, id);
	if (!table)
		return fail(-ENOMEM, "%s/%s: read", r.path, r.name);
	while (!err) {
		_cleanup_message_ FdinfoEntry *e = NULL;
		int got = reader_next(&r, &fdinfo_entry__descriptor, &e);

		if (got < 0)
			return got;
		if (!got)
			break;
		err = load_fd(l, &r, e, table);
	}
	if (err || !table->fds.nr)
		return err;
	qsort(table->fds.v, table->fds.nr, sizeof(*table->fds.v), compare_fds);
	for (size_t i = 1; i < table->fds.nr; i++) {
		if (table->fds.v[i].fd == table->fds.v[i - 1].fd)
			return bad_file(&r, "descriptor %d is there twice", table->fds.v[i].fd);
	}
	return 0;
}

static int load_fdtables(struct load *l)
{
	VEC_FOREACH(t, &l->m->tasks) {
		if (!t->files_id || model_find_fdtable(l->m, t->files_id))
			continue;

		int err = load_fdtable(l, t->files_id);

		if (err)
			return err;
	}
	return 0;
}

/*
 * Sets that CRIU wrote say what an epoll item watches only by the number it was added under: look it up where the
 * epoll file itself is held. A number that is free there belongs to nobody any more.
 */
static void find_epoll_targets(struct load *l, struct file *f)
{
	VEC_FOREACH(table, &l->m->fdtables) {
		const struct fdtable *t = *table;
		bool holds = false;

		for (size_t i = 0; !holds && i < t->fds.nr; i++)
			holds = t->fds.v[i].file_id == f->id;
		if (!holds)
			continue;
		VEC_FOREACH(item, &f->epoll.items) {
			struct fd key = { .fd = item->fd };
			const struct fd *fd = bsearch(&key, t->fds.v, t->fds.nr, sizeof(key), compare_fds);

			if (fd && !item->file_id)
				item->file_id = fd->file_id;
		}
	}
}

/* --- loading: pipes --- */

/* Makes the pipes that entries of files.img name, before the entries themselves are loaded. */
static int need_pipe(struct load *l, const struct image_reader *r, const FileEntry *msg)
{
	uint32_t id = msg->pipe ? msg->pipe->pipe_id : msg->fifo ? msg->fifo->pipe_id : 0;

	if (!msg->pipe && !msg->fifo)
		return 0;
	if (!id)
		return bad_image(r, "file %u: pipe_id is 0", msg->id);
	if (model_find_pipe(l->m, id))
		return 0;

	struct pipe *p = model_add_pipe(l->m, id);

	if (!p)
		return fail(-ENOMEM, "%s/%s: read", r->path, r->name);
	p->size_bytes = PIPE_SIZE_DEFAULT;
	return 0;
}

static int load_pipe(struct load *l, struct image_reader *r, const PipeDataEntry *e)
{
	struct pipe *p = model_find_pipe(l->m, e->pipe_id);
	const uint8_t *data;
	int err = reader_payload(r, e->bytes, &data);

	if (err)
		return err;
	if (!p)
		return bad_image(r, "pipe %u belongs to no file of files.img", e->pipe_id);
	if (p->captured)
		return bad_image(r, "pipe %u is there twice", e->pipe_id);
	if (e->has_size && (!e->size || e->size > PIPE_SIZE_MAX || e->size < e->bytes))
		return bad_image(r, "pipe %u: size %u with %u bytes in it", e->pipe_id, e->size, e->bytes);
	if (e->has_size)
		p->size_bytes = e->size;
	else if (e->bytes > p->size_bytes)
		return bad_image(r, "pipe %u: %u bytes and no size", e->pipe_id, e->bytes);
	p->captured = true;
	p->len_bytes = e->bytes;
	if (!e->bytes)
		return 0;
	p->data = malloc(e->bytes);
	if (!p->data)
		return fail(-ENOMEM, "%s/%s: read", r->path, r->name);
	memcpy(p->data, data, e->bytes);
	return 0;
}

static int load_pipes(struct load *l, uint32_t magic, const char *name)
{
	_cleanup_reader_ struct image_reader r = {};
	int err = reader_open(&r, l->src, MAGIC_COMMON, magic, "%s", name);

	if (err == -ENOENT)
		return 0;
	while (!err) {
		_cleanup_message_ PipeDataEntry *e = NULL;
		int got = reader_next(&r, &pipe_data_entry__descriptor, &e);

		if (got < 0)
			return got;
		if (!got)
			break;
		err = load_pipe(l, &r, e);
	}
	return err;
}

/* A file that is missing or cut off between two records would be data lost. */
static int check_pipes(const struct load *l)
{
	VEC_FOREACH(p, &l->m->pipes) {
		if (l->objects && !(*p)->captured)
			return fail(0, "%s: pipe %u of files.img is in neither pipes-data.img nor fifo-data.img: the image set is not complete",
				    l->src->path, (*p)->id);
		if (!(*p)->captured)
			log_warn("%s: pipe %u has no data recorded and is restored empty", l->src->path,
				 (*p)->id);
		(*p)->captured = true;
	}
	return 0;
}

/* --- loading: terminals --- */

static void put_u32_at(uint8_t *raw, size_t at, uint32_t value)
{
	memcpy(raw + at, &value, sizeof(value));
}

static int load_termios(const struct image_reader *r, const TermiosEntry *e, struct tty *tty)
{
	if (e->n_c_cc != NR_CC || e->c_line > 255)
		return bad_image(r, "terminal %u: %zu control characters instead of %d, line discipline %u",
				 tty->id, e->n_c_cc, NR_CC, e->c_line);
	put_u32_at(tty->termios, T_IFLAG, e->c_iflag);
	put_u32_at(tty->termios, T_OFLAG, e->c_oflag);
	put_u32_at(tty->termios, T_CFLAG, e->c_cflag);
	put_u32_at(tty->termios, T_LFLAG, e->c_lflag);
	tty->termios[T_LINE] = e->c_line;
	put_u32_at(tty->termios, T_ISPEED, e->c_ispeed);
	put_u32_at(tty->termios, T_OSPEED, e->c_ospeed);
	for (int i = 0; i < NR_CC; i++) {
		if (e->c_cc[i] > 255)
			return bad_image(r, "terminal %u: control character %u", tty->id, e->c_cc[i]);
		tty->termios[T_CC + i] = e->c_cc[i];
	}
	tty->has_termios = true;
	return 0;
}

static int load_winsize(const struct image_reader *r, const WinsizeEntry *e, struct tty *tty)
{
	if ((e->ws_row | e->ws_col | e->ws_xpixel | e->ws_ypixel) > 0xffff)
		return bad_image(r, "terminal %u: window size %ux%u", tty->id, e->ws_col, e->ws_row);
	tty->winsize.row = e->ws_row;
	tty->winsize.col = e->ws_col;
	tty->winsize.xpixel = e->ws_xpixel;
	tty->winsize.ypixel = e->ws_ypixel;
	tty->has_winsize = true;
	return 0;
}

static int load_tty(struct load *l, const struct image_reader *r, const TtyInfoEntry *e)
{
	if (!e->id || model_find_tty(l->m, e->id))
		return bad_image(r, "terminal id %u is 0 or there twice", e->id);
	if ((int)e->type < TTY_PTY || (int)e->type > TTY_EXT)
		return unsupported("%s/%s: terminal %u is of type %d", r->path, r->name, e->id, e->type);
	if (e->sid > INT32_MAX || e->pgrp > INT32_MAX)
		return bad_image(r, "terminal %u: session %u, group %u", e->id, e->sid, e->pgrp);
	if (e->type == TTY_TYPE__PTY && !e->pty)
		return bad_image(r, "terminal %u: pty is missing", e->id);

	struct tty *tty = model_add_tty(l->m, e->id);
	int err = 0;

	if (!tty)
		return fail(-ENOMEM, "%s/%s: read", r->path, r->name);
	tty->type = (enum tty_type)e->type;
	tty->index = e->pty ? e->pty->index : 0;
	tty->rdev = e->rdev;
	tty->sid = e->sid;
	tty->pgrp = e->pgrp;
	tty->locked = e->locked;
	tty->exclusive = e->exclusive;
	tty->packet_mode = e->packet_mode;
	if (e->termios)
		err = load_termios(r, e->termios, tty);
	return err || !e->winsize ? err : load_winsize(r, e->winsize, tty);
}

static int load_ttys(struct load *l)
{
	_cleanup_reader_ struct image_reader r = {};
	int err = reader_open(&r, l->src, MAGIC_COMMON, MAGIC_TTY_INFO, "tty-info.img");

	if (err == -ENOENT)
		return 0;
	while (!err) {
		_cleanup_message_ TtyInfoEntry *e = NULL;
		int got = reader_next(&r, &tty_info_entry__descriptor, &e);

		if (got < 0)
			return got;
		if (!got)
			break;
		err = load_tty(l, &r, e);
	}
	return err;
}

/* --- loading: open files --- */

struct file_list {
	VEC(FileEntry *) entries;
};

static void cleanup_file_list(struct file_list *list)
{
	VEC_FOREACH(e, &list->entries)
		file_entry__free_unpacked(*e, NULL);
	VEC_FREE(&list->entries);
}

/* The message that belongs to a type that bcr knows; NULL when it is absent. */
static const void *message_of(const FileEntry *e)
{
	switch ((int)e->type) {
	case FILE_REG:
		return e->reg;
	case FILE_PIPE:
		return e->pipe;
	case FILE_FIFO:
		return e->fifo;
	case FILE_INET:
		return e->isk;
	case FILE_UNIX:
		return e->usk;
	case FILE_EVENTFD:
		return e->efd;
	case FILE_EPOLL:
		return e->epfd;
	case FILE_TTY:
		return e->tty;
	case FILE_TIMERFD:
		return e->tfd;
	case FILE_SIGNALFD:
		return e->sgfd;
	case FILE_MEMFD:
		return e->memfd;
	default:
		return NULL;
	}
}

static int check_file_entry(const struct image_reader *r, const FileEntry *e)
{
	const struct kind *kind = kind_of_type((enum file_type)e->type);

	if (!e->id)
		return bad_image(r, "id is 0");
	if (!kind || !kind->load)
		return unsupported("%s/%s: file %u is of type %s", r->path, r->name, e->id, type_name(e->type));
	if (!message_of(e))
		return bad_image(r, "file %u: what is special about type %s is missing", e->id,
				 type_name(e->type));
	return reader_check_known(r, &e->base);
}

static int compare_entries(const void *a, const void *b)
{
	uint32_t x = (*(FileEntry *const *)a)->id, y = (*(FileEntry *const *)b)->id;

	return x < y ? -1 : x > y;
}

/* All entries, sorted by id. */
static int read_file_list(struct load *l, struct image_reader *r, struct file_list *list)
{
	for (;;) {
		FileEntry *e;
		int got = reader_next_any(r, &file_entry__descriptor, &e);

		if (got < 0)
			return got;
		if (!got)
			break;
		if (VEC_PUSH(&list->entries, e)) {
			file_entry__free_unpacked(e, NULL);
			return fail(-ENOMEM, "%s/%s: read", r->path, r->name);
		}

		int err = check_file_entry(r, e);

		if (!err)
			err = need_pipe(l, r, e);
		if (err)
			return err;
	}
	if (!list->entries.nr)
		return bad_file(r, "has no record: cut off");
	qsort(list->entries.v, list->entries.nr, sizeof(*list->entries.v), compare_entries);
	for (size_t i = 1; i < list->entries.nr; i++) {
		if (list->entries.v[i]->id == list->entries.v[i - 1]->id)
			return bad_file(r, "file %u is there twice", list->entries.v[i]->id);
	}
	return 0;
}

static const FileEntry *find_entry(const struct file_list *list, uint32_t id)
{
	FileEntry key = { .id = id }, *at = &key;
	FileEntry **found = bsearch(&at, list->entries.v, list->entries.nr, sizeof(at), compare_entries);

	return found ? *found : NULL;
}

/* Takes path, flags and owner of a FIFO or terminal from the entry that holds them. */
static int load_path_entry(struct load *l, const struct image_reader *r, const struct file_list *list,
			   uint32_t regf_id, struct file *f)
{
	const FileEntry *e = find_entry(list, regf_id);
	struct file by_path = { .id = regf_id, .type = FILE_REG };
	int err;

	if (!e || e->type != FD_TYPES__REG)
		return bad_file(r, "file %u: its path should be file %u, which is not there", f->id, regf_id);
	err = kind_of_type(FILE_REG)->load(l->m, e, &by_path);
	f->flags = by_path.flags;
	f->pos = by_path.pos;
	f->fown = by_path.fown;
	f->path = by_path.path;
	return err;
}

static int load_file(struct load *l, const struct image_reader *r, const struct file_list *list,
		     FileEntry *e)
{
	const uint32_t *regf_id = regf_id_of(e);
	struct file *f = model_add_file(l->m, e->id);
	int err = 0;

	if (!f)
		return fail(-ENOMEM, "%s/%s: read", r->path, r->name);
	f->type = (enum file_type)e->type;
	if (regf_id)
		err = load_path_entry(l, r, list, *regf_id, f);
	return err ? err : kind_of_type(f->type)->load(l->m, e, f);
}

static bool is_path_entry(const uint32_t *ids, size_t nr, uint32_t id)
{
	for (size_t i = 0; i < nr; i++) {
		if (ids[i] == id)
			return true;
	}
	return false;
}

static int load_file_list(struct load *l, const struct image_reader *r, const struct file_list *list)
{
	_cleanup_free_ uint32_t *path_ids = calloc(list->entries.nr + 1, sizeof(*path_ids));
	size_t nr_path_ids = 0;

	if (!path_ids)
		return fail(-ENOMEM, "%s/%s: read", r->path, r->name);
	VEC_FOREACH(e, &list->entries) {
		const uint32_t *id = regf_id_of(*e);

		if (id)
			path_ids[nr_path_ids++] = *id;
	}
	VEC_FOREACH(e, &list->entries) {
		if ((*e)->type == FD_TYPES__REG && is_path_entry(path_ids, nr_path_ids, (*e)->id))
			continue;

		int err = load_file(l, r, list, *e);

		if (err)
			return err;
	}
	return 0;
}

static int load_files_img(struct load *l)
{
	_cleanup_reader_ struct image_reader r = {};
	__attribute__((cleanup(cleanup_file_list))) struct file_list list = {};
	int err = reader_open_needed(&r, l->src, MAGIC_FILES, "files.img");

	if (!err)
		err = read_file_list(l, &r, &list);
	return err ? err : load_file_list(l, &r, &list);
}

int load_files(struct load *l)
{
	struct image_reader objects = { .path = l->src->path, .name = "bcr-objects.bcr", .nr_records = 1 };
	int err = load_ttys(l);

	if (!err)
		err = load_files_img(l);
	if (!err)
		err = load_pipes(l, MAGIC_PIPES_DATA, "pipes-data.img");
	if (!err)
		err = load_pipes(l, MAGIC_FIFO_DATA, "fifo-data.img");
	if (!err)
		err = check_pipes(l);
	if (!err)
		err = load_pairs(l);
	if (!err)
		err = load_queues(l);
	if (!err)
		err = load_fdtables(l);
	if (!err && l->objects)
		return apply_objects(&objects, l);
	for (size_t i = 0; !err && i < l->m->files.nr; i++) {
		if (l->m->files.v[i]->type == FILE_EPOLL)
			find_epoll_targets(l, l->m->files.v[i]);
	}
	return err;
}
