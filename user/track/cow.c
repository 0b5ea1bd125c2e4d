/*
 * Copy-before-write: loads bpf/track.bpf.c, and reads what it writes.
 *
 * The ring is read in place: the kernel maps its data twice in a row, so that a record never wraps.
 */

#include "track/cow.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "bpf/track.skel.h"
#include "sys/kernel_types.h"

enum {
	PROBED_RING_BYTES = 1 << 20,
	RING_BUSY = 1u << 31,
	RING_DISCARDED = 1u << 30,
	RING_HEADER_BYTES = 8,
	RING_BYTES_PER_PAGE = TRACK_PAGE_BYTES + sizeof(struct track_record) + 8,
	MAX_DROP_PAGES = 16384, /* 64 MiB: some ten milliseconds inside one system call of the target */
};

struct cow {
	struct track_bpf *skel;
	struct track_control *control;
	const struct track_hint *hints;
	size_t ring_bytes, page_bytes;
	uint64_t *consumer;       /* position, ours */
	const uint64_t *producer; /* position, the kernel's */
	const uint8_t *data;
	void *producer_map;
};

static void *map_array(const struct bpf_map *map, size_t bytes, int prot)
{
	size_t page = sysconf(_SC_PAGESIZE);
	void *p = mmap(NULL, (bytes + page - 1) & ~(page - 1), prot, MAP_SHARED | MAP_POPULATE, bpf_map__fd(map), 0);

	return p == MAP_FAILED ? NULL : p;
}

static size_t whole_pages(size_t bytes, size_t page)
{
	return (bytes + page - 1) & ~(page - 1);
}

