/* bcr show: an image set, or its restore plan, for a person or as JSON. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "cmd/cmd.h"
#include "image/image.h"
#include "kinds/kinds.h"
#include "restore/restore.h"

struct memory_totals {
	uint64_t mapped_bytes, stored_bytes, parent_bytes, guard_bytes;
};

static const char *state_name(enum task_state state)
{
	switch (state) {
	case TASK_ALIVE:
		return "alive";
	case TASK_DEAD:
		return "dead";
	case TASK_STOPPED:
		return "stopped";
	case TASK_ZOMBIE:
		return "zombie";
	}
	return "unknown";
}

static void add_runs(const struct page_run *runs, size_t nr, struct memory_totals *t)
{
	for (size_t i = 0; i < nr; i++) {
		uint64_t bytes = runs[i].nr_pages * MODEL_PAGE_SIZE;

		if (runs[i].flags & PAGES_PRESENT)
			t->stored_bytes += bytes;
		if (runs[i].flags & PAGES_PARENT)
			t->parent_bytes += bytes;
		if (runs[i].flags & PAGES_GUARD)
			t->guard_bytes += bytes;
	}
}

static struct memory_totals mm_totals(const struct mm *mm)
{
	struct memory_totals t = { 0 };

	VEC_FOREACH(vma, &mm->vmas)
		t.mapped_bytes += vma->end - vma->start;
	add_runs(mm->pages.v, mm->pages.nr, &t);
	return t;
}

static struct memory_totals model_totals(const struct model *m)
{
	struct memory_totals t = { 0 };

	VEC_FOREACH(mm, &m->mms) {
		struct memory_totals one = mm_totals(*mm);

		t.mapped_bytes += one.mapped_bytes;
		t.stored_bytes += one.stored_bytes;
		t.parent_bytes += one.parent_bytes;
		t.guard_bytes += one.guard_bytes;
	}
	VEC_FOREACH(shmem, &m->shmems)
		add_runs((*shmem)->pages.v, (*shmem)->pages.nr, &t);
	return t;
}

/* "312 B", "4.0 KiB", "1.2 GiB"; valid until four further calls. */
static const char *size_text(uint64_t bytes)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
	static char ring[4][24];
	static unsigned next;
	char *buf = ring[next++ % 4];
	double value = bytes;
	unsigned unit = 0;

	for (; value >= 1024 && unit < 4; unit++)
		value /= 1024;
	snprintf(buf, sizeof(ring[0]), unit ? "%.1f %s" : "%.0f %s", value, units[unit]);
	return buf;
}

/* A path for a person: control characters would confuse a terminal. */
static void print_path(const char *path, FILE *out)
{
	for (; *path; path++)
		fputc((unsigned char)*path < ' ' || *path == 0x7f ? '?' : *path, out);
}

static const char *plural(size_t nr)
{
	return nr == 1 ? "" : "s";
}

static const char *task_comm(const struct task *t)
{
	return t->threads.nr ? t->threads.v[0].comm : "";
}

static unsigned depth_of(const struct model *m, const struct task *t)
{
	unsigned depth = 0;

	/* Bounded: a damaged set could hold a cycle. */
	for (; t && t->ppid && depth < m->tasks.nr; depth++)
		t = model_find_task(m, t->ppid);
	return depth ? depth - 1 : 0;
}

static void show_tree_line(const struct model *m, const struct task *t, FILE *out)
{
	const struct mm *mm = t->mm_id ? model_find_mm(m, t->mm_id) : NULL;
	const struct fdtable *fds = t->files_id ? model_find_fdtable(m, t->files_id) : NULL;

	fprintf(out, "  %*s%d ", 2 * (int)depth_of(m, t), "", t->pid);
	print_path(task_comm(t), out);
	fprintf(out, "  %s", state_name(t->state));
	if (t->state == TASK_ZOMBIE) {
		fprintf(out, ", wait status 0x%x\n", t->exit_code);
		return;
	}
	fprintf(out, ", session %d, group %d, %zu thread%s", t->sid, t->pgid, t->threads.nr,
		plural(t->threads.nr));
	if (mm) {
		struct memory_totals totals = mm_totals(mm);

		fprintf(out, ", %s stored of %s in %zu mapping%s",
			size_text(totals.stored_bytes), size_text(totals.mapped_bytes), mm->vmas.nr,
			plural(mm->vmas.nr));
	}
	size_t nr_fds = fds ? fds->fds.nr : 0;
	fprintf(out, ", %zu descriptor%s\n", nr_fds, plural(nr_fds));
}

