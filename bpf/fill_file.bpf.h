/* struct file, inode → file_record: what all programs that meet files share. */
#ifndef BCR_BPF_FILL_FILE_BPF_H
#define BCR_BPF_FILL_FILE_BPF_H

#include "bpf/compat.bpf.h"
#include "bpf/file.h"

/* The barriers keep the compiler from comparing one copy of the number and using another, which the verifier refuses. */
static __always_inline __u64 at_most(__u64 bytes, __u64 max)
{
	barrier_var(bytes);
	if (bytes > max)
		bytes = max;
	barrier_var(bytes);
	return bytes;
}

static __always_inline void pid_at(struct pid *pid, __u32 level, __u32 *nr, __u64 *ns)
{
	__u8 copy[32] = {};
	struct upid *u = (void *)copy;

	bpf_probe_read_kernel(copy, at_most(bpf_core_type_size(struct upid), sizeof(copy)),
			      (void *)pid + bpf_core_field_offset(struct pid, numbers) + level * bpf_core_type_size(struct upid));
	*nr = u->nr;
	*ns = (__u64)u->ns;
}

/* The pid namespace of whoever runs the program, which is bcr every time: pids are shown as seen there. */
static __u64 observer_ns = 0;
static __u32 observer_level = 0;

static __always_inline void find_observer(void)
{
	struct task_struct *self = (void *)bpf_get_current_task();
	struct pid *pid = BPF_CORE_READ(self, thread_pid);
	__u32 nr;
	__u64 ns;

	observer_level = BPF_CORE_READ(pid, level);
	pid_at(pid, observer_level, &nr, &ns);
	observer_ns = ns;
}

/* Number of `pid` in the observer's pid namespace; 0 when it has none there. */
static __always_inline __u32 pid_seen(struct pid *pid)
{
	__u32 nr;
	__u64 ns;

	if (!observer_ns)
		find_observer();
	if (!pid || (observer_level && BPF_CORE_READ(pid, level) < observer_level))
		return 0;
	pid_at(pid, observer_level, &nr, &ns);
	return ns == observer_ns ? nr : 0;
}

/* Locks stand in lists that begin and end in the context, which an inode keeps once it has had any. */
static __always_inline bool inode_has_locks(struct inode *inode)
{
	struct file_lock_context *ctx = BPF_CORE_READ(inode, i_flctx);

	if (!ctx)
		return false;
	return BPF_CORE_READ(ctx, flc_flock.next) != &ctx->flc_flock ||
	       BPF_CORE_READ(ctx, flc_posix.next) != &ctx->flc_posix ||
	       BPF_CORE_READ(ctx, flc_lease.next) != &ctx->flc_lease;
}

static __always_inline void fill_inode(struct file_record *r, struct inode *inode)
{
	struct super_block *sb = BPF_CORE_READ(inode, i_sb);

	r->ino = BPF_CORE_READ(inode, i_ino);
	r->size = BPF_CORE_READ(inode, i_size);
	r->rdev = BPF_CORE_READ(inode, i_rdev);
	r->mode = BPF_CORE_READ(inode, i_mode);
	r->nlink = BPF_CORE_READ(inode, i_nlink);
	r->has_locks = inode_has_locks(inode);
	r->dev = BPF_CORE_READ(sb, s_dev);
	r->sb_magic = BPF_CORE_READ(sb, s_magic);
}

static __always_inline void fill_path(struct file_record *r, struct vfsmount *mnt, struct dentry *dentry)
{
	struct mount *m = (void *)mnt - bpf_core_field_offset(struct mount, mnt);

	r->mnt_id = BPF_CORE_READ(m, mnt_id);
	bpf_probe_read_kernel_str(r->name, sizeof(r->name), BPF_CORE_READ(dentry, d_name.name));
}

static __always_inline __u64 mix(__u64 hash, __u64 word)
{
	return (hash ^ word) * 0x9e3779b97f4a7c15ULL;
}

/*
 * Tells whether a number of a descriptor still leads to the same file by the same path. The kernel uses addresses
 * again, at once and all of them together for a pipe that takes the place of another one: what it counts tells those
 * apart.
 */
struct file_identity {
	__u64 file, op, private, inode, mnt, dentry; /* addresses */
	__u64 ino;
	__u32 generation, nlink;
	__u32 d_seq; /* counts renaming and unlinking of the directory entry */
};

static __always_inline __u64 file_same(const struct file_identity *id)
{
	__u64 hash = mix(id->file, id->private);

	hash = mix(hash, id->op);
	hash = mix(hash, id->inode);
	hash = mix(hash, id->mnt);
	hash = mix(hash, id->dentry);
	hash = mix(hash, id->ino);
	hash = mix(hash, id->generation);
	return mix(hash, (__u64)id->nlink << 32 | id->d_seq) | 1;
}

/* Everything but tgid, fd, cloexec and what depends on the type; the record has been zeroed. */
static __always_inline void fill_file(struct file_record *r, struct file *file)
{
	struct fown_struct *owner = file_owner(file);

	r->file = (__u64)file;
	r->fd = -1;
	r->pos = BPF_CORE_READ(file, f_pos);
	r->flags = BPF_CORE_READ(file, f_flags);
	fill_inode(r, BPF_CORE_READ(file, f_inode));
	fill_path(r, BPF_CORE_READ(file, f_path.mnt), BPF_CORE_READ(file, f_path.dentry));
	if (!owner)
		return;
	struct pid *pid = BPF_CORE_READ(owner, pid);
	if (pid) {
		r->fown_pid = pid_seen(pid);
		r->fown_type = BPF_CORE_READ(owner, pid_type);
	}
	r->fown_uid = BPF_CORE_READ(owner, uid.val);
	r->fown_euid = BPF_CORE_READ(owner, euid.val);
	r->fown_signum = BPF_CORE_READ(owner, signum);
}

#endif
