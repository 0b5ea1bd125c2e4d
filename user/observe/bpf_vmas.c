/* The BPF back end: mappings, and the files behind them. */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "bpf/vma.skel.h"
#include "observe/bpf.h"
#include "sys/kernel_types.h"
#include "sys/proc.h"

/*
 * VM_* of include/linux/mm.h. They are macros, which BTF does not carry; these have kept their numbers
 * over all kernels from 5.10 to 6.18, bar those commented.
 */
enum {
	KVM_READ = 0x1,
	KVM_WRITE = 0x2,
	KVM_EXEC = 0x4,
	KVM_SHARED = 0x8,
	KVM_MAYWRITE = 0x20,
	KVM_MAYSHARE = 0x80,
	KVM_GROWSDOWN = 0x100,
	KVM_UFFD_MISSING = 0x200,
	KVM_PFNMAP = 0x400,
	KVM_UFFD_WP = 0x1000,
	KVM_LOCKED = 0x2000,
	KVM_IO = 0x4000,
	KVM_SEQ_READ = 0x8000,
	KVM_RAND_READ = 0x10000,
	KVM_DONTCOPY = 0x20000,
	KVM_LOCKONFAULT = 0x80000,
	KVM_ACCOUNT = 0x100000,
	KVM_NORESERVE = 0x200000,
	KVM_HUGETLB = 0x400000,
	KVM_WIPEONFORK = 0x2000000,
	KVM_DONTDUMP = 0x4000000,
	KVM_HUGEPAGE = 0x20000000,
	KVM_NOHUGEPAGE = 0x40000000,
};

static const uint64_t kvm_mergeable = 0x80000000;
/*
 * Since Linux 6.11 (MAP_DROPPABLE) and 6.10 (mseal), on 64-bit machines. The bit of sealed mappings was 63 first and
 * is 42 in 6.18; no version uses the other one for anything else.
 */
static const uint64_t kvm_droppable = 1ULL << 40, kvm_sealed = 1ULL << 63 | 1ULL << 42;

int bpf_vmas_load(struct vma_bpf **ret)
{
	LIBBPF_OPTS(bpf_object_open_opts, opts, .btf_custom_path = kernel_types_path());
	struct vma_bpf *vma = vma_bpf__open_opts(&opts);
	int err = vma ? kernel_types_for(vma->obj) : -errno;

	if (!err)
		err = vma_bpf__load(vma);
	if (err) {
		vma_bpf__destroy(vma);
		return err;
	}
	*ret = vma;
	return 0;
}

static void vma_name(const struct bpf_state *s, const struct task_record *t, const struct vma_record *v,
		     char *special)
{
	bool kernel_made = (s->special_ops && v->ops == s->special_ops) || (t->vdso && v->start == t->vdso);

	special[0] = 0;
	if (v->file)
		return;
	if (kernel_made)
		memcpy(special, v->special, sizeof(v->special));
	else if (v->start < t->brk && v->end > t->start_brk)
		strcpy(special, "[heap]");
}

/* Shared anonymous memory, memory files, System V segments: files of the kernel's own, which never had a name. */
static bool is_kernel_made(const struct file_record *f)
{
	return !f->nlink && (f->sb_magic == MAGIC_TMPFS || f->sb_magic == MAGIC_HUGETLBFS);
}

/*
 * Of a mapping of an overlay the kernel keeps the file below it, by a path that exists for nobody. /proc knows which file the target
 * has mapped. -EAGAIN: the mapping is gone.
 */
static int add_hidden_file(struct bpf_run *r, size_t at, const struct vma_record *v, const struct file_record *f)
{
	_cleanup_close_ int dir = -1;
	_cleanup_free_ char *path = NULL;
	struct file_record rec = *f;
	char name[64];

	if (ident_map_find(&r->others, f->file))
		return 0;
	snprintf(name, sizeof(name), "map_files/%llx-%llx", v->start, v->end);
	int err = proc_open(r->records.v[at]->living, &dir);
	if (!err)
		err = observe_link(dir, name, &rec, &path);
	if (err == -ENOENT || err == -ESRCH)
		return -EAGAIN;
	return err ? fail(err, "pid %d: read where %s points", r->o->m->tasks.v[at].pid, name) : bpf_add_other(r, &rec, path);
}

