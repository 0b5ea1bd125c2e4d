/* Where things go: bcr's own address space, the hole, and what has to be mapped elsewhere at first. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <linux/ioprio.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "restore/plan.h"
#include "sys/uapi.h"

enum {
	LOWEST = 0x100000,             /* above vm.mmap_min_addr of any sane system */
	SLACK_BYTES = 16 << 20,
	PARK_BYTES = 1 << 20,
	STACK_ROOM_BYTES = 10 << 20,
	MAPPINGS_ON_TOP = 32,             /* of the hole, buffers, and the ends of what is unmapped bit by bit */
	GAP_BYTES = 16 * MODEL_PAGE_SIZE, /* between staged mappings, so that they do not merge */
	HUGE_ALIGN = 2 << 20,             /* of the hole; and of what may be of huge pages in it */
};
static const taddr_t highest = 0x7ffffffff000;

static uint64_t page_up(uint64_t n)
{
	return (n + MODEL_PAGE_SIZE - 1) & ~(uint64_t)(MODEL_PAGE_SIZE - 1);
}

static int highest_fd(void)
{
	_cleanup_closedir_ DIR *dir = opendir("/proc/self/fd");
	struct dirent *de;
	int max = 2;

	while (dir && (de = readdir(dir))) {
		int fd = atoi(de->d_name);

		if (fd > max)
			max = fd;
	}
	return max;
}

static int read_own_attributes(struct own_layout *ret)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { 0 };

	if (syscall(SYS_capget, &head, data))
		return fail(-errno, "read bcr's own capabilities");
	ret->cap_permitted = data[0].permitted | (uint64_t)data[1].permitted << 32;
	for (int cap = 0; cap < 64 && prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		ret->cap_bounding |= (uint64_t)prctl(PR_CAPBSET_READ, cap, 0, 0, 0) << cap;
	for (int i = 0; i < MODEL_NR_RLIMITS; i++)
		if (getrlimit(i, &ret->limits[i]))
			return fail(-errno, "read bcr's own resource limits");
	long ioprio = syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0);
	ret->ioprio = ioprio < 0 ? 0 : ioprio;
	ret->mce_kill = prctl(PR_MCE_KILL_GET, 0, 0, 0, 0) != PR_MCE_KILL_DEFAULT;
	ret->memory_merge = prctl(BCR_PR_GET_MEMORY_MERGE, 0, 0, 0, 0) == 1;
	ret->no_new_privs = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1;
	return 0;
}

/* How many mappings a process may have. */
static uint64_t read_max_map_count(void)
{
	_cleanup_fclose_ FILE *f = fopen("/proc/sys/vm/max_map_count", "re");
	uint64_t max = 0;

	return f && fscanf(f, "%" SCNu64, &max) == 1 ? max : 0;
}

int own_layout_read(struct own_layout *ret)
{
	_cleanup_fclose_ FILE *maps = fopen("/proc/self/maps", "re");
	_cleanup_free_ char *line = NULL;
	size_t cap = 0;

	memset(ret, 0, sizeof(*ret));
	if (!maps)
		return fail(-errno, "read bcr's own mappings");
	while (getline(&line, &cap, maps) > 0) {
		struct mem_range range;

		if (sscanf(line, "%" SCNx64 "-%" SCNx64, &range.start, &range.end) != 2)
			return fail(0, "bcr's own mappings: '%s' is not understood", line);
		if (strstr(line, "[vsyscall]"))
			continue;
		/* It may grow, and the kernel keeps a gap below it. */
		if (strstr(line, "[stack]"))
			range.start -= STACK_ROOM_BYTES;
		if (VEC_PUSH(&ret->ranges, range))
			return fail(-ENOMEM, "bcr's own mappings");
		bool vdso = strstr(line, "[vdso]");
		struct own_special special = { range, vdso };
		if ((vdso || strstr(line, "[vvar")) && VEC_PUSH(&ret->specials, special))
			return fail(-ENOMEM, "bcr's own mappings");
	}
	ret->max_fd = highest_fd();
	ret->max_map_count = read_max_map_count();
	ret->can_set_timer_ids = prctl(BCR_PR_TIMER_CREATE_RESTORE_IDS, BCR_PR_TIMER_CREATE_RESTORE_IDS_GET, 0, 0,
				       0) >= 0;
	return read_own_attributes(ret);
}

void own_layout_deinit(struct own_layout *l)
{
	VEC_FREE(&l->ranges);
	VEC_FREE(&l->specials);
}

static bool overlaps(const struct mem_range *a, taddr_t start, taddr_t end)
{
	return a->start < end && start < a->end;
}

