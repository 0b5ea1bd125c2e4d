/*
 * What observing one descriptor (or one mapped or used file) gives. Filled by bpf/file.bpf.c, or from
 * /proc by user/observe/proc_files.c; read by user/kinds/. Shared with BPF: fixed widths, no pointers.
 */
#ifndef BCR_BPF_FILE_H
#define BCR_BPF_FILE_H

#include <linux/types.h>

enum {
	MAGIC_PIPEFS = 0x50495045,
	MAGIC_SOCKFS = 0x534F434B,
	MAGIC_ANON_INODE = 0x09041934,
	MAGIC_PIDFS = 0x50494446,
	MAGIC_TMPFS = 0x01021994,
	MAGIC_DEVPTS = 0x1cd1,
	MAGIC_PROC = 0x9fa0,
};
#define MAGIC_HUGETLBFS 0x958458f6U /* more than an int holds */

struct file_record {
	__u64 file;  /* identity of the open file description; equal: shared. Never 0 */
	__u64 same;  /* of a descriptor: equal later on, it leads to the same file under the same path. 0: not known */
	__u64 files; /* identity of the descriptor table; 0 when not seen through a descriptor */
	__u64 pos;
	__u64 size;
	__u64 ino;
	__u32 tgid;
	__s32 fd; /* -1: not seen through a descriptor (mapping, executable, cwd, root) */
	__u32 dev; /* kernel encoding: major << 20 | minor */
	__u32 rdev;
	__u32 mode; /* st_mode */
	__u32 nlink;
	__u32 flags; /* f_flags, O_* */
	__u32 cloexec;
	__u32 sb_magic;
	__s32 mnt_id; /* as in /proc/PID/fdinfo */
	__u32 fown_pid, fown_type, fown_uid, fown_euid, fown_signum; /* all 0: no owner */
	__u32 has_locks; /* somebody holds a lock or lease on the inode; 1 from /proc: not known */
	char name[32]; /* of the dentry, cut: "[eventfd]", "[eventpoll]", "[timerfd]" for anonymous inodes */
	union {
		struct {
			__u64 counter;
			__u32 semaphore; /* 2: not known (fdinfo before Linux 6.5 does not say) */
			__u32 pad;
		} eventfd;
		struct {
			__u32 size_bytes; /* ring size in bytes */
			__u32 used_bytes;
			__u32 readers, writers; /* 0, 0 from /proc: not known */
		} pipe;
		struct {
			__u32 clockid;
			__u32 settime_flags;
			__u64 ticks;
			__u64 value_ns; /* remaining */
			__u64 interval_ns;
			__u64 date_ns; /* when it expires next, by its clock outside of time namespaces */
		} timerfd;
		struct {
			__u64 mask; /* of the signals that can be read */
		} signalfd;
		struct {
			__u32 nr_items;
			__u32 first; /* of its items in the array of epoll items; from /proc: 0 */
		} epoll;
		struct {
			__u32 family, type, proto, state; /* sk_state: TCP_LISTEN 10, ... */
		} sock;
		__u64 block_bytes; /* of a mapped file: block size of its file system; hugetlbfs: size of its pages */
		__u64 raw[6];
	};
};

_Static_assert(sizeof(struct file_record) == 192, "shared with BPF");

/* One item of an epoll set. */
struct epoll_record {
	__u64 epoll;  /* file_record.file of the epoll descriptor */
	__u64 target; /* file_record.file of what is watched; 0: not found */
	__u64 data;
	__u64 ino; /* of the target */
	__u64 pos;
	__u32 dev;
	__s32 fd;
	__u32 events;
	__u32 pad;
};

_Static_assert(sizeof(struct epoll_record) == 56, "shared with BPF");

#endif
