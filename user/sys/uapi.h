/* Kernel interface numbers that are newer than the headers bcr is built with (Linux 6.1). */
#ifndef BCR_SYS_UAPI_H
#define BCR_SYS_UAPI_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* PAGEMAP_SCAN, include/uapi/linux/fs.h, since Linux 6.7. Named bcr_ so that newer headers do not clash. */
struct bcr_pm_page_region {
	__u64 start, end;
	__u64 categories;
};

struct bcr_pm_scan_arg {
	__u64 size;
	__u64 flags;
	__u64 start, end;
	__u64 walk_end;
	__u64 vec;
	__u64 vec_len;
	__u64 max_pages;
	__u64 category_inverted;
	__u64 category_mask;
	__u64 category_anyof_mask;
	__u64 return_mask;
};

_Static_assert(sizeof(struct bcr_pm_scan_arg) == 96, "kernel interface");

#define BCR_PAGEMAP_SCAN _IOWR('f', 16, struct bcr_pm_scan_arg)

/* PROCMAP_QUERY, include/uapi/linux/fs.h, since Linux 6.11: what is told of one mapping. Without a name and a build id. */
struct bcr_procmap_query {
	__u64 size;
	__u64 query_flags;
	__u64 query_addr; /* the mapping that covers it; ENOENT: none */
	__u64 vma_start, vma_end;
	__u64 vma_flags; /* BCR_PROCMAP_* */
	__u64 vma_page_size;
	__u64 vma_offset;
	__u64 inode;
	__u32 dev_major, dev_minor;
	__u32 vma_name_size, build_id_size;
	__u64 vma_name_addr, build_id_addr;
};

_Static_assert(sizeof(struct bcr_procmap_query) == 104, "kernel interface");

#define BCR_PROCMAP_QUERY _IOWR('f', 17, struct bcr_procmap_query)

/* include/uapi/linux/timerfd.h, which cannot be included together with <sys/timerfd.h>. */
#define BCR_TFD_IOC_SET_TICKS _IOW('T', 0, __u64)

enum {
	BCR_PROCMAP_READABLE = 1 << 0,
	BCR_PROCMAP_WRITABLE = 1 << 1,
	BCR_PROCMAP_EXECUTABLE = 1 << 2,
	BCR_PROCMAP_SHARED = 1 << 3,

	BCR_PAGE_IS_PRESENT = 1 << 3,
	BCR_PAGE_IS_GUARD = 1 << 8, /* since Linux 6.15 */

	BCR_MADV_GUARD_INSTALL = 102, /* since Linux 6.13 */
	BCR_MADV_GUARD_REMOVE = 103,
	BCR_MAP_DROPPABLE = 0x08, /* since Linux 6.11, in place of MAP_PRIVATE */
	BCR_SYS_mseal = 462,      /* since Linux 6.10 */

	BCR_PR_SET_MEMORY_MERGE = 67, /* since Linux 6.4 */
	BCR_PR_GET_MEMORY_MERGE = 68,

	BCR_PR_TIMER_CREATE_RESTORE_IDS = 77, /* since Linux 6.15 */
	BCR_PR_TIMER_CREATE_RESTORE_IDS_OFF = 0,
	BCR_PR_TIMER_CREATE_RESTORE_IDS_ON = 1,
	BCR_PR_TIMER_CREATE_RESTORE_IDS_GET = 2,

	BCR_MFD_EXEC = 0x10, /* since Linux 6.3 */

	BCR_UFFD_FEATURE_WP_ASYNC = 1 << 15, /* since Linux 6.7 */

	BCR_PIDFD_THREAD = 0200, /* O_EXCL; since Linux 6.9 */
	BCR_PR_SET_MDWE = 65, /* since Linux 6.3 */
	BCR_PR_GET_MDWE = 66,
	BCR_PR_MDWE_REFUSE_EXEC_GAIN = 1 << 0,
	BCR_PR_MDWE_NO_INHERIT = 1 << 1, /* since Linux 6.6 */
	BCR_PR_THP_DISABLE_EXCEPT_ADVISED = 1 << 1, /* since Linux 6.18 */

	BCR_MEMBARRIER_CMD_GET_REGISTRATIONS = 1 << 9, /* since Linux 6.3 */
	/* MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, _PRIVATE_EXPEDITED, _SYNC_CORE and _RSEQ */
	BCR_MEMBARRIER_REGISTRATIONS = 1 << 2 | 1 << 4 | 1 << 6 | 1 << 8,
};

#endif