static const char *restart_name(enum restart_kind kind)
{
	switch (kind) {
	case RESTART_NANOSLEEP:
		return "nanosleep";
	case RESTART_FUTEX:
		return "futex";
	case RESTART_POLL:
		return "poll";
	case RESTART_ISSUE:
		return "a system call";
	case RESTART_NONE:
	case RESTART_UNKNOWN:
		break;
	}
	return NULL;
}

static void show_thread(const struct thread *th, FILE *out)
{
	fprintf(out, "    thread %d ", th->tid);
	print_path(th->comm, out);
	fprintf(out, "  blocked signals %016" PRIx64 ", %zu pending", th->sigmask, th->pending.nr);
	if (restart_name(th->restart.kind))
		fprintf(out, ", in %s with %.3f s left", restart_name(th->restart.kind),
			th->restart.remaining_ns / 1e9);
	fputc('\n', out);
}

static const char *vma_label(const struct vma *vma)
{
	static const struct {
		uint32_t bit;
		const char *name;
	} labels[] = {
		{ VMA_VDSO, "vdso" },
		{ VMA_VVAR, "vvar" },
		{ VMA_VSYSCALL, "vsyscall" },
		{ VMA_HEAP, "heap" },
		{ VMA_STACK, "stack" },
		{ VMA_MEMFD, "memfd" },
		{ VMA_SYSVIPC, "System V shared memory" },
		{ VMA_FILE_PRIVATE, "file, private" },
		{ VMA_FILE_SHARED, "file, shared" },
		{ VMA_ANON_SHARED, "shared anonymous" },
		{ VMA_ANON_PRIVATE, "private anonymous" },
	};

	for (size_t i = 0; i < sizeof(labels) / sizeof(labels[0]); i++)
		if (vma->status & labels[i].bit)
			return labels[i].name;
	return "unknown";
}

static void show_vma(const struct model *m, const struct vma *vma, FILE *out)
{
	const struct file *f = vma->file_id ? model_find_file(m, vma->file_id) : NULL;

	fprintf(out, "    %012" PRIx64 "-%012" PRIx64 " %c%c%c%c %10s  %s", vma->start, vma->end,
		vma->prot & PROT_READ ? 'r' : '-', vma->prot & PROT_WRITE ? 'w' : '-',
		vma->prot & PROT_EXEC ? 'x' : '-', vma->flags & MAP_SHARED ? 's' : 'p',
		size_text(vma->end - vma->start), vma_label(vma));
	if (f && f->path) {
		fprintf(out, " ");
		print_path(f->path, out);
		fprintf(out, " +0x%" PRIx64, vma->pgoff);
	}
	if (vma->shmem_id)
		fprintf(out, " %u", vma->shmem_id);
	fputc('\n', out);
}

static void show_file(const struct model *m, const struct file *f, FILE *out)
{
	const struct kind *kind = kind_of_type(f->type);

	if (kind && kind->show) {
		kind->show(m, f, out);
		return;
	}
	fprintf(out, "%s", kind ? kind->name : "unknown kind");
	if (f->path) {
		fputc(' ', out);
		print_path(f->path, out);
	}
}

static void show_fds(const struct model *m, const struct fdtable *table, FILE *out)
{
	VEC_FOREACH(fd, &table->fds) {
		const struct file *f = model_find_file(m, fd->file_id);

		fprintf(out, "    fd %d%s  file %u  ", fd->fd, fd->cloexec ? " (close-on-exec)" : "",
			fd->file_id);
		if (f)
			show_file(m, f, out);
		fputc('\n', out);
	}
}

/* The task that an object shared by several was shown under, or NULL when `t` is the first. */
static const struct task *first_with(const struct model *m, const struct task *t, size_t offset)
{
	uint32_t id = *(const uint32_t *)((const char *)t + offset);

	for (const struct task *other = m->tasks.v; other < t; other++)
		if (*(const uint32_t *)((const char *)other + offset) == id)
			return other;
	return NULL;
}