static const struct staged_range *find_staged(const struct restore_plan *p, taddr_t start, taddr_t end)
{
	size_t lo = 0, hi = p->staged.nr;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (p->staged.v[mid].range.end <= start)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < p->staged.nr && overlaps(&p->staged.v[lo].range, start, end) ? &p->staged.v[lo] : NULL;
}

taddr_t plan_vma_at(const struct restore_plan *p, const struct vma *vma)
{
	const struct staged_range *s = find_staged(p, vma->start, vma->end);

	return s ? s->at + (vma->start - s->range.start) : vma->start;
}

/* Kernel-made mappings are moved from bcr's own, not mapped. */
static bool is_special(const struct vma *vma)
{
	return vma->status & (VMA_VDSO | VMA_VVAR);
}

static bool hits_own(const struct restore_plan *p, const struct vma *vma)
{
	VEC_FOREACH(own, &p->own.ranges) {
		if (overlaps(own, vma->start, vma->end))
			return true;
	}
	return false;
}

/*
 * Two neighbours that look alike but were two mappings in the target: made side by side they would become one. The second one
 * is made elsewhere and moved, which keeps them apart.
 */
static bool must_stay_apart(const struct vma *prev, const struct vma *vma)
{
	/* Those of hugetlb never do. */
	if (vma->flags & MAP_HUGETLB)
		return false;
	return prev && prev->end == vma->start && prev->status & vma->status & VMA_ANON_PRIVATE &&
	       prev->prot == vma->prot && prev->flags == vma->flags && prev->madv == vma->madv;
}

static int by_start(const void *a, const void *b)
{
	const struct staged_range *x = a, *y = b;

	return x->range.start < y->range.start ? -1 : x->range.start > y->range.start;
}

/* Sorts, and joins ranges that overlap (of several tasks). */
static void join_staged(struct restore_plan *p)
{
	size_t nr = 0;

	if (!p->staged.nr)
		return;
	qsort(p->staged.v, p->staged.nr, sizeof(*p->staged.v), by_start);
	for (size_t i = 1; i < p->staged.nr; i++) {
		struct mem_range *last = &p->staged.v[nr].range, *next = &p->staged.v[i].range;

		if (next->start < last->end) {
			if (next->end > last->end)
				last->end = next->end;
		} else {
			p->staged.v[++nr] = p->staged.v[i];
		}
	}
	p->staged.nr = nr + 1;
}

static int stage(struct restore_plan *p, const struct vma *vma)
{
	struct staged_range s = { .range = { vma->start, vma->end } };

	return VEC_PUSH(&p->staged, s) ? fail(-ENOMEM, "plan of staged mappings") : 0;
}

/* Every mapping that touches a staged range is staged with it, so that parent and child agree: until nothing changes. */
static int find_all_staged(struct restore_plan *p)
{
	bool changed = true;

	VEC_FOREACH(mm, &p->m->mms) {
		const struct vma *prev = NULL;

		VEC_FOREACH(vma, &(*mm)->vmas) {
			if (!is_special(vma) && (hits_own(p, vma) || must_stay_apart(prev, vma)) && stage(p, vma))
				return -ENOMEM;
			prev = vma;
		}
	}
	while (changed) {
		changed = false;
		join_staged(p);
		VEC_FOREACH(mm, &p->m->mms) {
			VEC_FOREACH(vma, &(*mm)->vmas) {
				const struct staged_range *s;

				if (is_special(vma) || !(s = find_staged(p, vma->start, vma->end)))
					continue;
				if (s->range.start <= vma->start && s->range.end >= vma->end)
					continue;
				if (stage(p, vma))
					return -ENOMEM;
				changed = true;
				break; /* the list is out of order until it is joined */
			}
			if (changed)
				break;
		}
	}
	return 0;
}

/* All ranges in use by anybody, sorted. */
static int all_ranges(const struct restore_plan *p, struct mem_range **ret, size_t *ret_nr)
{
	VEC(struct staged_range) all = { 0 };
	size_t nr = p->own.ranges.nr;

	VEC_FOREACH(mm, &p->m->mms)
		nr += (*mm)->vmas.nr;
	if (VEC_RESERVE(&all, nr + 1))
		return fail(-ENOMEM, "plan of addresses");
	VEC_FOREACH(own, &p->own.ranges)
		all.v[all.nr++].range = *own;
	VEC_FOREACH(mm, &p->m->mms) {
		VEC_FOREACH(vma, &(*mm)->vmas) {
			/* A stack may grow downwards at any time. */
			taddr_t below = vma->flags & 0x100 /* MAP_GROWSDOWN */ ? SLACK_BYTES : 0;

			all.v[all.nr++].range = (struct mem_range){
				vma->start > below ? vma->start - below : 0, vma->end };
		}
	}
	qsort(all.v, all.nr, sizeof(*all.v), by_start);
	*ret = calloc(all.nr + 1, sizeof(**ret));
	if (!*ret) {
		VEC_FREE(&all);
		return fail(-ENOMEM, "plan of addresses");
	}
	for (size_t i = 0; i < all.nr; i++)
		(*ret)[i] = all.v[i].range;
	*ret_nr = all.nr;
	VEC_FREE(&all);
	return 0;
}

