/*
 * Descriptors of one process: the open file behind each, what is private to its type, and its path.
 *
 * Paths can be printed by the link iterator only. The `syscall` program reads the same inside a stop without them:
 * user space knows them from before, and `same` tells whether they still hold. Of a file without state of its own it
 * reads only what may have changed, by plain loads: there may be thousands of them.
 *
 * The items of epoll sets go into an array of their own; the record of the set says where. The kernel shows a
 * descriptor again when the stream's buffer was full: its items then take the same place in the array.
 */
#include "vmlinux.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "bpf/fill_file.bpf.h"
#include "bpf/vma.h"

char LICENSE[] SEC("license") = "GPL";

enum { PIPE_BUFFER_PAGE = 4096, PIPE_MAX_BUFFERS = 1 << 20, EPOLL_MAX_STEPS = 1 << 22 };

/* Number of items in `epoll_items`; more than its size: the surplus is lost and the array must grow. */
__u32 nr_epoll_items = 0;
__u64 last_file = 0;
__u32 last_fd = 0;
__u32 last_start = 0;

/* Sized before load. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct epoll_record);
} epoll_items SEC(".maps");

__u32 nr_states = 0;
__u32 nr_wanted = 0; /* elements of `wanted` that count */
/* For observe_one_state. The thread whose descriptor it is: as the initial pid namespace numbers it. */
__u32 wanted_pid = 0, wanted_fd = 0, wanted_slot = 0;

/* For observe_states: threads, as `wanted_pid`. Sized before load. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} wanted SEC(".maps");

/* Of one table after the other, without paths. Sized before load. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct file_record);
} states SEC(".maps");

extern struct task_struct *bpf_task_from_pid(__s32 pid) __ksym __weak;
extern void bpf_task_release(struct task_struct *p) __ksym __weak;
extern void *bpf_rdonly_cast(const void *obj, __u32 btf_id) __ksym __weak;

struct file_scratch {
	struct file_header header;
	struct file_record file;
	char path[OBSERVE_PATH_BYTES];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct file_scratch);
} scratch SEC(".maps");

struct pipe_walk {
	__u64 bufs;
	__u32 tail, mask, bytes;
};

static long add_pipe_buffer(__u32 i, struct pipe_walk *w)
{
	struct pipe_buffer *bufs = (void *)w->bufs;
	__u32 slot = (w->tail + i) & w->mask;
	struct pipe_buffer *buf = (void *)bufs + slot * bpf_core_type_size(struct pipe_buffer);

	w->bytes += BPF_CORE_READ(buf, len);
	return 0;
}

static __always_inline void fill_pipe(struct file_record *r, struct pipe_inode_info *pipe)
{
	__u32 ring = BPF_CORE_READ(pipe, ring_size);
	__u32 head = BPF_CORE_READ(pipe, head);
	struct pipe_walk w = {
		.bufs = (__u64)BPF_CORE_READ(pipe, bufs),
		.tail = BPF_CORE_READ(pipe, tail),
		.mask = ring - 1,
	};
	__u32 used = head - w.tail;

	if (used > ring)
		used = ring;
	if (used > PIPE_MAX_BUFFERS)
		used = PIPE_MAX_BUFFERS;
	bpf_loop(used, add_pipe_buffer, &w, 0);
	r->pipe.size_bytes = ring * PIPE_BUFFER_PAGE;
	r->pipe.used_bytes = w.bytes;
	r->pipe.readers = BPF_CORE_READ(pipe, readers);
	r->pipe.writers = BPF_CORE_READ(pipe, writers);
}

static __always_inline void fill_eventfd(struct file_record *r, struct eventfd_ctx *e)
{
	r->eventfd.counter = BPF_CORE_READ(e, count);
	r->eventfd.semaphore = BPF_CORE_READ(e, flags) & 1;
}

static __always_inline void fill_timerfd(struct file_record *r, struct timerfd_ctx *t)
{
	__u32 clockid = BPF_CORE_READ(t, clockid);
	bool is_alarm = clockid == 8 || clockid == 9; /* CLOCK_REALTIME_ALARM, _BOOTTIME_ALARM */
	struct hrtimer *timer = is_alarm ? &t->t.alarm.timer : &t->t.tmr;
	__s64 interval = BPF_CORE_READ(t, tintv);
	__s64 remaining = hrtimer_remaining(timer);
	__s64 expires = BPF_CORE_READ(timer, node.expires);
	__u64 ticks = BPF_CORE_READ(t, ticks);
	bool expired = BPF_CORE_READ(t, expired);

	if (expired && interval > 0 && remaining <= 0) {
		/* The kernel counts further periods only when somebody reads. */
		__u64 missed = (__u64)-remaining / (__u64)interval + 1;

		ticks += missed - 1;
		remaining += missed * interval;
		expires += missed * interval;
	} else if (remaining < 0 || (!interval && !hrtimer_is_queued(timer))) {
		/* One that is overdue and queued fires at once: 1 ns. */
		remaining = hrtimer_is_queued(timer) ? 1 : 0;
	}
	r->timerfd.clockid = clockid;
	r->timerfd.settime_flags = BPF_CORE_READ(t, settime_flags);
	r->timerfd.ticks = ticks;
	r->timerfd.value_ns = remaining;
	r->timerfd.interval_ns = interval;
	r->timerfd.date_ns = expires;
}

