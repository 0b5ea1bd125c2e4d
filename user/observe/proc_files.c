/*
 * The /proc back end: descriptors, and files known by path.
 *
 * What fdinfo does not tell (owner, ring size of a pipe, domain of a socket) is asked of a duplicate
 * (pidfd_getfd(2)), which the target does not notice. Open file descriptions are told apart by kcmp(2), among those
 * of one inode.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <netinet/in.h>
#include <netinet/tcp.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "kinds/kinds.h"
#include "observe/proc.h"
#include "sys/fdio.h"

/* Inode, device and file system behind a link of /proc. */
static int fill_inode(int dirfd, const char *name, struct file_record *rec)
{
	/* O_PATH: opens nothing that would notice, whatever it is. */
	_cleanup_close_ int fd = openat(dirfd, name, O_PATH | O_CLOEXEC);
	struct stat st;
	struct statfs fs;

	if (fd < 0 || fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0)
		return -errno;
	rec->size = st.st_size;
	rec->ino = st.st_ino;
	rec->dev = proc_dev(st.st_dev);
	rec->rdev = proc_dev(st.st_rdev);
	rec->mode = st.st_mode;
	rec->nlink = st.st_nlink;
	rec->sb_magic = fs.f_type;
	return 0;
}

/* The name of the dentry, from what the link says: "anon_inode:[eventfd]" is "[eventfd]", a path its last part. */
static void fill_name(struct file_record *rec, const char *path)
{
	static const char memfd[] = "/memfd:"; /* whatever the program has named it, slashes as well */
	const char *colon = !strncmp(path, memfd, strlen(memfd)) ? path :
			    path[0] == '/' ? strrchr(path, '/') : strchr(path, ':');

	snprintf(rec->name, sizeof(rec->name), "%.31s", colon ? colon + 1 : path);
}

int observe_link(int dirfd, const char *name, struct file_record *rec, char **path)
{
	int err = proc_readlink(dirfd, name, path);

	if (!err)
		err = fill_inode(dirfd, name, rec);
	if (!err)
		fill_name(rec, *path);
	return err;
}

int proc_other(struct proc_run *r, size_t at, const char *name, uint64_t *ret)
{
	pid_t pid = r->o->m->tasks.v[at].pid;
	struct observed_file of = { .rec = { .tgid = pid, .fd = -1 } };
	int err = observe_link(r->dirs.v[at], name, &of.rec, &of.path);

	*ret = 0;
	if (err == -ENOENT && !strcmp(name, "exe")) /* it has unmapped its program */
		return 0;
	if (err) {
		free(of.path);
		return proc_fail(err, pid, name);
	}
	of.rec.file = ident_mix_string(ident_mix(of.rec.dev, of.rec.ino), of.path);
	*ret = of.rec.file;
	if (ident_map_find(&r->others, *ret)) {
		free(of.path);
		return 0;
	}
	if (VEC_PUSH(&r->o->others, of)) {
		free(of.path);
		return -ENOMEM;
	}
	return ident_map_add(&r->others, *ret, r->o->others.nr) ? -ENOMEM : 0;
}

/* --- what a duplicate of the descriptor tells --- */

static void fill_owner(int fd, struct file_record *rec)
{
	struct f_owner_ex owner = {};
	uint32_t uids[2] = {};

	if (fcntl(fd, F_GETOWN_EX, &owner) < 0 || !owner.pid)
		return;
	rec->fown_pid = owner.pid;
	rec->fown_type = owner.type;
	rec->fown_signum = fcntl(fd, F_GETSIG);
	if (!fcntl(fd, 17 /* F_GETOWNER_UIDS */, uids)) {
		rec->fown_uid = uids[0];
		rec->fown_euid = uids[1];
	}
}

static int fill_pipe(int fd, struct file_record *rec)
{
	int size = fcntl(fd, F_GETPIPE_SZ), used = 0;

	if (size < 0 || ioctl(fd, FIONREAD, &used) < 0)
		return -errno;
	rec->pipe.size_bytes = size;
	rec->pipe.used_bytes = used;
	return 0;
}

