/*
 * Address spaces ↔ mm-N.img, and which of their page maps is whose.
 *
 * Tasks that share an address space (equal vm_id) have an mm and a pagemap file each, as every task of CRIU's format has, with
 * the same in them. The pages are there once: both pagemaps name the same pages file. The reader takes the files of the
 * first such task in pstree.img.
 */
#include <linux/mman.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "base/log.h"
#include "image/magic.h"
#include "image/names.h"
#include "image/pagemap.h"
#include "image/parents.h"
#include "image/parts.h"
#include "images/mm.pb-c.h"
#include "sys/uapi.h"

enum {
	NR_AUXV_MAX = 128,
	PAGE = MODEL_PAGE_SIZE,
	HUGE_SHIFT_MIN = 16, HUGE_SHIFT_MAX = 34, /* 64 KiB to 16 GiB, of all the machines there are */
	/* Bits of vma.status that CRIU has and bcr does not restore. */
	STATUS_SOCKET = 1 << 11, STATUS_AIO = 1 << 13, STATUS_SHSTK = 1 << 15,
	STATUS_KNOWN = VMA_REGULAR | VMA_STACK | VMA_VSYSCALL | VMA_VDSO | VMA_HEAP | VMA_FILE_PRIVATE |
		       VMA_FILE_SHARED | VMA_ANON_SHARED | VMA_ANON_PRIVATE | VMA_SYSVIPC | VMA_VVAR | VMA_MEMFD,
	STATUS_TYPE = VMA_FILE_PRIVATE | VMA_FILE_SHARED | VMA_ANON_SHARED | VMA_ANON_PRIVATE,
	STATUS_FILE = VMA_FILE_PRIVATE | VMA_FILE_SHARED,
};

/* Advice that stays with a mapping. What acts at once (MADV_DONTNEED, MADV_REMOVE) must not come from an image. */
static const uint64_t ADVICE_KNOWN = 1ULL << MADV_RANDOM | 1ULL << MADV_SEQUENTIAL | 1ULL << MADV_DONTFORK |
				     1ULL << MADV_MERGEABLE | 1ULL << MADV_HUGEPAGE | 1ULL << MADV_NOHUGEPAGE |
				     1ULL << MADV_DONTDUMP | 1ULL << MADV_WIPEONFORK;

int save_guards(struct arena *a, const struct mm *mm, BcrTaskEntry *msg)
{
	msg->guards = arena_alloc(a, mm->pages.nr * sizeof(*msg->guards));
	if (!msg->guards)
		return -ENOMEM;
	VEC_FOREACH(run, &mm->pages) {
		if (!(run->flags & PAGES_GUARD))
			continue;

		BcrGuardEntry *e = arena_alloc(a, sizeof(*e));

		if (!e)
			return -ENOMEM;
		bcr_guard_entry__init(e);
		e->start = run->start;
		e->nr_pages = run->nr_pages;
		msg->guards[msg->n_guards++] = e;
	}
	return 0;
}

/* --- saving address spaces --- */

/* Mappings of System V segments name them by the numbers that the kernel has for them. */
static uint32_t shmem_number(const struct model *m, const struct vma *vma)
{
	const struct shmem *s = vma->status & VMA_SYSVIPC ? model_find_shmem(m, vma->shmem_id) : NULL;

	return s ? (uint32_t)s->sysv.id : vma->shmem_id;
}

static void save_vma(const struct model *m, const struct vma *vma, VmaEntry *e)
{
	vma_entry__init(e);
	e->start = vma->start;
	e->end = vma->end;
	e->pgoff = vma->pgoff;
	e->shmid = vma->status & VMA_ANON_SHARED ? shmem_number(m, vma) : vma->file_id;
	e->prot = vma->prot;
	e->flags = vma->flags;
	e->status = vma->status;
	e->fd = -1;
	e->has_madv = vma->madv != 0;
	e->madv = vma->madv;
	e->has_fdflags = (vma->status & (STATUS_FILE | VMA_SYSVIPC)) != 0;
	e->fdflags = vma->fdflags;
}

