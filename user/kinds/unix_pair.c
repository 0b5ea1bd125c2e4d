/*
 * Both ends of a connection of Unix sockets, as socketpair(2) makes them.
 *
 * What waits in the queue of one end was sent by the other: it is copied with MSG_PEEK, which leaves it where it is, and sent
 * again. Messages (seqpacket and datagrams) cannot be looked at beyond the first one, so their queues have to be empty.
 * An end whose other end has been closed is half a pair: what the other end had sent is there still, then comes the end.
 *
 * SO_PEERCRED of both ends names the process that called socketpair(2). The kernel takes it from the caller, and keeps it
 * when the caller is gone: a short-lived process that has the number, user and group of the old one makes the new pair.
 */
#include "kinds/unix_pair.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "observe/observe.h"
#include "sys/fdio.h"

enum { STATE_ESTABLISHED = 1 };

int unix_pair_collect(const struct observed_file *of, int fd, struct file *f)
{
	struct ucred cred = {};
	socklen_t len = sizeof(cred);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len))
		return fail(-errno, "pid %u fd %d: who made the unix socket (SO_PEERCRED)", of->rec.tgid, of->rec.fd);
	f->unix_sk.cred_pid = cred.pid;
	f->unix_sk.cred_uid = cred.uid;
	f->unix_sk.cred_gid = cred.gid;
	return 0;
}

/* --- the other end --- */

static int compare_inos(const void *a, const void *b)
{
	uint32_t x = (*(struct file *const *)a)->unix_sk.ino, y = (*(struct file *const *)b)->unix_sk.ino;

	return (x > y) - (x < y);
}

/* A descriptor of the file, for messages. */
static int refuse_peer(const struct model *m, const struct file *f)
{
	VEC_FOREACH(t, &m->tasks) {
		const struct fdtable *table = model_find_fdtable(m, t->files_id);

		for (size_t i = 0; table && i < table->fds.nr; i++) {
			if (table->fds.v[i].file_id == f->id)
				return unsupported(
					"pid %d fd %d: the other end of the unix socket (socket:[%u]) is outside the tree; close it there, or dump its process as well",
					t->pid, table->fds.v[i].fd, f->unix_sk.peer_ino);
		}
	}
	return 0; /* its last descriptor is gone: so is the connection */
}

int unix_pair_finish(const struct collect_ctx *ctx)
{
	VEC(struct file *) sockets = {};
	int refused = 0;

	VEC_FOREACH(f, &ctx->m->files) {
		if ((*f)->type != FILE_UNIX || !(*f)->unix_sk.peer_ino)
			continue;
		if (VEC_PUSH(&sockets, *f)) {
			VEC_FREE(&sockets);
			return fail(-ENOMEM, "list of connected sockets");
		}
	}
	if (sockets.nr)
		qsort(sockets.v, sockets.nr, sizeof(*sockets.v), compare_inos);
	VEC_FOREACH(at, &sockets) {
		struct file *f = *at;
		struct file wanted = { .unix_sk.ino = f->unix_sk.peer_ino }, *key = &wanted;
		struct file **found = bsearch(&key, sockets.v, sockets.nr, sizeof(key), compare_inos);

		/* A datagram socket may be connected to one that is not to it. */
		if (found && *found != f && (*found)->unix_sk.peer_ino == f->unix_sk.ino)
			f->unix_sk.peer_id = (*found)->id;
		else
			refused = refuse_peer(ctx->m, f) ? -EOPNOTSUPP : refused;
	}
	VEC_FREE(&sockets);
	return refused;
}

/* --- what waits to be read --- */