static uint32_t socket_option(int fd, int option)
{
	int value = 0;
	socklen_t len = sizeof(value);

	return getsockopt(fd, SOL_SOCKET, option, &value, &len) ? 0 : value;
}

/* The kernel's sk_state; Unix sockets borrow TCP's numbers. */
static uint32_t socket_state(int fd, const struct file_record *rec)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);
	struct sockaddr_storage peer;
	socklen_t peer_len = sizeof(peer);

	if (rec->sock.proto == IPPROTO_TCP && !getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len))
		return info.tcpi_state;
	if (socket_option(fd, SO_ACCEPTCONN))
		return TCP_LISTEN;
	return getpeername(fd, (struct sockaddr *)&peer, &peer_len) ? TCP_CLOSE : TCP_ESTABLISHED;
}

static void fill_socket(int fd, struct file_record *rec)
{
	rec->sock.family = socket_option(fd, SO_DOMAIN);
	rec->sock.type = socket_option(fd, SO_TYPE);
	rec->sock.proto = socket_option(fd, SO_PROTOCOL);
	rec->sock.state = socket_state(fd, rec);
}

static int fill_from_duplicate(int pidfd, struct file_record *rec)
{
	if (rec->flags & O_PATH)
		return 0;
	_cleanup_close_ int fd = syscall(SYS_pidfd_getfd, pidfd, rec->fd, 0);
	if (fd < 0)
		return -errno;
	fill_owner(fd, rec);
	if (S_ISFIFO(rec->mode))
		return fill_pipe(fd, rec);
	if (S_ISSOCK(rec->mode))
		fill_socket(fd, rec);
	return 0;
}

/* --- descriptors --- */

static int fill_fdinfo(int dir, struct observed_file *of)
{
	_cleanup_free_ char *text = NULL;
	char name[32];

	snprintf(name, sizeof(name), "fdinfo/%d", of->rec.fd);
	int err = proc_read(dir, name, &text, NULL);
	if (err)
		return err;
	of->rec.pos = proc_field_u64(text, "pos", 10, 0);
	of->rec.flags = proc_field_u64(text, "flags", 8, 0);
	of->rec.mnt_id = proc_field_u64(text, "mnt_id", 10, 0);
	of->rec.cloexec = !!(of->rec.flags & O_CLOEXEC);
	of->rec.has_locks = 1;
	of->rec.flags &= ~O_CLOEXEC;
	const struct kind *kind = kind_match(&of->rec);
	return kind && kind->fdinfo ? kind->fdinfo(text, of) : 0;
}

static int fill_descriptor(int dir, int pidfd, struct observed_file *of)
{
	char name[32];

	snprintf(name, sizeof(name), "fd/%d", of->rec.fd);
	int err = observe_link(dir, name, &of->rec, &of->path);
	if (err)
		return err;
	/* fdinfo first: whether it is an O_PATH descriptor, which answers no system call, is among its flags. */
	err = fill_fdinfo(dir, of);
	return err ? err : fill_from_duplicate(pidfd, &of->rec);
}

int proc_fds(struct proc_run *r, size_t at)
{
	const struct task *t = &r->o->m->tasks.v[at];
	pid_t pid = t->pid, via = task_living(t)->tid;
	int dir = r->dirs.v[at];
	_cleanup_close_ int pidfd = -1;
	proc_numbers fds = {};
	int err = pidfd_of_living(pid, via, &pidfd);

	if (err == -EOPNOTSUPP)
		return err;
	if (!err)
		err = proc_list(dir, "fd", &fds);

	for (size_t i = 0; !err && i < fds.nr; i++) {
		struct observed_file *of = VEC_ADD(&r->o->fds);

		if (!of) {
			err = -ENOMEM;
			break;
		}
		of->rec.files = r->o->idents.v[at].files;
		of->via = via;
		of->rec.tgid = pid;
		of->rec.fd = fds.v[i];
		err = fill_descriptor(dir, pidfd, of);
	}
	VEC_FREE(&fds);
	return proc_fail(err, pid, "read its descriptors");
}

