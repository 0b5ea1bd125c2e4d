/*
 * Unix sockets: listening ones, bound datagram sockets, new ones, and pairs (socketpair(2), unix_pair.c). Connections by
 * name, and sockets that have connections or messages waiting, are refused.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <poll.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "kinds/common.h"
#include "kinds/sockopt.h"
#include "kinds/unix_pair.h"
#include "observe/observe.h"
#include "sys/proc.h"

/* The kernel borrows the numbers of TCP. */
enum { STATE_ESTABLISHED = 1, STATE_CLOSE = 7, STATE_LISTEN = 10 };

static bool unix_match(const struct file_record *rec)
{
	return rec->sb_magic == MAGIC_SOCKFS && rec->sock.family == AF_UNIX;
}

static const struct sockopt_default defaults[] = {
	{ SOL_SOCKET, SO_LINGER, "SO_LINGER" },
	{ SOL_SOCKET, SO_PASSSEC, "SO_PASSSEC" },
	{ SOL_SOCKET, SO_TIMESTAMP, "SO_TIMESTAMP" },
	{ SOL_SOCKET, SO_TIMESTAMPNS, "SO_TIMESTAMPNS" },
	{ SOL_SOCKET, SO_PEEK_OFF, "SO_PEEK_OFF" },
	{ SOL_SOCKET, SO_RCVTIMEO, "SO_RCVTIMEO" },
	{ SOL_SOCKET, SO_SNDTIMEO, "SO_SNDTIMEO" },
	{ SOL_SOCKET, SO_PRIORITY, "SO_PRIORITY" },
	{ SOL_SOCKET, SO_MARK, "SO_MARK" },
	{ SOL_SOCKET, SO_RCVLOWAT, "SO_RCVLOWAT" },
	{ SOL_SOCKET, SO_KEEPALIVE, "SO_KEEPALIVE" },
	{ SOL_SOCKET, SO_BROADCAST, "SO_BROADCAST" },
};

/* --- what only sock_diag(7) tells --- */

struct diag {
	uint32_t state, peer, queued, backlog, file_ino, file_dev;
	uint8_t shutdown; /* receiving 1, sending 2 */
	bool has_file;
};

static void read_attributes(const struct nlmsghdr *h, struct diag *ret)
{
	const struct unix_diag_msg *msg = NLMSG_DATA(h);
	const struct rtattr *a = (const void *)(msg + 1);
	int left = h->nlmsg_len - NLMSG_LENGTH(sizeof(*msg));

	ret->state = msg->udiag_state;
	for (; RTA_OK(a, left); a = RTA_NEXT(a, left)) {
		const void *data = RTA_DATA(a);

		if (a->rta_type == UNIX_DIAG_PEER && RTA_PAYLOAD(a) >= sizeof(uint32_t)) {
			memcpy(&ret->peer, data, sizeof(ret->peer));
		} else if (a->rta_type == UNIX_DIAG_RQLEN && RTA_PAYLOAD(a) >= sizeof(struct unix_diag_rqlen)) {
			const struct unix_diag_rqlen *q = data;

			ret->queued = q->udiag_rqueue;
			ret->backlog = q->udiag_wqueue; /* of listening sockets */
		} else if (a->rta_type == UNIX_DIAG_SHUTDOWN && RTA_PAYLOAD(a) >= sizeof(uint8_t)) {
			memcpy(&ret->shutdown, data, sizeof(ret->shutdown));
		} else if (a->rta_type == UNIX_DIAG_VFS && RTA_PAYLOAD(a) >= sizeof(struct unix_diag_vfs)) {
			const struct unix_diag_vfs *v = data;

			ret->has_file = true;
			ret->file_ino = v->udiag_vfs_ino;
			ret->file_dev = v->udiag_vfs_dev;
		}
	}
}

