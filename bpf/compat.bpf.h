/*
 * What differs between kernels, behind accessors. Types with a suffix after three underscores are
 * flavours: libbpf matches them with the kernel's type of the name before it.
 */
#ifndef BCR_BPF_COMPAT_BPF_H
#define BCR_BPF_COMPAT_BPF_H

#include "vmlinux.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct signal_struct___hlist {
	struct hlist_head posix_timers;
};

/* Also stands for kernels where it is a struct hlist_node: `next` comes first in both. */
struct k_itimer___list {
	struct list_head list;
};

struct k_itimer___sigq_pointer {
	struct sigqueue *sigq;
};

struct k_itimer___sigq_inside {
	struct sigqueue sigq;
};

struct hrtimer___state {
	unsigned char state;
};

struct hrtimer___queued {
	bool is_queued;
};

struct file___owner_inside {
	struct fown_struct f_owner;
};

struct file___owner_pointer {
	struct fown_struct *f_owner;
};

struct thread_struct___fpu {
	struct fpu fpu;
};

struct task_struct___fpu {
	struct thread_struct___fpu thread;
};

struct task_struct___rseq_flat {
	void *rseq;
	__u32 rseq_len;
	__u32 rseq_sig;
};

struct rseq_data___nested {
	void *usrptr;
	__u32 len;
	__u32 sig;
};

struct task_struct___rseq_nested {
	struct rseq_data___nested rseq;
};

struct mm_struct___seqcount {
	seqcount_t mm_lock_seq;
};

struct mm_struct___seq_int {
	int mm_lock_seq;
};

typedef struct {
	unsigned long __mm_flags[1];
} mm_flags_t___bitmap;

struct mm_struct___flags_bitmap {
	mm_flags_t___bitmap flags;
};

struct mm_struct___flags_word {
	unsigned long flags;
};

#pragma clang attribute pop

/* Floating-point state. Since Linux 6.16 struct fpu lies behind the task, not inside task_struct::thread. */
static __always_inline struct fpu *task_fpu(struct task_struct *t)
{
	struct task_struct___fpu *old = (void *)t;

	if (bpf_core_field_exists(old->thread.fpu))
		return &old->thread.fpu;
	return (void *)t + bpf_core_type_size(struct task_struct);
}

/* Of a copy, the word with MMF_*: dumpable in the lowest two bits. Since Linux 6.18 a bitmap type, a plain word before. */
static __always_inline __u64 mm_flags(const struct mm_struct *mm)
{
	const struct mm_struct___flags_bitmap *bitmap = (void *)mm;
	const struct mm_struct___flags_word *word = (void *)mm;

	if (bpf_core_field_exists(bitmap->flags.__mm_flags))
		return bitmap->flags.__mm_flags[0];
	return word->flags;
}

/*
 * Of a copy, a number that grows whenever somebody has held the lock of the address space for writing, without which mappings do
 * not change. There with per-mapping locks since Linux 6.4, a seqcount since 6.14; false: not there.
 */
static __always_inline bool mm_changes(const struct mm_struct *mm, __u64 *ret)
{
	const struct mm_struct___seqcount *seqcount = (void *)mm;
	const struct mm_struct___seq_int *plain = (void *)mm;

	if (bpf_core_field_exists(seqcount->mm_lock_seq.sequence)) {
		*ret = seqcount->mm_lock_seq.sequence;
		return true;
	}
	if (bpf_core_field_exists(plain->mm_lock_seq)) {
		*ret = plain->mm_lock_seq;
		return true;
	}
	return false;
}

static __always_inline bool hrtimer_is_queued(struct hrtimer *timer)
{
	struct hrtimer___queued *queued = (void *)timer;
	struct hrtimer___state *state = (void *)timer;

	if (bpf_core_field_exists(queued->is_queued))
		return BPF_CORE_READ(queued, is_queued);
	return BPF_CORE_READ(state, state) & 1;
}

/* Nanoseconds until the timer fires; negative when it is overdue. Every clock is the monotonic one plus an offset. */
static __always_inline __s64 hrtimer_remaining(struct hrtimer *timer)
{
	return BPF_CORE_READ(timer, node.expires) - BPF_CORE_READ(timer, base, offset) -
	       (__s64)bpf_ktime_get_ns();
}

/* Who gets SIGIO. Since Linux 6.12 allocated on demand; inside struct file before. */
static __always_inline struct fown_struct *file_owner(struct file *f)
{
	struct file___owner_pointer *ptr = (void *)f;
	struct file___owner_inside *inside = (void *)f;

	if (bpf_core_field_exists(ptr->f_owner))
		return BPF_CORE_READ(ptr, f_owner);
	return &inside->f_owner;
}

/* The queue entry of a POSIX timer: inside the timer since Linux 6.13, a pointer before. */
static __always_inline struct sigqueue *timer_sigqueue(struct k_itimer *timer)
{
	struct k_itimer___sigq_pointer *ptr = (void *)timer;
	struct k_itimer___sigq_inside *inside = (void *)timer;

	if (bpf_core_field_exists(ptr->sigq))
		return BPF_CORE_READ(ptr, sigq);
	return &inside->sigq;
}

/* POSIX timers hang on a doubly linked list, or (since Linux 6.12) on an hlist, which ends with NULL. */
static __always_inline bool timers_are_hlist(void)
{
	struct signal_struct___hlist *s = NULL;

	return bpf_core_field_size(s->posix_timers) == sizeof(void *);
}

static __always_inline void task_rseq(struct task_struct *t, __u64 *ptr, __u32 *len, __u32 *sig)
{
	struct task_struct___rseq_flat *flat = (void *)t;
	struct task_struct___rseq_nested *nested = (void *)t;

	*ptr = 0;
	*len = 0;
	*sig = 0;
	if (bpf_core_field_exists(nested->rseq.usrptr)) {
		*ptr = (__u64)BPF_CORE_READ(nested, rseq.usrptr);
		*len = BPF_CORE_READ(nested, rseq.len);
		*sig = BPF_CORE_READ(nested, rseq.sig);
		return;
	}
	/* Kernels built without restartable sequences have neither. */
	if (bpf_core_field_exists(flat->rseq)) {
		*ptr = (__u64)BPF_CORE_READ(flat, rseq);
		*sig = BPF_CORE_READ(flat, rseq_sig);
		/* rseq_len exists since Linux 6.3; the structure was always 32 bytes before. */
		if (bpf_core_field_exists(flat->rseq_len))
			*len = BPF_CORE_READ(flat, rseq_len);
		else
			*len = *ptr ? 32 : 0;
	}
}

#endif