/* Rounded up, so that `at` leaves the same remainder as `like`: huge pages must lie where the processor can have them. */
static uint64_t like_aligned(uint64_t at, uint64_t like)
{
	return at + ((like - at) & (HUGE_ALIGN - 1));
}

/* The lowest hole of this size above LOWEST, but with room on both sides. */
static int find_hole(struct restore_plan *p, uint64_t bytes)
{
	_cleanup_free_ struct mem_range *used = NULL;
	size_t nr = 0;
	taddr_t at = LOWEST;
	int err = all_ranges(p, &used, &nr);

	if (err)
		return err;
	/* One more, empty, at the top: what lies above the last mapping counts too. */
	used[nr++] = (struct mem_range){ highest, highest };
	for (size_t i = 0; i < nr; i++) {
		if (used[i].start > at && used[i].start - at >= bytes + HUGE_ALIGN + 2 * SLACK_BYTES) {
			p->hole.start = like_aligned(at + SLACK_BYTES, 0);
			p->hole.end = p->hole.start + bytes;
			return 0;
		}
		if (used[i].end > at)
			at = page_up(used[i].end);
	}
	return fail(-ENOMEM, "no %" PRIu64 " MiB of address space are free in bcr and all tasks at the same place",
		    bytes >> 20);
}

bool plan_same_groups(const struct thread *a, const struct thread *b)
{
	size_t nr = a->creds.groups.nr;

	return nr == b->creds.groups.nr && (!nr || !memcmp(a->creds.groups.v, b->creds.groups.v, nr * sizeof(uint32_t)));
}

static uint64_t task_area_limit(const struct task *t, const struct mm *mm)
{
	uint64_t bytes = (2 << 20) + (mm->vmas.nr * 12 + mm->pages.nr) * sizeof(struct restorer_op);

	VEC_FOREACH(th, &t->threads)
		bytes += 96 * 1024 + th->pending.nr * 1024 +
			 (th == t->threads.v || !plan_same_groups(th, t->threads.v) ? th->creds.groups.nr * 4 : 0);
	return bytes + t->pending.nr * 1024 + t->timers.nr * 1024;
}

/* More than the areas of those who have any memory in common can need: checked again when the areas are made. */
static uint64_t area_limit(const struct restore_plan *p)
{
	uint64_t limit = 0, seccomp_bytes = plan_seccomp_bytes(p->m);

	VEC_FOREACH(mm, &p->m->mms) {
		uint64_t bytes = 0;

		VEC_FOREACH(t, &p->m->tasks) {
			if (t->mm_id == (*mm)->id)
				bytes += page_up(task_area_limit(t, *mm) + seccomp_bytes);
		}
		if (bytes > limit)
			limit = bytes;
	}
	return limit;
}

ssize_t plan_shmem_index(const struct restore_plan *p, uint32_t shmem_id)
{
	size_t lo = 0, hi = p->m->shmems.nr;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (p->m->shmems.v[mid]->id < shmem_id)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < p->m->shmems.nr && p->m->shmems.v[lo]->id == shmem_id ? (ssize_t)lo : -1;
}

/* How much address space each shared memory object needs: as far as any mapping of it reaches. */
static int size_shmems(struct restore_plan *p)
{
	VEC_FOREACH(s, &p->m->shmems) {
		struct shmem_place place = { .bytes = (*s)->sort == SHMEM_MEMFD ? 0 : shmem_whole_bytes(*s) };

		if (VEC_PUSH(&p->shmems, place))
			return fail(-ENOMEM, "plan of shared memory");
	}
	VEC_FOREACH(mm, &p->m->mms) {
		VEC_FOREACH(vma, &(*mm)->vmas) {
			uint64_t end = vma->pgoff + (vma->end - vma->start);

			ssize_t i = vma->shmem_id ? plan_shmem_index(p, vma->shmem_id) : -1;

			if (i >= 0 && p->shmems.v[i].bytes < end)
				p->shmems.v[i].bytes = end;
		}
	}
	return 0;
}

