/*
 * The BPF back end: opening, one run, closing.
 *
 * Theory of operation. Opening loads three objects (tasks; mappings; descriptors), sizes their arrays by a first run
 * on the running tree and attaches the iterators. A run reads all tasks and threads by `syscall` programs into mapped
 * arrays (bpf_tasks.c), then the mappings of each distinct mm (bpf_vmas.c) and the descriptors of each distinct table
 * (bpf_files.c) from link iterators, which can print paths. Everything hangs on descriptors of this process: when it
 * dies, nothing stays behind.
 *
 * What BPF cannot tell is read from /proc in a run: the paths of working and root directory and of an executable that
 * is not mapped (readlink).
 */
#include "observe/bpf.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "bpf/file.skel.h"
#include "bpf/task.skel.h"
#include "bpf/vma.skel.h"
#include "sys/kernel_types.h"
#include "sys/uapi.h"

static const char btf_path[] = "/sys/kernel/btf/vmlinux";

/* The object for mappings that probing has loaded, until an observer takes it. */
static struct vma_bpf *probed_vma;

/* libbpf talks in lines, and the verifier in many at once; all of it is for whoever looks for the cause. */
__attribute__((format(printf, 2, 0))) static int print_debug(enum libbpf_print_level level, const char *fmt,
							      va_list ap)
{
	_cleanup_free_ char *text = NULL;
	char *rest = NULL;

	(void)level;
	if (vasprintf(&text, fmt, ap) < 0)
		return 0;
	for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
		log_debug("%s", line);
	return 0;
}

static int map_array(struct bpf_array *a, int map_fd, int prot, const char *name)
{
	struct bpf_map_info info = {};
	__u32 len = sizeof(info);
	size_t page = sysconf(_SC_PAGESIZE);

	if (bpf_obj_get_info_by_fd(map_fd, &info, &len))
		return fail(-errno, "BPF array %s: get its size", name);
	a->stride_bytes = (info.value_size + 7) & ~7u;
	a->cap = info.max_entries;
	a->mapped_bytes = (a->stride_bytes * a->cap + page - 1) & ~(page - 1);
	a->v = mmap(NULL, a->mapped_bytes, prot, MAP_SHARED, map_fd, 0);
	if (a->v == MAP_FAILED) {
		a->v = NULL;
		return fail(-errno, "BPF array %s: map", name);
	}
	return 0;
}

int bpf_array_map(struct bpf_array *a, int map_fd, const char *name)
{
	return map_array(a, map_fd, PROT_READ, name);
}

int bpf_array_map_writable(struct bpf_array *a, int map_fd, const char *name)
{
	return map_array(a, map_fd, PROT_READ | PROT_WRITE, name);
}

void bpf_array_unmap(struct bpf_array *a)
{
	if (a->v)
		munmap(a->v, a->mapped_bytes);
	memset(a, 0, sizeof(*a));
}

struct bpf_attached *bpf_attached_to(struct bpf_state *s, pid_t pid)
{
	VEC_FOREACH(a, &s->attached)
		if (a->pid == pid)
			return a;

	struct bpf_attached *a = VEC_ADD(&s->attached);
	if (!a) {
		fail(-ENOMEM, "pid %d: attach iterators", pid);
		return NULL;
	}
	a->pid = pid;
	return a;
}

static int attach_iter(const struct bpf_program *prog, union bpf_iter_link_info *info, pid_t pid, struct bpf_link **link)
{
	LIBBPF_OPTS(bpf_iter_attach_opts, opts, .link_info = info, .link_info_len = sizeof(*info));

	*link = bpf_program__attach_iter(prog, &opts);
	if (!*link)
		return fail(-errno, "pid %d: attach BPF iterator %s", pid, bpf_program__name(prog));
	return 0;
}

int bpf_attach_process(const struct bpf_program *prog, pid_t pid, struct bpf_link **link)
{
	union bpf_iter_link_info info = { .task.pid = pid };

	return *link ? 0 : attach_iter(prog, &info, pid, link);
}

int bpf_attach_thread(const struct bpf_program *prog, pid_t tid, struct bpf_thread_link *l)
{
	union bpf_iter_link_info info = { .task.tid = tid };

	if (l->link && l->tid == tid)
		return 0;
	bpf_link__destroy(l->link);
	l->tid = tid;
	return attach_iter(prog, &info, tid, &l->link);
}

int bpf_iter_read(const struct bpf_link *link, pid_t pid, uint8_t **ret, size_t *ret_bytes)
{
	_cleanup_close_ int fd = bpf_iter_create(bpf_link__fd(link));
	VEC(uint8_t) out = {};

	if (fd < 0)
		return fail(-errno, "pid %d: start a BPF iterator", pid);
	for (;;) {
		if (VEC_RESERVE(&out, out.nr + 65536)) {
			VEC_FREE(&out);
			return fail(-ENOMEM, "pid %d: read a BPF iterator", pid);
		}
		ssize_t n = read(fd, out.v + out.nr, out.cap - out.nr);
		/* After a million objects without output the kernel gives us a chance to stop. */
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (n < 0) {
			int err = -errno;

			VEC_FREE(&out);
			return fail(err, "pid %d: read a BPF iterator", pid);
		}
		if (!n)
			break;
		out.nr += n;
	}
	*ret = out.v;
	*ret_bytes = out.nr;
	return 0;
}

