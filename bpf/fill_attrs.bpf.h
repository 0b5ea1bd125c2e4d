/*
 * Attributes of threads and processes that few programs have: I/O priority, flags that prctl(2) sets, keyrings, what security
 * modules keep. The types are flavours (compat.bpf.h), because kernels are built without some of them.
 */
#ifndef BCR_BPF_FILL_ATTRS_BPF_H
#define BCR_BPF_FILL_ATTRS_BPF_H

#include "bpf/compat.bpf.h"
#include "bpf/task.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct io_context___attrs {
	unsigned short ioprio;
};

struct thread_info___attrs {
	unsigned long flags;
};

struct task_struct___attrs {
	struct io_context___attrs *io_context;
	struct thread_info___attrs thread_info;
	unsigned long core_cookie;
};

struct cred___attrs {
	void *session_keyring;
	void *process_keyring;
	void *thread_keyring;
	void *security;
};

struct mm_struct___attrs {
	struct {
		int counter;
	} membarrier_state;
};

struct autogroup___attrs {
	int nice;
};

struct signal_struct___attrs {
	struct autogroup___attrs *autogroup;
};

#pragma clang attribute pop

/* `cred` is a copy. */
static __always_inline void fill_cred_attrs(struct thread_record *r, const struct cred *cred)
{
	const struct cred___attrs *c = (void *)cred;

	if (bpf_core_field_exists(c->session_keyring)) {
		r->session_keyring = (__u64)c->session_keyring;
		r->process_keyring = (__u64)c->process_keyring;
		r->thread_keyring = (__u64)c->thread_keyring;
	}
	if (bpf_core_field_exists(c->security)) {
		/* Fails where modules keep less than that, or nothing: the words stay 0. */
		if (c->security)
			bpf_probe_read_kernel(r->lsm, sizeof(r->lsm), c->security);
	}
}

static __always_inline void fill_thread_attrs(struct thread_record *r, struct task_struct *t)
{
	struct task_struct___attrs *a = (void *)t;

	r->personality = t->personality;
	r->loginuid = -1;
	if (bpf_core_field_exists(t->loginuid))
		r->loginuid = t->loginuid.val;
	r->atomic_flags = t->atomic_flags;
	r->ti_flags = BPF_CORE_READ(a, thread_info.flags);
	if (bpf_core_field_exists(a->core_cookie))
		r->core_cookie = BPF_CORE_READ(a, core_cookie);
	if (bpf_core_field_exists(a->io_context)) {
		struct io_context___attrs *ioc = BPF_CORE_READ(a, io_context);

		if (ioc)
			r->ioprio = BPF_CORE_READ(ioc, ioprio);
	}
}

/* `signal` is a copy. */
static __always_inline void fill_signal_attrs(struct task_record *r, const struct signal_struct *signal)
{
	const struct signal_struct___attrs *s = (void *)signal;

	if (bpf_core_field_exists(s->autogroup) && s->autogroup)
		r->autogroup_nice = BPF_CORE_READ(s->autogroup, nice);
}

/* `mm` is a copy. */
static __always_inline void fill_mm_attrs(struct task_record *r, const struct mm_struct *mm)
{
	const struct mm_struct___attrs *m = (void *)mm;

	if (bpf_core_field_exists(m->membarrier_state))
		r->membarrier_state = m->membarrier_state.counter;
}

#endif