static int add_vma(struct bpf_run *r, size_t at, const struct vma_record *v, const struct file_record *f,
		   const char *path)
{
	struct task_idents *id = &r->o->idents.v[at];
	size_t nr = id->layout.vmas.nr;
	char special[sizeof(v->special) + 1] = "";
	pid_t pid = r->o->m->tasks.v[at].pid;

	vma_name(r->s, r->records.v[at], v, special);
	if (f && !*path)
		return fail(-ENAMETOOLONG, "pid %d mapping %llx-%llx: path of its file", pid, v->start, v->end);

	struct vma_facts facts = {
		.start = v->start,
		.end = v->end,
		.pgoff_bytes = v->pgoff_pages * MODEL_PAGE_SIZE,
		.read = v->flags & KVM_READ,
		.write = v->flags & KVM_WRITE,
		.exec = v->flags & KVM_EXEC,
		/* As in /proc/PID/maps: a shared mapping of a file opened for reading only has MAYSHARE alone. */
		.shared = v->flags & (KVM_SHARED | KVM_MAYSHARE),
		.grows_down = v->flags & KVM_GROWSDOWN,
		.no_reserve = v->flags & KVM_NORESERVE,
		.locked = v->flags & KVM_LOCKED,
		.reserved = v->flags & KVM_ACCOUNT,
		.lock_on_fault = v->flags & KVM_LOCKONFAULT,
		.hugetlb = v->flags & KVM_HUGETLB,
		.may_write = v->flags & KVM_MAYWRITE,
		.dont_copy = v->flags & KVM_DONTCOPY,
		.wipe_on_fork = v->flags & KVM_WIPEONFORK,
		.dont_dump = v->flags & KVM_DONTDUMP,
		.hugepage = v->flags & KVM_HUGEPAGE,
		.nohugepage = v->flags & KVM_NOHUGEPAGE,
		.mergeable = v->flags & kvm_mergeable,
		.seq_read = v->flags & KVM_SEQ_READ,
		.rand_read = v->flags & KVM_RAND_READ,
		.io = v->flags & KVM_IO,
		.pfnmap = v->flags & KVM_PFNMAP,
		.sealed = v->flags & kvm_sealed,
		.droppable = v->flags & kvm_droppable,
		.uffd = v->uffd && !(r->o->tracked && v->flags & KVM_UFFD_WP && !(v->flags & KVM_UFFD_MISSING)),
		.has_file = f,
		.huge_bytes = f ? f->block_bytes : 0,
		.uffd_ident = v->uffd,
		.has_anon = v->has_anon,
		.special = special,
	};
	if (f && is_kernel_made(f))
		vma_facts_name(&facts, path);
	int err = observe_add_vma(&id->layout, pid, &facts);
	if (err == -EOPNOTSUPP) {
		r->refused = true;
		return 0;
	}
	if (err || id->layout.vmas.nr == nr)
		return err;
	if (f && v->hidden && f->sb_magic != MAGIC_ANON_INODE && !facts.is_shmem_anon && !facts.is_memfd && !facts.is_sysv)
		err = add_hidden_file(r, at, v, f);
	else if (f)
		err = bpf_add_other(r, f, path);
	return err ? err : VEC_PUSH(&id->vma_files, f ? f->file : 0);
}

/* One record and what follows it. Returns the bytes taken, 0 when the stream is not what it should be. */
static size_t take_vma(const uint8_t *at, size_t left, const struct vma_record **v, const struct file_record **f,
		       const char **path)
{
	size_t taken = sizeof(**v);

	if (left < taken)
		return 0;
	*v = (const void *)at;
	*f = NULL;
	*path = NULL;
	if (!(*v)->path_bytes)
		return taken;
	taken += sizeof(**f) + ((*v)->path_bytes + 7) / 8 * 8;
	if (left < taken || (*v)->path_bytes > OBSERVE_PATH_BYTES)
		return 0;
	*f = (const void *)(at + sizeof(**v));
	*path = (const char *)(at + sizeof(**v) + sizeof(**f));
	return (*path)[(*v)->path_bytes - 1] ? 0 : taken;
}