static int ask_diag(uint32_t ino, struct diag *ret)
{
	_cleanup_close_ int nl = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	struct {
		struct nlmsghdr h;
		struct unix_diag_req r;
	} req = {
		.h = { .nlmsg_len = sizeof(req), .nlmsg_type = SOCK_DIAG_BY_FAMILY, .nlmsg_flags = NLM_F_REQUEST },
		.r = { .sdiag_family = AF_UNIX, .udiag_states = -1, .udiag_ino = ino,
		       .udiag_show = UDIAG_SHOW_PEER | UDIAG_SHOW_RQLEN | UDIAG_SHOW_VFS,
		       .udiag_cookie = { -1, -1 } },
	};
	union {
		struct nlmsghdr h;
		char bytes[4096];
	} reply;

	*ret = (struct diag){};
	if (nl < 0 || send(nl, &req, sizeof(req), 0) < 0)
		return -errno;
	ssize_t n = recv(nl, &reply, sizeof(reply), 0);
	if (n < 0)
		return -errno;
	if (!NLMSG_OK(&reply.h, n))
		return -EPROTO;
	if (reply.h.nlmsg_type == NLMSG_ERROR) {
		const struct nlmsgerr *e = NLMSG_DATA(&reply.h);

		return e->error ? e->error : -EPROTO;
	}
	read_attributes(&reply.h, ret);
	return 0;
}

/* --- collect --- */

static bool has_path(const struct file *f)
{
	return f->unix_sk.name_len && f->unix_sk.name[0];
}

/* For people: the path, "@name" for abstract ones, or "without a name". */
struct name_text {
	char text[sizeof(((struct file *)0)->unix_sk.name) + 16];
};

static struct name_text name_text(const struct file *f)
{
	struct name_text t = { "without a name" };

	for (uint32_t i = 0; i < f->unix_sk.name_len; i++) {
		uint8_t c = f->unix_sk.name[i];

		t.text[i] = !i && !c ? '@' : c < ' ' || c > '~' ? '?' : c;
		t.text[i + 1] = 0;
	}
	return t;
}

static int collect_name(const struct observed_file *of, int fd, struct file *f)
{
	struct sockaddr_un a = {};
	socklen_t len = sizeof(a);

	if (getsockname(fd, (struct sockaddr *)&a, &len))
		return fail(-errno, "pid %u fd %d: name of the socket", of->rec.tgid, of->rec.fd);
	uint32_t name_len = len > offsetof(struct sockaddr_un, sun_path) ? len - offsetof(struct sockaddr_un, sun_path) : 0;
	if (name_len > sizeof(f->unix_sk.name))
		name_len = sizeof(f->unix_sk.name);
	/* The NUL behind a path does not belong to it; in an abstract name all bytes do. */
	if (name_len && a.sun_path[0])
		name_len = strnlen(a.sun_path, name_len);
	memcpy(f->unix_sk.name, a.sun_path, name_len);
	f->unix_sk.name_len = name_len;
	return 0;
}

/* The socket's file must be what its name leads to: only so can others connect, and only so can it be made again. */
static int collect_socket_file(const struct observed_file *of, const struct diag *d, struct file *f)
{
	struct name_text name = name_text(f);
	char path[sizeof(f->unix_sk.name) + 1] = {};
	struct stat st;

	memcpy(path, f->unix_sk.name, f->unix_sk.name_len);
	if (path[0] != '/')
		return unsupported("pid %u fd %d: the path of unix socket %s is relative, which is not supported", of->rec.tgid,
				   of->rec.fd, name.text);
	if (lstat(path, &st) || !S_ISSOCK(st.st_mode) || !d->has_file || (uint32_t)st.st_ino != d->file_ino)
		return unsupported("pid %u fd %d: the file of unix socket %s has been removed or replaced, which is not supported",
				   of->rec.tgid, of->rec.fd, name.text);
	f->unix_sk.mode = st.st_mode;
	f->unix_sk.uid = st.st_uid;
	f->unix_sk.gid = st.st_gid;
	return 0;
}

