/* Facts about a mapping become the words of the model; what cannot be carried is refused with a sentence. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <linux/mman.h>
#include <sys/mman.h>

#include "base/log.h"
#include "observe/observe.h"
#include "sys/uapi.h"

static int failures;

static void expect(const char *name, const char *field, uint64_t got, uint64_t want)
{
	if (got == want)
		return;
	printf("%s: %s is %#llx, should be %#llx\n", name, field, (unsigned long long)got, (unsigned long long)want);
	failures++;
}

#define AT .start = 0x1000, .end = 0x3000
#define RW .read = true, .write = true

/* Carried: the facts, and what becomes of them. */
static const struct {
	const char *name;
	struct vma_facts facts;
	struct vma want;
} carried[] = {
	{ "anonymous",
	  { AT, RW, .pgoff_bytes = 0x7000, .has_anon = true, .special = "" },
	  { .prot = 3, .flags = MAP_PRIVATE | MAP_ANONYMOUS, .status = VMA_REGULAR | VMA_ANON_PRIVATE, .has_anon = true } },
	{ "PROT_NONE, no reserve",
	  { AT, .no_reserve = true, .special = "" },
	  { .flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, .status = VMA_REGULAR | VMA_ANON_PRIVATE } },
	{ "heap, locked",
	  { AT, RW, .locked = true, .special = "[heap]" },
	  { .prot = 3, .flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, .status = VMA_REGULAR | VMA_ANON_PRIVATE | VMA_HEAP, .has_anon = true } },
	{ "stack",
	  { AT, RW, .grows_down = true, .special = "[stack]" },
	  { .prot = 3, .flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN, .status = VMA_REGULAR | VMA_ANON_PRIVATE | VMA_STACK, .has_anon = true } },
	{ "private file",
	  { AT, .read = true, .exec = true, .may_write = true, .has_file = true, .pgoff_bytes = 0x5000, .special = "" },
	  { .prot = 5, .flags = MAP_PRIVATE, .status = VMA_REGULAR | VMA_FILE_PRIVATE, .pgoff = 0x5000, .fdflags = O_RDONLY } },
	{ "private file with pages of its own",
	  { AT, .read = true, .may_write = true, .has_file = true, .has_anon = true, .special = "" },
	  { .prot = 1, .flags = MAP_PRIVATE, .status = VMA_REGULAR | VMA_FILE_PRIVATE, .fdflags = O_RDONLY, .has_anon = true } },
	{ "private file that may get such pages",
	  { AT, RW, .may_write = true, .has_file = true, .special = "" },
	  { .prot = 3, .flags = MAP_PRIVATE, .status = VMA_REGULAR | VMA_FILE_PRIVATE, .fdflags = O_RDONLY, .has_anon = true } },
	{ "shared file, writable later",
	  { AT, .read = true, .shared = true, .may_write = true, .has_file = true, .special = "" },
	  { .prot = 1, .flags = MAP_SHARED, .status = VMA_REGULAR | VMA_FILE_SHARED, .fdflags = O_RDWR } },
	{ "shared file, read-only descriptor",
	  { AT, .read = true, .shared = true, .has_file = true, .special = "" },
	  { .prot = 1, .flags = MAP_SHARED, .status = VMA_REGULAR | VMA_FILE_SHARED, .fdflags = O_RDONLY } },
	{ "shared anonymous",
	  { AT, RW, .shared = true, .may_write = true, .has_file = true, .is_shmem_anon = true, .pgoff_bytes = 0x2000, .special = "" },
	  { .prot = 3, .flags = MAP_SHARED | MAP_ANONYMOUS, .status = VMA_REGULAR | VMA_ANON_SHARED, .pgoff = 0x2000 } },
	{ "memory file",
	  { AT, RW, .shared = true, .may_write = true, .has_file = true, .is_memfd = true, .special = "" },
	  { .prot = 3, .flags = MAP_SHARED, .status = VMA_REGULAR | VMA_FILE_SHARED | VMA_MEMFD, .fdflags = O_RDWR } },
	{ "System V segment, attached for reading",
	  { AT, .read = true, .shared = true, .has_file = true, .is_sysv = true, .special = "" },
	  { .prot = 1, .flags = MAP_SHARED | MAP_ANONYMOUS, .status = VMA_REGULAR | VMA_ANON_SHARED | VMA_SYSVIPC, .fdflags = O_RDONLY } },
	{ "huge pages, private",
	  { AT, RW, .hugetlb = true, .huge_bytes = 2 << 20, .has_file = true, .is_shmem_anon = true, .special = "" },
	  { .prot = 3, .flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | 21 << MAP_HUGE_SHIFT,
	    .status = VMA_REGULAR | VMA_ANON_PRIVATE, .has_anon = true } },
	{ "private view of a shared anonymous object is that of a file",
	  { AT, RW, .has_file = true, .is_shmem_anon = true, .special = "" },
	  { .prot = 3, .flags = MAP_PRIVATE, .status = VMA_REGULAR | VMA_FILE_PRIVATE, .fdflags = O_RDONLY, .has_anon = true } },
	{ "vdso, sealed by the kernel",
	  { AT, .read = true, .exec = true, .sealed = true, .dont_dump = true, .special = "[vdso]" },
	  { .prot = 5, .flags = MAP_PRIVATE | MAP_ANONYMOUS, .status = VMA_REGULAR | VMA_VDSO | VMA_ANON_PRIVATE } },
	{ "vvar, device memory of the kernel's own",
	  { AT, .read = true, .io = true, .pfnmap = true, .dont_dump = true, .special = "[vvar]" },
	  { .prot = 1, .flags = MAP_PRIVATE | MAP_ANONYMOUS, .status = VMA_REGULAR | VMA_VVAR | VMA_ANON_PRIVATE } },
	{ "second vvar",
	  { AT, .read = true, .io = true, .pfnmap = true, .special = "[vvar_vclock]" },
	  { .prot = 1, .flags = MAP_PRIVATE | MAP_ANONYMOUS, .status = VMA_REGULAR | VMA_VVAR | VMA_ANON_PRIVATE } },
	{ "sealed, locked on fault",
	  { AT, RW, .sealed = true, .locked = true, .lock_on_fault = true, .reserved = true, .special = "" },
	  { .prot = 3, .flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, .status = VMA_REGULAR | VMA_ANON_PRIVATE,
	    .sealed = true, .lock_on_fault = true, .has_anon = true } },
	{ "forbidden, with memory reserved for it",
	  { AT, .reserved = true, .lock_on_fault = true, .special = "" },
	  { .flags = MAP_PRIVATE | MAP_ANONYMOUS, .status = VMA_REGULAR | VMA_ANON_PRIVATE, .reserved = true } },
	{ "droppable",
	  { AT, RW, .droppable = true, .no_reserve = true, .wipe_on_fork = true, .special = "" },
	  { .prot = 3, .flags = BCR_MAP_DROPPABLE | MAP_ANONYMOUS | MAP_NORESERVE, .status = VMA_REGULAR | VMA_ANON_PRIVATE,
	    .madv = 1 << MADV_WIPEONFORK, .has_anon = true } },
	{ "all advice",
	  { AT, RW, .dont_copy = true, .wipe_on_fork = true, .dont_dump = true, .hugepage = true, .nohugepage = true,
	    .mergeable = true, .seq_read = true, .rand_read = true, .special = "" },
	  { .prot = 3, .flags = MAP_PRIVATE | MAP_ANONYMOUS, .status = VMA_REGULAR | VMA_ANON_PRIVATE,
	    .madv = 1 << MADV_DONTFORK | 1 << MADV_WIPEONFORK | 1 << MADV_DONTDUMP | 1 << MADV_HUGEPAGE |
		    1 << MADV_NOHUGEPAGE | 1 << MADV_MERGEABLE | 1 << MADV_SEQUENTIAL | 1 << MADV_RANDOM, .has_anon = true } },
};