static void show_task(const struct model *m, const struct task *t, FILE *out)
{
	const struct mm *mm = t->mm_id ? model_find_mm(m, t->mm_id) : NULL;
	const struct fdtable *table = t->files_id ? model_find_fdtable(m, t->files_id) : NULL;
	const struct fs *fs = t->fs_id ? model_find_fs(m, t->fs_id) : NULL;
	const struct file *exe = mm ? model_find_file(m, mm->exe_file_id) : NULL;
	const struct file *cwd = fs ? model_find_file(m, fs->cwd_file_id) : NULL;
	const struct task *owner;

	fprintf(out, "\nProcess %d ", t->pid);
	print_path(task_comm(t), out);
	fputc('\n', out);
	if (exe && exe->path) {
		fprintf(out, "  executable ");
		print_path(exe->path, out);
		fputc('\n', out);
	}
	if (cwd && cwd->path) {
		fprintf(out, "  directory  ");
		print_path(cwd->path, out);
		fprintf(out, ", umask %03o\n", fs->umask);
	}
	fprintf(out, "  threads\n");
	VEC_FOREACH(th, &t->threads)
		show_thread(th, out);
	if (mm) {
		owner = first_with(m, t, offsetof(struct task, mm_id));
		if (owner)
			fprintf(out, "  mappings: the same memory as process %d\n", owner->pid);
		else
			fprintf(out, "  mappings\n");
		VEC_FOREACH(vma, &mm->vmas)
			if (!owner)
				show_vma(m, vma, out);
	}
	if (table) {
		owner = first_with(m, t, offsetof(struct task, files_id));
		if (owner)
			fprintf(out, "  descriptors: the same table as process %d\n", owner->pid);
		else
			fprintf(out, "  descriptors\n");
		if (!owner)
			show_fds(m, table, out);
	}
}

/* How long the target was stopped, and for what. */
static void show_stop(const struct dump_stats *stats, FILE *out)
{
	fprintf(out, "Dumped with the target stopped for %.3f ms", stats->frozen_us / 1e3);
	for (uint32_t i = 0; i < stats->nr_stages; i++)
		fprintf(out, "%s %s %.3f", i ? "," : ":", stats->stages[i].name, stats->stages[i].us / 1e3);
	fputc('\n', out);
}

static void show_text(const struct model *m, const char *dir, const struct dump_stats *stats,
		      FILE *out)
{
	struct memory_totals t = model_totals(m);

	fprintf(out, "Image set %s: %zu process%s, %zu thread%s, %s of page contents", dir,
		m->tasks.nr, m->tasks.nr == 1 ? "" : "es", model_nr_threads(m),
		plural(model_nr_threads(m)), size_text(t.stored_bytes));
	if (t.parent_bytes)
		fprintf(out, " and %s in the parent set", size_text(t.parent_bytes));
	fprintf(out, ", %zu open file%s\n", m->files.nr, plural(m->files.nr));
	if (stats)
		show_stop(stats, out);
	fprintf(out, "\n");
	VEC_FOREACH(task, &m->tasks)
		show_tree_line(m, task, out);
	VEC_FOREACH(task, &m->tasks)
		if (task->state != TASK_ZOMBIE && task->state != TASK_DEAD)
			show_task(m, task, out);
}

/* Bytes of the target need not be UTF-8, which JSON wants: others become '?'. */
static json_t *json_text(const char *text)
{
	json_t *s = json_string(text);

	if (s)
		return s;
	_cleanup_free_ char *copy = strdup(text);
	for (char *p = copy; p && *p; p++)
		if ((unsigned char)*p >= 0x80)
			*p = '?';
	return copy ? json_string(copy) : NULL;
}

/* JSON integers are signed: addresses and sets of bits are strings, as the kernel prints them. */
static json_t *json_hex(uint64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "0x%" PRIx64, value);
	return json_string(text);
}

static json_t *json_thread(const struct thread *th)
{
	return json_pack("{s:i, s:o, s:o, s:I}", "tid", th->tid, "comm", json_text(th->comm),
			 "sigmask", json_hex(th->sigmask), "pending", (json_int_t)th->pending.nr);
}

static json_t *json_vma(const struct model *m, const struct vma *vma)
{
	const struct file *f = vma->file_id ? model_find_file(m, vma->file_id) : NULL;
	json_t *o = json_pack("{s:o, s:o, s:b, s:b, s:b, s:b, s:s}", "start", json_hex(vma->start),
			      "end", json_hex(vma->end), "read", !!(vma->prot & PROT_READ), "write",
			      !!(vma->prot & PROT_WRITE), "exec", !!(vma->prot & PROT_EXEC), "shared",
			      !!(vma->flags & MAP_SHARED), "kind", vma_label(vma));

	if (o && f && f->path) {
		json_object_set_new(o, "path", json_text(f->path));
		json_object_set_new(o, "offset_bytes", json_integer(vma->pgoff));
	}
	return o;
}