static int check_state(const struct observed_file *of, const struct diag *d, const struct file *f)
{
	const struct file_record *rec = &of->rec;
	struct name_text name = name_text(f);

	if (d->state != STATE_LISTEN && d->state != STATE_CLOSE && d->state != STATE_ESTABLISHED)
		return unsupported("pid %u fd %d: unix socket %s is in state %u, which is not supported; try again", rec->tgid,
				   rec->fd, name.text, d->state);
	if (d->queued && d->state == STATE_LISTEN)
		return unsupported("pid %u fd %d: unix socket %s: %u connections wait to be accepted, which is not supported; try again",
				   rec->tgid, rec->fd, name.text, d->queued);
	if (d->queued && (d->state == STATE_CLOSE || rec->sock.type != SOCK_STREAM))
		return unsupported("pid %u fd %d: unix socket %s: messages wait to be read, the first of %u bytes, which is not supported; try again",
				   rec->tgid, rec->fd, name.text, d->queued);
	return 0;
}

/* A pair has no names. One end keeps the name of the other when that is gone. */
static int check_pair(const struct observed_file *of, const struct diag *d, int fd, const struct file *f)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	struct sockaddr_un a = {};
	socklen_t len = sizeof(a);
	bool named = !getpeername(fd, (struct sockaddr *)&a, &len) && len > offsetof(struct sockaddr_un, sun_path);

	if (f->unix_sk.name_len || named)
		return unsupported("pid %u fd %d: unix socket %s is connected by name, which is not supported; close it first",
				   of->rec.tgid, of->rec.fd, name_text(f).text);
	if (poll(&p, 1, 0) < 0)
		return fail(-errno, "pid %u fd %d: look at the unix socket", of->rec.tgid, of->rec.fd);
	if (p.revents & POLLERR)
		return unsupported("pid %u fd %d: the unix socket has an error to report (its other end was closed with data unread), which is not supported",
				   of->rec.tgid, of->rec.fd);
	if (p.revents & POLLIN && of->rec.sock.type != SOCK_STREAM && !(d->shutdown & 1))
		return unsupported("pid %u fd %d: an empty message waits in the unix socket, which is not supported; try again",
				   of->rec.tgid, of->rec.fd);
	return 0;
}

/* A stream socket whose peer is gone looks like a new one, but for its end of file. */
static int check_end(const struct observed_file *of, const struct diag *d, int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN | POLLRDHUP };

	if (d->state != STATE_CLOSE || poll(&p, 1, 0) < 0)
		return 0;
	if (p.revents & (POLLRDHUP | POLLIN | POLLERR))
		return unsupported("pid %u fd %d: the unix socket was connected or is shut down, which is not supported",
				   of->rec.tgid, of->rec.fd);
	return 0;
}

static int collect_options(const struct observed_file *of, int fd, struct file *f)
{
	struct sockopt_buffers b = {};
	uint32_t passcred = 0, reuseaddr = 0;
	int err = sockopt_get_buffers(fd, &b);

	if (!err)
		err = sockopt_get(fd, SOL_SOCKET, SO_PASSCRED, &passcred);
	if (!err)
		err = sockopt_get(fd, SOL_SOCKET, SO_REUSEADDR, &reuseaddr);
	if (err)
		return fail(err, "pid %u fd %d: read the socket's options", of->rec.tgid, of->rec.fd);
	f->unix_sk.so_sndbuf = b.sndbuf;
	f->unix_sk.so_rcvbuf = b.rcvbuf;
	f->unix_sk.so_buf_lock = b.lock;
	f->unix_sk.passcred = passcred;
	f->unix_sk.reuseaddr = reuseaddr;
	return sockopt_check_defaults(of, fd, defaults, sizeof(defaults) / sizeof(defaults[0]));
}

