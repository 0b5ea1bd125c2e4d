/*
 * Watches the address spaces of the target. Before the cut: where did pages come or change (hints). After the cut:
 * saves each page before it is written, or given up by a system call.
 *
 * Theory of operation. The fault tracepoints run in the faulting thread before the fault is resolved, with interrupts
 * off. For a write after the cut, a record is reserved in the ring, the page is read, and ONLY THEN a sequence number
 * is taken: whoever wrote the page first had taken its own number before, so that the record with the lowest number
 * is the page as it was at the cut (docs/freeze.md has the proof). A page that cannot be read makes a record too: its
 * number keeps a later reader, who may come after a write, from being believed.
 *
 * Faults do not show writes by get_user_pages and pages that go away. All of these take the mmap lock: before the
 * cut, taking it outside of a fault is a hint to look at everything. A hint that is missing is noticed after the cut,
 * and makes it be taken again.
 */
#include "vmlinux.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "bpf/track.h"

/* Of enums of the kernel that vmlinux.h does not carry. */
enum { BPF_MAP_TYPE_RINGBUF = 27, BPF_RB_AVAIL_DATA = 0, BPF_RB_NO_WAKEUP = 1, BPF_RB_FORCE_WAKEUP = 2 };

struct pt_regs___args {
	unsigned long di, si, dx, r10, r8, orig_ax;
} __attribute__((preserve_access_index));

struct mm_struct___locked {
	unsigned long locked_vm;
} __attribute__((preserve_access_index));

struct mm_struct___brk {
	unsigned long start_brk, brk;
} __attribute__((preserve_access_index));

struct mm_struct___pinned {
	atomic64_t pinned_vm;
} __attribute__((preserve_access_index));

/* Of struct file, since Linux 6.13: all references but one; before: all. */
struct file___counted {
	struct {
		atomic64_t refcnt;
	} f_ref;
	atomic64_t f_count;
} __attribute__((preserve_access_index));

struct dentry___counted {
	struct {
		int count;
	} d_lockref;
} __attribute__((preserve_access_index));

extern struct task_struct *bpf_task_from_pid(__s32 pid) __ksym __weak;
extern void bpf_task_release(struct task_struct *p) __ksym __weak;

char LICENSE[] SEC("license") = "GPL";

enum {
	FAULT_PRESENT = 1 << 0, /* X86_PF_PROT */
	FAULT_WRITE = 1 << 1,   /* X86_PF_WRITE */
	PF_IO_WORKER = 0x00000010,
	PF_USER_WORKER = 0x00004000,
	PF_KTHREAD = 0x00200000,
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct track_control);
} control SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TRACK_NR_HINTS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct track_hint);
} hints SEC(".maps");

/* Address spaces by kernel address, each held alive by the userfaultfd that bcr has of it. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, TRACK_NR_MMS);
	__type(key, __u64);
	__type(value, __u32);
} tracked_mms SEC(".maps");

/* The other way round, to forget them by. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TRACK_NR_MMS);
	__type(key, __u32);
	__type(value, __u64);
} mm_addresses SEC(".maps");

/*
 * Threads that are in a fault, or were and have not made a system call since, or are in a call that
 * changes_mappings_only(): the lock they take is of no interest.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, TRACK_NR_FAULTING);
	__type(key, __u64);
	__type(value, __u32);
} faulting SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} saved_pages SEC(".maps");

static __always_inline void hint(struct track_control *c, __u64 addr, __u32 mm, __u32 chunk)
{
	__u64 at = __sync_fetch_and_add(&c->nr_hints, 1);
	__u32 key = at & (TRACK_NR_HINTS - 1);

	struct track_hint *h = bpf_map_lookup_elem(&hints, &key);
	if (!h)
		return;
	h->addr = addr;
	h->mm = mm;
	h->chunk = chunk;
}

static __always_inline __u64 wakeup_flag(struct track_control *c)
{
	return bpf_ringbuf_query(&saved_pages, BPF_RB_AVAIL_DATA) > c->wake_bytes ? BPF_RB_FORCE_WAKEUP :
										     BPF_RB_NO_WAKEUP;
}

struct saved_page {
	struct track_record head;
	__u8 bytes[TRACK_PAGE_BYTES];
};

#ifdef BPF_TEST
/*
 * For tests/flow/track_order.c: takes the number too early; dwells now and then, until another thread has written the
 * page.
 */
