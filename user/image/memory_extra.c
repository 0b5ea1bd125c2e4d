/* What CRIU's format has no field for in an address space ↔ the memory part of bcr-threads-N.bcr. */
#include <errno.h>
#include <sys/mman.h>

#include "base/log.h"
#include "image/pagemap.h"
#include "image/parts.h"

/* The entry of a mapping, when it needs one. Returns -ENOMEM or 0. */
static int save_mapping(struct arena *a, const struct vma *vma, BcrMemoryEntry *msg)
{
	if (!vma->lock_on_fault && !vma->sealed && !vma->reserved)
		return 0;

	BcrMappingEntry *e = arena_alloc(a, sizeof(*e));

	if (!e)
		return -ENOMEM;
	bcr_mapping_entry__init(e);
	e->start = vma->start;
	e->has_lock_on_fault = e->lock_on_fault = vma->lock_on_fault;
	e->has_sealed = e->sealed = vma->sealed;
	e->has_reserved = e->reserved = vma->reserved;
	msg->mappings[msg->n_mappings++] = e;
	return 0;
}

static int save_kin(struct arena *a, const struct mm *mm, BcrMemoryEntry *msg)
{
	BcrKinEntry *entries = arena_alloc(a, mm->kin.nr * sizeof(*entries));

	msg->kin = arena_alloc(a, mm->kin.nr * sizeof(*msg->kin));
	if (!entries || !msg->kin)
		return -ENOMEM;
	VEC_FOREACH(run, &mm->kin) {
		BcrKinEntry *e = &entries[msg->n_kin];

		bcr_kin_entry__init(e);
		e->start = run->start;
		e->nr_pages = run->nr_pages;
		e->pid = run->pid;
		msg->kin[msg->n_kin++] = e;
	}
	return 0;
}

int save_memory_extra(struct arena *a, const struct mm *mm, BcrTaskEntry *task)
{
	BcrMemoryEntry *msg = arena_alloc(a, sizeof(*msg));

	if (!msg)
		return -ENOMEM;
	bcr_memory_entry__init(msg);
	msg->mappings = arena_alloc(a, mm->vmas.nr * sizeof(*msg->mappings));
	if (!msg->mappings)
		return -ENOMEM;
	VEC_FOREACH(vma, &mm->vmas) {
		if (save_mapping(a, vma, msg))
			return -ENOMEM;
	}
	msg->has_lock_future = mm->lock_future != 0;
	msg->lock_future = mm->lock_future;
	msg->has_merge_all = msg->merge_all = mm->merge_all;
	if (save_kin(a, mm, msg))
		return -ENOMEM;
	if (msg->n_mappings || msg->n_kin || msg->lock_future || msg->merge_all)
		task->memory = msg;
	return 0;
}

static int load_mapping(const struct image_reader *r, const BcrMappingEntry *e, struct vma *vma)
{
	if (vma->status & (VMA_VDSO | VMA_VVAR | VMA_VSYSCALL))
		return bad_file(r, "bcr-threads: the mapping at 0x%llx is the kernel's own", (unsigned long long)e->start);
	if (e->lock_on_fault && !(vma->flags & MAP_LOCKED))
		return bad_file(r, "bcr-threads: the mapping at 0x%llx is not locked", (unsigned long long)e->start);
	vma->lock_on_fault = e->lock_on_fault;
	if (e->reserved && (vma->flags & MAP_SHARED || vma->prot & PROT_WRITE))
		return bad_file(r, "bcr-threads: the mapping at 0x%llx is not one that was private and writable",
				(unsigned long long)e->start);
	vma->sealed = e->sealed;
	vma->reserved = e->reserved;
	return 0;
}

static int load_kin(const struct image_reader *r, const BcrMemoryEntry *msg, struct mm *mm)
{
	taddr_t behind = 0;

	for (size_t i = 0; i < msg->n_kin; i++) {
		const BcrKinEntry *e = msg->kin[i];
		struct kin_run run = { .start = e->start, .nr_pages = e->nr_pages, .pid = (pid_t)e->pid };
		int err = pagemap_check_run(r, e->start, e->nr_pages, IMAGE_USER_END);

		if (err)
			return err;
		if (e->start < behind || run.pid <= 0)
			return bad_file(r, "bcr-threads: pages in common with pid %u at 0x%llx", e->pid, (unsigned long long)e->start);
		behind = e->start + e->nr_pages * MODEL_PAGE_SIZE;
		if (VEC_PUSH(&mm->kin, run))
			return fail(-ENOMEM, "%s/%s: read", r->path, r->name);
	}
	return 0;
}

int load_memory_extra(const struct image_reader *r, const BcrTaskEntry *task, struct mm *mm)
{
	const BcrMemoryEntry *msg = task->memory;
	size_t at = 0;

	if (!msg)
		return 0;
	for (size_t i = 0; i < msg->n_mappings; i++) {
		const BcrMappingEntry *e = msg->mappings[i];

		while (at < mm->vmas.nr && mm->vmas.v[at].start < e->start)
			at++;
		/* Also when they do not ascend. */
		if (at == mm->vmas.nr || mm->vmas.v[at].start != e->start)
			return bad_file(r, "bcr-threads: there is no mapping at 0x%llx", (unsigned long long)e->start);
		int err = load_mapping(r, e, &mm->vmas.v[at]);
		if (err)
			return err;
	}
	if (msg->lock_future & ~(uint32_t)(MCL_FUTURE | MCL_ONFAULT) || msg->lock_future == MCL_ONFAULT)
		return bad_file(r, "bcr-threads: lock_future is %u", msg->lock_future);
	mm->lock_future = msg->lock_future;
	mm->merge_all = msg->merge_all;
	return load_kin(r, msg, mm);
}
