/*
 * What observing one mapping gives. Filled by bpf/vma.bpf.c, read by user/observe/bpf_vmas.c. Shared with BPF: fixed
 * widths, no pointers.
 */
#ifndef BCR_BPF_VMA_H
#define BCR_BPF_VMA_H

#include "bpf/file.h"

/* A mapping; with a file, followed in the stream by a struct file_record and path_bytes of path. */
struct vma_record {
	__u64 start, end;
	__u64 pgoff_pages;
	__u64 flags; /* VM_* */
	__u64 file;  /* identity, 0: none */
	__u64 ops;   /* identity of the vm_ops: mappings of the kernel's own share one */
	__u64 uffd;  /* identity of the userfaultfd, 0: none */
	__u32 has_anon;
	__u32 hidden; /* the file is on a mount that no mount namespace has: the one below an overlay, or the kernel's own */
	__u32 tgid;
	__u32 path_bytes; /* of the path behind the file record, with its final NUL, padded to 8; 0: neither follows */
	char special[16]; /* name of a mapping of the kernel's own, if `ops` says that it is one */
};

_Static_assert(sizeof(struct vma_record) == 88, "shared with BPF");

/* In front of each descriptor's file_record in the stream of bpf/file.bpf.c. */
struct file_header {
	__u32 path_bytes; /* of the path behind the file record, with its final NUL, padded to 8 */
	__u32 pad;
};

enum { OBSERVE_PATH_BYTES = 4096 };

#endif