/* Bytes that carry descriptors, credentials or urgent data are not handed out in one piece: what is short says so. */
static int peek(struct file *f, pid_t pid, int fd, int from, uint32_t len)
{
	_cleanup_free_ uint8_t *data = malloc(len);
	struct iovec iov = { data, len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (!data)
		return fail(-ENOMEM, "pid %d fd %d: %u bytes of a unix socket", pid, fd, len);
	if (f->unix_sk.passcred)
		return unsupported("pid %d fd %d: %u bytes wait in a unix socket that passes credentials (SO_PASSCRED), which is not supported; try again",
				   pid, fd, len);
	ssize_t n = recvmsg(from, &msg, MSG_PEEK | MSG_DONTWAIT);
	if (n < 0)
		return fail(-errno, "pid %d fd %d: look at %u bytes in a unix socket", pid, fd, len);
	if ((uint32_t)n != len || msg.msg_flags & (MSG_CTRUNC | MSG_OOB))
		return unsupported("pid %d fd %d: descriptors, credentials or urgent data are among the %u bytes that wait in a unix socket, which is not supported; try again",
				   pid, fd, len);
	f->unix_sk.data = take_ptr(data);
	f->unix_sk.len_bytes = len;
	return 0;
}

int unix_pair_dump(struct file *f, pid_t pid, int fd)
{
	_cleanup_close_ int dup = -1;
	int len = 0;

	if (f->unix_sk.state != STATE_ESTABLISHED || f->unix_sk.type != SOCK_STREAM)
		return 0;
	int err = fd_of_process(pid, fd, &dup);
	if (!err && ioctl(dup, SIOCINQ, &len) < 0)
		err = -errno;
	if (err)
		return fail(err, "pid %d fd %d: look into the unix socket", pid, fd);
	free(f->unix_sk.data); /* of an attempt before */
	f->unix_sk.data = NULL;
	f->unix_sk.len_bytes = 0;
	return len > 0 ? peek(f, pid, fd, dup, len) : 0;
}

/* --- restore --- */

struct made {
	int err;
	int fds[2];
};

/* In a process of its own that shares descriptors with us, and nothing else. */
static void make_and_exit(const struct file *f, int to)
{
	struct made made = {};

	/* Raw calls: the C library would tell the other threads. */
	if (syscall(SYS_setresgid, f->unix_sk.cred_gid, f->unix_sk.cred_gid, f->unix_sk.cred_gid) ||
	    syscall(SYS_setresuid, f->unix_sk.cred_uid, f->unix_sk.cred_uid, f->unix_sk.cred_uid) ||
	    socketpair(AF_UNIX, f->unix_sk.type | SOCK_CLOEXEC, 0, made.fds))
		made.err = -errno;
	_exit(write_exact(to, &made, sizeof(made)) ? 1 : 0);
}

/* -EEXIST: the number of who made the old pair is in use. */
static int make_as(const struct file *f, int ret[2])
{
	pid_t wanted = f->unix_sk.cred_pid;
	const struct clone_args args = {
		.flags = CLONE_FILES,
		.set_tid = wanted > 0 ? (uintptr_t)&wanted : 0,
		.set_tid_size = wanted > 0,
	};
	struct made made = {};
	int ends[2];

	if (pipe2(ends, O_CLOEXEC))
		return -errno;
	_cleanup_close_ int from = ends[0];
	_cleanup_close_ int to = ends[1];
	pid_t pid = syscall(SYS_clone3, &args, sizeof(args));
	if (pid < 0)
		return -errno;
	if (!pid)
		make_and_exit(f, to);
	int status = 0;
	while (waitpid(pid, &status, __WALL) < 0)
		if (errno != EINTR)
			return -errno;
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		return -ECHILD;
	int err = read_exact(from, &made, sizeof(made));
	if (err || made.err)
		return err ? err : made.err;
	memcpy(ret, made.fds, sizeof(made.fds));
	return 0;
}

/* What fitted into the old pair may need more room in the new one: the kernel counts buffers, not bytes. */
static int enlarge(int fd)
{
	int size = 0;
	socklen_t len = sizeof(size);

	if (getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, &len))
		return -errno;
	if (size > INT32_MAX / 4)
		return -ENOBUFS;
	return setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) ? -errno : 0; /* it doubles it */
}

static int fill(const struct file *f, int sender)
{
	uint32_t done = 0;

	while (done < f->unix_sk.len_bytes) {
		ssize_t n = send(sender, f->unix_sk.data + done, f->unix_sk.len_bytes - done, MSG_DONTWAIT | MSG_NOSIGNAL);
		int err = n > 0 ? 0 : n < 0 ? -errno : -EIO;

		if (err == -EAGAIN)
			err = enlarge(sender);
		if (err)
			return fail(err, "unix socket %u: put its %u bytes back", f->id, f->unix_sk.len_bytes);
		done += n > 0 ? n : 0;
	}
	return 0;
}

int unix_pair_make(const struct file *f, const struct file *other, int ret[2])
{
	int fds[2];
	int err = make_as(f, fds);

	if (err == -EEXIST) {
		log_warn("unix socket %u: pid %d, which had made it, is in use: SO_PEERCRED will name bcr", f->id,
			 f->unix_sk.cred_pid);
		err = socketpair(AF_UNIX, f->unix_sk.type | SOCK_CLOEXEC, 0, fds) ? -errno : 0;
	}
	if (err)
		return fail(err, "unix socket %u: make a pair", f->id);
	_cleanup_close_ int mine = fds[0];
	_cleanup_close_ int others = fds[1];
	err = fill(f, others);
	if (!err && other)
		err = fill(other, mine);
	if (err)
		return err;
	ret[0] = take_fd(&mine);
	ret[1] = take_fd(&others);
	return 0;
}