static int fill_mm(struct arena *a, const struct model *m, const struct mm *mm, MmEntry *e)
{
	VmaEntry *vmas = arena_alloc(a, mm->vmas.nr * sizeof(*vmas));

	e->vmas = arena_alloc(a, mm->vmas.nr * sizeof(*e->vmas));
	if (!vmas || !e->vmas)
		return -ENOMEM;
	for (size_t i = 0; i < mm->vmas.nr; i++) {
		save_vma(m, &mm->vmas.v[i], &vmas[i]);
		e->vmas[e->n_vmas++] = &vmas[i];
	}
	e->mm_start_code = mm->start_code;
	e->mm_end_code = mm->end_code;
	e->mm_start_data = mm->start_data;
	e->mm_end_data = mm->end_data;
	e->mm_start_stack = mm->start_stack;
	e->mm_start_brk = mm->start_brk;
	e->mm_brk = mm->brk;
	e->mm_arg_start = mm->arg_start;
	e->mm_arg_end = mm->arg_end;
	e->mm_env_start = mm->env_start;
	e->mm_env_end = mm->env_end;
	e->exe_file_id = mm->exe_file_id;
	e->mm_saved_auxv = mm->auxv.v;
	e->n_mm_saved_auxv = mm->auxv.nr;
	e->has_dumpable = true;
	e->dumpable = mm->dumpable;
	e->has_thp_disabled = true;
	e->thp_disabled = mm->thp_disabled != 0;
	return 0;
}

/* Where the pages of an address space are, the same for all tasks that share it. */
static uint32_t pages_id_of(const struct save *s, const struct mm *mm)
{
	size_t i = 0;

	while (s->m->mms.v[i] != mm)
		i++;
	return s->mm_pages_ids[i];
}

int save_mm_pages(struct save *s, const struct mm *mm, pid_t pid)
{
	char name[IMAGE_NAME_MAX];

	return pagemap_image_save(s->set, image_name_pagemap(name, pid), pages_id_of(s, mm), &mm->pages);
}

int save_mm(struct save *s, const struct task *t)
{
	const struct mm *mm = model_find_mm(s->m, t->mm_id);
	MmEntry e = MM_ENTRY__INIT;
	struct arena a = {};

	if (!mm)
		return fail(0, "pid %d: the model lacks its memory", t->pid);

	int err = fill_mm(&a, s->m, mm, &e);

	if (err)
		err = fail(err, "pid %d: save its mappings", t->pid);
	else
		err = image_put(s->set, MAGIC_COMMON, MAGIC_MM, &e.base, "mm-%d.img", t->pid);
	arena_free(&a);
	if (err)
		return err;
	return save_mm_pages(s, mm, t->pid);
}

/* --- loading pages --- */

int load_pages(struct load *l, const char *name, uint64_t end_max, uint32_t *pages_id, page_runs *runs)
{
	int err = pagemap_image_load(l->src, name, end_max, pages_id, runs);

	if (err == -ENOENT)
		return fail(0, "%s/%s: missing: the image set is not complete", l->src->path, name);
	if (err)
		return err;
	VEC_FOREACH(run, runs) {
		if (run->flags & PAGES_PARENT) {
			err = load_parents(l);
			return err ? err : parents_resolve(l->parents, name, end_max, runs);
		}
	}
	return 0;
}