int bpf_add_other(struct bpf_run *r, const struct file_record *rec, const char *path)
{
	if (ident_map_find(&r->others, rec->file))
		return 0;

	struct observed_file *of = VEC_ADD(&r->o->others);
	if (!of)
		return -ENOMEM;
	of->rec = *rec;
	of->rec.fd = -1;
	if (path) {
		of->path = strdup(path);
		if (!of->path)
			return -ENOMEM;
	}
	return ident_map_add(&r->others, rec->file, r->o->others.nr);
}

static int bpf_remember(struct bpf_run *r)
{
	int err = bpf_tasks_remember(r);

	return err ? err : bpf_files_remember(r);
}

/* One run over everything; the arrays have room. */
static int run_once(struct bpf_state *s, bool stopped, struct observation *o, bool *refused)
{
	struct bpf_run r = { .s = s, .o = o, .stopped = stopped };
	s->roomy = !stopped;
	int err = bpf_tasks_read(s, s->root, stopped);
	s->roomy = false;

	if (!err)
		err = bpf_tasks_build(&r);
	if (!err)
		err = bpf_vmas_build(&r);
	if (!err)
		err = bpf_exes_build(&r);
	if (!err)
		err = bpf_files_build(&r);
	/* Inside a stop nothing is remembered: there will be nothing to compare it with. */
	s->seen.valid = false;
	if (!err && !stopped && s->open_coded) {
		err = bpf_remember(&r);
		s->seen.valid = !err;
	}
	*refused = r.refused;
	VEC_FREE(&r.records);
	ident_map_deinit(&r.others);
	ident_map_deinit(&r.dirs);
	return err;
}

static int bpf_run(void *state, bool stopped, struct observation *o)
{
	bool refused = false;
	int err = run_once(state, stopped, o, &refused);

	if (err)
		return err;
	return refused ? -EOPNOTSUPP : 0;
}

static int bpf_read(void *state, enum observe_moment moment, enum observe_change *ret)
{
	struct bpf_state *s = state;
	bool same = false;

	*ret = OBSERVE_OTHER;
	if (!s->seen.valid || !s->seen.tells)
		return -EOPNOTSUPP;
	int err = moment == OBSERVE_LISTED && s->listed ? 0 : bpf_tasks_read(s, s->root, moment != OBSERVE_RUNNING);
	if (err == -EAGAIN)
		return 0;
	if (err || !bpf_tasks_same(s))
		return err;
	err = bpf_files_read_again(s, &same);
	if (!err)
		*ret = same && bpf_mappings_same(s) ? OBSERVE_SAME : OBSERVE_PARTS;
	return err == -EAGAIN ? 0 : err;
}

static int bpf_parts(void *state, struct observation *look)
{
	struct bpf_state *s = state;
	struct bpf_run r = { .s = s, .o = look, .stopped = true };
	int err = 0;

	for (size_t i = 0; i < s->task->bss->nr_tasks && !err; i++)
		err = VEC_PUSH(&r.records, bpf_array_at(&s->tasks, i));
	if (!err)
		err = bpf_vmas_replace(&r);
	if (!err)
		err = bpf_files_replace(&r);
	VEC_FREE(&r.records);
	ident_map_deinit(&r.others);
	return err ? err : r.refused ? -EOPNOTSUPP : 0;
}

static int bpf_descriptor(void *state, size_t i, struct observed_file *of)
{
	return bpf_files_take_state(state, i, of);
}

static int bpf_tasks(void *state, struct observation *o)
{
	struct bpf_run r = { .s = state, .o = o, .stopped = true, .again = true };
	int err = bpf_tasks_build(&r);

	VEC_FREE(&r.records);
	return err;
}

static int bpf_threads(void *state, int (*fn)(void *ctx, pid_t pid, pid_t tid, const struct cpu_regs *regs), void *ctx)
{
	return bpf_each_thread(state, fn, ctx);
}

static int bpf_list(void *state, bool stopping)
{
	return bpf_tasks_list(state, stopping);
}

static void bpf_close(void *state)
{
	struct bpf_state *s = state;

	VEC_FOREACH(a, &s->attached) {
		bpf_link__destroy(a->task);
		bpf_link__destroy(a->finish);
		bpf_link__destroy(a->vmas.link);
		bpf_link__destroy(a->files.link);
	}
	VEC_FREE(&s->attached);
	VEC_FREE(&s->seen.tasks);
	VEC_FREE(&s->seen.tables);
	VEC_FREE(&s->seen.fds);
	bpf_tasks_unload(s);
	bpf_array_unmap(&s->epoll_items);
	bpf_array_unmap(&s->states);
	bpf_array_unmap(&s->tables);
	vma_bpf__destroy(s->vma);
	file_bpf__destroy(s->file);
	free(s);
}

