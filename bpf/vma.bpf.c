/* Mappings of one process, in ascending order, with the file behind each and its path. */
#include "vmlinux.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "bpf/fill_file.bpf.h"
#include "bpf/vma.h"

char LICENSE[] SEC("license") = "GPL";

struct vma_scratch {
	struct vma_record vma;
	struct file_record file;
	char path[OBSERVE_PATH_BYTES];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct vma_scratch);
} scratch SEC(".maps");

/*
 * Where the last mapping that was shown ends. An iterator that is attached to a thread and has filled a buffer begins once more behind
 * that buffer when it is read after its end, for ever. No global variable: libbpf would map it, and children would have that
 * mapping, a target that bcr itself forks among them.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} shown_until SEC(".maps");

static __always_inline void fill_special(struct vma_record *r, struct vm_area_struct *vma)
{
	struct vm_special_mapping *special = vma->vm_private_data;

	bpf_probe_read_kernel_str(r->special, sizeof(r->special), BPF_CORE_READ(special, name));
}

/* A mapping of an overlay is one of the file below it; so the kernel's mounts for files without names. */
static __always_inline bool is_hidden(struct file *file)
{
	enum { MAX_ERRNO = 4095 };
	struct vfsmount *mnt = BPF_CORE_READ(file, f_path.mnt);
	struct mount *m = (void *)mnt - bpf_core_field_offset(struct mount, mnt);

	return (__u64)BPF_CORE_READ(m, mnt_ns) >= -(__u64)MAX_ERRNO; /* MNT_NS_INTERNAL */
}

SEC("iter/task_vma")
int observe_vmas(struct bpf_iter__task_vma *ctx)
{
	struct vm_area_struct *vma = ctx->vma;
	struct task_struct *task = ctx->task;
	struct seq_file *seq = ctx->meta->seq;
	__u32 zero = 0;

	__u64 *until = bpf_map_lookup_elem(&shown_until, &zero);
	if (!vma || !task || !until || vma->vm_start < *until)
		return 0;
	struct vma_scratch *s = bpf_map_lookup_elem(&scratch, &zero);
	if (!s)
		return 0;
	struct vma_record *r = &s->vma;
	struct file *file = vma->vm_file;

	__builtin_memset(r, 0, sizeof(*r));
	r->start = vma->vm_start;
	r->end = vma->vm_end;
	r->pgoff_pages = vma->vm_pgoff;
	r->flags = vma->vm_flags;
	r->file = (__u64)file;
	r->ops = (__u64)BPF_CORE_READ(vma, vm_ops);
	r->has_anon = BPF_CORE_READ(vma, anon_vma) != NULL;
	r->tgid = task->tgid;
	if (bpf_core_field_exists(vma->vm_userfaultfd_ctx.ctx))
		r->uffd = (__u64)BPF_CORE_READ(vma, vm_userfaultfd_ctx.ctx);
	if (!file) {
		if (r->ops)
			fill_special(r, vma);
		if (!bpf_seq_write(seq, r, sizeof(*r)))
			*until = r->end;
		return 0;
	}

	long len = bpf_d_path(&file->f_path, s->path, sizeof(s->path));
	if (len < 1 || len > sizeof(s->path)) {
		/* Too long a path: user space sees the empty one and says so. */
		s->path[0] = 0;
		len = 1;
	}
	r->path_bytes = len;
	__builtin_memset(&s->file, 0, sizeof(s->file));
	fill_file(&s->file, file);
	r->hidden = is_hidden(file);
	s->file.block_bytes = BPF_CORE_READ(file, f_inode, i_sb, s_blocksize);
	/* What does not fit the kernel takes back, and shows with the next buffer. */
	if (!bpf_seq_write(seq, r, sizeof(*r)) && !bpf_seq_write(seq, &s->file, sizeof(s->file)) &&
	    !bpf_seq_write(seq, s->path, at_most((len + 7) & ~7ULL, sizeof(s->path))))
		*until = r->end;
	return 0;
}