/* --- identities --- */

struct file_sort {
	struct observed_file **v;
	size_t nr;
	int err;
};

static int compare_inode(const struct file_record *a, uint32_t dev, uint64_t ino)
{
	if (a->dev != dev)
		return a->dev < dev ? -1 : 1;
	return (a->ino > ino) - (a->ino < ino);
}

/* By inode first: descriptions of different inodes cannot be the same, and need no kcmp. */
static int compare_files(const void *a, const void *b, void *arg)
{
	const struct observed_file *x = *(struct observed_file *const *)a, *y = *(struct observed_file *const *)b;
	struct file_sort *s = arg;
	int order = compare_inode(&x->rec, y->rec.dev, y->rec.ino);

	return order ? order : proc_kcmp(x->via, y->via, KCMP_FILE, x->rec.fd, y->rec.fd, &s->err);
}

/* Which occurrence of its number an item is: the kernel numbers those (dup and close make several). */
static uint32_t item_offset(const struct observed_file *of, size_t at)
{
	uint32_t offset = 0;

	for (size_t i = 0; i < at; i++)
		offset += of->epoll_items.v[i].fd == of->epoll_items.v[at].fd;
	return offset;
}

/* Does `candidate` name the file that the item watches? kcmp with an errno is "no": the item may be stale. */
static bool item_watches(const struct observed_file *of, size_t at, const struct observed_file *candidate)
{
	struct kcmp_epoll_slot slot = {
		.efd = of->rec.fd,
		.tfd = of->epoll_items.v[at].fd,
		.toff = item_offset(of, at),
	};

	return !syscall(SYS_kcmp, candidate->via, of->via, KCMP_EPOLL_TFD, (unsigned long)candidate->rec.fd, &slot);
}

/* The first of the sorted files with this inode. */
static size_t first_of_inode(const struct file_sort *s, uint32_t dev, uint64_t ino)
{
	size_t lo = 0, hi = s->nr;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (compare_inode(&s->v[mid]->rec, dev, ino) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static void find_watched(const struct file_sort *s, struct observed_file *of, size_t at)
{
	struct epoll_record *item = &of->epoll_items.v[at];

	item->epoll = of->rec.file;
	for (size_t i = first_of_inode(s, item->dev, item->ino); i < s->nr; i++) {
		const struct file_record *candidate = &s->v[i]->rec;

		if (compare_inode(candidate, item->dev, item->ino))
			break;
		if (i && s->v[i - 1]->rec.file == candidate->file)
			continue;
		if (item_watches(of, at, s->v[i])) {
			item->target = candidate->file;
			break;
		}
	}
}

int proc_fd_idents(struct proc_run *r)
{
	struct file_sort s = { .nr = r->o->fds.nr };

	if (!s.nr)
		return 0;
	_cleanup_free_ struct observed_file **sorted = calloc(s.nr, sizeof(*sorted));
	if (!sorted)
		return -ENOMEM;
	s.v = sorted;
	for (size_t i = 0; i < s.nr; i++)
		s.v[i] = &r->o->fds.v[i];
	qsort_r(s.v, s.nr, sizeof(*s.v), compare_files, &s);
	uint64_t ident = 0;
	for (size_t i = 0; i < s.nr; i++) {
		if (!i || compare_files(&s.v[i - 1], &s.v[i], &s))
			ident++;
		s.v[i]->rec.file = ident;
	}
	if (s.err)
		return proc_fail(s.err, r->o->m->tasks.v[0].pid, "kcmp of its descriptors");
	VEC_FOREACH(of, &r->o->fds)
		for (size_t i = 0; i < of->epoll_items.nr; i++)
			find_watched(&s, of, i);
	return 0;
}
