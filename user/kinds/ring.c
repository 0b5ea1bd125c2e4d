/*
 * The ring of a pipe or FIFO, which several open files share.
 *
 * Content is copied with tee(2), which leaves it where it is. Whether all who use a ring are in the tree is decided by
 * numbers: the kernel counts the open file descriptions of each end, we count those in the tree. Where the back end cannot
 * tell the kernel's numbers, the links in /proc of all other processes are looked through.
 */
#include "kinds/ring.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "kinds/common.h"
#include "observe/observe.h"
#include "sys/fdio.h"
#include "sys/proc.h"

/* FIFOs of several file systems may have equal inode numbers: the path tells them apart, pipes have pipefs to themselves. */
static uint64_t ring_ident(const struct file *f, uint64_t ino)
{
	return ident_mix_string(ident_mix(ident_mix(0, f->type), ino), f->type == FILE_FIFO ? f->path : NULL);
}

int ring_add_file(struct model *m, const struct file *f)
{
	struct pipe *p = model_find_pipe(m, f->pipe.pipe_id);

	return p ? VEC_PUSH(&p->files, f->id) : 0;
}

/* The i-th open file of a ring, or NULL when it is not there any more. */
static const struct file *file_of(const struct model *m, const struct pipe *p, size_t i)
{
	const struct file *f = model_find_file(m, p->files.v[i]);

	return f && f->pipe.pipe_id == p->id ? f : NULL;
}

/* As one of its descriptors shows it. */
static void note_ends(struct pipe *p, const struct file_record *rec)
{
	p->size_bytes = rec->pipe.size_bytes;
	p->readers = rec->pipe.readers;
	p->writers = rec->pipe.writers;
	p->unknown_ends = !p->readers && !p->writers;
	p->pid = rec->tgid;
	p->fd = rec->fd;
}

int ring_refresh(const struct collect_ctx *ctx, const struct observed_file *of, struct file *f)
{
	note_ends(model_find_pipe(ctx->m, f->pipe.pipe_id), &of->rec);
	return 0;
}

int ring_collect(const struct collect_ctx *ctx, const struct observed_file *of, struct file *f)
{
	const struct file_record *rec = &of->rec;
	uint64_t ident = ring_ident(f, rec->ino);
	struct pipe *p = model_find_pipe(ctx->m, ident_map_find(&ctx->m->rings, ident));

	if (!p) {
		p = model_add_pipe(ctx->m, 0);
		if (!p || ident_map_add(&ctx->m->rings, ident, p->id))
			return fail(-ENOMEM, "pid %u fd %d: note a pipe", rec->tgid, rec->fd);
		p->ino = rec->ino;
		note_ends(p, rec);
	}
	f->pipe.pipe_id = p->id;
	if (ring_add_file(ctx->m, f))
		return fail(-ENOMEM, "pid %d fd %d: note a pipe", rec->tgid, rec->fd);
	return common_collect_owner(ctx, of, f);
}

/* --- who else has it --- */

struct ends {
	uint32_t readers, writers;
	bool is_type; /* files of the type in question use it */
	const char *path;
};

static struct ends count_ends(const struct model *m, const struct pipe *p, enum file_type type)
{
	struct ends n = {};

	for (size_t i = 0; i < p->files.nr; i++) {
		const struct file *f = file_of(m, p, i);

		if (!f || f->type != type)
			continue;
		n.is_type = true;
		n.path = f->path;
		n.readers += common_can_read(f);
		n.writers += common_can_write(f);
	}
	return n;
}

static int refuse_ring(const struct pipe *p, const struct ends *n, const char *end)
{
	if (n->path)
		return unsupported("pid %d fd %d: FIFO %s is open for %s outside the tree; close it there first", p->pid,
				   p->fd, n->path, end);
	return unsupported(
		"pid %d fd %d: pipe %llu is open for %s outside the tree; start the program with that descriptor on a file, a FIFO of its own or /dev/null",
		p->pid, p->fd, (unsigned long long)p->ino, end);
}

/* Does a descriptor of the process, through its held /proc directory, refer to the pipe? */
static bool process_has_ring(int dirfd, const struct stat *ring)
{
	proc_numbers fds = {};
	bool found = false;

	if (proc_list(dirfd, "fd", &fds)) /* gone meanwhile */
		return false;
	for (size_t i = 0; i < fds.nr && !found; i++) {
		char name[32];
		struct stat st;

		snprintf(name, sizeof(name), "fd/%d", fds.v[i]);
		found = !fstatat(dirfd, name, &st, 0) && st.st_dev == ring->st_dev && st.st_ino == ring->st_ino;
	}
	VEC_FREE(&fds);
	return found;
}

/* A process outside the tree, and other than bcr, that has the ring open; 0: none, or a negative errno. */
static int find_outsider(const struct model *m, const struct pipe *p)
{
	_cleanup_close_ int root = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	proc_numbers pids = {};
	char path[48];
	struct stat ring;
	int found = 0;

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", proc_living(p->pid), p->fd);
	if (root < 0 || stat(path, &ring))
		return -errno;
	int err = proc_list(root, ".", &pids);
	for (size_t i = 0; !err && i < pids.nr && !found; i++) {
		_cleanup_close_ int dir = -1;

		if (pids.v[i] == getpid() || model_find_task(m, pids.v[i]) || proc_open(pids.v[i], &dir))
			continue;
		if (process_has_ring(dir, &ring))
			found = pids.v[i];
	}
	VEC_FREE(&pids);
	return err ? err : found;
}

