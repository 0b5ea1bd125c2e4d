/* Waits that a stop has ended: the BPF program that notes them, and what it noted. */
#include "sys/waits.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/log.h"
#include "base/vec.h"
#include "bpf/waits.h"
#include "bpf/waits.skel.h"
#include "model/cpu-x86_64.h"
#include "sys/interrupted-x86_64.h"
#include "sys/kernel_types.h"
#include "sys/tracee.h"

enum { MAPPED_BYTES = WAITS_NR_SLOTS * sizeof(struct wait_record) };

struct waits {
	struct waits_bpf *skel;
	const struct wait_record *slots; /* mapped */
	/* Of the last stop: threads whose limit has been written to a place of ours. */
	VEC(struct settled {
		pid_t tid;
		uint64_t at;
	}) settled;
};

/* The kernel writes what is left in whole microseconds, and some time after the wake-up. */
static const int64_t late_ns = 1000000;

/* Returns why it is not to be had, or NULL. */
static const char *load(struct waits *w)
{
	LIBBPF_OPTS(bpf_object_open_opts, open_opts, .btf_custom_path = kernel_types_path());
	LIBBPF_OPTS(bpf_test_run_opts, opts);

	w->skel = waits_bpf__open_opts(&open_opts);
	if (!w->skel)
		return "its BPF program cannot be opened";
	const struct call_limit *limit;
	for (size_t i = 0, nr = 0; (limit = call_limit_at(i)) && nr < WAITS_NR_CALLS; i++) {
		if (limit->kind == LIMIT_MS)
			continue;
		w->skel->rodata->pointer_calls[nr].nr = limit->nr;
		w->skel->rodata->pointer_calls[nr++].arg = limit->arg;
	}
	if (kernel_types_for(w->skel->obj) || waits_bpf__load(w->skel))
		return "the kernel refuses its BPF program";
	if (bpf_prog_test_run_opts(bpf_program__fd(w->skel->progs.own_waits), &opts))
		return "its BPF program does not run";
	if (!w->skel->bss->wakeup_fn)
		return "the kernel hides where its timers are";
	void *slots = mmap(NULL, MAPPED_BYTES, PROT_READ, MAP_SHARED, bpf_map__fd(w->skel->maps.waits), 0);
	if (slots == MAP_FAILED)
		return "its array cannot be mapped";
	w->slots = slots;
	return waits_bpf__attach(w->skel) ? "its BPF program cannot be attached" : NULL;
}

struct waits *waits_open(void)
{
	struct waits *w = calloc(1, sizeof(*w));
	const char *why = w ? load(w) : "no memory";

	if (!why)
		return w;
	log_debug("calls that the kernel does not restart wait their whole time anew after a stop: %s", why);
	waits_close(w);
	return NULL;
}

void waits_close(struct waits *w)
{
	if (!w)
		return;
	if (w->slots)
		munmap((void *)w->slots, MAPPED_BYTES);
	waits_bpf__destroy(w->skel);
	VEC_FREE(&w->settled);
	free(w);
}

void waits_begin(struct waits *w)
{
	if (!w)
		return;
	if (w->skel->bss->nr_lost)
		log_debug("%u waits have been forgotten", w->skel->bss->nr_lost);
	w->skel->bss->nr_lost = w->skel->bss->nr_pointers = 0;
	w->settled.nr = 0;
	if (!++w->skel->bss->stop)
		w->skel->bss->stop = 1;
}

bool waits_find(const struct waits *w, pid_t tid, struct ended_wait *ret)
{
	for (uint32_t i = 0; w && i < WAITS_NR_PROBES; i++) {
		const struct wait_record *r = &w->slots[((uint32_t)tid + i) & (WAITS_NR_SLOTS - 1)];

		if (r->stop != w->skel->bss->stop)
			return false;
		if (r->tid == (uint32_t)tid) {
			*ret = (struct ended_wait){ r->expires_ns, r->left_ns };
			return true;
		}
	}
	return false;
}

static void settle(struct waits *w, const struct wait_record *r)
{
	int64_t left_ns = r->expires_ns - (int64_t)ptrace_now_ns(), written_ns;
	const struct call_limit *limit = call_limit_of(r->nr);
	struct settled s = { (pid_t)r->tid, call_limit_place(r->sp) };

	/* The kernel itself has written there what was left, which is less by now? */
	if (!call_limit_read(s.tid, limit, r->arg, &written_ns) && written_ns <= r->left_ns + late_ns &&
	    written_ns >= left_ns - late_ns && !call_limit_write(s.tid, limit, r->arg, left_ns))
		return;
	if (!VEC_RESERVE(&w->settled, w->settled.nr + 1) && !call_limit_write(s.tid, limit, s.at, left_ns))
		w->settled.v[w->settled.nr++] = s;
}

void waits_settle(struct waits *w)
{
	for (size_t i = 0; w && w->skel->bss->nr_pointers && i < WAITS_NR_SLOTS; i++)
		if (w->slots[i].stop == w->skel->bss->stop && w->slots[i].arg)
			settle(w, &w->slots[i]);
}

/* Its registers, when there is something to be changed in them. */
static bool set_what_is_left(const struct waits *w, pid_t tid, struct cpu_regs *regs)
{
	const struct call_limit *limit = call_limit_of(regs->orig_ax);
	struct ended_wait wait;

	if (!call_has_limit(regs, regs->orig_ax) || !waits_find(w, tid, &wait))
		return false;
	if (limit->kind == LIMIT_MS) {
		call_set_limit_ms(regs, limit, wait.expires_ns - (int64_t)ptrace_now_ns());
		return true;
	}
	VEC_FOREACH(s, &w->settled) {
		if (s->tid != tid)
			continue;
		call_set_limit_at(regs, limit, s->at);
		return true;
	}
	return false;
}

int waits_hide_stop(const struct waits *w, pid_t tid)
{
	struct cpu_regs regs;
	int err = ptrace_get_regs(tid, &regs);

	if (err || !call_was_broken_off(&regs))
		return err;
	/* The kernel looks at the result once more when the thread resumes. */
	if (!set_what_is_left(w, tid, &regs))
		return ptrace_set_result(tid, -KERNEL_ERESTARTNOHAND);
	regs.ax = (uint64_t)-(int64_t)KERNEL_ERESTARTNOHAND;
	return ptrace_set_regs(tid, &regs);
}