/* Refused, each for its own reason. */
static const struct {
	const char *name;
	struct vma_facts facts;
} refused[] = {
	{ "huge pages of no size", { AT, RW, .hugetlb = true, .special = "" } },
	{ "huge pages of an odd size", { AT, RW, .hugetlb = true, .huge_bytes = 12345, .special = "" } },
	{ "device memory (io)", { AT, RW, .io = true, .has_file = true, .special = "" } },
	{ "device memory (pfnmap)", { AT, RW, .pfnmap = true, .has_file = true, .special = "" } },
	{ "userfaultfd", { AT, RW, .uffd = true, .special = "" } },
	{ "shared with nothing", { AT, RW, .shared = true, .special = "" } },
	{ "traced", { AT, .exec = true, .special = "[uprobes]" } },
	{ "empty", { .start = 0x1000, .end = 0x1000, .special = "" } },
	{ "not of pages", { .start = 0x1000, .end = 0x1800, .special = "" } },
};

static void check_carried(void)
{
	for (size_t i = 0; i < sizeof(carried) / sizeof(carried[0]); i++) {
		const char *name = carried[i].name;
		const struct vma *want = &carried[i].want;
		struct mm mm = {};

		expect(name, "result", observe_add_vma(&mm, 1, &carried[i].facts), 0);
		expect(name, "number", mm.vmas.nr, 1);
		if (mm.vmas.nr == 1) {
			const struct vma *got = &mm.vmas.v[0];

			expect(name, "start", got->start, 0x1000);
			expect(name, "end", got->end, 0x3000);
			expect(name, "pgoff", got->pgoff, want->pgoff);
			expect(name, "prot", got->prot, want->prot);
			expect(name, "flags", got->flags, want->flags);
			expect(name, "status", got->status, want->status);
			expect(name, "madv", got->madv, want->madv);
			expect(name, "fdflags", got->fdflags, want->fdflags);
			expect(name, "sealed", got->sealed, want->sealed);
			expect(name, "lock_on_fault", got->lock_on_fault, want->lock_on_fault);
			expect(name, "reserved", got->reserved, want->reserved);
			expect(name, "has_anon", got->has_anon, want->has_anon);
		}
		VEC_FREE(&mm.vmas);
	}
}

