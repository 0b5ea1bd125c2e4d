/* The ways to track memory, and what each needs of the machine. */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "sys/uapi.h"
#include "track/inner.h"

static int probe_wp_async(const char **why)
{
	struct uffdio_api api = { .api = UFFD_API, .features = BCR_UFFD_FEATURE_WP_ASYNC };
	_cleanup_close_ int fd = syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);

	if (fd < 0) {
		*why = "the kernel has no userfaultfd";
		return -errno;
	}
	if (ioctl(fd, UFFDIO_API, &api)) {
		*why = "no asynchronous write protection (Linux 6.7)";
		return -errno;
	}
	int err = scan_probe();
	if (err)
		*why = "no PAGEMAP_SCAN (Linux 6.7)";
	return err;
}

/* Bit 55 of a page map entry says it; kernels without soft-dirty never set it. */
static bool page_is_soft_dirty(int fd, const void *page)
{
	uint64_t entry = 0;

	return pread(fd, &entry, sizeof(entry), (uintptr_t)page / MODEL_PAGE_SIZE * 8) == sizeof(entry) &&
	       entry >> 55 & 1;
}

static int probe_soft_dirty(const char **why)
{
	volatile char *page = mmap(NULL, MODEL_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	_cleanup_close_ int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	if (page == MAP_FAILED || fd < 0) {
		*why = "no page map";
		return -errno;
	}
	*page = 1;
	bool has = page_is_soft_dirty(fd, (const void *)page);
	munmap((void *)page, MODEL_PAGE_SIZE);
	if (!has) {
		*why = "the kernel was built without CONFIG_MEM_SOFT_DIRTY";
		return -EOPNOTSUPP;
	}
	return 0;
}

static int probe_none(const char **why)
{
	return 0;
}

const struct track_ops track_wp_cow_ops = {
	.name = "wp-cow",
	.what = "only what was written in the last moments is looked at inside the stop; nothing is copied in it",
	.probe = probe_wp_async,
	.write_protects = true,
	.saves = true,
};

const struct track_ops track_wp_async_ops = {
	.name = "wp-async",
	.what = "what was written since the copying began is copied inside the stop",
	.probe = probe_wp_async,
	.write_protects = true,
	.copies_ahead = true,
};

const struct track_ops track_soft_dirty_ops = {
	.name = "soft-dirty",
	.what = "what was written since the copying began is copied inside the stop",
	.probe = probe_soft_dirty,
	.copies_ahead = true,
};

const struct track_ops track_none_ops = {
	.name = "none",
	.what = "all memory is copied inside the stop",
	.probe = probe_none,
};