static int finish_ring(const struct model *m, const struct pipe *p, enum file_type type)
{
	struct ends n = count_ends(m, p, type);

	if (!n.is_type)
		return 0;
	if (!p->unknown_ends) {
		if (p->writers > n.writers)
			return refuse_ring(p, &n, "writing");
		return p->readers > n.readers ? refuse_ring(p, &n, "reading") : 0;
	}
	int outsider = find_outsider(m, p);
	if (outsider < 0)
		return fail(outsider, "pid %d fd %d: look for others that have the pipe open", p->pid, p->fd);
	return outsider ? refuse_ring(p, &n, "reading or writing") : 0;
}

int ring_finish(const struct collect_ctx *ctx, enum file_type type)
{
	int refused = 0;

	VEC_FOREACH(p, &ctx->m->pipes) {
		int err = finish_ring(ctx->m, *p, type);

		if (err == -EOPNOTSUPP)
			refused = err;
		else if (err)
			return err;
	}
	return refused;
}

/* --- content --- */

static bool is_packet_mode(const struct model *m, const struct pipe *p)
{
	for (size_t i = 0; i < p->files.nr; i++) {
		const struct file *f = file_of(m, p, i);

		if (f && f->type == FILE_PIPE && f->flags & O_DIRECT && common_can_write(f))
			return true;
	}
	return false;
}

/* Copies `len` bytes out of the ring behind `from`, which must be readable, without taking them. */
static int copy_ring(int from, const struct pipe *p, uint8_t *to, uint32_t len)
{
	int own[2];

	if (pipe2(own, O_CLOEXEC | O_NONBLOCK))
		return -errno;
	_cleanup_close_ int r = own[0];
	_cleanup_close_ int w = own[1];
	int err = pipe_set_size(w, p->size_bytes);
	if (err)
		return err;
	ssize_t n = tee(from, w, p->size_bytes, SPLICE_F_NONBLOCK);
	if (n < 0)
		return -errno;
	return (uint32_t)n == len ? read_exact(r, to, len) : -EMSGSIZE;
}

static int dump_content(struct pipe *p, const struct file *f, pid_t pid, int fd, int dup, uint32_t len)
{
	_cleanup_close_ int opened = -1;
	_cleanup_free_ uint8_t *data = malloc(len);

	if (!data)
		return fail(-ENOMEM, "pid %d fd %d: %u bytes of a pipe", pid, fd, len);
	if (!common_can_read(f)) {
		char path[48];

		snprintf(path, sizeof(path), "/proc/%d/fd/%d", proc_living(pid), fd);
		opened = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
		if (opened < 0)
			return fail(-errno, "pid %d fd %d: open the pipe for reading", pid, fd);
	}
	int err = copy_ring(opened >= 0 ? opened : dup, p, data, len);
	if (err)
		return fail(err, "pid %d fd %d: copy %u bytes out of a pipe of %u", pid, fd, len, p->size_bytes);
	p->data = take_ptr(data);
	p->len_bytes = len;
	return 0;
}

int ring_dump(struct model *m, struct file *f, pid_t pid, int fd)
{
	struct pipe *p = model_find_pipe(m, f->pipe.pipe_id);
	_cleanup_close_ int dup = -1;
	int len = 0;

	if (!p)
		return fail(0, "pid %d fd %d: pipe %u is not known", pid, fd, f->pipe.pipe_id);
	if (p->captured)
		return 0;
	int err = fd_of_process(pid, fd, &dup);
	if (!err && ioctl(dup, FIONREAD, &len) < 0)
		err = -errno;
	/* It may have been changed since it was collected. */
	int size = err ? 0 : fcntl(dup, F_GETPIPE_SZ);
	if (size > 0)
		p->size_bytes = size;
	if (err)
		return fail(err, "pid %d fd %d: look into the pipe", pid, fd);
	if (len > 0 && is_packet_mode(m, p))
		return unsupported("pid %d fd %d: a pipe in packet mode (O_DIRECT) holds %d bytes, which is not supported",
				   pid, fd, len);
	if (len > 0)
		err = dump_content(p, f, pid, fd, dup, len);
	p->captured = !err;
	return err;
}

/* --- restore --- */

int ring_held(const struct restore_ctx *ctx, const struct file *f)
{
	const struct pipe *p = model_find_pipe(ctx->m, f->pipe.pipe_id);

	for (size_t i = 0; p && i < p->files.nr; i++) {
		const struct file *o = file_of(ctx->m, p, i);

		if (!o || o == f)
			continue;
		int fd = ctx->held_fd(ctx, o->id);
		if (fd >= 0)
			return fd;
	}
	return -ENOENT;
}

int ring_fill(const struct restore_ctx *ctx, const struct file *f, const char *name, int fd)
{
	const struct pipe *p = model_find_pipe(ctx->m, f->pipe.pipe_id);

	if (!p) /* images without a record of it: an empty pipe of ordinary size */
		return 0;
	uint32_t size = p->size_bytes > p->len_bytes ? p->size_bytes : p->len_bytes;
	int err = size ? pipe_set_size(fd, size) : 0;
	if (err == -EPERM)
		return fail(err, "%s %u: a size of %u bytes exceeds fs.pipe-max-size", name, f->id, size);
	if (err)
		return fail(err, "%s %u: set its size to %u bytes", name, f->id, size);
	err = write_exact(fd, p->data, p->len_bytes);
	return err ? fail(err, "%s %u: put its %u bytes back", name, f->id, p->len_bytes) : 0;
}

void ring_show(const struct model *m, const struct file *f, FILE *out)
{
	const struct pipe *p = model_find_pipe(m, f->pipe.pipe_id);

	if (p)
		fprintf(out, ", %u bytes of %u in it", p->len_bytes, p->size_bytes);
}