static int map_all(struct cow *c)
{
	int fd = bpf_map__fd(c->skel->maps.saved_pages);

	c->control = map_array(c->skel->maps.control, sizeof(*c->control), PROT_READ | PROT_WRITE);
	c->hints = map_array(c->skel->maps.hints, sizeof(*c->hints) * TRACK_NR_HINTS, PROT_READ);
	if (!c->control || !c->hints)
		return fail(-errno, "map the tracker's BPF arrays");
	c->consumer = mmap(NULL, c->page_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (c->consumer == MAP_FAILED) {
		c->consumer = NULL;
		return fail(-errno, "map the tracker's ring");
	}
	c->producer_map = mmap(NULL, c->page_bytes + 2 * c->ring_bytes, PROT_READ, MAP_SHARED | MAP_POPULATE, fd,
			       c->page_bytes);
	if (c->producer_map == MAP_FAILED) {
		c->producer_map = NULL;
		return fail(-errno, "map %zu bytes of the tracker's ring", c->ring_bytes);
	}
	c->producer = c->producer_map;
	c->data = (const uint8_t *)c->producer_map + c->page_bytes;
	return 0;
}

/* *why is set where the kernel does not let the program in; other failures have been reported. */
static int load(struct cow *c, const char **why)
{
	LIBBPF_OPTS(bpf_object_open_opts, opts, .btf_custom_path = kernel_types_path());

	if (access("/sys/kernel/btf/vmlinux", R_OK)) {
		*why = "the kernel has no BTF (/sys/kernel/btf/vmlinux)";
		return -ENOENT;
	}
	c->skel = track_bpf__open_opts(&opts);
	int err = c->skel ? kernel_types_for(c->skel->obj) : -errno;
	if (!err)
		err = bpf_map__set_max_entries(c->skel->maps.saved_pages, c->ring_bytes);
	if (err)
		return fail(err, "open the tracker's BPF program");
	err = track_bpf__load(c->skel);
	/* Room for the ring: another way to track memory would need as much. */
	if (err == -ENOMEM)
		return fail(err, "load the tracker's BPF program with a ring of %zu bytes", c->ring_bytes);
	if (err)
		*why = "the kernel refuses the BPF program on page faults (-v4 shows its words)";
	return err;
}

int cow_open(size_t ring_bytes, const char **why, struct cow **ret)
{
	struct cow *c = calloc(1, sizeof(*c));

	if (!c)
		return fail(-ENOMEM, "load the tracker's BPF program");
	c->page_bytes = sysconf(_SC_PAGESIZE);
	c->ring_bytes = ring_bytes;
	int err = load(c, why);
	if (!err)
		err = map_all(c);
	if (!err) {
		c->control->mode = TRACK_OFF;
		c->control->tool = getpid();
		c->control->wake_bytes = ring_bytes / 4;
		c->control->max_drop_pages = ring_bytes / 2 / RING_BYTES_PER_PAGE < MAX_DROP_PAGES ?
						     ring_bytes / 2 / RING_BYTES_PER_PAGE :
						     MAX_DROP_PAGES;
		err = track_bpf__attach(c->skel);
		if (err)
			*why = "the kernel refuses to attach the BPF program to page faults";
	}
	if (err) {
		cow_close(c);
		return err;
	}
	*ret = c;
	return 0;
}

void cow_close(struct cow *c)
{
	if (!c)
		return;
	if (c->control)
		c->control->mode = TRACK_OFF;
	/* Detached first: the program must not meet maps that go away. */
	track_bpf__destroy(c->skel);
	if (c->producer_map)
		munmap(c->producer_map, c->page_bytes + 2 * c->ring_bytes);
	if (c->consumer)
		munmap(c->consumer, c->page_bytes);
	if (c->control)
		munmap(c->control, whole_pages(sizeof(*c->control), c->page_bytes));
	if (c->hints)
		munmap((void *)c->hints, whole_pages(sizeof(*c->hints) * TRACK_NR_HINTS, c->page_bytes));
	free(c);
}

int cow_probe(const char **why)
{
	struct cow *c = NULL;
	int err = cow_open(PROBED_RING_BYTES, why, &c);

	cow_close(c);
	return err;
}

int cow_add(struct cow *c, pid_t pid, uint32_t mm)
{
	struct track_add_args args = { .pid = pid, .mm = mm };
	LIBBPF_OPTS(bpf_test_run_opts, opts, .ctx_in = &args, .ctx_size_in = sizeof(args));

	if (bpf_prog_test_run_opts(bpf_program__fd(c->skel->progs.track_add), &opts))
		return fail(-errno, "pid %d: tell BPF to watch its memory", pid);
	return opts.retval ? -ESRCH : 0;
}

void cow_forget(struct cow *c, uint32_t mm)
{
	struct track_add_args args = { .mm = mm };
	LIBBPF_OPTS(bpf_test_run_opts, opts, .ctx_in = &args, .ctx_size_in = sizeof(args));

	if (bpf_prog_test_run_opts(bpf_program__fd(c->skel->progs.track_forget), &opts) || opts.retval)
		log_debug("address space %u is not known to BPF", mm);
}

int cow_next_pinned(struct cow *c, size_t from, size_t to, size_t *ret)
{
	struct track_range_args args = { .from = from, .to = to };
	LIBBPF_OPTS(bpf_test_run_opts, opts, .ctx_in = &args, .ctx_size_in = sizeof(args));

	if (bpf_prog_test_run_opts(bpf_program__fd(c->skel->progs.track_next_pinned), &opts))
		return fail(-errno, "ask BPF which memory is pinned");
	if (opts.retval >= TRACK_NR_MMS)
		return -ENOENT;
	*ret = opts.retval;
	return 0;
}

int cow_file_users(struct cow *c, struct track_file_args *args)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts, .ctx_in = args, .ctx_size_in = sizeof(*args));

	if (bpf_prog_test_run_opts(bpf_program__fd(c->skel->progs.track_file_users), &opts))
		return fail(-errno, "pid %u: ask BPF who has its shared memory", args->pid);
	return opts.retval ? -ENOENT : 0;
}