/* Processors that exist: the kernel leaves bits of others in a task's mask and hides them in sched_getaffinity(2). */
static int read_online(uint8_t *mask, size_t bytes)
{
	_cleanup_fclose_ FILE *f = fopen("/sys/devices/system/cpu/online", "re");
	unsigned first, last;

	if (!f)
		return fail(-errno, "/sys/devices/system/cpu/online: open");
	while (fscanf(f, "%u", &first) == 1) {
		last = first;
		int c = fgetc(f);
		if (c == '-') {
			if (fscanf(f, "%u", &last) != 1)
				return fail(0, "/sys/devices/system/cpu/online: not a list of processors");
			c = fgetc(f);
		}
		for (unsigned cpu = first; cpu <= last && cpu < bytes * 8; cpu++)
			mask[cpu / 8] |= 1 << cpu % 8;
		if (c != ',')
			break;
	}
	return 0;
}

/* Has the kernel what the open-coded variants call? All of it came by Linux 6.7. */
static int find_open_coded(struct bpf_state *s)
{
	static const char *const names[] = { "bpf_iter_task_new", "bpf_task_from_pid", "bpf_rcu_read_lock" };
	uint32_t id = 1;
	int err = 0;

	for (size_t i = 0; !err && id && i < sizeof(names) / sizeof(names[0]); i++)
		err = kernel_types_find(names[i], BTF_KIND_FUNC, &id);
	s->open_coded = id;
	return err;
}

static int open_objects(struct bpf_state *s)
{
	int err = read_online(s->online, sizeof(s->online));

	if (err)
		return err;
	err = xstate_layout_read(&s->xstate);
	if (err)
		return fail(err, "this processor has no xsave: its registers cannot be read, use --observe=proc");
	err = find_open_coded(s);
	if (!err)
		err = bpf_tasks_load(s);
	s->vma = take_ptr(probed_vma);
	if (!err && !s->vma && (err = bpf_vmas_load(&s->vma)))
		fail(err, "load the BPF program for mappings (-v4 shows the kernel's words)");
	if (!err)
		err = bpf_files_load(s);
	return err ? err : bpf_learn(s);
}

/* A run whose result nobody needs: arrays get their size, iterators are attached, caches are warm. */
static int warm_up(struct bpf_state *s)
{
	struct observation o = { .m = model_create() };
	bool refused;

	if (!o.m)
		return fail(-ENOMEM, "observe pid %d", s->root);
	refusals_begin();
	int err = run_once(s, false, &o, &refused);
	refusals_discard();
	observation_deinit(&o);
	model_destroy(o.m);
	/* A tree that changes under us is no failure yet: a later run has its own say. */
	return err == -EAGAIN ? 0 : err;
}

static int bpf_open(pid_t root, void **ret)
{
	struct bpf_state *s = calloc(1, sizeof(*s));

	if (!s)
		return fail(-ENOMEM, "observe pid %d", root);
	s->root = root;
	libbpf_set_print(print_debug);
	int err = open_objects(s);
	if (!err)
		err = warm_up(s);
	if (err) {
		bpf_close(s);
		return err;
	}
	*ret = s;
	return 0;
}

static bool has_capability(unsigned cap)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = {};

	if (syscall(SYS_capget, &header, data))
		return false;
	return data[cap / 32].effective >> cap % 32 & 1;
}

static int bpf_probe(const char **why)
{
	struct xstate_layout layout;

	if (access(btf_path, R_OK)) {
		*why = "the kernel has no BTF (/sys/kernel/btf/vmlinux)";
		return -ENOENT;
	}
	if (!has_capability(CAP_SYS_ADMIN) && (!has_capability(CAP_BPF) || !has_capability(CAP_PERFMON))) {
		*why = "CAP_BPF and CAP_PERFMON are missing";
		return -EPERM;
	}
	if (xstate_layout_read(&layout)) {
		*why = "the processor has no xsave";
		return -ENODEV;
	}

	/* A small object says whether programs of this kind are let in at all. Who opens next finds it loaded. */
	libbpf_set_print(print_debug);
	if (!probed_vma && bpf_vmas_load(&probed_vma)) {
		*why = "the kernel refuses to load BPF iterators";
		return -EPERM;
	}
	return 0;
}

const struct observe_ops observe_bpf_ops = {
	.name = "bpf",
	.probe = bpf_probe,
	.open = bpf_open,
	.run = bpf_run,
	.list = bpf_list,
	.read = bpf_read,
	.parts = bpf_parts,
	.descriptor = bpf_descriptor,
	.tasks = bpf_tasks,
	.threads = bpf_threads,
	.close = bpf_close,
};
