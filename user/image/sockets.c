/*
 * Pairs of Unix sockets ↔ sk-queues.img, bcr-objects.bcr, and which two of files.img are one. The sockets themselves are the
 * business of their kind.
 */
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/log.h"
#include "image/magic.h"
#include "image/parts.h"
#include "images/sk-packet.pb-c.h"

static bool is_pair(const struct file *f)
{
	return f->type == FILE_UNIX && f->unix_sk.state == TCP_ESTABLISHED;
}

static bool has_queues(const struct model *m)
{
	VEC_FOREACH(f, &m->files) {
		if (is_pair(*f) && (*f)->unix_sk.len_bytes)
			return true;
	}
	return false;
}

int save_queues(struct save *s)
{
	struct image_writer w;

	if (!has_queues(s->m))
		return 0;
	writer_open(&w, s->set, MAGIC_COMMON, MAGIC_SK_QUEUES, "sk-queues.img");
	VEC_FOREACH(file, &s->m->files) {
		const struct file *f = *file;
		SkPacketEntry e = SK_PACKET_ENTRY__INIT;

		if (!is_pair(f) || !f->unix_sk.len_bytes)
			continue;
		e.id_for = f->id;
		e.length = f->unix_sk.len_bytes;
		writer_put(&w, &e.base);
		writer_put_bytes(&w, f->unix_sk.data, f->unix_sk.len_bytes);
	}
	return writer_close(&w);
}

void save_socket_extra(const struct file *f, BcrFileEntry *e)
{
	if (!is_pair(f))
		return;
	e->has_cred_pid = e->has_cred_uid = e->has_cred_gid = true;
	e->cred_pid = f->unix_sk.cred_pid;
	e->cred_uid = f->unix_sk.cred_uid;
	e->cred_gid = f->unix_sk.cred_gid;
}

int apply_socket_extra(const struct image_reader *r, const BcrFileEntry *e, struct file *f)
{
	if (!is_pair(f))
		return 0;
	if (e->cred_pid > INT32_MAX)
		return bad_image(r, "unix socket %u: pid %u made it", e->id, e->cred_pid);
	f->unix_sk.cred_pid = e->cred_pid;
	f->unix_sk.cred_uid = e->cred_uid;
	f->unix_sk.cred_gid = e->cred_gid;
	return 0;
}

static int compare_inos(const void *a, const void *b)
{
	uint32_t x = (*(struct file *const *)a)->unix_sk.ino, y = (*(struct file *const *)b)->unix_sk.ino;

	return x < y ? -1 : x > y;
}

/* Each end must name the other. */
static int join_pair(const struct image_reader *r, struct file *f, struct file *const *sockets, size_t nr)
{
	struct file wanted = { .unix_sk.ino = f->unix_sk.peer_ino }, *key = &wanted;

	if (!f->unix_sk.peer_ino)
		return 0;
	struct file *const *other = bsearch(&key, sockets, nr, sizeof(key), compare_inos);
	if (!other || *other == f || (*other)->unix_sk.peer_ino != f->unix_sk.ino ||
	    (*other)->unix_sk.type != f->unix_sk.type)
		return bad_file(r, "unix socket %u: its other end, socket %u, is not in files.img, or is connected to another",
				f->id, f->unix_sk.peer_ino);
	f->unix_sk.peer_id = (*other)->id;
	return 0;
}

int load_pairs(struct load *l)
{
	struct image_reader r = { .path = l->src->path, .name = "files.img" };
	VEC(struct file *) sockets = {};
	int err = 0;

	VEC_FOREACH(f, &l->m->files)
		err = !err && is_pair(*f) ? VEC_PUSH(&sockets, *f) : err;
	if (err)
		err = fail(-ENOMEM, "%s/%s: read", r.path, r.name);
	if (sockets.nr)
		qsort(sockets.v, sockets.nr, sizeof(*sockets.v), compare_inos);
	for (size_t i = 1; !err && i < sockets.nr; i++) {
		if (sockets.v[i]->unix_sk.ino == sockets.v[i - 1]->unix_sk.ino)
			err = bad_file(&r, "unix socket %u is there twice", sockets.v[i]->unix_sk.ino);
	}
	for (size_t i = 0; !err && i < sockets.nr; i++)
		err = join_pair(&r, sockets.v[i], sockets.v, sockets.nr);
	VEC_FREE(&sockets);
	return err;
}

/* Packets of a stream are one run of bytes, however many records they are in. */
static int load_packet(struct load *l, struct image_reader *r, const SkPacketEntry *e)
{
	struct file *f = model_find_file(l->m, e->id_for);
	const uint8_t *data;
	int err = reader_payload(r, e->length, &data);

	if (err)
		return err;
	if (!f || !is_pair(f))
		return bad_image(r, "file %u is no connected unix socket", e->id_for);
	if (f->unix_sk.type != SOCK_STREAM || e->n_scm)
		return unsupported("%s/%s: unix socket %u: messages, and descriptors or credentials in flight, are not supported",
				   r->path, r->name, e->id_for);
	if (e->length > INT32_MAX - f->unix_sk.len_bytes)
		return bad_image(r, "unix socket %u: too many bytes", e->id_for);
	if (!e->length)
		return 0;
	uint8_t *more = realloc(f->unix_sk.data, f->unix_sk.len_bytes + e->length);
	if (!more)
		return fail(-ENOMEM, "%s/%s: read", r->path, r->name);
	memcpy(more + f->unix_sk.len_bytes, data, e->length);
	f->unix_sk.data = more;
	f->unix_sk.len_bytes += e->length;
	return 0;
}

int load_queues(struct load *l)
{
	_cleanup_reader_ struct image_reader r = {};
	int err = reader_open(&r, l->src, MAGIC_COMMON, MAGIC_SK_QUEUES, "sk-queues.img");

	if (err == -ENOENT)
		return 0;
	while (!err) {
		_cleanup_message_ SkPacketEntry *e = NULL;
		int got = reader_next(&r, &sk_packet_entry__descriptor, &e);

		if (got < 0)
			return got;
		if (!got)
			break;
		err = load_packet(l, &r, e);
	}
	return err;
}
