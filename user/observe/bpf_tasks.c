/* The BPF back end: processes and threads, read into arrays. bpf_build.c makes the model of them. */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <sched.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "bpf/task.skel.h"
#include "observe/bpf.h"
#include "sys/kernel_types.h"

enum { MAX_GROWTHS = 8, MAX_SWITCHES = 100000 };

void bpf_tasks_unload(struct bpf_state *s)
{
	VEC_FOREACH(a, &s->attached) {
		bpf_link__destroy(a->task);
		bpf_link__destroy(a->finish);
		a->task = a->finish = NULL;
	}
	bpf_link__destroy(s->procs_iter);
	s->procs_iter = NULL;
	bpf_array_unmap(&s->procs);
	bpf_array_unmap(&s->wanted);
	bpf_array_unmap(&s->tasks);
	bpf_array_unmap(&s->threads);
	bpf_array_unmap(&s->fpus);
	bpf_array_unmap(&s->extras);
	task_bpf__destroy(s->task);
	s->task = NULL;
}

/* Sizes and variants, all of which must be settled before load. */
static int prepare(struct bpf_state *s)
{
	struct task_bpf *t = s->task;
	struct bpf_caps *c = &s->caps;
	uint32_t area = (s->xstate.kernel_bytes + 7) & ~7u;

	c->procs = c->procs ? c->procs : 1024;
	c->tasks = c->tasks ? c->tasks : 16;
	c->threads = c->threads ? c->threads : 64;
	c->extras = c->extras ? c->extras : 256;
	t->rodata->fpu_area_bytes = area;
	bpf_program__set_autoload(t->progs.observe_procs, s->open_coded);
	bpf_program__set_autoload(t->progs.observe_tasks, s->open_coded);
	bpf_program__set_autoload(t->progs.observe_procs_iter, !s->open_coded);
	bpf_program__set_autoload(t->progs.observe_task_iter, !s->open_coded);
	bpf_program__set_autoload(t->progs.finish_task_iter, !s->open_coded);

	int err = bpf_map__set_max_entries(t->maps.procs, c->procs);
	if (!err)
		err = bpf_map__set_max_entries(t->maps.wanted, c->tasks);
	if (!err)
		err = bpf_map__set_max_entries(t->maps.tasks, c->tasks);
	if (!err)
		err = bpf_map__set_max_entries(t->maps.threads, c->threads);
	if (!err)
		err = bpf_map__set_max_entries(t->maps.fpus, c->threads);
	if (!err)
		err = bpf_map__set_value_size(t->maps.fpus, area);
	if (!err)
		err = bpf_map__set_max_entries(t->maps.extras, c->extras);
	return err;
}

static int map_arrays(struct bpf_state *s)
{
	struct task_bpf *t = s->task;
	int err = bpf_array_map(&s->procs, bpf_map__fd(t->maps.procs), "procs");

	if (!err)
		err = bpf_array_map_writable(&s->wanted, bpf_map__fd(t->maps.wanted), "wanted");
	if (!err)
		err = bpf_array_map(&s->tasks, bpf_map__fd(t->maps.tasks), "tasks");
	if (!err)
		err = bpf_array_map(&s->threads, bpf_map__fd(t->maps.threads), "threads");
	if (!err)
		err = bpf_array_map(&s->fpus, bpf_map__fd(t->maps.fpus), "fpus");
	if (!err)
		err = bpf_array_map(&s->extras, bpf_map__fd(t->maps.extras), "extras");
	return err;
}

int bpf_tasks_load(struct bpf_state *s)
{
	uint32_t too_large;

	bpf_tasks_unload(s);
	LIBBPF_OPTS(bpf_object_open_opts, opts, .btf_custom_path = kernel_types_path());
	s->task = task_bpf__open_opts(&opts);
	if (!s->task)
		return fail(-errno, "open the BPF programs for processes");
	int err = prepare(s);
	if (!err)
		err = kernel_types_for(s->task->obj);
	if (!err)
		err = task_bpf__load(s->task);
	if (err)
		return fail(err, "load the BPF programs for processes (-v4 shows the kernel's words)");
	err = bpf_run_program(s->task->progs.get_ready, &too_large);
	if (err)
		return err;
	if (too_large)
		return fail(-E2BIG, "structures of this kernel are larger than the BPF programs for processes know; use --observe=proc");
	if (!s->open_coded) {
		s->procs_iter = bpf_program__attach_iter(s->task->progs.observe_procs_iter, NULL);
		if (!s->procs_iter)
			return fail(-errno, "attach a BPF iterator to all processes");
	}
	return map_arrays(s);
}

int bpf_run_program(const struct bpf_program *prog, uint32_t *ret)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts);

	if (bpf_prog_test_run_opts(bpf_program__fd(prog), &opts))
		return fail(-errno, "run BPF program %s", bpf_program__name(prog));
	*ret = opts.retval;
	return 0;
}