/* The kernel keeps the set of what cannot be read. */
static __always_inline void fill_signalfd(struct file_record *r, struct signalfd_ctx *s)
{
	r->signalfd.mask = ~BPF_CORE_READ(s, sigmask.sig[0]);
}

struct epoll_walk {
	__u64 epoll; /* struct file */
	__u64 node, from;
	__u32 nr;
};

static __always_inline void add_epoll_item(struct epoll_walk *w, struct rb_node *node)
{
	struct epitem *item = (void *)node - bpf_core_field_offset(struct epitem, rbn);
	struct epoll_record *r;
	__u32 slot = nr_epoll_items++;

	w->nr++;
	r = bpf_map_lookup_elem(&epoll_items, &slot);
	if (!r)
		return;
	struct file *file = BPF_CORE_READ(item, ffd.file);
	struct inode *inode = BPF_CORE_READ(file, f_inode);

	r->epoll = w->epoll;
	r->target = (__u64)file;
	r->fd = BPF_CORE_READ(item, ffd.fd);
	r->data = BPF_CORE_READ(item, event.data);
	r->events = BPF_CORE_READ(item, event.events);
	r->ino = BPF_CORE_READ(inode, i_ino);
	r->dev = BPF_CORE_READ(inode, i_sb, s_dev);
	r->pos = BPF_CORE_READ(file, f_pos);
	r->pad = 0;
}

/* One edge of an in-order walk over the tree, without a stack: where we come from says where to go. */
static long step_epoll(__u32 i, struct epoll_walk *w)
{
	struct rb_node *node = (void *)w->node;

	if (!node)
		return 1;
	__u64 left = (__u64)BPF_CORE_READ(node, rb_left);
	__u64 right = (__u64)BPF_CORE_READ(node, rb_right);
	__u64 parent = BPF_CORE_READ(node, __rb_parent_color) & ~3ULL;
	__u64 next = parent;

	if (w->from == parent && left) {
		next = left;
	} else if (w->from == parent || (w->from == left && left)) {
		add_epoll_item(w, node);
		if (right)
			next = right;
	}
	w->from = w->node;
	w->node = next;
	return 0;
}

static __always_inline void fill_epoll(struct file_record *r, struct file *file, struct eventpoll *ep, __u32 fd)
{
	struct epoll_walk w = {
		.epoll = (__u64)file,
		.node = (__u64)BPF_CORE_READ(ep, rbr.rb_root.rb_node),
	};

	if (last_file == w.epoll && last_fd == fd)
		nr_epoll_items = last_start;
	last_file = w.epoll;
	last_fd = fd;
	last_start = nr_epoll_items;
	bpf_loop(EPOLL_MAX_STEPS, step_epoll, &w, 0);
	r->epoll.nr_items = w.nr;
	r->epoll.first = last_start;
}

static __always_inline void fill_sock(struct file_record *r, struct socket *socket)
{
	struct sock *sk = BPF_CORE_READ(socket, sk);

	r->sock.family = BPF_CORE_READ(sk, __sk_common.skc_family);
	r->sock.state = BPF_CORE_READ(sk, __sk_common.skc_state);
	r->sock.type = BPF_CORE_READ(socket, type);
	r->sock.proto = BPF_CORE_READ(sk, sk_protocol);
}

static __always_inline bool name_is(const struct file_record *r, const char *word, int len)
{
	for (int i = 0; i < len; i++)
		if (r->name[i] != word[i])
			return false;
	return true;
}

#define NAME_IS(r, word) name_is(r, word, sizeof(word))