const volatile __u32 number_first, dwell;

struct dwelling {
	__u64 addr, words[2];
};

static long dwell_on(__u32 i, void *arg)
{
	struct dwelling *d = arg;
	__u64 now[2];

	return bpf_probe_read_user(now, sizeof(now), (void *)d->addr) || now[0] != d->words[0] || now[1] != d->words[1];
}

static __always_inline void dwell_at(__u64 addr)
{
	struct dwelling d = { .addr = addr };

	if (bpf_get_smp_processor_id() & 1 && !bpf_probe_read_user(d.words, sizeof(d.words), (void *)addr))
		bpf_loop(dwell, dwell_on, &d, 0);
}
#else
enum { number_first = 0 };

static __always_inline void dwell_at(__u64 addr)
{
}
#endif

static __always_inline __u64 next_number(struct track_control *c)
{
	return __sync_fetch_and_add(&c->seq, 1) + 1;
}

static __always_inline void save(struct track_control *c, __u64 addr, __u32 mm, __u32 by_call)
{
	struct saved_page *page = bpf_ringbuf_reserve(&saved_pages, sizeof(*page), 0);

	if (!page) {
		__sync_fetch_and_add(&c->lost, 1);
		return;
	}
	page->head.addr = addr;
	page->head.mm = mm;
	page->head.by_call = by_call;
	page->head.reserved = 0;
	if (number_first)
		page->head.seq = next_number(c);
	dwell_at(addr);
	page->head.nr_unread = bpf_probe_read_user(page->bytes, sizeof(page->bytes), (void *)addr) != 0;
	dwell_at(addr);
	/* The order matters: see above. */
	if (!number_first)
		page->head.seq = next_number(c);
	bpf_ringbuf_submit(page, wakeup_flag(c));
}

/* NULL: the running task's address space is not tracked, or nothing is to be done now. */
static __always_inline struct track_control *tracked(__u32 *ret_mm)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u32 zero = 0;
	struct track_control *c = bpf_map_lookup_elem(&control, &zero);

	if (!c || c->mode == TRACK_OFF)
		return NULL;
	__u64 mm = (__u64)task->mm;
	__u32 *nr = bpf_map_lookup_elem(&tracked_mms, &mm);
	if (!nr)
		return NULL;
	*ret_mm = *nr;
	return c;
}

static __always_inline int on_fault(__u64 address, __u64 error_code)
{
	__u32 mm = 0;
	struct track_control *c = tracked(&mm);

	if (!c)
		return 0;
	address &= ~(__u64)(TRACK_PAGE_BYTES - 1);
	if (c->mode == TRACK_HINT) {
		__u64 who = bpf_get_current_pid_tgid();

		hint(c, address, mm, !(error_code & FAULT_PRESENT));
		bpf_map_update_elem(&faulting, &who, &mm, 0 /* BPF_ANY */);
	} else if (error_code & FAULT_WRITE) {
		save(c, address, mm, 0);
	}
	return 0;
}

SEC("tp_btf/page_fault_user")
int BPF_PROG(track_fault_user, unsigned long address, struct pt_regs *regs, unsigned long error_code)
{
	return on_fault(address, error_code);
}

SEC("tp_btf/page_fault_kernel")
int BPF_PROG(track_fault_kernel, unsigned long address, struct pt_regs *regs, unsigned long error_code)
{
	return on_fault(address, error_code);
}

/* System calls (x86-64) that have to do with mappings, or read. */
enum {
	CALL_READ = 0,
	CALL_MMAP = 9,
	CALL_MPROTECT = 10,
	CALL_MUNMAP = 11,
	CALL_BRK = 12,
	CALL_PREAD64 = 17,
	CALL_READV = 19,
	CALL_MREMAP = 25,
	CALL_MADVISE = 28,
	CALL_SHMAT = 30,
	CALL_EXIT = 60,
	CALL_PREADV = 295,
	CALL_PROCESS_VM_READV = 310,
	CALL_PREADV2 = 327,
	CALL_PROCESS_MADVISE = 440,

