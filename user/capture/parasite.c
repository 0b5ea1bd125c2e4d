/*
 * The parasite from outside.
 *
 * Theory of operation. One mapping in the target: the code (made read-only and executable), the list of calls, their
 * data, a stack, and a signal frame with the thread's own registers, by which the thread goes back to its work if bcr
 * is gone when the list is done (pie/parasite.c). While bcr lives it gives the registers back by ptrace instead:
 * rt_sigreturn would forget what the kernel needs to restart an interrupted sleep.
 */
#include "capture/parasite.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "pie/parasite.blob.h"
#include "pie/parasite.h"
#include "sys/interrupted-x86_64.h"
#include "sys/sigframe-x86_64.h"
#include "sys/tracee.h"

enum {
	CODE_BYTES = (sizeof(parasite_blob) + MODEL_PAGE_SIZE - 1) & ~(MODEL_PAGE_SIZE - 1),
	BATCH_OFFSET = CODE_BYTES,
	/* One slot more than the caller may fill: the alternate stack is asked for first. */
	BATCH_BYTES = (sizeof(struct parasite_batch) + (PARASITE_MAX_CALLS + 1) * sizeof(struct parasite_call) + 63) & ~63,
	DATA_OFFSET = BATCH_OFFSET + BATCH_BYTES,
	FRAME_OFFSET = DATA_OFFSET + PARASITE_DATA_BYTES,
	STACK_OFFSET = FRAME_OFFSET + SIGFRAME_MAX_BYTES,
	STACK_BYTES = 16384,
	MAP_BYTES = (STACK_OFFSET + STACK_BYTES + MODEL_PAGE_SIZE - 1) & ~(MODEL_PAGE_SIZE - 1),
};

_Static_assert(FRAME_OFFSET % SIGFRAME_ALIGN == 0, "the xsave area is aligned");
_Static_assert(sizeof(((struct parasite_list *)0)->calls[0]) == sizeof(struct parasite_call), "copied as a whole");

static int protect_code(struct remote *r, taddr_t base)
{
	uint64_t args[6] = { base, CODE_BYTES, PROT_READ | PROT_EXEC };
	int64_t ret;
	int err = remote_syscall(r, SYS_mprotect, args, &ret);

	if (!err && ret == -EACCES)
		return unsupported("pid %d: its memory may not become executable (PR_SET_MDWE), which --observe=proc needs; use "
				   "--observe=bpf",
				   r->pid);
	return err ? err : ret ? fail((int)ret, "pid %d: make the parasite executable", r->pid) : 0;
}

int parasite_inject(pid_t pid, pid_t tid, struct parasite *ret)
{
	struct remote r;
	taddr_t base = 0;
	int err = remote_begin(&r, pid, tid, NULL);

	if (err)
		return err;
	err = remote_map(&r, MAP_BYTES, &base);
	if (!err)
		err = remote_write(tid, base, parasite_blob, sizeof(parasite_blob));
	if (!err)
		err = protect_code(&r, base);
	if (err && base)
		remote_unmap(&r, base, MAP_BYTES);
	int err_end = remote_end(&r);
	err = err ? err : err_end;
	if (!err)
		*ret = (struct parasite){ pid, base };
	return err;
}

taddr_t parasite_data(const struct parasite *p, struct parasite_list *list, uint32_t len_bytes, uint32_t *ret_offset)
{
	uint32_t offset = (list->len_data + 15) & ~15u;

	if (len_bytes > PARASITE_DATA_BYTES || offset > PARASITE_DATA_BYTES - len_bytes)
		return 0;
	list->len_data = offset + len_bytes;
	*ret_offset = offset;
	return p->base + DATA_OFFSET + offset;
}

uint32_t parasite_add(struct parasite_list *list, long nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
	assert(list->nr_calls < PARASITE_MAX_CALLS);
	list->calls[list->nr_calls].nr = (uint64_t)nr;
	memcpy(list->calls[list->nr_calls].args, (uint64_t[6]){ a, b, c, d }, sizeof(uint64_t[6]));
	return list->nr_calls++;
}