static __always_inline void fill_private(struct file_record *r, struct file *file, __u32 fd)
{
	void *data = BPF_CORE_READ(file, private_data);

	if ((r->mode & 0170000) == 0010000) {
		fill_pipe(r, data);
	} else if (r->sb_magic == MAGIC_SOCKFS) {
		fill_sock(r, data);
	} else if (r->sb_magic == MAGIC_ANON_INODE) {
		if (NAME_IS(r, "[eventfd]"))
			fill_eventfd(r, data);
		else if (NAME_IS(r, "[timerfd]"))
			fill_timerfd(r, data);
		else if (NAME_IS(r, "[signalfd]"))
			fill_signalfd(r, data);
		else if (NAME_IS(r, "[eventpoll]"))
			fill_epoll(r, file, data, fd);
	}
}

/* The verifier does not let us calculate with pointers; what comes back out of a map is a number to it. */
#define READ_BACK(word) (*(volatile __u64 *)&(word))

static __always_inline __u64 same_of(struct file_record *r, struct file *file)
{
	struct dentry *dentry = BPF_CORE_READ(file, f_path.dentry);
	struct inode *inode = BPF_CORE_READ(file, f_inode);
	struct file_identity id = {
		.file = READ_BACK(r->file),
		.op = (__u64)BPF_CORE_READ(file, f_op),
		.private = (__u64)BPF_CORE_READ(file, private_data),
		.inode = (__u64)inode,
		.mnt = (__u64)BPF_CORE_READ(file, f_path.mnt),
		.dentry = (__u64)dentry,
		.ino = BPF_CORE_READ(inode, i_ino),
		.generation = BPF_CORE_READ(inode, i_generation),
		.nlink = BPF_CORE_READ(inode, i_nlink),
		.d_seq = BPF_CORE_READ(dentry, d_seq.seqcount.sequence),
	};

	return file_same(&id);
}

struct table_walk {
	__u64 fds;
	__u64 cloexec; /* address of the bits, and one word of them */
	__u64 word;
	__u64 files;
	__u32 tgid;
	__u32 pad;
};

/* Number of struct file in the kernel's BTF: libbpf sees a part of that only. */
const volatile __u32 file_type = 0;

/* Regular files, directories and devices without locks and without an owner: true when that is all there is to say. */
static __always_inline bool fill_plain(struct file_record *r, struct file *f)
{
	struct file *file = bpf_rdonly_cast(f, file_type);
	struct inode *inode = file->f_inode;
	__u32 format = inode->i_mode & 0170000;
	struct dentry *dentry = file->f_path.dentry;

	if ((format != 0100000 && format != 0040000 && format != 0020000) || inode->i_flctx || file_owner(f))
		return false;
	r->file = (__u64)f;
	r->pos = file->f_pos;
	r->flags = file->f_flags;
	r->size = inode->i_size;
	r->mode = inode->i_mode;
	r->has_locks = 0;
	r->fown_pid = r->fown_type = r->fown_uid = r->fown_euid = r->fown_signum = 0;
	r->raw[0] = (__u64)file->private_data;
	r->raw[1] = (__u64)inode;
	r->raw[2] = (__u64)file->f_path.mnt;
	r->raw[3] = (__u64)dentry;
	r->raw[4] = (__u64)file->f_op;
	struct file_identity id = {
		.file = r->file,
		.op = READ_BACK(r->raw[4]),
		.private = READ_BACK(r->raw[0]),
		.inode = READ_BACK(r->raw[1]),
		.mnt = READ_BACK(r->raw[2]),
		.dentry = READ_BACK(r->raw[3]),
		.ino = inode->i_ino,
		.generation = inode->i_generation,
		.nlink = inode->i_nlink,
		.d_seq = dentry->d_seq.seqcount.sequence,
	};
	r->same = file_same(&id);
	return true;
}

static __always_inline void fill_state(struct file_record *r, const struct table_walk *w, __u32 fd)
{
	r->fd = fd;
	r->tgid = w->tgid;
	r->files = w->files;
	r->cloexec = (w->word >> (fd % 64)) & 1;
}

static __always_inline void fill_whole(struct file_record *r, struct file *file, __u32 fd)
{
	__builtin_memset(r, 0, sizeof(*r));
	fill_file(r, file);
	fill_private(r, file, fd);
	r->same = same_of(r, file);
}

