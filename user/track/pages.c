/*
 * Which pages existed at the cut: a scan of everything while the target runs, and later looks at what has changed since
 * (patches), put together after the stop.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/log.h"
#include "track/inner.h"

bool page_is_wanted(const struct vma *vma, uint64_t categories)
{
	if (!categories || categories & PAGE_CAT_PFNZERO)
		return false;
	/* The page a private file mapping shows is the file's until it is written. */
	return !(vma->status & VMA_FILE_PRIVATE && categories & PAGE_CAT_FILE);
}

int spans_add(spans *s, taddr_t start, taddr_t end, uint64_t categories)
{
	struct span *last = s->nr ? &s->v[s->nr - 1] : NULL;

	if (last && last->end == start && last->categories == categories) {
		last->end = end;
		return 0;
	}
	return VEC_PUSH(s, ((struct span){ start, end, categories }));
}

uint64_t page_kept(uint64_t categories)
{
	return categories & (PAGE_CAT_PRESENT | PAGE_CAT_SWAPPED | PAGE_CAT_FILE | PAGE_CAT_PFNZERO | PAGE_CAT_GUARD);
}

struct look {
	struct track_mm *tm;
	taddr_t at; /* looked at up to here */
	bool huge;
};

/* Pages in front of the range do not exist. */
static int patch_gap(struct look *l, taddr_t end)
{
	for (; l->at < end; l->at += MODEL_PAGE_SIZE)
		if (VEC_PUSH(&l->tm->patches, ((struct patch){ l->at, 0 })))
			return -ENOMEM;
	return 0;
}

static int found_again(void *arg, const struct page_range *r)
{
	struct look *l = arg;
	int err = patch_gap(l, r->start);

	/* Pages of other mappings are found by other means. */
	uint64_t categories = r->categories & PAGE_CAT_WPALLOWED ? page_kept(r->categories) : 0;

	l->huge |= (r->categories & PAGE_CAT_HUGE) != 0;
	for (; !err && l->at < r->end; l->at += MODEL_PAGE_SIZE)
		err = VEC_PUSH(&l->tm->patches, ((struct patch){ l->at, categories }));
	return err;
}

int pages_each_unshared(struct track_mm *tm, taddr_t start, taddr_t end,
			int (*fn)(void *arg, struct track_mm *tm, taddr_t start, taddr_t end), void *arg)
{
	taddr_t at = start;
	int err = 0;

	for (size_t i = 0; i < tm->shared.nr && tm->shared.v[i].start < end && !err; i++) {
		const struct span *s = &tm->shared.v[i];

		if (s->end <= at)
			continue;
		if (s->start > at)
			err = fn(arg, tm, at, s->start);
		at = s->end;
	}
	return err || at >= end ? err : fn(arg, tm, at, end);
}

static int look_at_part(void *huge, struct track_mm *tm, taddr_t start, taddr_t end)
{
	struct look l = { .tm = tm, .at = start };
	int err = scan_arm(tm->pagemap_fd, start, end);

	if (!err)
		err = scan_pages(tm->pagemap_fd, start, end, 0, true, found_again, &l);
	if (!err)
		err = patch_gap(&l, end);
	*(bool *)huge |= l.huge;
	return err;
}

static int look_at(struct track_mm *tm, taddr_t start, taddr_t end, bool *ret_huge)
{
	*ret_huge = false;
	int err = pages_each_unshared(tm, start, end, look_at_part, ret_huge);

	return err ? fail(err, "pid %d: look at its pages %llx-%llx", tm->pid, (unsigned long long)start,
			  (unsigned long long)end) : 0;
}

/* Where user space ends on x86-64: scans beyond are refused. */
static const taddr_t scan_end = 0x7ffffffff000;

int pages_look_again(struct track_mm *tm, taddr_t start, taddr_t end)
{
	bool huge;

	if (end > scan_end)
		end = scan_end;
	if (start >= end)
		return 0;
	int err = look_at(tm, start, end, &huge);

	/* One fault may have brought or changed all of a huge page. */
	if (!err && huge && end - start < CHUNK_BYTES) {
		start &= ~(taddr_t)(CHUNK_BYTES - 1);
		end = (end + CHUNK_BYTES - 1) & ~(taddr_t)(CHUNK_BYTES - 1);
		err = look_at(tm, start, end < scan_end ? end : scan_end, &huge);
	}
	return err;
}

struct first_look {
	struct track_mm *tm;
	uint64_t need;
};