static json_t *json_fd(const struct model *m, const struct fd *fd)
{
	const struct file *f = model_find_file(m, fd->file_id);
	const struct kind *kind = f ? kind_of_type(f->type) : NULL;
	json_t *o = json_pack("{s:i, s:I, s:b, s:s}", "fd", fd->fd, "file", (json_int_t)fd->file_id,
			      "cloexec", fd->cloexec, "kind", kind ? kind->name : "unknown");

	if (!o || !f)
		return o;
	json_object_set_new(o, "flags", json_integer(f->flags));
	json_object_set_new(o, "pos", json_integer(f->pos));
	if (f->path)
		json_object_set_new(o, "path", json_text(f->path));

	char *text = NULL;
	size_t len;
	FILE *stream = open_memstream(&text, &len);
	if (stream) {
		show_file(m, f, stream);
		fclose(stream);
		json_object_set_new(o, "text", json_text(text));
	}
	free(text);
	return o;
}

static json_t *json_task(const struct model *m, const struct task *t)
{
	const struct mm *mm = t->mm_id ? model_find_mm(m, t->mm_id) : NULL;
	const struct fdtable *table = t->files_id ? model_find_fdtable(m, t->files_id) : NULL;
	json_t *threads = json_array(), *vmas = json_array(), *fds = json_array();

	VEC_FOREACH(th, &t->threads)
		json_array_append_new(threads, json_thread(th));
	if (mm)
		VEC_FOREACH(vma, &mm->vmas)
			json_array_append_new(vmas, json_vma(m, vma));
	if (table)
		VEC_FOREACH(fd, &table->fds)
			json_array_append_new(fds, json_fd(m, fd));

	/* Something could not be made: nothing is better than a part. */
	if (json_array_size(threads) != t->threads.nr || (mm && json_array_size(vmas) != mm->vmas.nr) ||
	    (table && json_array_size(fds) != table->fds.nr)) {
		json_decref(threads);
		json_decref(vmas);
		json_decref(fds);
		return NULL;
	}

	struct memory_totals totals = mm ? mm_totals(mm) : (struct memory_totals){ 0 };
	return json_pack("{s:i, s:i, s:i, s:i, s:s, s:o, s:I, s:I, s:I, s:I, s:o, s:o, s:o}", "pid",
			 t->pid, "ppid", t->ppid, "pgid", t->pgid, "sid", t->sid, "state",
			 state_name(t->state), "comm", json_text(task_comm(t)), "mm",
			 (json_int_t)t->mm_id, "files", (json_int_t)t->files_id, "mapped_bytes",
			 (json_int_t)totals.mapped_bytes, "stored_bytes",
			 (json_int_t)totals.stored_bytes, "threads", threads, "mappings", vmas,
			 "descriptors", fds);
}

static void add_stop_json(json_t *root, const struct dump_stats *stats)
{
	json_t *stages = json_object();

	for (uint32_t i = 0; i < stats->nr_stages; i++)
		json_object_set_new(stages, stats->stages[i].name, json_integer(stats->stages[i].us));
	json_object_set_new(root, "frozen_us", json_integer(stats->frozen_us));
	json_object_set_new(root, "frozen_stages_us", stages);
	json_object_set_new(root, "pages_saved_before_write", json_integer(stats->pages_saved));
	json_object_set_new(root, "rounds_before_stop", json_integer(stats->rounds));
	json_object_set_new(root, "pages_copied_ahead", json_integer(stats->pages_copied_ahead));
	json_object_set_new(root, "pages_copied_in_stop", json_integer(stats->pages_copied_in_stop));
	json_object_set_new(root, "pages_torn", json_integer(stats->pages_torn));
	json_object_set_new(root, "stops_made_again", json_integer(stats->restops));
	json_object_set_new(root, "cuts_made_again", json_integer(stats->retakes));
}