/* Writes list, data and frame into the target. */
static int place_list(const struct parasite *p, const struct remote *r, const struct parasite_list *list)
{
	_cleanup_free_ uint8_t *image = calloc(1, STACK_OFFSET - BATCH_OFFSET);
	_cleanup_free_ uint8_t *xsave = malloc(CPU_XSAVE_MAX);
	size_t len_xsave = CPU_XSAVE_MAX;
	uint64_t sp, altstack;

	if (!image || !xsave)
		return fail(-ENOMEM, "pid %d thread %d: prepare the parasite", r->pid, r->tid);
	int err = ptrace_get_xstate(r->tid, xsave, &len_xsave);
	if (err)
		return fail(err, "pid %d thread %d: read FPU state", r->pid, r->tid);

	/* What the thread goes on with when nobody is there to let the kernel restart its call. */
	struct cpu cpu = { r->saved, { (uint32_t)len_xsave, xsave } };
	call_settle(r->tid, &cpu.regs);
	err = sigframe_build(&cpu, r->saved_sigmask, p->base + FRAME_OFFSET, image + FRAME_OFFSET - BATCH_OFFSET, &sp, &altstack);
	if (err < 0)
		return fail(err, "pid %d thread %d: FPU state of %zu bytes", r->pid, r->tid, len_xsave);

	struct parasite_batch *batch = (struct parasite_batch *)image;
	batch->nr_calls = list->nr_calls + 1;
	batch->sigframe = sp;
	batch->calls[0] = (struct parasite_call){ .nr = SYS_sigaltstack, .args = { 0, altstack } };
	memcpy(&batch->calls[1], list->calls, list->nr_calls * sizeof(struct parasite_call));
	memcpy(image + DATA_OFFSET - BATCH_OFFSET, list->data, list->len_data);
	return remote_write(r->tid, p->base + BATCH_OFFSET, image, STACK_OFFSET - BATCH_OFFSET);
}

static int fetch_list(const struct parasite *p, pid_t tid, struct parasite_list *list)
{
	size_t len_calls = list->nr_calls * sizeof(struct parasite_call);
	taddr_t batch = p->base + BATCH_OFFSET;
	struct parasite_batch head;
	int err = remote_read(tid, batch, &head, sizeof(head));

	if (!err && head.nr_done != list->nr_calls + 1)
		err = fail(-EIO, "pid %d thread %d: the parasite stopped after %u of %u calls", p->pid, tid, head.nr_done,
			   list->nr_calls + 1);
	if (!err && len_calls)
		err = remote_read(tid, batch + sizeof(head) + sizeof(struct parasite_call), list->calls, len_calls);
	if (!err && list->len_data)
		err = remote_read(tid, p->base + DATA_OFFSET, list->data, list->len_data);
	return err;
}

int parasite_execute(const struct parasite *p, pid_t tid, struct parasite_list *list)
{
	struct remote r;
	int err = remote_begin(&r, p->pid, tid, NULL);

	if (err)
		return err;
	err = place_list(p, &r, list);
	if (!err) {
		struct cpu_regs regs = r.saved;

		regs.ip = p->base + parasite_blob_blob_start;
		regs.di = p->base + BATCH_OFFSET;
		regs.sp = p->base + STACK_OFFSET + STACK_BYTES;
		regs.orig_ax = (uint64_t)-1;
		/* Direction: the ABI has it clear at calls. Trap: the SIGTRAP, being blocked, would cost the program its handler. */
		regs.flags &= ~0x500ull;
		err = remote_run(&r, &regs);
	}
	int err_end = remote_end(&r);
	err = err ? err : err_end;
	return err ? err : fetch_list(p, tid, list);
}

int parasite_remove(const struct parasite *p, pid_t tid)
{
	struct remote r;
	int err = remote_begin(&r, p->pid, tid, NULL);

	if (err)
		return err;
	err = remote_unmap(&r, p->base, MAP_BYTES);
	int err_end = remote_end(&r);
	return err ? err : err_end;
}