	ADVICE_REMOVE = 9,

	ARG_MAP_FIXED = 0x10,
	ARG_MAP_FIXED_NOREPLACE = 0x100000,
	ARG_MREMAP_FIXED = 2,
	ARG_MREMAP_DONTUNMAP = 4,
	ARG_SHM_REMAP = 040000,
};

static __always_inline bool advice_drops(__u64 advice)
{
	return advice == 4 /* DONTNEED */ || advice == 8 /* FREE */ || advice == 24 /* DONTNEED_LOCKED */ ||
	       advice == 102 /* GUARD_INSTALL */;
}

/* A range being saved before it is dropped. No counter in it: the verifier would follow each of its values. */
struct drop {
	__u64 start;
	__u64 unread; /* first of the pages in front of the current one that could not be read; 0: none */
	__u32 mm;
};

static __always_inline void flush_unread(struct drop *d, __u64 end)
{
	if (!d->unread)
		return;
	struct track_record *r = bpf_ringbuf_reserve(&saved_pages, sizeof(*r), 0);
	__u32 zero = 0;
	struct track_control *c = bpf_map_lookup_elem(&control, &zero);

	if (!c) {
		if (r)
			bpf_ringbuf_discard(r, BPF_RB_NO_WAKEUP);
		return;
	}
	if (!r) {
		__sync_fetch_and_add(&c->lost, 1);
		return;
	}
	r->addr = d->unread;
	r->mm = d->mm;
	r->by_call = 1;
	r->reserved = 0;
	r->nr_unread = (end - d->unread) / TRACK_PAGE_BYTES;
	r->seq = next_number(c);
	bpf_ringbuf_submit(r, BPF_RB_NO_WAKEUP);
	d->unread = 0;
}

static long drop_page(__u32 i, void *arg)
{
	struct drop *d = arg;
	__u64 addr = d->start + (__u64)i * TRACK_PAGE_BYTES;
	__u32 zero = 0;
	__u64 probe;
	struct track_control *c = bpf_map_lookup_elem(&control, &zero);

	if (!c)
		return 1;
	/* A hole, most likely: holes come in great numbers, so they share a record. */
	if (bpf_probe_read_user(&probe, sizeof(probe), (void *)addr)) {
		if (!d->unread)
			d->unread = addr;
		return 0;
	}
	flush_unread(d, addr);
	save(c, addr, d->mm, 1);
	return 0;
}

static __always_inline void save_range(struct track_control *c, __u32 mm, __u64 start, __u64 len)
{
	struct drop d = { .start = start & ~(__u64)(TRACK_PAGE_BYTES - 1), .mm = mm };
	__u64 nr = (len + (start - d.start) + TRACK_PAGE_BYTES - 1) / TRACK_PAGE_BYTES;

	if (nr > c->max_drop_pages) {
		__sync_fetch_and_add(&c->lost, 1);
		return;
	}
	bpf_loop(nr, drop_page, &d, 0);
	flush_unread(&d, d.start + nr * TRACK_PAGE_BYTES);
}

static __always_inline void on_brk(struct track_control *c, __u32 mm, __u64 brk)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct mm_struct___brk *m = (void *)BPF_CORE_READ(task, mm);
	__u64 old = BPF_CORE_READ(m, brk);

	if (brk >= BPF_CORE_READ(m, start_brk) && brk < old)
		save_range(c, mm, brk, old - brk);
}

/*
 * Calls after which each page of a mapping that was there before, and is still, is what it was: what they make is not
 * registered and copied in the stop, what they take away is not in the stopped target's list of mappings. The lock
 * they take is no hint.
 */
static __always_inline bool changes_mappings_only(long id)
{
	return id == CALL_MMAP || id == CALL_MUNMAP || id == CALL_BRK || id == CALL_MPROTECT || id == CALL_EXIT;
}

/* In which mprotect(2) brings pages that a write would have brought. */
static __always_inline bool has_locked_memory(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct mm_struct___locked *m = (void *)BPF_CORE_READ(task, mm);

	return BPF_CORE_READ(m, locked_vm);
}

