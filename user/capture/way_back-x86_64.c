/* The way back: finding the code, building the frame. */
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "capture/way_back.h"
#include "sys/interrupted-x86_64.h"
#include "sys/sigframe-x86_64.h"
#include "sys/tracee.h"

enum {
	RED_ZONE_BYTES = 128,
	PIECE_BYTES = 1 << 16,
	MAX_CODE_BYTES = 64 << 20, /* looked through for the two pieces of code */
	CLOSING_WORDS = 4,
	CLOSING_BYTES = CLOSING_WORDS * 8,
	NO_SUCH_MODE = 0x7f,       /* of an alternate stack: rt_sigreturn refuses it, in silence, and leaves the stack as it is */
};

static const uint8_t syscall_ret[] = { 0x0f, 0x05, 0xc3 };
/* mov $15, %rax and mov $15, %eax; syscall */
static const uint8_t restorer_long[] = { 0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05 };
static const uint8_t restorer_short[] = { 0xb8, 15, 0, 0, 0, 0x0f, 0x05 };
static const uint8_t swap_ret[] = { 0x97, 0xc3 }, pop_ret[] = { 0x58, 0xc3 };

struct search {
	pid_t pid;
	struct way_back_code *code;
	size_t looked_at;
	uint8_t *piece;
};

static bool look_for(const struct search *s, taddr_t at, size_t len, const uint8_t *code, size_t code_len, taddr_t *ret)
{
	const uint8_t *found = *ret ? NULL : memmem(s->piece, len, code, code_len);

	if (found)
		*ret = at + (taddr_t)(found - s->piece);
	return *ret;
}

/* Everything has been found? */
static bool look_at_piece(const struct search *s, taddr_t at, size_t len)
{
	struct way_back_code *c = s->code;
	bool calls = look_for(s, at, len, syscall_ret, sizeof(syscall_ret), &c->syscall_ret);
	bool restores = look_for(s, at, len, restorer_long, sizeof(restorer_long), &c->restorer) ||
			look_for(s, at, len, restorer_short, sizeof(restorer_short), &c->restorer);
	bool swaps = look_for(s, at, len, swap_ret, sizeof(swap_ret), &c->swap);

	return look_for(s, at, len, pop_ret, sizeof(pop_ret), &c->pop) && swaps && restores && calls;
}

static bool look_through(struct search *s, taddr_t start, taddr_t end)
{
	/* Pieces overlap, so that no code is cut in two. */
	for (taddr_t at = start; at < end && s->looked_at < MAX_CODE_BYTES; at += PIECE_BYTES - sizeof(restorer_long)) {
		size_t len = end - at < PIECE_BYTES ? end - at : PIECE_BYTES;
		struct iovec local = { s->piece, len }, remote = { (void *)(uintptr_t)at, len };
		ssize_t got = process_vm_readv(s->pid, &local, 1, &remote, 1, 0);

		if (got <= 0)
			return false;
		s->looked_at += got;
		if (look_at_piece(s, at, got))
			return true;
	}
	return false;
}

/*
 * A return to where nothing was called from is refused there. What one thread has the others have: the C library sees
 * to that.
 */
static bool has_shadow_stack(pid_t pid)
{
	char path[64], line[256];
	bool has = false;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	_cleanup_fclose_ FILE *in = fopen(path, "re");
	while (in && fgets(line, sizeof(line), in))
		has |= !strncmp(line, "x86_Thread_features:", 20) && strstr(line, "shstk");
	return has;
}

