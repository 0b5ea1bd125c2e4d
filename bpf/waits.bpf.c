/*
 * When would the wait have been over that a stop has just ended?
 *
 * The kernel forgets it for calls that it does not restart by itself. But it wakes a thread to stop it, and then the
 * thread still sleeps: its timer, of the kind that wakes a thread (struct hrtimer_sleeper), is a local variable of a
 * function it sleeps in. So the program on the wake-ups that bcr makes looks for one on the thread's kernel stack:
 * a word that is the address of the function such timers call, with the thread itself at the right distance, and
 * queued. There is none in what functions have left behind that have returned: their timers are not queued any more,
 * and it looks at living frames only.
 */
#include "vmlinux.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "bpf/fill_file.bpf.h"
#include "bpf/waits.h"

char LICENSE[] SEC("license") = "GPL";

struct thread_struct___stack {
	unsigned long sp;
} __attribute__((preserve_access_index));

struct task_struct___stack {
	struct thread_struct___stack thread;
} __attribute__((preserve_access_index));

struct hrtimer___function {
	long long _softexpires;
	void *function;
} __attribute__((preserve_access_index));

struct pt_regs___call {
	unsigned long di, si, dx, r10, r8, sp, orig_ax;
} __attribute__((preserve_access_index));

struct hrtimer_sleeper {
	struct hrtimer timer;
	struct task_struct *task;
} __attribute__((preserve_access_index));

enum {
	NR_WORDS = 256,            /* looked at, from the frame in which the thread left its processor towards its system call */
	STACK_BYTES = 16384,       /* of a kernel stack, which is aligned to that */
	USER_REGS_BYTES = 21 * 8,  /* at its end */
};

struct words {
	__u64 v[NR_WORDS];
};

__u64 wakeup_fn = 0; /* address of hrtimer_wakeup(); 0: the kernel hides it */

/* Calls whose time limit is behind a pointer, and which argument that is, from 0 on. */
const volatile struct {
	__u32 nr, arg;
} pointer_calls[WAITS_NR_CALLS] = {};
__u32 owner = 0; /* process whose wake-ups count, in the initial pid namespace */
__u32 stop = 0;  /* number of the stop; 0: none has begun yet */
__u32 nr_lost = 0;
__u32 nr_pointers = 0; /* waits of the calls below, in this stop */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, WAITS_NR_SLOTS);
	__type(key, __u32);
	__type(value, struct wait_record);
} waits SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct words);
} stacks SEC(".maps");

/* The slot of the thread, or a free one; NULL: there is none. */
static __always_inline struct wait_record *slot_of(__u32 tid)
{
	for (__u32 i = 0; i < WAITS_NR_PROBES; i++) {
		__u32 at = (tid + i) & (WAITS_NR_SLOTS - 1);
		struct wait_record *r = bpf_map_lookup_elem(&waits, &at);

		if (!r || r->stop != stop || r->tid == tid)
			return r;
	}
	return NULL;
}

static __always_inline void note_call(struct task_struct *t, struct wait_record *r)
{
	struct pt_regs___call *regs = (void *)bpf_task_pt_regs(t);

	r->nr = BPF_CORE_READ(regs, orig_ax);
	r->sp = BPF_CORE_READ(regs, sp);
	r->arg = 0;
	for (int i = 0; i < WAITS_NR_CALLS; i++) {
		if (!pointer_calls[i].arg || pointer_calls[i].nr != r->nr)
			continue;
		r->arg = pointer_calls[i].arg == 2 ? BPF_CORE_READ(regs, dx) :
			 pointer_calls[i].arg == 3 ? BPF_CORE_READ(regs, r10) : BPF_CORE_READ(regs, r8);
		nr_pointers++;
	}
}

static __always_inline void note(struct task_struct *t, struct hrtimer *timer)
{
	struct hrtimer___function *soft = (void *)timer;
	__u32 tid = pid_seen(BPF_CORE_READ(t, thread_pid));
	struct wait_record *r = slot_of(tid);

	if (!r) {
		nr_lost++;
		return;
	}
	/* Only the first of a stop has ended a wait; what comes later moves a thread from one kind of stop to another. */
	if (r->stop == stop)
		return;
	__s64 expires_ns = BPF_CORE_READ(soft, _softexpires) - BPF_CORE_READ(timer, base, offset);

	r->tid = tid;
	r->expires_ns = expires_ns;
	r->left_ns = expires_ns - (__s64)bpf_ktime_get_ns();
	note_call(t, r);
	r->stop = stop;
}

SEC("tp_btf/sched_waking")
int BPF_PROG(note_wait, struct task_struct *t)
{
	const __u32 to_task = (bpf_core_field_offset(struct hrtimer_sleeper, task) -
			       bpf_core_field_offset(struct hrtimer___function, function)) / 8;
	const __u32 to_function = bpf_core_field_offset(struct hrtimer___function, function);
	struct task_struct___stack *stack = (void *)t;
	__u32 zero = 0;

	if (!stop || (__u32)(bpf_get_current_pid_tgid() >> 32) != owner)
		return 0;
	/* It has not gone to sleep yet, so it has not waited either. */
	if (!bpf_core_field_exists(t->on_cpu) || BPF_CORE_READ(t, on_cpu))
		return 0;
	struct words *words = bpf_map_lookup_elem(&stacks, &zero);
	__u64 sp = BPF_CORE_READ(stack, thread.sp), room = STACK_BYTES - sp % STACK_BYTES;
	if (!words || room <= USER_REGS_BYTES)
		return 0;
	__u64 bytes = at_most(room - USER_REGS_BYTES, sizeof(*words));
	if (bpf_probe_read_kernel(words, bytes, (void *)sp))
		return 0;
	for (__u32 i = 0; i < NR_WORDS; i++) {
		__u32 task_at = i + to_task;

		if (i * 8 >= bytes || task_at >= NR_WORDS)
			break;
		if (words->v[i] != wakeup_fn || words->v[task_at] != (__u64)t)
			continue;
		struct hrtimer *timer = (void *)(sp + i * 8 - to_function);
		if (hrtimer_is_queued(timer)) {
			note(t, timer);
			break;
		}
	}
	return 0;
}

/* Run by the process whose wake-ups are to count. */
SEC("syscall")
int own_waits(void *ctx)
{
	static const char wakeup[] = "hrtimer_wakeup";

	if (bpf_kallsyms_lookup_name(wakeup, sizeof(wakeup), 0, &wakeup_fn))
		wakeup_fn = 0;
	owner = bpf_get_current_pid_tgid() >> 32;
	return 0;
}
