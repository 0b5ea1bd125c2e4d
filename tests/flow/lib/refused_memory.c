/* Memory that dump refuses. */
#include "refused.h"

#include <linux/io_uring.h>
#include <linux/perf_event.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

enum { PAGE = 4096, MAX = 16 };

/* Every mapping holds its own words, which are compared in the end. */
static struct {
	uint64_t *at;
	size_t words;
	uint64_t first;
} filled[MAX];
static int nr_filled;

static void fill(void *at, size_t bytes)
{
	uint64_t *words = at, first = 0x1234567ULL * (nr_filled + 1);

	NEED(nr_filled < MAX);
	for (size_t i = 0; i < bytes / sizeof(*words); i++)
		words[i] = first + i;
	filled[nr_filled].at = at;
	filled[nr_filled].words = bytes / sizeof(*words);
	filled[nr_filled++].first = first;
}

static void check_filled(void)
{
	for (int m = 0; m < nr_filled; m++)
		for (size_t i = 0; i < filled[m].words; i++)
			CHECK(filled[m].at[i] == filled[m].first + i, "mapping %d word %zu is %#llx", m, i,
			      (unsigned long long)filled[m].at[i]);
}

static void *map(size_t bytes, int flags, int fd)
{
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);

	return at == MAP_FAILED ? NULL : at;
}

#define EXPECT_MAPPING(at, bytes, text) \
	EXPECT("pid %d mapping %lx-%lx.*: " text, getpid(), (unsigned long)(at), (unsigned long)(at) + (bytes))

/* `mode` is an UFFDIO_REGISTER_MODE_*. */
static void map_registered(int mode)
{
	struct uffdio_api api = { .api = UFFD_API };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC);
	void *at = map(2 * PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api))
		unavailable("userfaultfd");
	NEED(at);
	fill(at, 2 * PAGE);
	struct uffdio_register reg = { .range = { (uintptr_t)at, 2 * PAGE }, .mode = mode };
	if (ioctl(fd, UFFDIO_REGISTER, &reg))
		unavailable("UFFDIO_REGISTER");
	EXPECT_MAPPING(at, 2 * PAGE, "it is registered with a userfaultfd");
	EXPECT("pid %d fd %d: a kernel object .*userfaultfd.* is not supported", getpid(), fd);
}

static void build_uffd_missing(void)
{
	map_registered(UFFDIO_REGISTER_MODE_MISSING);
}

static void build_uffd_wp(void)
{
	map_registered(UFFDIO_REGISTER_MODE_WP);
}

static void build_aio(void)
{
	unsigned long ctx = 0;

	if (syscall(SYS_io_setup, 4, &ctx))
		unavailable("io_setup");
	EXPECT("pid %d mapping %lx-.*: an AIO ring .*is not supported", getpid(), ctx);
}

static void build_io_uring(void)
{
	struct io_uring_params p = {};
	int fd = syscall(SYS_io_uring_setup, 4, &p);

	if (fd < 0)
		unavailable("io_uring_setup");
	void *at = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_SQ_RING);
	NEED(at != MAP_FAILED);
	EXPECT("pid %d mapping %lx-.*: an io_uring ring is not supported", getpid(), (unsigned long)at);
	EXPECT("pid %d fd %d: a kernel object .*io_uring.* is not supported", getpid(), fd);
}

/* The rings stay mapped when the descriptor is closed. */
static void build_io_uring_closed(void)
{
	struct io_uring_params p = {};
	int fd = syscall(SYS_io_uring_setup, 4, &p);

	if (fd < 0)
		unavailable("io_uring_setup");
	void *at = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_SQ_RING);
	NEED(at != MAP_FAILED && close(fd) == 0);
	EXPECT("pid %d mapping %lx-.*: an io_uring ring is not supported", getpid(), (unsigned long)at);
}

static void build_perf(void)
{
	struct perf_event_attr attr = { .type = PERF_TYPE_SOFTWARE, .size = sizeof(attr), .config = PERF_COUNT_SW_DUMMY };
	int fd = syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);

	if (fd < 0)
		unavailable("perf_event_open");
	void *at = map(2 * PAGE, MAP_SHARED, fd);
	NEED(at && close(fd) == 0);
	/* It depends on the kernel whether it looks like a file's pages or like a device's. */
	EXPECT_MAPPING(at, 2 * PAGE, "(a perf event buffer is not supported|device memory cannot be saved)");
}

int main(int argc, char **argv)
{
	static const struct mode modes[] = {
		{ "uffd-missing", build_uffd_missing, check_filled },
		{ "uffd-wp", build_uffd_wp, check_filled },
		{ "aio", build_aio, NULL },
		{ "io-uring", build_io_uring, NULL },
		{ "io-uring-closed", build_io_uring_closed, NULL },
		{ "perf", build_perf, NULL },
		{},
	};

	return refused_main(argc, argv, modes);
}