static __always_inline struct file *file_at(struct table_walk *w, __u32 fd)
{
	struct file *file = NULL;

	bpf_probe_read_kernel(&file, sizeof(file), (void *)(w->fds + fd * sizeof(file)));
	return file;
}

static long add_state(__u32 fd, struct table_walk *w)
{
	struct file *file = file_at(w, fd);

	if (!(fd % 64))
		bpf_probe_read_kernel(&w->word, sizeof(w->word), (void *)(w->cloexec + fd / 8));
	if (!file)
		return 0;
	__u32 slot = nr_states++;
	struct file_record *r = bpf_map_lookup_elem(&states, &slot);
	if (!r)
		return 0;
	if (!fill_plain(r, file))
		fill_whole(r, file, fd);
	fill_state(r, w, fd);
	return 0;
}

/* Returns the number of descriptors that the table has room for. */
static __always_inline __u32 begin_table(struct task_struct *task, struct table_walk *w)
{
	struct files_struct *files = BPF_CORE_READ(task, files);
	struct fdtable *fdt = BPF_CORE_READ(files, fdt);

	w->fds = (__u64)BPF_CORE_READ(fdt, fd);
	w->cloexec = (__u64)BPF_CORE_READ(fdt, close_on_exec);
	w->word = 0;
	w->files = (__u64)files;
	w->tgid = pid_seen(BPF_CORE_READ(task, thread_pid));
	w->pad = 0;
	return files ? BPF_CORE_READ(fdt, max_fds) : 0;
}

static long observe_table(__u32 i, __u32 *ended)
{
	__u64 *pid = bpf_map_lookup_elem(&wanted, &i);
	struct task_struct *task = pid ? bpf_task_from_pid(*pid) : NULL;
	struct table_walk w;

	if (!task) {
		*ended = 1;
		return 1;
	}
	bpf_loop(begin_table(task, &w), add_state, &w, 0);
	bpf_task_release(task);
	return 0;
}

/* The descriptors of all threads that are wanted, which are stopped; the return value says whether one has ended. */
SEC("syscall")
int observe_states(void *ctx)
{
	__u32 ended = 0;

	bpf_loop(nr_wanted, observe_table, &ended, 0);
	return ended;
}

/* One of them in full, into the element `wanted_slot`. */
SEC("syscall")
int observe_one_state(void *ctx)
{
	struct task_struct *task = bpf_task_from_pid(wanted_pid);
	__u32 slot = wanted_slot, fd = wanted_fd;
	struct table_walk w;

	if (!task)
		return 1;
	__u32 nr = begin_table(task, &w);
	struct file *file = fd < nr ? file_at(&w, fd) : NULL;
	struct file_record *r = bpf_map_lookup_elem(&states, &slot);
	if (file && r) {
		bpf_probe_read_kernel(&w.word, sizeof(w.word), (void *)(w.cloexec + fd / 64 * 8));
		fill_whole(r, file, fd);
		fill_state(r, &w, fd);
	}
	bpf_task_release(task);
	return !file || !r;
}

SEC("iter/task_file")
int observe_files(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct seq_file *seq = ctx->meta->seq;
	__u32 fd = ctx->fd;
	__u32 zero = 0;
	__u64 word = 0;

	if (!task || !file)
		return 0;
	struct file_scratch *s = bpf_map_lookup_elem(&scratch, &zero);
	if (!s)
		return 0;
	struct file_record *r = &s->file;

	__builtin_memset(r, 0, sizeof(*r));
	fill_file(r, file);
	r->fd = fd;
	r->tgid = pid_seen(BPF_CORE_READ(task, group_leader, thread_pid));
	r->files = (__u64)BPF_CORE_READ(task, files);
	unsigned long *cloexec = BPF_CORE_READ(task, files, fdt, close_on_exec);
	bpf_probe_read_kernel(&word, sizeof(word), cloexec + fd / 64);
	r->cloexec = (word >> (fd % 64)) & 1;
	r->same = same_of(r, file);
	fill_private(r, file, fd);

	long len = bpf_d_path(&file->f_path, s->path, sizeof(s->path));
	if (len < 1 || len > sizeof(s->path)) {
		/* Too long a path: user space sees the empty one and says so. */
		s->path[0] = 0;
		len = 1;
	}
	s->header.path_bytes = len;
	bpf_seq_write(seq, &s->header, sizeof(s->header));
	bpf_seq_write(seq, r, sizeof(*r));
	bpf_seq_write(seq, s->path, at_most((len + 7) & ~7ULL, sizeof(s->path)));
	return 0;
}
