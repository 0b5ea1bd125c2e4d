/* What both back ends know of a mapping, put into the words of the model; what bcr cannot carry is refused here. */
#include <errno.h>
#include <fcntl.h>
#include <linux/mman.h>
#include <string.h>
#include <sys/mman.h>

#include "base/log.h"
#include "observe/observe.h"
#include "sys/uapi.h"

/* Why a mapping cannot be carried, in words; NULL when it can. */
static const char *vma_obstacle(const struct vma_facts *f)
{
	if (f->start >= f->end || f->start % MODEL_PAGE_SIZE || f->end % MODEL_PAGE_SIZE)
		return "its bounds are not those of whole pages";
	if (f->hugetlb && (f->huge_bytes <= MODEL_PAGE_SIZE || f->huge_bytes & (f->huge_bytes - 1)))
		return "the size of its huge pages is not known";
	if (f->io || f->pfnmap)
		return "device memory cannot be saved";
	if (f->uffd)
		return "it is registered with a userfaultfd of the program, which is not supported";
	if (f->shared && !f->has_file && !f->is_shmem_anon)
		return "it is shared, but nothing tells with what";
	return NULL;
}

static bool is_vdso(const char *special)
{
	return !strcmp(special, "[vdso]");
}

/* Since Linux 6.13 the data pages of the vDSO are several mappings: "[vvar]" and "[vvar_vclock]". */
static bool is_vvar(const char *special)
{
	return !strncmp(special, "[vvar", 5);
}

/* Mappings that the kernel made by itself and that user space cannot make. "[uprobes]" is one. */
static const char *special_obstacle(const char *special)
{
	if (!strcmp(special, "[uprobes]"))
		return "a uprobe is being traced in it: end the tracing first";
	return NULL;
}

static uint32_t vma_status(const struct vma_facts *f)
{
	uint32_t status = VMA_REGULAR;

	if (is_vdso(f->special))
		return status | VMA_VDSO | VMA_ANON_PRIVATE;
	if (is_vvar(f->special))
		return status | VMA_VVAR | VMA_ANON_PRIVATE;
	if (f->is_sysv)
		status |= VMA_ANON_SHARED | VMA_SYSVIPC;
	else if (f->is_shmem_anon && f->shared)
		status |= VMA_ANON_SHARED;
	else if (f->is_shmem_anon && f->hugetlb)
		status |= VMA_ANON_PRIVATE;
	else if (f->has_file)
		status |= f->shared ? VMA_FILE_SHARED : VMA_FILE_PRIVATE;
	else
		status |= VMA_ANON_PRIVATE;
	if (f->is_memfd)
		status |= VMA_MEMFD;
	if (!strcmp(f->special, "[heap]"))
		status |= VMA_HEAP;
	if (f->grows_down)
		status |= VMA_STACK;
	return status;
}

static uint32_t vma_flags(const struct vma_facts *f, uint32_t status)
{
	uint32_t flags = f->shared ? MAP_SHARED : f->droppable ? (uint32_t)BCR_MAP_DROPPABLE : MAP_PRIVATE;

	if (status & (VMA_ANON_SHARED | VMA_ANON_PRIVATE))
		flags |= MAP_ANONYMOUS;
	if (f->grows_down)
		flags |= MAP_GROWSDOWN;
	if (f->no_reserve)
		flags |= MAP_NORESERVE;
	if (f->locked)
		flags |= MAP_LOCKED;
	if (f->hugetlb)
		flags |= MAP_HUGETLB | (uint32_t)__builtin_ctzll(f->huge_bytes) << MAP_HUGE_SHIFT;
	return flags;
}