/* Takes pages out of what is shared, or maps it a second time. */
static __always_inline bool changes_shared(struct pt_regs___args *args, long id)
{
	if (id == CALL_MADVISE)
		return BPF_CORE_READ(args, dx) == ADVICE_REMOVE;
	if (id == CALL_PROCESS_MADVISE)
		return BPF_CORE_READ(args, r10) == ADVICE_REMOVE;
	return id == CALL_MREMAP && (!BPF_CORE_READ(args, si) || BPF_CORE_READ(args, r10) & ARG_MREMAP_DONTUNMAP);
}

/* Pages are saved before the call that drops them; the order rule holds as it does for a write. */
SEC("tp_btf/sys_enter")
int BPF_PROG(track_syscall, struct pt_regs *regs, long id)
{
	struct pt_regs___args *args = (void *)regs;
	__u32 zero = 0, mm = 0;
	struct track_control *any = bpf_map_lookup_elem(&control, &zero);

	if (any && changes_shared(args, id) && tracked(&mm))
		__sync_fetch_and_add(&any->shared_changes, 1);
	if (any && any->mode == TRACK_HINT) {
		__u64 who = bpf_get_current_pid_tgid();

		if (changes_mappings_only(id) && tracked(&mm) && !(id == CALL_MPROTECT && has_locked_memory()))
			bpf_map_update_elem(&faulting, &who, &mm, 0 /* BPF_ANY */);
		else
			bpf_map_delete_elem(&faulting, &who);
		return 0;
	}
	if (id != CALL_MUNMAP && id != CALL_MREMAP && id != CALL_MADVISE && id != CALL_MMAP && id != CALL_BRK &&
	    id != CALL_SHMAT && id != CALL_PROCESS_MADVISE)
		return 0;
	struct track_control *c = tracked(&mm);
	if (!c || c->mode != TRACK_SAVE)
		return 0;
	__u64 addr = BPF_CORE_READ(args, di), len = BPF_CORE_READ(args, si);
	__u64 arg3 = BPF_CORE_READ(args, dx), arg4 = BPF_CORE_READ(args, r10);

	switch (id) {
	case CALL_MMAP:
		if (!(arg4 & ARG_MAP_FIXED) || arg4 & ARG_MAP_FIXED_NOREPLACE)
			return 0;
		break;
	case CALL_MUNMAP:
		break;
	case CALL_BRK:
		on_brk(c, mm, addr);
		return 0;
	case CALL_MREMAP:
		if (arg4 & ARG_MREMAP_FIXED)
			save_range(c, mm, BPF_CORE_READ(args, r8), arg3);
		break;
	case CALL_MADVISE:
		if (!advice_drops(arg3))
			return 0;
		break;
	case CALL_SHMAT:
		if (!(arg3 & ARG_SHM_REMAP))
			return 0;
		/* fallthrough */
	default:
		/* What it does cannot be told from its arguments. */
		__sync_fetch_and_add(&c->lost, 1);
		return 0;
	}
	save_range(c, mm, addr, len);
	return 0;
}

/*
 * A thread of another address space reads: files in /proc tell ps(1) and its like of the target, process_vm_readv(2) a profiler. No
 * page changes by that, and a page that comes holds zeros or what its file does. (The numbers are those of x86-64. A 32-bit program
 * has other calls by them, none of which touches another address space.)
 */
static __always_inline bool reads_from_outside(struct mm_struct *mm)
{
	struct task_struct *task = bpf_get_current_task_btf();

	/* These have no call of their own: what stands there is not what they do. */
	if (!task->mm || task->mm == mm || task->flags & (PF_KTHREAD | PF_IO_WORKER | PF_USER_WORKER))
		return false;
	long id = BPF_CORE_READ((struct pt_regs___args *)bpf_task_pt_regs(task), orig_ax);

	return id == CALL_READ || id == CALL_PREAD64 || id == CALL_READV || id == CALL_PREADV || id == CALL_PREADV2 ||
	       id == CALL_PROCESS_VM_READV;
}