/* While a task is made, bcr's own mappings are there as well, and those of the hole. */
static int check_map_counts(const struct restore_plan *p)
{
	uint64_t own = p->own.ranges.nr + MAPPINGS_ON_TOP + p->m->shmems.nr;

	VEC_FOREACH(mm, &p->m->mms) {
		if (p->own.max_map_count && (*mm)->vmas.nr + own > p->own.max_map_count)
			return fail(0, "pid %d has %zu mappings, and bcr needs %" PRIu64 " more while it makes them, but a process may have "
				    "%" PRIu64 " in all: raise vm.max_map_count", (*mm)->pid, (*mm)->vmas.nr, own,
				    p->own.max_map_count);
	}
	return 0;
}

int plan_addresses(struct restore_plan *p)
{
	uint64_t area = area_limit(p), staging = 0, shmem = 0;
	int err = check_map_counts(p);

	if (!err)
		err = find_all_staged(p);

	if (!err)
		err = size_shmems(p);
	if (err)
		return err;
	p->control_bytes = page_up(sizeof(struct restorer_control) +
				   (p->nr_slots + p->tasks.nr) * sizeof(struct restorer_slot));
	/* Relative to the beginning of each area, which is as aligned as anything gets. */
	VEC_FOREACH(s, &p->staged) {
		uint64_t bytes = s->range.end - s->range.start;

		s->at = bytes < HUGE_ALIGN ? staging + GAP_BYTES : like_aligned(staging + GAP_BYTES, s->range.start);
		staging = s->at + bytes + GAP_BYTES;
	}
	VEC_FOREACH(s, &p->shmems) {
		s->at = s->bytes < HUGE_ALIGN ? shmem : like_aligned(shmem, 0);
		if (s->bytes > highest || s->at > highest)
			return fail(0, "the shared memory of the tasks does not fit into an address space");
		shmem = s->at + s->bytes + GAP_BYTES;
	}
	area = like_aligned(p->control_bytes + area + PARK_BYTES, 0) - p->control_bytes - PARK_BYTES;
	staging = like_aligned(staging, 0);
	err = find_hole(p, p->control_bytes + area + PARK_BYTES + staging + shmem + GAP_BYTES);
	if (err)
		return err;
	p->control = p->hole.start;
	p->area = p->control + p->control_bytes;
	p->park = p->area + area;
	p->staging = p->park + PARK_BYTES;
	p->shmem = p->staging + staging;
	VEC_FOREACH(s, &p->staged)
		s->at += p->staging;
	VEC_FOREACH(s, &p->shmems)
		s->at += p->shmem;
	return 0;
}

/* Calls `fn` for everything that the tasks map at its final address, neighbours joined, and for the hole. */
static int for_each_planned(const struct restore_plan *p, int (*fn)(const struct mem_range *range))
{
	VEC(struct staged_range) all = { 0 };
	struct mem_range now = p->hole;
	int err = 0;

	VEC_FOREACH(mm, &p->m->mms) {
		VEC_FOREACH(vma, &(*mm)->vmas) {
			struct staged_range s = { .range = { vma->start, vma->end } };

			if (is_special(vma) || plan_vma_at(p, vma) != vma->start)
				continue;
			if (VEC_PUSH(&all, s)) {
				VEC_FREE(&all);
				return fail(-ENOMEM, "plan of addresses");
			}
		}
	}
	if (all.nr)
		qsort(all.v, all.nr, sizeof(*all.v), by_start);
	err = fn(&now);
	now.end = now.start = 0;
	VEC_FOREACH(s, &all) {
		if (s->range.start > now.end) {
			if (!err && now.end)
				err = fn(&now);
			now = s->range;
		} else if (s->range.end > now.end) {
			now.end = s->range.end;
		}
	}
	if (!err && now.end)
		err = fn(&now);
	VEC_FREE(&all);
	return err;
}

static int reserve(const struct mem_range *range)
{
	void *at = (void *)(uintptr_t)range->start;
	void *got = mmap(at, range->end - range->start, PROT_NONE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);

	if (got == at)
		return 0;
	int err = got == MAP_FAILED ? -errno : -EEXIST;
	/* bcr's own memory has grown into it: that is the caller's to solve. */
	return err == -EEXIST ? err : fail(err, "keep the addresses %" PRIx64 "-%" PRIx64 " free for the tasks",
					   range->start, range->end);
}

static int unreserve(const struct mem_range *range)
{
	munmap((void *)(uintptr_t)range->start, range->end - range->start);
	return 0;
}

int plan_reserve(const struct restore_plan *p)
{
	return for_each_planned(p, reserve);
}

void plan_unreserve(const struct restore_plan *p)
{
	for_each_planned(p, unreserve);
}