void way_back_find(pid_t pid, struct way_back_code *ret)
{
	_cleanup_free_ uint8_t *piece = malloc(PIECE_BYTES);
	struct search s = { .pid = pid, .code = ret, .piece = piece };
	char path[64], line[512], access[5];
	unsigned long start, end;
	bool found = !piece;

	memset(ret, 0, sizeof(*ret));
	ret->shadow_stack = has_shadow_stack(pid);
	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	_cleanup_fclose_ FILE *in = fopen(path, "re");
	while (in && fgets(line, sizeof(line), in)) {
		if (sscanf(line, "%lx-%lx %4s", &start, &end, access) != 3)
			continue;
		/* Code of files: what a program has generated may be gone at any time. */
		if (!found && access[0] == 'r' && access[2] == 'x' && strchr(line, '/'))
			found = look_through(&s, start, end);
		if (strstr(line, "[stack]")) {
			ret->stack_start = start;
			ret->stack_end = end;
		}
	}
}

static bool is_there(pid_t pid, taddr_t at, const uint8_t *code, size_t len)
{
	uint8_t bytes[sizeof(restorer_long)];
	struct iovec local = { bytes, len }, remote = { (void *)(uintptr_t)at, len };

	return at && process_vm_readv(pid, &local, 1, &remote, 1, 0) == (ssize_t)len && !memcmp(bytes, code, len);
}

/* Nothing has been unmapped since it was found? */
static bool still_there(pid_t pid, struct way_back_code *c)
{
	if (!is_there(pid, c->swap, swap_ret, sizeof(swap_ret)) || !is_there(pid, c->pop, pop_ret, sizeof(pop_ret)))
		c->swap = c->pop = 0;
	return is_there(pid, c->syscall_ret, syscall_ret, sizeof(syscall_ret)) &&
	       (is_there(pid, c->restorer, restorer_long, sizeof(restorer_long)) ||
		is_there(pid, c->restorer, restorer_short, sizeof(restorer_short)));
}

/* Sections that must not be interrupted begin anew after a signal: the frame of a thread in one is that of its abort. */
static int leave_rseq(pid_t tid, struct cpu_regs *r)
{
	struct {
		uint32_t version, flags;
		uint64_t start_ip, post_commit_offset, abort_ip;
	} section;
	struct ptrace_rseq rseq;
	uint64_t at;

	if (ptrace_get_rseq(tid, &rseq) || !rseq.ptr)
		return 0;
	struct iovec local = { &at, sizeof(at) }, remote = { (void *)(uintptr_t)(rseq.ptr + 8), sizeof(at) };
	if (process_vm_readv(tid, &local, 1, &remote, 1, 0) != sizeof(at))
		return -EFAULT;
	if (!at)
		return 0;
	local = (struct iovec){ &section, sizeof(section) };
	remote = (struct iovec){ (void *)(uintptr_t)at, sizeof(section) };
	if (process_vm_readv(tid, &local, 1, &remote, 1, 0) != sizeof(section))
		return -EFAULT;
	if (r->ip - section.start_ip < section.post_commit_offset)
		r->ip = section.abort_ip;
	return 0;
}

/* Registers and all, for address `at`; `buf` has room for SIGFRAME_MAX_BYTES. Returns the length or a negative errno. */
static int build_frame(pid_t tid, const struct cpu_regs *regs, uint64_t sigmask, taddr_t at, uint8_t *buf,
		       struct way_back *w)
{
	_cleanup_free_ uint8_t *xsave = malloc(CPU_XSAVE_MAX);
	struct cpu cpu = { .regs = *regs, .fpu.xsave = xsave };
	size_t xsave_bytes = CPU_XSAVE_MAX;
	uint64_t altstack;
	int mode = NO_SUCH_MODE;

	if (!xsave)
		return -ENOMEM;
	call_settle(tid, &cpu.regs);
	int err = leave_rseq(tid, &cpu.regs);
	if (!err)
		err = ptrace_get_xstate(tid, xsave, &xsave_bytes);
	if (err)
		return err;
	cpu.fpu.len_bytes = xsave_bytes;
	int len = sigframe_build(&cpu, sigmask, at, buf, &w->ucontext, &altstack);
	if (len < 0)
		return len;
	memcpy(buf, &w->code.restorer, sizeof(w->code.restorer));
	memcpy(buf + (altstack - at) + offsetof(stack_t, ss_flags), &mode, sizeof(mode));
	return len;
}