static int compare_runs(const void *a, const void *b)
{
	const struct page_run *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

static int load_guards(const struct image_reader *r, const BcrTaskEntry *extra, struct mm *mm)
{
	for (size_t i = 0; i < extra->n_guards; i++) {
		const BcrGuardEntry *e = extra->guards[i];
		struct page_run run = { .start = e->start, .nr_pages = e->nr_pages, .flags = PAGES_GUARD };
		int err = pagemap_check_run(r, e->start, e->nr_pages, IMAGE_USER_END);

		if (err)
			return err;
		if (VEC_PUSH(&mm->pages, run))
			return fail(-ENOMEM, "%s/%s: read", r->path, r->name);
	}
	if (!extra->n_guards)
		return 0;
	qsort(mm->pages.v, mm->pages.nr, sizeof(*mm->pages.v), compare_runs);
	for (size_t i = 1; i < mm->pages.nr; i++) {
		const struct page_run *last = &mm->pages.v[i - 1];

		if (mm->pages.v[i].start < last->start + last->nr_pages * PAGE)
			return bad_file(r, "guard pages at 0x%llx of bcr-threads-%d.bcr overlap with other pages",
					(unsigned long long)mm->pages.v[i].start, mm->pid);
	}
	return 0;
}

/* Every page must have a mapping; a run may go over several that touch. */
static int check_pages_mapped(const struct image_reader *r, const struct mm *mm)
{
	size_t i = 0;

	VEC_FOREACH(run, &mm->pages) {
		taddr_t at = run->start, end = run->start + run->nr_pages * PAGE;

		while (at < end) {
			while (i < mm->vmas.nr && mm->vmas.v[i].end <= at)
				i++;
			if (i == mm->vmas.nr || mm->vmas.v[i].start > at)
				return bad_file(r, "the page at 0x%llx is in no mapping of mm-%d.img",
						(unsigned long long)at, mm->pid);
			at = mm->vmas.v[i].end;
		}
	}
	return 0;
}

/* --- loading address spaces --- */

static int check_status(const struct image_reader *r, const VmaEntry *e)
{
	unsigned long long at = e->start;
	uint32_t type = e->status & STATUS_TYPE;

	if (e->status & STATUS_SOCKET)
		return unsupported("%s/%s: mapping at 0x%llx: a packet socket's ring", r->path, r->name, at);
	if (e->status & STATUS_AIO)
		return unsupported("%s/%s: mapping at 0x%llx: an AIO ring", r->path, r->name, at);
	if (e->status & STATUS_SHSTK)
		return unsupported("%s/%s: mapping at 0x%llx: a shadow stack", r->path, r->name, at);
	if (e->status & ~STATUS_KNOWN)
		return bad_image(r, "mapping at 0x%llx: status 0x%x, which this version of bcr does not know",
				 at, e->status);
	if ((e->status & VMA_SYSVIPC && type != VMA_ANON_SHARED) ||
	    (e->status & VMA_MEMFD && type != VMA_FILE_SHARED && type != VMA_FILE_PRIVATE))
		return bad_image(r, "mapping at 0x%llx: status 0x%x contradicts itself", at, e->status);
	if (type & (type - 1))
		return bad_image(r, "mapping at 0x%llx: status 0x%x is of two types", at, e->status);
	if (!type && !(e->status & (VMA_VDSO | VMA_VVAR | VMA_VSYSCALL)))
		return bad_image(r, "mapping at 0x%llx: status 0x%x is of no type", at, e->status);
	return 0;
}

static int check_sharing(const struct image_reader *r, const VmaEntry *e)
{
	bool shared = (e->status & (VMA_FILE_SHARED | VMA_ANON_SHARED)) != 0;

	if (e->status & VMA_ANON_PRIVATE && (e->flags & MAP_TYPE) == BCR_MAP_DROPPABLE)
		return 0;
	if ((e->flags & MAP_TYPE) != (shared ? MAP_SHARED : MAP_PRIVATE) &&
	    !(shared && (e->flags & MAP_TYPE) == MAP_SHARED_VALIDATE))
		return bad_image(r, "mapping at 0x%llx: flags 0x%x do not go with status 0x%x",
				 (unsigned long long)e->start, e->flags, e->status);
	return 0;
}

static int check_range(const struct image_reader *r, const VmaEntry *e, taddr_t behind)
{
	bool vsyscall = e->status & VMA_VSYSCALL && e->start == IMAGE_VSYSCALL &&
			e->end == IMAGE_VSYSCALL + PAGE;

	if (e->start % PAGE || e->end % PAGE || e->start >= e->end ||
	    (e->end > IMAGE_USER_END && !vsyscall))
		return bad_image(r, "mapping 0x%llx-0x%llx", (unsigned long long)e->start,
				 (unsigned long long)e->end);
	if (e->start < behind)
		return bad_image(r, "mapping 0x%llx-0x%llx is not behind the one in front of it",
				 (unsigned long long)e->start, (unsigned long long)e->end);
	if (e->pgoff % PAGE || e->pgoff > INT64_MAX - (e->end - e->start))
		return bad_image(r, "mapping at 0x%llx: offset 0x%llx", (unsigned long long)e->start,
				 (unsigned long long)e->pgoff);
	if (e->madv & ~ADVICE_KNOWN)
		return bad_image(r, "mapping at 0x%llx: advice 0x%llx", (unsigned long long)e->start,
				 (unsigned long long)e->madv);
	if (e->prot & ~(PROT_READ | PROT_WRITE | PROT_EXEC))
		return bad_image(r, "mapping at 0x%llx: protection 0x%x", (unsigned long long)e->start,
				 e->prot);
	return 0;
}

/* Huge pages are told by their size, as mmap(2) is. */
static int check_huge(const struct image_reader *r, const VmaEntry *e)
{
	uint32_t shift = e->flags >> MAP_HUGE_SHIFT & MAP_HUGE_MASK;

	if (!(e->flags & MAP_HUGETLB))
		return 0;
	if (shift < HUGE_SHIFT_MIN || shift > HUGE_SHIFT_MAX ||
	    (e->start | e->end | e->pgoff) & ((1ULL << shift) - 1))
		return bad_image(r, "mapping 0x%llx-0x%llx: flags 0x%x do not go with huge pages", (unsigned long long)e->start,
				 (unsigned long long)e->end, e->flags);
	return 0;
}

static int load_vma_object(struct load *l, const struct image_reader *r, const VmaEntry *e,
			   struct vma *vma)
{
	if (!(e->status & (STATUS_FILE | VMA_ANON_SHARED)))
		return 0;
	if ((!e->shmid && !(e->status & VMA_SYSVIPC)) || e->shmid > UINT32_MAX)
		return bad_image(r, "mapping at 0x%llx: shmid %llu", (unsigned long long)e->start,
				 (unsigned long long)e->shmid);
	if (e->status & VMA_ANON_SHARED)
		return load_vma_shmem(l, r, e, vma);

	const struct file *f = model_find_file(l->m, e->shmid);

	if (!f || f->type != (e->status & VMA_MEMFD ? FILE_MEMFD : FILE_REG))
		return bad_image(r, "mapping at 0x%llx: its file %llu is not in files.img",
				 (unsigned long long)e->start, (unsigned long long)e->shmid);
	vma->file_id = e->shmid;
	return 0;
}

static int load_vma(struct load *l, const struct image_reader *r, const VmaEntry *e, struct mm *mm)
{
	taddr_t behind = mm->vmas.nr ? mm->vmas.v[mm->vmas.nr - 1].end : 0;
	struct vma *vma = VEC_ADD(&mm->vmas);
	int err = check_status(r, e);

	if (!vma)
		return fail(-ENOMEM, "%s/%s: read", r->path, r->name);
	if (!err)
		err = check_range(r, e, behind);
	if (!err)
		err = check_sharing(r, e);
	if (!err)
		err = check_huge(r, e);
	if (err)
		return err;
	vma->start = e->start;
	vma->end = e->end;
	vma->pgoff = e->pgoff;
	vma->prot = e->prot;
	vma->flags = e->flags;
	vma->status = e->status;
	vma->madv = e->madv;
	vma->fdflags = e->fdflags;
	return load_vma_object(l, r, e, vma);
}

/* A pair of addresses that bound something; the kernel checks the rest when they are set. */
static int check_bounds(const struct image_reader *r, const char *what, taddr_t start, taddr_t end)
{
	if (start > end || end >= IMAGE_USER_END)
		return bad_image(r, "%s 0x%llx-0x%llx", what, (unsigned long long)start,
				 (unsigned long long)end);
	return 0;
}

static int load_layout(struct load *l, const struct image_reader *r, const MmEntry *e, struct mm *mm)
{
	int err = check_bounds(r, "code", e->mm_start_code, e->mm_end_code);

	if (!err)
		err = check_bounds(r, "data", e->mm_start_data, e->mm_end_data);
	if (!err)
		err = check_bounds(r, "heap", e->mm_start_brk, e->mm_brk);
	if (!err)
		err = check_bounds(r, "arguments", e->mm_arg_start, e->mm_arg_end);
	if (!err)
		err = check_bounds(r, "environment", e->mm_env_start, e->mm_env_end);
	if (!err)
		err = check_bounds(r, "stack", e->mm_start_stack, e->mm_start_stack);
	if (err)
		return err;
	if (e->n_aios)
		return unsupported("%s/%s: the process has AIO contexts", r->path, r->name);
	if (e->n_mm_saved_auxv > NR_AUXV_MAX || e->n_mm_saved_auxv % 2)
		return bad_image(r, "an auxiliary vector of %zu words", e->n_mm_saved_auxv);
	if (e->has_dumpable && (e->dumpable < 0 || e->dumpable > 2))
		return bad_image(r, "dumpable %d", e->dumpable);
	if (!model_find_file(l->m, e->exe_file_id))
		return bad_image(r, "the executable %u is not in files.img", e->exe_file_id);
	if (VEC_RESERVE(&mm->auxv, e->n_mm_saved_auxv))
		return fail(-ENOMEM, "%s/%s: read", r->path, r->name);
	for (size_t i = 0; i < e->n_mm_saved_auxv; i++)
		mm->auxv.v[mm->auxv.nr++] = e->mm_saved_auxv[i];
	mm->start_code = e->mm_start_code;
	mm->end_code = e->mm_end_code;
	mm->start_data = e->mm_start_data;
	mm->end_data = e->mm_end_data;
	mm->start_stack = e->mm_start_stack;
	mm->start_brk = e->mm_start_brk;
	mm->brk = e->mm_brk;
	mm->arg_start = e->mm_arg_start;
	mm->arg_end = e->mm_arg_end;
	mm->env_start = e->mm_env_start;
	mm->env_end = e->mm_env_end;
	mm->exe_file_id = e->exe_file_id;
	mm->dumpable = e->has_dumpable ? e->dumpable : 1;
	mm->thp_disabled = e->thp_disabled;
	mm->coredump_filter = MM_DUMP_FILTER_UNKNOWN;
	return 0;
}

static int load_mm_pages(struct load *l, const BcrTaskEntry *extra, struct mm *mm)
{
	/* Names the file in messages. */
	struct image_reader r = { .path = l->src->path };
	int err = load_pages(l, image_name_pagemap(r.name, mm->pid), IMAGE_USER_END, &mm->pages_id, &mm->pages);

	if (!err && extra)
		err = load_mm_attrs(&r, extra, mm);
	if (!err && extra)
		err = load_guards(&r, extra, mm);
	if (!err && extra)
		err = load_memory_extra(&r, extra, mm);
	return err ? err : check_pages_mapped(&r, mm);
}

int load_mm(struct load *l, const struct task *t, const BcrTaskEntry *extra)
{
	_cleanup_reader_ struct image_reader r = {};
	_cleanup_message_ MmEntry *e = NULL;
	struct mm *mm;
	int err;

	if (model_find_mm(l->m, t->mm_id))
		return 0;
	err = reader_open_needed(&r, l->src, MAGIC_MM, "mm-%d.img", t->pid);
	if (!err)
		err = reader_single(&r, &mm_entry__descriptor, &e);
	if (err)
		return err;
	mm = model_add_mm(l->m, t->mm_id);
	if (!mm)
		return fail(-ENOMEM, "%s/%s: read", r.path, r.name);
	mm->pid = t->pid;
	err = load_layout(l, &r, e, mm);
	for (size_t i = 0; !err && i < e->n_vmas; i++)
		err = load_vma(l, &r, e->vmas[i], mm);
	return err ? err : load_mm_pages(l, extra, mm);
}