static void check_refused(void)
{
	size_t nr = sizeof(refused) / sizeof(refused[0]);

	refusals_begin();
	for (size_t i = 0; i < nr; i++) {
		struct mm mm = {};

		/* Another pid each: equal sentences are kept once. */
		expect(refused[i].name, "result", observe_add_vma(&mm, i + 1, &refused[i].facts), -EOPNOTSUPP);
		expect(refused[i].name, "number", mm.vmas.nr, 0);
	}
	log_set_err_fd(-1);
	expect("refusals", "number", refusals_end(), nr);
	log_set_err_fd(2);
}

static void check_order(void)
{
	const struct vma_facts first = { AT, RW, .special = "" };
	const struct vma_facts inside = { .start = 0x2000, .end = 0x4000, .special = "" };
	const struct vma_facts vsyscall = { .start = 0xffffffffff600000, .end = 0xffffffffff601000, .exec = true,
					    .special = "[vsyscall]" };
	struct mm mm = {};

	expect("first", "result", observe_add_vma(&mm, 1, &first), 0);
	log_set_err_fd(-1);
	expect("overlapping", "result", observe_add_vma(&mm, 1, &inside), -EINVAL);
	log_set_err_fd(2);
	expect("vsyscall", "result", observe_add_vma(&mm, 1, &vsyscall), 0);
	expect("all", "number", mm.vmas.nr, 1);
	VEC_FREE(&mm.vmas);
}

int main(void)
{
	check_carried();
	check_refused();
	check_order();
	return failures ? 1 : 0;
}