static int unix_collect(const struct collect_ctx *ctx, const struct observed_file *of, struct file *f)
{
	_cleanup_close_ int fd = -1;
	struct diag d;
	int err = common_duplicate(of, &fd);

	if (err)
		return err;
	f->unix_sk.ino = of->rec.ino;
	f->unix_sk.type = of->rec.sock.type;
	err = collect_name(of, fd, f);
	if (err)
		return err;
	err = ask_diag(f->unix_sk.ino, &d);
	if (err)
		return fail(err, "pid %u fd %d: ask the kernel about the unix socket (sock_diag)", of->rec.tgid, of->rec.fd);
	f->unix_sk.state = d.state;
	f->unix_sk.backlog = d.state == STATE_LISTEN ? d.backlog : 0;
	f->unix_sk.peer_ino = d.peer;
	f->unix_sk.peer_id = 0;
	f->unix_sk.shutdown = d.state == STATE_ESTABLISHED ? d.shutdown & 3 : 0;
	err = check_state(of, &d, f);
	if (!err && d.state == STATE_ESTABLISHED)
		err = check_pair(of, &d, fd, f);
	if (!err && d.state == STATE_ESTABLISHED)
		err = unix_pair_collect(of, fd, f);
	if (!err)
		err = check_end(of, &d, fd);
	if (!err && has_path(f))
		err = collect_socket_file(of, &d, f);
	if (!err)
		err = collect_options(of, fd, f);
	return err ? err : common_collect_owner(ctx, of, f);
}

/* --- save and load --- */

static SkOptsEntry *save_options(struct save_ctx *ctx, const struct file *f)
{
	SkOptsEntry *e = NEW_MESSAGE(ctx, SkOptsEntry, sk_opts_entry__init);

	if (!e)
		return NULL;
	e->so_sndbuf = f->unix_sk.so_sndbuf;
	e->so_rcvbuf = f->unix_sk.so_rcvbuf;
	e->has_so_buf_lock = e->has_so_passcred = e->has_reuseaddr = true;
	e->so_buf_lock = f->unix_sk.so_buf_lock;
	e->so_passcred = f->unix_sk.passcred;
	e->reuseaddr = f->unix_sk.reuseaddr;
	return e;
}

static int unix_save(struct save_ctx *ctx, const struct file *f, FileEntry *msg)
{
	UnixSkEntry *e = NEW_MESSAGE(ctx, UnixSkEntry, unix_sk_entry__init);
	FilePermsEntry *perms = NEW_MESSAGE(ctx, FilePermsEntry, file_perms_entry__init);

	if (!e || !perms)
		return -ENOMEM;
	e->fown = common_save_owner(ctx, f);
	e->opts = save_options(ctx, f);
	if (!e->fown || !e->opts)
		return -ENOMEM;
	e->id = f->id;
	e->ino = f->unix_sk.ino;
	e->type = f->unix_sk.type;
	e->state = f->unix_sk.state;
	e->flags = f->flags;
	e->backlog = f->unix_sk.backlog;
	e->peer = f->unix_sk.peer_ino;
	e->has_shutdown = f->unix_sk.shutdown != 0;
	e->shutdown = (SkShutdown)f->unix_sk.shutdown;
	e->name.data = (uint8_t *)f->unix_sk.name;
	e->name.len = f->unix_sk.name_len;
	if (has_path(f)) {
		perms->mode = f->unix_sk.mode;
		perms->uid = f->unix_sk.uid;
		perms->gid = f->unix_sk.gid;
		e->file_perms = perms;
	}
	msg->usk = e;
	return 0;
}