/* Anybody but bcr takes the lock of a tracked address space: pages may come, go or change without a fault. */
SEC("tp_btf/mmap_lock_acquire_returned")
int BPF_PROG(track_mmap_lock, struct mm_struct *mm, bool write, bool success)
{
	__u32 zero = 0;
	struct track_control *c = bpf_map_lookup_elem(&control, &zero);

	if (!c || c->mode != TRACK_HINT || c->full)
		return 0;
	__u64 key = (__u64)mm;
	__u64 who = bpf_get_current_pid_tgid();
	if (!bpf_map_lookup_elem(&tracked_mms, &key) || who >> 32 == c->tool)
		return 0;
	if (bpf_map_lookup_elem(&faulting, &who) || reads_from_outside(mm))
		return 0;
	c->full_by = who;
	c->full_by_group = who >> 32;
	c->full = 1;
	return 0;
}

/* A child has what its parent shares, and is not protected from the start. */
SEC("tp_btf/sched_process_fork")
int BPF_PROG(track_fork, struct task_struct *parent, struct task_struct *child)
{
	__u32 zero = 0;
	struct track_control *c = bpf_map_lookup_elem(&control, &zero);
	__u64 mm = (__u64)parent->mm;

	if (c && parent->mm != child->mm && bpf_map_lookup_elem(&tracked_mms, &mm))
		__sync_fetch_and_add(&c->shared_changes, 1);
	return 0;
}

static long note_file(struct task_struct *task, struct vm_area_struct *vma, struct track_file_args *ret)
{
	struct file *file = BPF_CORE_READ(vma, vm_file);
	struct file___counted *counted = (void *)file;
	struct dentry___counted *dentry = (void *)BPF_CORE_READ(file, f_path.dentry);

	ret->file = (__u64)file;
	ret->users = bpf_core_field_exists(counted->f_ref) ? BPF_CORE_READ(counted, f_ref.refcnt.counter) + 1 :
							     BPF_CORE_READ(counted, f_count.counter);
	ret->opens = BPF_CORE_READ(dentry, d_lockref.count);
	return 0;
}

/* Returns 1 when it cannot be told: nothing is mapped there, or somebody holds the lock. */
SEC("syscall")
int track_file_users(struct track_file_args *args)
{
	struct task_struct *task = bpf_task_from_pid(args->pid);
	struct track_file_args found = {};

	if (!task)
		return 1;
	long err = bpf_find_vma(task, args->addr, note_file, &found, 0);
	bpf_task_release(task);
	args->file = found.file;
	args->users = found.users;
	args->opens = found.opens;
	return err || !found.file;
}

SEC("syscall")
int track_add(struct track_add_args *args)
{
	struct task_struct *task = bpf_task_from_pid(args->pid);
	__u32 nr = args->mm;

	if (!task)
		return 1;
	__u64 mm = (__u64)task->mm;
	long err = mm ? bpf_map_update_elem(&tracked_mms, &mm, &nr, 0 /* BPF_ANY */) : 2;
	if (!err)
		err = bpf_map_update_elem(&mm_addresses, &nr, &mm, 0 /* BPF_ANY */);
	bpf_task_release(task);
	return err != 0;
}

SEC("syscall")
int track_forget(struct track_add_args *args)
{
	__u32 nr = args->mm;
	__u64 *mm = bpf_map_lookup_elem(&mm_addresses, &nr);

	if (!mm)
		return 1;
	if (*mm)
		bpf_map_delete_elem(&tracked_mms, mm);
	*mm = 0;
	return 0;
}

struct pinned_search {
	__u32 from, found;
};

static long look_at_pins(__u32 i, void *arg)
{
	struct pinned_search *s = arg;
	__u32 nr = s->from + i;
	__u64 *mm = bpf_map_lookup_elem(&mm_addresses, &nr);

	if (!mm)
		return 1;
	struct mm_struct___pinned *m = (void *)*mm;
	if (!m || !BPF_CORE_READ(m, pinned_vm.counter))
		return 0;
	s->found = nr;
	return 1;
}

/* The first of these address spaces that has pages pinned for long; TRACK_NR_MMS: none has. */
SEC("syscall")
int track_next_pinned(struct track_range_args *args)
{
	struct pinned_search s = { .from = args->from, .found = TRACK_NR_MMS };

	if (s.from < args->to && args->to <= TRACK_NR_MMS)
		bpf_loop(args->to - s.from, look_at_pins, &s, 0);
	return s.found;
}