/*
 * From the call that made the descriptor: to where it becomes the argument, to where the number of close(2) is
 * loaded, to that call.
 */
static void build_closing(const struct way_back *w, uint64_t words[CLOSING_WORDS])
{
	const uint64_t chain[] = { w->code.swap, w->code.pop, SYS_close, w->code.syscall_ret };

	_Static_assert(sizeof(chain) == CLOSING_WORDS * sizeof(words[0]), "four words");
	memcpy(words, chain, sizeof(chain));
}

static int write_frame(pid_t tid, const struct cpu_regs *regs, uint64_t sigmask, struct way_back *w)
{
	_cleanup_free_ uint8_t *frame = malloc(CLOSING_BYTES + SIGFRAME_MAX_BYTES);

	if (!frame)
		return -ENOMEM;
	int len = build_frame(tid, regs, sigmask, 0, frame, w);
	if (len < 0)
		return len;
	w->frame = (regs->sp - RED_ZONE_BYTES - len) & ~(taddr_t)(SIGFRAME_ALIGN - 1);
	w->closing = w->frame - CLOSING_BYTES;
	if (w->closing < w->code.stack_start)
		return -ENOSPC;
	len = build_frame(tid, regs, sigmask, w->frame, frame + CLOSING_BYTES, w);
	if (len < 0)
		return len;
	build_closing(w, (uint64_t *)frame);
	w->len_bytes = CLOSING_BYTES + len;
	w->before = malloc(w->len_bytes);
	if (!w->before)
		return -ENOMEM;
	ssize_t all = w->len_bytes;
	struct iovec there = { (void *)(uintptr_t)w->closing, all }, old = { w->before, all }, new = { frame, all };
	if (process_vm_readv(tid, &old, 1, &there, 1, 0) != all || process_vm_writev(tid, &new, 1, &there, 1, 0) != all)
		return -EFAULT;
	return 0;
}

void way_back_open(pid_t pid, pid_t tid, const struct way_back_code *code, const struct cpu_regs *regs, uint64_t sigmask,
		   struct way_back *ret)
{
	const char *why = NULL;
	int err = 0;

	*ret = (struct way_back){ .code = *code };
	if (!still_there(tid, &ret->code))
		why = "its code has none";
	else if (regs->sp < code->stack_start || regs->sp >= code->stack_end)
		why = "it is not on the stack of its process";
	else if (code->shadow_stack)
		why = "it has a shadow stack";
	else
		err = write_frame(tid, regs, sigmask, ret);
	if (!why && !err) {
		ret->open = true;
		return;
	}
	log_debug("pid %d thread %d: no way back for it, should bcr die now: %s", pid, tid, why ? why : strerror(-err));
	free(ret->before);
	*ret = (struct way_back){};
}

void way_back_enter(const struct way_back *w, struct cpu_regs *regs)
{
	regs->ip = w->code.restorer;
	regs->sp = w->ucontext;
	regs->orig_ax = (uint64_t)-1;
	regs->ax = 0;
}

taddr_t way_back_stack(const struct way_back *w, bool makes_descriptor)
{
	return makes_descriptor && w->code.swap ? w->closing : w->frame;
}

void way_back_close(pid_t pid, struct way_back *w, bool leave)
{
	struct iovec there = { (void *)(uintptr_t)w->closing, w->len_bytes }, old = { w->before, w->len_bytes };

	if (!w->open)
		return;
	/* A thread that has ended needs nothing any more. */
	if (!leave && process_vm_writev(pid, &old, 1, &there, 1, 0) != (ssize_t)w->len_bytes)
		log_debug("pid %d: its stack is not what it was below the stack pointer: %s", pid, strerror(errno));
	free(w->before);
	memset(w, 0, sizeof(*w));
}