static int show_json(const struct model *m, const struct dump_stats *stats, FILE *out)
{
	struct memory_totals t = model_totals(m);
	json_t *tasks = json_array();

	VEC_FOREACH(task, &m->tasks)
		json_array_append_new(tasks, json_task(m, task));
	if (json_array_size(tasks) != m->tasks.nr) {
		json_decref(tasks);
		return fail(-ENOMEM, "show: make JSON");
	}

	json_t *root = json_pack("{s:I, s:I, s:I, s:I, s:o}", "threads",
				 (json_int_t)model_nr_threads(m), "stored_bytes",
				 (json_int_t)t.stored_bytes, "parent_bytes",
				 (json_int_t)t.parent_bytes, "files", (json_int_t)m->files.nr,
				 "processes", tasks);
	if (!root)
		return fail(-ENOMEM, "show: make JSON");
	if (stats)
		add_stop_json(root, stats);
	int err = json_dumpf(root, out, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
	json_decref(root);
	if (err)
		return fail(-EIO, "show: write JSON");
	fputc('\n', out);
	return 0;
}

static int show_plan(const struct model *m, FILE *out)
{
	struct restore_plan *plan;
	int err = restore_plan_create(m, false, &plan);

	if (err)
		return err;
	restore_plan_print(plan, out);
	restore_plan_destroy(plan);
	return 0;
}

/* A pre-dump: no processes, only their pages. */
static void show_memory(const struct model *m, const char *dir, FILE *out)
{
	struct memory_totals t = model_totals(m);

	fprintf(out, "Pre-dump %s: memory of %zu process%s, %s of page contents and %s in the parent set\n", dir, m->mms.nr,
		m->mms.nr == 1 ? "" : "es", size_text(t.stored_bytes), size_text(t.parent_bytes));
	VEC_FOREACH(mm, &m->mms) {
		struct memory_totals one = mm_totals(*mm);

		fprintf(out, "  %d  %s stored, %s in the parent set\n", (*mm)->pid, size_text(one.stored_bytes),
			size_text(one.parent_bytes));
	}
}

static int show_memory_json(const struct model *m, FILE *out)
{
	struct memory_totals t = model_totals(m);
	json_t *tasks = json_array();

	VEC_FOREACH(mm, &m->mms) {
		struct memory_totals one = mm_totals(*mm);

		json_array_append_new(tasks, json_pack("{s:i, s:I, s:I}", "pid", (*mm)->pid, "stored_bytes",
						       (json_int_t)one.stored_bytes, "parent_bytes",
						       (json_int_t)one.parent_bytes));
	}
	json_t *root = json_pack("{s:b, s:I, s:I, s:o}", "pre_dump", 1, "stored_bytes", (json_int_t)t.stored_bytes,
				 "parent_bytes", (json_int_t)t.parent_bytes, "processes", tasks);
	if (!root)
		return fail(-ENOMEM, "show: make JSON");
	int err = json_dumpf(root, out, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
	json_decref(root);
	fputc('\n', out);
	return err ? fail(-EIO, "show: write JSON") : 0;
}

static int show_pre_dump(const struct options *o, const struct model *m)
{
	if (o->plan)
		return fail(0, "%s: is of a pre-dump, which cannot be restored: there is no plan", o->images_dir);
	if (o->json)
		return show_memory_json(m, stdout);
	show_memory(m, o->images_dir, stdout);
	return 0;
}

static int show_set(const struct options *o, const struct cmd_dirs *dirs, const struct model *m)
{
	struct dump_stats stats;
	bool has_stats = !stats_read_dump(dirs->work_fd, &stats);

	if (o->plan)
		return show_plan(m, stdout);
	if (o->json)
		return show_json(m, has_stats ? &stats : NULL, stdout);
	show_text(m, o->images_dir, has_stats ? &stats : NULL, stdout);
	return 0;
}

static int show(const struct options *o)
{
	_cleanup_dirs_ struct cmd_dirs dirs = CMD_DIRS_NONE;
	struct model *m = NULL;
	int err = cmd_begin(o, &dirs);

	if (!err && o->plan && o->json)
		err = fail(0, "show: --plan and --json exclude each other");
	if (err)
		return err;
	err = images_load_memory(dirs.images_fd, o->images_dir, &m);
	if (!err) {
		err = show_pre_dump(o, m);
	} else if (err == -ENOENT) {
		err = images_load(dirs.images_fd, o->images_dir, &m);
		if (!err)
			err = show_set(o, &dirs, m);
	}
	model_destroy(m);
	if (!err && (fflush(stdout) || ferror(stdout)))
		err = fail(-EIO, "show: write to standard output");
	return err;
}

int cmd_show(int argc, char **argv)
{
	struct options o;
	int code;

	if (!cmd_parse(VERB_SHOW, argc, argv, false, &o, &code))
		return code;
	code = cmd_exit_code(show(&o));
	options_deinit(&o);
	return code;
}