static int iterate(struct bpf_state *s, pid_t pid, pid_t living, struct bpf_thread_link *l, uint8_t **ret, size_t *ret_bytes)
{
	const uint32_t zero = 0;
	const uint64_t nothing_shown = 0;
	int err = bpf_attach_thread(s->vma->progs.observe_vmas, living, l);

	if (err)
		return err;
	err = bpf_map_update_elem(bpf_map__fd(s->vma->maps.shown_until), &zero, &nothing_shown, BPF_ANY);
	if (err)
		return fail(err, "pid %d: have BPF show its mappings from the first on", pid);
	return bpf_iter_read(l->link, pid, ret, ret_bytes);
}

static int read_mappings(struct bpf_run *r, size_t at)
{
	pid_t pid = r->o->m->tasks.v[at].pid;
	struct bpf_attached *a = bpf_attached_to(r->s, pid);
	_cleanup_free_ uint8_t *bytes = NULL;
	size_t nr_bytes = 0, nr = 0;
	const struct vma_record *v;
	const struct file_record *f;
	const char *path;

	if (!a)
		return -ENOMEM;
	int err = iterate(r->s, pid, r->records.v[at]->living, &a->vmas, &bytes, &nr_bytes);

	for (size_t off = 0, taken; !err && off < nr_bytes; off += taken, nr++) {
		taken = take_vma(bytes + off, nr_bytes - off, &v, &f, &path);
		if (!taken)
			return fail(-EPROTO, "pid %d: mappings as BPF shows them are cut off", pid);
		err = add_vma(r, at, v, f, path);
	}
	if (err)
		return err;
	/* The process has ended or made mappings since its record was read. */
	if (nr != r->records.v[at]->map_count) {
		log_debug("pid %d: %zu mappings seen, %u counted", pid, nr, r->records.v[at]->map_count);
		return -EAGAIN;
	}
	return 0;
}

int bpf_vmas_build(struct bpf_run *r)
{
	struct ident_map seen = {};
	int err = 0;

	for (size_t i = 0; i < r->records.nr && !err; i++) {
		uint64_t mm = r->records.v[i]->mm;

		if (!mm || ident_map_find(&seen, mm))
			continue;
		err = ident_map_add(&seen, mm, 1);
		if (!err)
			err = read_mappings(r, i);
	}
	ident_map_deinit(&seen);
	return err;
}

int bpf_vmas_replace(struct bpf_run *r)
{
	struct ident_map seen = {};
	int err = 0;

	for (size_t i = 0; i < r->records.nr && !err; i++) {
		uint64_t mm = r->records.v[i]->mm;
		struct task_idents *id = &r->o->idents.v[i];

		id->remapped = false;
		if (!mm || ident_map_find(&seen, mm))
			continue;
		err = ident_map_add(&seen, mm, 1);
		if (err || r->records.v[i]->mm_changes == r->s->seen.tasks.v[i].mm_changes)
			continue;
		id->remapped = true;
		id->layout.vmas.nr = id->vma_files.nr = 0;
		err = read_mappings(r, i);
	}
	ident_map_deinit(&seen);
	return err;
}

int bpf_vmas_learn(struct bpf_state *s)
{
	const struct task_record *self = bpf_array_at(&s->tasks, 0);
	_cleanup_free_ uint8_t *bytes = NULL;
	size_t nr_bytes = 0;
	struct bpf_thread_link l = {};
	const struct vma_record *v;
	const struct file_record *f;
	const char *path;
	int err = iterate(s, self->pid, self->living, &l, &bytes, &nr_bytes);

	bpf_link__destroy(l.link);
	for (size_t off = 0, taken; !err && off < nr_bytes; off += taken) {
		taken = take_vma(bytes + off, nr_bytes - off, &v, &f, &path);
		if (!taken)
			return fail(-EPROTO, "mappings of bcr's own process as BPF shows them are cut off");
		if (self->vdso && v->start == self->vdso)
			s->special_ops = v->ops;
	}
	return err;
}