static uint64_t vma_madv(const struct vma_facts *f)
{
	uint64_t madv = 0;

	if (f->rand_read)
		madv |= 1ULL << MADV_RANDOM;
	if (f->seq_read)
		madv |= 1ULL << MADV_SEQUENTIAL;
	if (f->dont_copy)
		madv |= 1ULL << MADV_DONTFORK;
	if (f->mergeable)
		madv |= 1ULL << MADV_MERGEABLE;
	if (f->hugepage)
		madv |= 1ULL << MADV_HUGEPAGE;
	if (f->nohugepage)
		madv |= 1ULL << MADV_NOHUGEPAGE;
	if (f->dont_dump)
		madv |= 1ULL << MADV_DONTDUMP;
	if (f->wipe_on_fork)
		madv |= 1ULL << MADV_WIPEONFORK;
	return madv;
}

void vma_facts_name(struct vma_facts *facts, const char *path)
{
	static const char zero[] = "/dev/zero (deleted)", named[] = "[anon_shmem:", huge[] = "/anon_hugepage (deleted)",
			  memfd[] = "/memfd:", sysv[] = "/SYSV";

	facts->is_shmem_anon = (facts->shared && (!strncmp(path, zero, strlen(zero)) ||
						  !strncmp(path, named, strlen(named)))) ||
			       !strcmp(path, huge);
	facts->is_memfd = !strncmp(path, memfd, strlen(memfd));
	/* Eight digits, the key, are behind it; a file could be named so in the root directory only. */
	facts->is_sysv = facts->shared && !strncmp(path, sysv, strlen(sysv)) && !strcmp(path + strlen(path) - 10, " (deleted)");
}

static int vma_refuse(pid_t pid, const struct vma_facts *f, const char *why)
{
	return unsupported("pid %d mapping %llx-%llx%s%s: %s", pid, (unsigned long long)f->start,
			   (unsigned long long)f->end, *f->special ? " " : "", f->special, why);
}

int observe_add_vma(struct mm *mm, pid_t pid, const struct vma_facts *facts)
{
	bool kernel_made = is_vdso(facts->special) || is_vvar(facts->special);

	/* The same in every process and above all of user space: nothing to save, nothing to restore. */
	if (!strcmp(facts->special, "[vsyscall]"))
		return 0;

	const char *why = special_obstacle(facts->special);
	/* [vvar] is VM_IO | VM_PFNMAP, and on some kernels [vdso] is sealed: restore moves the kernel's own. */
	if (!why && !kernel_made)
		why = vma_obstacle(facts);
	if (why)
		return vma_refuse(pid, facts, why);

	if (mm->vmas.nr && mm->vmas.v[mm->vmas.nr - 1].end > facts->start)
		return fail(0, "pid %d mapping %llx-%llx: overlaps the one before it", pid,
			    (unsigned long long)facts->start, (unsigned long long)facts->end);

	struct vma *vma = VEC_ADD(&mm->vmas);
	if (!vma)
		return -ENOMEM;
	vma->start = facts->start;
	vma->end = facts->end;
	vma->prot = (facts->read ? PROT_READ : 0) | (facts->write ? PROT_WRITE : 0) |
		    (facts->exec ? PROT_EXEC : 0);
	vma->status = vma_status(facts);
	if (kernel_made) {
		vma->flags = MAP_PRIVATE | MAP_ANONYMOUS;
		return 0;
	}
	vma->flags = vma_flags(facts, vma->status);
	vma->madv = vma_madv(facts);
	vma->sealed = facts->sealed;
	vma->reserved = facts->reserved && !facts->shared && !facts->write;
	vma->lock_on_fault = facts->locked && facts->lock_on_fault;
	vma->uffd = facts->uffd_ident;
	/* A write may make private pages at any time. */
	vma->has_anon = facts->has_anon || (!facts->shared && facts->write);
	if (vma->status & (VMA_FILE_PRIVATE | VMA_FILE_SHARED | VMA_ANON_SHARED))
		vma->pgoff = facts->pgoff_bytes;
	if (vma->status & (VMA_FILE_PRIVATE | VMA_FILE_SHARED | VMA_SYSVIPC))
		vma->fdflags = facts->shared && facts->may_write ? O_RDWR : O_RDONLY;
	return 0;
}