static int load_check(const struct file *f, const UnixSkEntry *e)
{
	if (e->type != SOCK_STREAM && e->type != SOCK_DGRAM && e->type != SOCK_SEQPACKET)
		return fail(0, "unix socket %u: type %u is damaged", f->id, e->type);
	if (e->name.len > sizeof(f->unix_sk.name) || e->backlog > INT32_MAX)
		return fail(0, "unix socket %u: its name or backlog is damaged", f->id);
	if (e->state == STATE_LISTEN && (e->type == SOCK_DGRAM || !e->name.len))
		return fail(0, "unix socket %u: it cannot have listened", f->id);
	if (e->state != STATE_CLOSE && e->state != STATE_LISTEN && e->state != STATE_ESTABLISHED)
		return unsupported("unix socket %u: state %u is not supported", f->id, e->state);
	if ((e->state == STATE_ESTABLISHED && e->name.len) || (e->state != STATE_ESTABLISHED && e->peer))
		return unsupported("unix socket %u: it was connected by name, which is not supported", f->id);
	if (e->has_shutdown && (e->shutdown < SK_SHUTDOWN__NONE || e->shutdown > SK_SHUTDOWN__BOTH))
		return fail(0, "unix socket %u: the directions %d that are shut down are damaged", f->id, e->shutdown);
	if (e->uflags || (e->has_deleted && e->deleted) || (e->name_dir && e->name_dir[0]) ||
	    (e->state != STATE_ESTABLISHED && e->has_shutdown && e->shutdown != SK_SHUTDOWN__NONE))
		return unsupported("unix socket %u: external, deleted, relative or shut down ones are not supported", f->id);
	if (e->name.len && e->name.data[0] && e->name.data[0] != '/')
		return unsupported("unix socket %u: its path is relative, which is not supported", f->id);
	if (!e->opts)
		return fail(0, "unix socket %u: its options are missing", f->id);
	return sockopt_check_message("unix socket", f->id, e->opts);
}

static int unix_load(struct model *m, const FileEntry *msg, struct file *f)
{
	const UnixSkEntry *e = msg->usk;

	if (!e || e->id != f->id)
		return fail(0, "unix socket %u: its entry is damaged", f->id);
	int err = load_check(f, e);
	if (err)
		return err;
	f->unix_sk.ino = e->ino;
	f->unix_sk.type = e->type;
	f->unix_sk.state = e->state;
	f->unix_sk.backlog = e->backlog;
	f->unix_sk.peer_ino = e->peer;
	f->unix_sk.shutdown = e->has_shutdown ? e->shutdown : 0;
	f->unix_sk.name_len = e->name.len;
	if (e->name.len && e->name.data[0]) /* CRIU counts the NUL behind a path */
		f->unix_sk.name_len = strnlen((const char *)e->name.data, e->name.len);
	if (f->unix_sk.name_len)
		memcpy(f->unix_sk.name, e->name.data, f->unix_sk.name_len);
	if (e->file_perms) {
		f->unix_sk.mode = e->file_perms->mode;
		f->unix_sk.uid = e->file_perms->uid;
		f->unix_sk.gid = e->file_perms->gid;
	}
	f->unix_sk.so_sndbuf = e->opts->so_sndbuf;
	f->unix_sk.so_rcvbuf = e->opts->so_rcvbuf;
	f->unix_sk.so_buf_lock = e->opts->has_so_buf_lock ? e->opts->so_buf_lock & 3 : 0;
	f->unix_sk.passcred = e->opts->has_so_passcred && e->opts->so_passcred;
	f->unix_sk.reuseaddr = e->opts->has_reuseaddr && e->opts->reuseaddr;
	return common_load("unix socket", e->flags, e->fown, f);
}

/* --- restore --- */

struct address {
	struct sockaddr_un un;
	socklen_t len;
};

/* A path of all 108 bytes has no NUL behind it: the kernel copes. */
static struct address address_of(const struct file *f)
{
	struct address a = { .un.sun_family = AF_UNIX };

	memcpy(a.un.sun_path, f->unix_sk.name, f->unix_sk.name_len);
	a.len = offsetof(struct sockaddr_un, sun_path) + f->unix_sk.name_len;
	if (has_path(f) && f->unix_sk.name_len < sizeof(a.un.sun_path))
		a.len++;
	return a;
}