uint64_t cow_shared_changes(const struct cow *c)
{
	return __atomic_load_n(&c->control->shared_changes, __ATOMIC_SEQ_CST);
}

void cow_begin_hints(struct cow *c)
{
	__atomic_store_n(&c->control->mode, TRACK_OFF, __ATOMIC_SEQ_CST);
	__atomic_store_n(&c->control->nr_hints, 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&c->control->full, 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&c->control->mode, TRACK_HINT, __ATOMIC_SEQ_CST);
}

size_t cow_nr_hints(const struct cow *c)
{
	uint64_t nr = __atomic_load_n(&c->control->nr_hints, __ATOMIC_ACQUIRE);

	if (c->control->full)
		log_debug("no hints: thread %u of process %u took the lock of the target's memory", c->control->full_by,
			  c->control->full_by_group);
	return __atomic_load_n(&c->control->full, __ATOMIC_ACQUIRE) ? SIZE_MAX : nr;
}

bool cow_copy_hints(const struct cow *c, size_t from, size_t to, struct track_hint ret[TRACK_NR_HINTS])
{
	if (to - from > TRACK_NR_HINTS)
		return false;
	for (size_t i = from; i < to; i++)
		ret[i - from] = c->hints[i & (TRACK_NR_HINTS - 1)];
	/* Newer ones may have taken their places meanwhile. */
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return __atomic_load_n(&c->control->nr_hints, __ATOMIC_RELAXED) - from <= TRACK_NR_HINTS;
}

void cow_begin_saving(struct cow *c)
{
	__atomic_store_n(c->consumer, __atomic_load_n(c->producer, __ATOMIC_ACQUIRE), __ATOMIC_RELEASE);
	c->control->lost = 0;
	__atomic_store_n(&c->control->mode, TRACK_SAVE, __ATOMIC_SEQ_CST);
}

void cow_stop(struct cow *c)
{
	__atomic_store_n(&c->control->mode, TRACK_OFF, __ATOMIC_SEQ_CST);
}

uint64_t cow_lost(const struct cow *c)
{
	return __atomic_load_n(&c->control->lost, __ATOMIC_ACQUIRE);
}

unsigned cow_fill(const struct cow *c)
{
	uint64_t used = __atomic_load_n(c->producer, __ATOMIC_ACQUIRE) - __atomic_load_n(c->consumer, __ATOMIC_RELAXED);

	return used * 100 / c->ring_bytes;
}

/* The header's length of a record that is complete; waits for one that is being written if `wait`. 0: not complete. */
static uint32_t record_length(const uint32_t *header, bool wait)
{
	uint32_t len;

	while ((len = __atomic_load_n(header, __ATOMIC_ACQUIRE)) & RING_BUSY) {
		if (!wait)
			return 0;
		/* Its writer runs on another processor, with interrupts off: it is done in a microsecond. */
		sched_yield();
	}
	return len;
}

int cow_drain(struct cow *c, bool all, int (*take)(void *arg, const struct track_record *r, const void *bytes),
	      void *arg)
{
	uint64_t at = __atomic_load_n(c->consumer, __ATOMIC_RELAXED);
	uint64_t end = __atomic_load_n(c->producer, __ATOMIC_ACQUIRE);
	int err = 0;

	while (at < end && !err) {
		const uint8_t *header = c->data + (at & (c->ring_bytes - 1));
		uint32_t len = record_length((const uint32_t *)header, all);
		const struct track_record *r = (const void *)(header + RING_HEADER_BYTES);

		if (!len)
			break;
		if (!(len & RING_DISCARDED))
			err = take(arg, r, r->nr_unread ? NULL : r + 1);
		at += ((len & ~RING_DISCARDED) + RING_HEADER_BYTES + 7) & ~7u;
		__atomic_store_n(c->consumer, at, __ATOMIC_RELEASE);
	}
	return err;
}

int cow_fd(const struct cow *c)
{
	return bpf_map__fd(c->skel->maps.saved_pages);
}