static int run_iter(const struct bpf_link *link, pid_t pid)
{
	_cleanup_free_ uint8_t *out = NULL;
	size_t nr;

	return bpf_iter_read(link, pid, &out, &nr);
}

static int list_procs(struct bpf_state *s)
{
	uint32_t ret;

	s->task->bss->nr_procs = 0;
	return s->open_coded ? bpf_run_program(s->task->progs.observe_procs, &ret) : run_iter(s->procs_iter, 0);
}

/* One process and its threads. -EAGAIN: it has ended. */
static int read_process_by_iter(struct bpf_state *s, const struct proc_record *p)
{
	uint32_t before = s->task->bss->nr_tasks;
	struct bpf_attached *a = bpf_attached_to(s, p->pid);

	if (!a)
		return -ENOMEM;
	int err = bpf_attach_process(s->task->progs.observe_task_iter, p->pid, &a->task);
	if (!err)
		err = bpf_attach_process(s->task->progs.finish_task_iter, p->pid, &a->finish);
	if (!err)
		err = run_iter(a->task, p->pid);
	if (!err && s->task->bss->nr_tasks != before + 1)
		return -EAGAIN;
	return err ? err : run_iter(a->finish, p->pid);
}

struct proc_list {
	VEC(struct proc_record) procs;
};

/* All of them; inside a stop one call for hundreds makes a difference. -EAGAIN: one has ended. */
static int read_processes(struct bpf_state *s, const struct proc_list *tree)
{
	uint32_t ended = 0;

	if (!s->open_coded) {
		int err = 0;

		for (size_t i = 0; i < tree->procs.nr && !err; i++)
			err = read_process_by_iter(s, &tree->procs.v[i]);
		return err;
	}
	if (tree->procs.nr > s->wanted.cap) {
		s->task->bss->nr_tasks = tree->procs.nr;
		return 0; /* check_room() sees it */
	}
	for (size_t i = 0; i < tree->procs.nr; i++)
		*(uint64_t *)bpf_array_at(&s->wanted, i) = tree->procs.v[i].global_tgid;
	s->task->bss->nr_wanted = tree->procs.nr;
	int err = bpf_run_program(s->task->progs.observe_tasks, &ended);
	return !err && ended ? -EAGAIN : err;
}

static int by_parent(const void *a, const void *b)
{
	const struct proc_record *x = a, *y = b;

	if (x->global_ppid != y->global_ppid)
		return x->global_ppid < y->global_ppid ? -1 : 1;
	return x->global_tgid < y->global_tgid ? -1 : x->global_tgid > y->global_tgid;
}