static int found_first(void *arg, const struct page_range *r)
{
	struct first_look *l = arg;

	if ((r->categories & l->need) != l->need)
		return 0;
	return spans_add(&l->tm->seen, r->start, r->end, page_kept(r->categories));
}

int pages_set_ranges(struct track_mm *tm, const struct mm *mm)
{
	tm->ranges.nr = 0;
	VEC_FOREACH(vma, &mm->vmas) {
		if (!(vma->status & (VMA_ANON_PRIVATE | VMA_FILE_PRIVATE)) ||
		    vma->status & (VMA_VVAR | VMA_VSYSCALL | VMA_VDSO) || vma->flags & MAP_HUGETLB)
			continue;
		/* Mappings side by side are one question to the kernel: it passes by those that are not registered. */
		struct span *last = tm->ranges.nr ? &tm->ranges.v[tm->ranges.nr - 1] : NULL;
		if (last && last->end == vma->start)
			last->end = vma->end;
		else if (VEC_PUSH(&tm->ranges, ((struct span){ vma->start, vma->end, 0 })))
			return fail(-ENOMEM, "pid %d: list its mappings", tm->pid);
	}
	return 0;
}

int pages_look_everywhere(const struct tracker *t, struct track_mm *tm, bool protect)
{
	struct first_look l = { tm, t->ops->write_protects ? PAGE_CAT_WPALLOWED : 0 };

	tm->seen.nr = 0;
	tm->patches.nr = 0;
	VEC_FOREACH(r, &tm->ranges) {
		int err = protect ? scan_arm(tm->pagemap_fd, r->start, r->end) : 0;

		if (!err)
			err = scan_pages(tm->pagemap_fd, r->start, r->end, 0, true, found_first, &l);
		if (err)
			return err;
	}
	return 0;
}

struct numbered_patch {
	struct patch p;
	size_t nr;
};

static int order_patches(const void *a, const void *b)
{
	const struct numbered_patch *x = a, *y = b;

	if (x->p.addr != y->p.addr)
		return x->p.addr < y->p.addr ? -1 : 1;
	return x->nr < y->nr ? -1 : x->nr > y->nr;
}

/* The last word on each page, ascending. */
static struct numbered_patch *sort_patches(struct track_mm *tm, size_t *ret_nr)
{
	struct numbered_patch *v = calloc(tm->patches.nr + 1, sizeof(*v));
	size_t nr = 0;

	if (!v)
		return NULL;
	for (size_t i = 0; i < tm->patches.nr; i++)
		v[i] = (struct numbered_patch){ tm->patches.v[i], i };
	qsort(v, tm->patches.nr, sizeof(*v), order_patches);
	for (size_t i = 0; i < tm->patches.nr; i++) {
		if (i + 1 < tm->patches.nr && v[i + 1].p.addr == v[i].p.addr)
			continue;
		v[nr++] = v[i];
	}
	*ret_nr = nr;
	return v;
}

static int add_patch(spans *out, const struct patch *p)
{
	return p->categories ? spans_add(out, p->addr, p->addr + MODEL_PAGE_SIZE, p->categories) : 0;
}

int pages_apply_patches(struct track_mm *tm)
{
	size_t nr = 0, i = 0;
	spans out = {};
	int err = 0;

	if (!tm->patches.nr)
		return 0;
	struct numbered_patch *v = sort_patches(tm, &nr);
	if (!v)
		return fail(-ENOMEM, "pid %d: list its pages", tm->pid);
	VEC_FOREACH(s, &tm->seen) {
		taddr_t at = s->start;

		for (; !err && i < nr && v[i].p.addr < s->end; i++) {
			taddr_t addr = v[i].p.addr;

			if (addr > at)
				err = spans_add(&out, at, addr, s->categories);
			if (!err)
				err = add_patch(&out, &v[i].p);
			if (addr >= at)
				at = addr + MODEL_PAGE_SIZE;
		}
		if (!err && at < s->end)
			err = spans_add(&out, at, s->end, s->categories);
		if (err)
			break;
	}
	for (; !err && i < nr; i++)
		err = add_patch(&out, &v[i].p);
	free(v);
	if (err) {
		VEC_FREE(&out);
		return fail(err, "pid %d: list its pages", tm->pid);
	}
	VEC_FREE(&tm->seen);
	tm->seen.v = out.v;
	tm->seen.nr = out.nr;
	tm->seen.cap = out.cap;
	tm->patches.nr = 0;
	return 0;
}