/* The file that the old socket left behind is in the way. Removed only when it is a socket that nobody serves. */
static int remove_stale(const struct file *f, const struct address *a, const char *path)
{
	_cleanup_close_ int probe = socket(AF_UNIX, f->unix_sk.type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct stat st;

	if (lstat(path, &st))
		return errno == ENOENT ? 0 : fail(-errno, "unix socket %s", path);
	if (!S_ISSOCK(st.st_mode))
		return fail(-EEXIST, "unix socket %s: something else has the name", path);
	if (probe < 0)
		return fail(-errno, "unix socket %s: make a socket", path);
	if (!connect(probe, (const struct sockaddr *)&a->un, a->len) || errno != ECONNREFUSED)
		return fail(-EADDRINUSE, "unix socket %s: another program serves it", path);
	return unlink(path) && errno != ENOENT ? fail(-errno, "unix socket %s: remove the old file", path) : 0;
}

/* Nobody but us may connect before mode and owner are right. */
static int bind_path(const struct file *f, int fd, const struct address *a)
{
	char path[sizeof(f->unix_sk.name) + 1] = {};

	memcpy(path, f->unix_sk.name, f->unix_sk.name_len);
	int err = remove_stale(f, a, path);
	if (err)
		return err;
	mode_t mask = umask(0777);
	err = bind(fd, (const struct sockaddr *)&a->un, a->len) ? -errno : 0;
	umask(mask);
	if (err)
		return fail(err, "unix socket %s: bind", path);
	if (!f->unix_sk.mode)
		return 0;
	if (lchown(path, f->unix_sk.uid, f->unix_sk.gid) || chmod(path, f->unix_sk.mode & 07777))
		return fail(-errno, "unix socket %s: its mode and owner", path);
	return 0;
}

static int bind_socket(const struct file *f, int fd)
{
	struct address a = address_of(f);

	if (has_path(f))
		return bind_path(f, fd, &a);
	if (f->unix_sk.name_len && bind(fd, (const struct sockaddr *)&a.un, a.len))
		return fail(-errno, "unix socket %s: bind", name_text(f).text);
	return 0;
}

static int set_up(const struct file *f, int fd)
{
	struct sockopt_buffers b = { f->unix_sk.so_sndbuf, f->unix_sk.so_rcvbuf, f->unix_sk.so_buf_lock };
	/* First: a socket without a name that gets this option and sends would be given one. */
	int err = bind_socket(f, fd);

	if (err)
		return err;
	err = sockopt_set_buffers(fd, &b);
	if (!err)
		err = sockopt_differ_set(fd, SOL_SOCKET, SO_PASSCRED, f->unix_sk.passcred);
	if (!err) /* without effect on unix sockets, but a program can read it */
		err = sockopt_differ_set(fd, SOL_SOCKET, SO_REUSEADDR, f->unix_sk.reuseaddr);
	if (err)
		return fail(err, "unix socket %s: set its options", name_text(f).text);
	if (f->unix_sk.state == STATE_LISTEN && listen(fd, f->unix_sk.backlog))
		return fail(-errno, "unix socket %s: listen", name_text(f).text);
	return 0;
}

/* Options and flags of an end, whose queue has been filled. */
static int finish_end(const struct file *f, int fd)
{
	int err = set_up(f, fd);

	return err ? err : common_set_flags("unix socket", f, fd);
}

static int shut_down(const struct file *f, int fd)
{
	/* shutdown(2) counts from 0, the kernel's bits from 1. Closing the other end has done it already. */
	if (f->unix_sk.shutdown && shutdown(fd, f->unix_sk.shutdown - 1))
		return fail(-errno, "unix socket %u: shut it down", f->id);
	return 0;
}

static int restore_pair(const struct restore_ctx *ctx, const struct file *f, int *ret)
{
	const struct file *other = f->unix_sk.peer_id ? model_find_file(ctx->m, f->unix_sk.peer_id) : NULL;
	int ends[2];
	int err = unix_pair_make(f, other, ends);

	if (err)
		return err;
	_cleanup_close_ int fd = ends[0];
	_cleanup_close_ int others = ends[1];
	err = finish_end(f, fd);
	if (!err && other)
		err = finish_end(other, others);
	if (!err && other)
		err = shut_down(f, fd);
	if (!err && other)
		err = shut_down(other, others);
	if (!err && other) {
		err = ctx->hold(ctx, other->id, others);
		if (err)
			return fail(err, "unix socket %u: keep its other end", f->id);
	}
	if (!err)
		*ret = take_fd(&fd);
	return err;
}

static int unix_restore(const struct restore_ctx *ctx, const struct file *f, int *ret)
{
	if (f->unix_sk.state == STATE_ESTABLISHED)
		return restore_pair(ctx, f, ret);
	_cleanup_close_ int fd = socket(AF_UNIX, f->unix_sk.type | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return fail(-errno, "unix socket %s: make it", name_text(f).text);
	int err = finish_end(f, fd);
	if (!err)
		*ret = take_fd(&fd);
	return err;
}

/*
 * Who connects asks for the credentials of whoever called listen(2) (SO_PEERCRED): call it again, as the process that has
 * the socket, with its user and group for that moment. Raw calls: they concern this thread only; saved id 0 is the way back.
 */
static int listen_as(const struct creds *c, int fd, uint32_t backlog)
{
	int err = 0;

	if (syscall(SYS_setresgid, -1, c->egid, -1))
		return -errno;
	if (syscall(SYS_setresuid, -1, c->euid, -1))
		err = -errno;
	else if (listen(fd, backlog))
		err = -errno;
	if ((syscall(SYS_setresuid, -1, 0, -1) || syscall(SYS_setresgid, -1, 0, -1)) && !err)
		err = -errno;
	return err;
}

static int unix_connect(const struct restore_ctx *ctx, const struct file *f, int fd)
{
	if (f->unix_sk.state == STATE_LISTEN && ctx->self && ctx->self->threads.nr) {
		int err = listen_as(&ctx->self->threads.v[0].creds, fd, f->unix_sk.backlog);
		if (err)
			return fail(err, "unix socket %s: listen as pid %d", name_text(f).text, ctx->self->pid);
	}
	return common_connect(ctx, f, fd);
}

static void unix_show(const struct model *m, const struct file *f, FILE *out)
{
	static const char *const types[] = { [SOCK_STREAM] = "stream", [SOCK_DGRAM] = "datagram",
					     [SOCK_SEQPACKET] = "seqpacket" };
	uint32_t type = f->unix_sk.type;
	const char *word = type < sizeof(types) / sizeof(types[0]) ? types[type] : NULL;

	fprintf(out, "unix %s socket %s", word ? word : "?", name_text(f).text);
	if (f->unix_sk.state == STATE_LISTEN)
		fprintf(out, ", listens, backlog %u", f->unix_sk.backlog);
	if (f->unix_sk.state == STATE_ESTABLISHED && f->unix_sk.peer_id)
		fprintf(out, ", connected to socket %u, %u bytes in it", f->unix_sk.peer_id, f->unix_sk.len_bytes);
	if (f->unix_sk.state == STATE_ESTABLISHED && !f->unix_sk.peer_id)
		fprintf(out, ", its other end is closed, %u bytes in it", f->unix_sk.len_bytes);
}

static int unix_dump(struct model *m, struct file *f, pid_t pid, int fd)
{
	return unix_pair_dump(f, pid, fd);
}

const struct kind unix_kind = {
	.name = "unix",
	.type = FILE_UNIX,
	.match = unix_match,
	.collect = unix_collect,
	.asks = true,
	.finish = unix_pair_finish,
	.dump = unix_dump,
	.save = unix_save,
	.load = unix_load,
	.restore = unix_restore,
	.connect = unix_connect,
	.show = unix_show,
};