/* Index of the first of `procs` (sorted by parent) whose parent is `ppid` or a greater one. */
static size_t first_child(const struct proc_record *procs, size_t nr, uint32_t ppid)
{
	size_t lo = 0, hi = nr;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (procs[mid].global_ppid < ppid)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* The root and, level by level, what descends from it. `procs` is sorted by parent. */
static int find_tree(const struct proc_record *procs, size_t nr, pid_t root, struct proc_list *tree)
{
	int err = 0;

	for (size_t i = 0; i < nr && !tree->procs.nr && !err; i++)
		if (procs[i].pid == (uint32_t)root)
			err = VEC_PUSH(&tree->procs, procs[i]);
	if (!err && !tree->procs.nr)
		return fail(-ESRCH, "pid %d", root);
	for (size_t t = 0; t < tree->procs.nr && !err; t++) {
		uint32_t tgid = tree->procs.v[t].global_tgid;

		for (size_t i = first_child(procs, nr, tgid); i < nr && procs[i].global_ppid == tgid && !err; i++)
			if (procs[i].global_tgid != tgid)
				err = VEC_PUSH(&tree->procs, procs[i]);
	}
	return err ? fail(err, "observe pid %d", root) : 0;
}

static int read_tree(struct bpf_state *s, const struct proc_record *procs, size_t nr, pid_t root)
{
	struct proc_list tree = {};
	int err = find_tree(procs, nr, root, &tree);

	if (!err)
		err = read_processes(s, &tree);
	VEC_FREE(&tree.procs);
	return err;
}

/* Room for some more is made where there is time for it, so that none has to be made inside a stop. */
static bool grow(size_t *cap, size_t wanted, bool roomy)
{
	if (wanted <= *cap && (!roomy || wanted + wanted / 4 <= *cap))
		return false;
	*cap = wanted * 2;
	return true;
}

/* Did everything fit? Otherwise makes the arrays larger: *again is set, and all of it has to be read anew. */
static int check_room(struct bpf_state *s, bool *again)
{
	*again = grow(&s->caps.procs, s->task->bss->nr_procs, s->roomy);
	*again |= grow(&s->caps.tasks, s->task->bss->nr_tasks, s->roomy);
	*again |= grow(&s->caps.threads, s->task->bss->nr_threads, s->roomy);
	*again |= grow(&s->caps.extras, s->task->bss->nr_extras, s->roomy);
	if (!*again)
		return 0;
	log_debug("arrays grow to %zu processes, %zu in the tree, %zu threads, %zu signals and timers", s->caps.procs,
		  s->caps.tasks, s->caps.threads, s->caps.extras);
	return bpf_tasks_load(s);
}

static int read_once(struct bpf_state *s, pid_t root, bool stopped)
{
	size_t nr;
	int err = list_procs(s);

	s->listed = false;
	if (err)
		return err;
	nr = s->task->bss->nr_procs;
	if (nr > s->procs.cap)
		return 0; /* check_room() sees it */
	_cleanup_free_ struct proc_record *procs = malloc(nr * sizeof(*procs) + 1);
	if (!procs)
		return fail(-ENOMEM, "observe pid %d", root);
	memcpy(procs, s->procs.v, nr * sizeof(*procs));
	qsort(procs, nr, sizeof(*procs), by_parent);
	s->task->bss->nr_tasks = 0;
	s->task->bss->nr_threads = 0;
	s->task->bss->nr_extras = 0;
	s->task->bss->stopped = stopped;
	s->task->bss->nr_on_cpu = 0;
	return read_tree(s, procs, nr, root);
}

/* Until everything has room. */
static int read_all(struct bpf_state *s, pid_t root, bool stopped)
{
	for (int i = 0; i < MAX_GROWTHS; i++) {
		bool again = false;
		int err = read_once(s, root, stopped);

		if (!err)
			err = check_room(s, &again);
		if (err || !again)
			return err;
	}
	return -EAGAIN;
}

int bpf_tasks_read(struct bpf_state *s, pid_t root, bool stopped)
{
	int err = read_all(s, root, stopped);

	/* Microseconds: the processor that runs it is in the scheduler already. */
	for (unsigned switches = 0; !err && s->task->bss->nr_on_cpu && switches < MAX_SWITCHES; switches++) {
		sched_yield();
		err = read_all(s, root, stopped);
	}
	if (!err && s->task->bss->nr_on_cpu)
		err = fail(-EBUSY, "pid %d: %u stopped threads do not leave their processors", root, s->task->bss->nr_on_cpu);
	return err;
}

int bpf_tasks_list(struct bpf_state *s, bool stopping)
{
	int err = read_all(s, s->root, stopping);

	s->listed = !err && stopping && !s->task->bss->nr_on_cpu;
	return err;
}

int bpf_tasks_remember(struct bpf_run *r)
{
	struct bpf_seen *seen = &r->s->seen;

	seen->tasks.nr = 0;
	seen->tells = true;
	for (size_t i = 0; i < r->records.nr; i++) {
		const struct task_record *rec = r->records.v[i];

		if (rec->mm && !rec->has_mm_changes)
			seen->tells = false;
		if (VEC_PUSH(&seen->tasks, *rec))
			return -ENOMEM;
	}
	return 0;
}

static bool dir_is_same(const struct file_record *a, const struct file_record *b)
{
	return a->file == b->file && a->files == b->files;
}

/* What is not as it was, in words; NULL: nothing. */
static const char *task_difference(const struct task_record *a, const struct task_record *b)
{
	if (a->global_tgid != b->global_tgid || a->pid != b->pid)
		return "the processes of the tree are others";
	if (a->exit_state != b->exit_state)
		return "it has ended";
	if (a->ppid != b->ppid || a->pgid != b->pgid || a->sid != b->sid || a->ctty_rdev != b->ctty_rdev)
		return "it has another parent, group, session or terminal";
	/* Addresses are used again; where the kernel has put stack and vDSO is left to chance in each program. */
	if (a->mm != b->mm || a->exe.file != b->exe.file || a->start_stack != b->start_stack || a->vdso != b->vdso)
		return "it has executed another program";
	if (a->files != b->files || a->fs != b->fs || a->sighand != b->sighand)
		return "it shares descriptors, directories or signal handlers with others than before";
	if (a->nsproxy != b->nsproxy || a->cgroup_id != b->cgroup_id)
		return "it is in another namespace or cgroup";
	if (!dir_is_same(&a->cwd, &b->cwd) || !dir_is_same(&a->root, &b->root))
		return "it has another working or root directory";
	return NULL;
}

bool bpf_tasks_same(const struct bpf_state *s)
{
	const char *why = s->task->bss->nr_tasks == s->seen.tasks.nr ? NULL : "the number of its processes is another one";
	pid_t pid = s->root;

	for (size_t i = 0; i < s->seen.tasks.nr && !why; i++) {
		why = task_difference(&s->seen.tasks.v[i], bpf_array_at(&s->tasks, i));
		pid = s->seen.tasks.v[i].pid;
	}
	if (why)
		log_info("pid %d: since it was looked at, %s", pid, why);
	return !why;
}

bool bpf_mappings_same(const struct bpf_state *s)
{
	for (size_t i = 0; i < s->seen.tasks.nr; i++) {
		const struct task_record *now = bpf_array_at(&s->tasks, i);

		if (now->mm && now->mm_changes != s->seen.tasks.v[i].mm_changes)
			return false;
	}
	return true;
}
