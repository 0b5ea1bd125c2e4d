/* Remote system calls: made by a stopped thread of the target, which does not notice. */
#include "capture/remote.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "sys/tracee.h"

enum {
	RSEQ_CS_OFFSET = 8, /* of rseq_cs in struct rseq */
	CS_64BIT = 0x33,
	FLAG_TRAP = 0x100,
	VDSO_MAX_BYTES = 65536,
	OPTION_SUSPEND_SECCOMP = 1 << 21, /* PTRACE_O_SUSPEND_SECCOMP */
};

static const unsigned char syscall_insn[2] = { 0x0f, 0x05 };

int remote_peek(pid_t pid, taddr_t addr, void *buf, size_t len_bytes)
{
	struct iovec local = { buf, len_bytes }, there = { (void *)(uintptr_t)addr, len_bytes };
	ssize_t got = process_vm_readv(pid, &local, 1, &there, 1, 0);

	return got < 0 ? -errno : (size_t)got == len_bytes ? 0 : -EFAULT;
}

int remote_read(pid_t pid, taddr_t addr, void *buf, size_t len_bytes)
{
	int err = remote_peek(pid, addr, buf, len_bytes);

	return err ? fail(err, "pid %d: read %zu bytes at %#llx", pid, len_bytes, (unsigned long long)addr) : 0;
}

int remote_write(pid_t pid, taddr_t addr, const void *buf, size_t len_bytes)
{
	struct iovec local = { (void *)buf, len_bytes }, there = { (void *)(uintptr_t)addr, len_bytes };
	ssize_t put = process_vm_writev(pid, &local, 1, &there, 1, 0);

	if (put < 0 || (size_t)put != len_bytes)
		return fail(put < 0 ? -errno : -EFAULT, "pid %d: write %zu bytes at %#llx", pid, len_bytes,
			    (unsigned long long)addr);
	return 0;
}

/* Finds the vDSO among the mappings; false: the program has unmapped it. */
static bool find_vdso(pid_t pid, taddr_t *start, size_t *len_bytes)
{
	char path[64], line[512];

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	_cleanup_fclose_ FILE *in = fopen(path, "re");
	while (in && fgets(line, sizeof(line), in)) {
		unsigned long from, to;

		if (strstr(line, "[vdso]") && sscanf(line, "%lx-%lx", &from, &to) == 2) {
			*start = from;
			*len_bytes = to - from < VDSO_MAX_BYTES ? to - from : VDSO_MAX_BYTES;
			return true;
		}
	}
	return false;
}

static int find_syscall_insn(struct remote *r)
{
	_cleanup_free_ unsigned char *code = NULL;
	size_t len_bytes = 0;
	taddr_t start = 0;

	if (find_vdso(r->tid, &start, &len_bytes)) {
		code = malloc(len_bytes);
		if (!code)
			return fail(-ENOMEM, "pid %d: read the vDSO", r->pid);
		int err = remote_read(r->tid, start, code, len_bytes);
		if (err)
			return err;
		const unsigned char *at = memmem(code, len_bytes, syscall_insn, sizeof(syscall_insn));
		if (at) {
			r->syscall_ip = start + (taddr_t)(at - code);
			return 0;
		}
	}

	/* A thread that was stopped inside a call stands right behind such an instruction. */
	unsigned char own[2];
	if ((int64_t)r->saved.orig_ax >= 0 && !remote_read(r->tid, r->saved.ip - 2, own, sizeof(own)) &&
	    memcmp(own, syscall_insn, sizeof(own)) == 0) {
		r->syscall_ip = r->saved.ip - 2;
		return 0;
	}
	return unsupported("pid %d thread %d: no vDSO and no system call instruction to use", r->pid, r->tid);
}

/*
 * A thread stopped inside a restartable sequence is sent to its abort address when it resumes. Resuming it
 * elsewhere makes the kernel forget the sequence: what it forgets is put back by remote_end().
 */
static int keep_rseq(struct remote *r)
{
	struct ptrace_rseq rseq;

	if (ptrace_get_rseq(r->tid, &rseq) || !rseq.ptr)
		return 0;
	int err = remote_read(r->tid, rseq.ptr + RSEQ_CS_OFFSET, &r->rseq_cs, sizeof(r->rseq_cs));
	if (!err && r->rseq_cs)
		r->rseq_cs_at = rseq.ptr + RSEQ_CS_OFFSET;
	return err;
}

static bool has_seccomp(pid_t tid)
{
	char path[64], line[256];
	int mode = 0;

	snprintf(path, sizeof(path), "/proc/%d/status", tid);
	_cleanup_fclose_ FILE *in = fopen(path, "re");
	while (in && fgets(line, sizeof(line), in))
		if (sscanf(line, "Seccomp: %d", &mode) == 1)
			break;
	return mode != 0;
}

/*
 * The program's own filter must not judge calls that are not the program's. Whether it has one is only asked when the
 * kernel does not let us suspend it: the thread stands still.
 */
static int set_options(pid_t tid, pid_t pid)
{
	int err = ptrace_set_options(tid, PTRACE_O_TRACESYSGOOD | OPTION_SUSPEND_SECCOMP);

	if (err && !has_seccomp(tid))
		err = ptrace_set_options(tid, PTRACE_O_TRACESYSGOOD);
	return err ? fail(err, "pid %d thread %d: suspend its seccomp filter", pid, tid) : 0;
}

/* If nothing more is done to the thread, it returns to its work. */
static int enter_way_back(struct remote *r)
{
	struct cpu_regs regs = r->saved;

	if (!r->way_back.open)
		return 0;
	way_back_enter(&r->way_back, &regs);
	return ptrace_set_regs(r->tid, &regs);
}

int remote_begin(struct remote *r, pid_t pid, pid_t tid, const struct way_back_code *code)
{
	*r = (struct remote){ .pid = pid, .tid = tid, .timeout_ms = 10000 };

	int err = ptrace_get_regs(tid, &r->saved);
	if (!err)
		err = ptrace_get_sigmask(tid, &r->saved_sigmask);
	if (err)
		return fail(err, "pid %d thread %d: read its state before a remote system call", pid, tid);
	if (r->saved.cs != CS_64BIT)
		return unsupported("pid %d thread %d runs 32-bit code: no remote system calls", pid, tid);

	err = keep_rseq(r);
	if (!err)
		err = set_options(tid, pid);
	if (err)
		return err;
	if (code)
		way_back_open(pid, tid, code, &r->saved, r->saved_sigmask, &r->way_back);
	err = r->way_back.open ? 0 : find_syscall_insn(r);
	if (err) {
		ptrace_set_options(tid, 0);
		return err;
	}
	/* From here to the end of remote_end(), every moment may be our last one. */
	err = enter_way_back(r);
	if (!err)
		err = ptrace_set_sigmask(tid, ~0ull);
	if (err) {
		ptrace_set_regs(tid, &r->saved);
		ptrace_set_options(tid, 0);
		way_back_close(tid, &r->way_back, err == -ESRCH);
		return fail(err, "pid %d thread %d: block its signals", pid, tid);
	}
	return 0;
}

/* A stop that is not what we wait for: holds back what must not be lost; the thread then goes on by `resume`. */
static int pass_by(struct remote *r, const struct ptrace_stop *stop, int (*resume)(pid_t tid, int sig))
{
	if (stop->kind == PTRACE_GONE)
		return fail(-ESRCH, "pid %d thread %d died during a remote system call", r->pid, r->tid);
	/* SIGSTOP, or a SIGURG of the program's own: all others are blocked. */
	if (stop->kind == PTRACE_STOP_SIGNAL && (stop->sig == SIGSTOP || stop->sig == SIGURG))
		r->held_back |= 1ull << (stop->sig - 1);
	int err = resume(r->tid, 0);
	return err ? fail(err, "pid %d thread %d: go on with a remote system call", r->pid, r->tid) : 0;
}

/* Waits for a stop of one of these kinds (1 << enum ptrace_stop_kind); others are passed by with `resume`. */
static int await(struct remote *r, unsigned kinds, int (*resume)(pid_t tid, int sig), uint64_t deadline_ns)
{
	for (;;) {
		struct ptrace_stop stop;
		int err = ptrace_wait(r->tid, deadline_ns, &stop);

		if (err || kinds & 1u << stop.kind)
			return err;
		err = pass_by(r, &stop, resume);
		if (err)
			return err;
	}
}

static int await_syscall_stop(struct remote *r, uint64_t deadline_ns)
{
	return await(r, 1 << PTRACE_STOP_SYSCALL, ptrace_syscall, deadline_ns);
}

static int await_trap(struct remote *r, uint64_t deadline_ns)
{
	return await(r, 1 << PTRACE_STOP_TRAP | 1 << PTRACE_STOP_GROUP, ptrace_cont, deadline_ns);
}

/* The result register of a call that our interrupt ended. */
static int64_t result_of(int64_t ax)
{
	return ax <= -512 && ax >= -516 ? -EINTR : ax;
}

static int await_exit(struct remote *r, bool last, uint64_t deadline_ns)
{
	return last ? await_trap(r, deadline_ns) : await_syscall_stop(r, deadline_ns);
}

/*
 * From the entry of the call on. The last one ends in the kind of stop that the thread was taken from, which spares a
 * stop: the interrupt is there when the kernel leaves the call.
 */
static int leave_call(struct remote *r, bool last, uint64_t deadline_ns)
{
	int err = last ? ptrace_interrupt(r->tid) : 0;

	if (!err)
		err = last ? ptrace_cont(r->tid, 0) : ptrace_syscall(r->tid, 0);
	return err ? err : await_exit(r, last, deadline_ns);
}

static int make_call(struct remote *r, long nr, const uint64_t args[6], bool makes_descriptor, bool last, int64_t *ret)
{
	uint64_t deadline_ns = ptrace_now_ns() + (uint64_t)r->timeout_ms * 1000000u;
	struct cpu_regs regs = r->saved;
	bool timed_out = false;

	r->trapped = false;
	regs.ip = r->syscall_ip;
	if (r->way_back.open) {
		regs.ip = r->way_back.code.syscall_ret;
		regs.sp = way_back_stack(&r->way_back, makes_descriptor);
	}
	regs.flags &= ~(uint64_t)FLAG_TRAP; /* a thread that steps through its own code would be told of ours */
	regs.ax = (uint64_t)nr;
	regs.orig_ax = (uint64_t)-1;
	regs.di = args[0];
	regs.si = args[1];
	regs.dx = args[2];
	regs.r10 = args[3];
	regs.r8 = args[4];
	regs.r9 = args[5];

	int err = ptrace_set_regs(r->tid, &regs);
	if (!err)
		err = ptrace_syscall(r->tid, 0);
	if (!err)
		err = await_syscall_stop(r, deadline_ns); /* entry */
	if (!err)
		err = leave_call(r, last, deadline_ns);
	if (err == -ETIMEDOUT) {
		timed_out = true;
		ptrace_interrupt(r->tid);
		err = await_exit(r, last, ptrace_now_ns() + 1000000000u);
	}
	r->trapped = last && !err;
	if (!err)
		err = ptrace_get_regs(r->tid, &regs);
	if (err)
		return fail(err, "pid %d thread %d: remote system call %ld", r->pid, r->tid, nr);
	if (timed_out)
		return fail(-ETIMEDOUT, "pid %d thread %d: system call %ld did not return within %u ms", r->pid, r->tid, nr,
			    r->timeout_ms);
	*ret = result_of((int64_t)regs.ax);
	return 0;
}

int remote_syscall(struct remote *r, long nr, const uint64_t args[6], int64_t *ret)
{
	return make_call(r, nr, args, false, false, ret);
}

int remote_open(struct remote *r, long nr, const uint64_t args[6], int64_t *ret)
{
	return make_call(r, nr, args, true, false, ret);
}

int remote_close(struct remote *r, int fd)
{
	const uint64_t args[6] = { (uint64_t)fd };
	int64_t closed;

	return make_call(r, SYS_close, args, false, true, &closed);
}

/* Ends in the kind of stop the thread was taken from: from there the kernel restarts an interrupted call. */
static int back_to_trap(struct remote *r)
{
	int err = r->way_back.open ? enter_way_back(r) : ptrace_set_regs(r->tid, &r->saved);

	if (!err)
		err = ptrace_interrupt(r->tid);
	if (!err)
		err = ptrace_cont(r->tid, 0);
	return err ? err : await_trap(r, ptrace_now_ns() + 10000000000u);
}

/* Everything but the registers comes first: until they are set, the thread is on its way back. */
static int give_back(struct remote *r)
{
	int err = r->trapped ? 0 : back_to_trap(r);

	if (!err)
		err = ptrace_set_sigmask(r->tid, r->saved_sigmask);
	if (!err && r->rseq_cs_at)
		err = remote_write(r->tid, r->rseq_cs_at, &r->rseq_cs, sizeof(r->rseq_cs));
	if (!err)
		err = ptrace_set_regs(r->tid, &r->saved);
	if (!err)
		err = ptrace_set_options(r->tid, 0);
	return err;
}

int remote_end(struct remote *r)
{
	int err = give_back(r);

	/* A thread that is not ours any more may need its frame. */
	way_back_close(r->tid, &r->way_back, err != 0);
	if (err)
		return fail(err, "pid %d thread %d: give it its registers back after a remote system call", r->pid, r->tid);
	for (int sig = 1; sig <= MODEL_NSIG; sig++)
		if (r->held_back & 1ull << (sig - 1))
			syscall(SYS_tgkill, r->pid, r->tid, sig);
	return 0;
}

int remote_map(struct remote *r, size_t len_bytes, taddr_t *ret)
{
	uint64_t args[6] = { 0, len_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, (uint64_t)-1, 0 };
	int64_t addr;
	int err = remote_syscall(r, SYS_mmap, args, &addr);

	if (err)
		return err;
	if (addr < 0 && addr > -4096)
		return fail((int)addr, "pid %d: map %zu bytes in it", r->pid, len_bytes);
	*ret = (taddr_t)addr;
	return 0;
}

int remote_unmap(struct remote *r, taddr_t addr, size_t len_bytes)
{
	uint64_t args[6] = { addr, len_bytes };
	int64_t ret;
	int err = remote_syscall(r, SYS_munmap, args, &ret);

	return err ? err : ret ? fail((int)ret, "pid %d: unmap what bcr mapped in it", r->pid) : 0;
}

/* Is the signal the thread stands before one that it sent to itself? */
static bool sent_by_itself(const struct remote *r)
{
	union {
		siginfo_t si;
		uint8_t bytes[128];
	} info;

	if (ptrace_get_siginfo(r->tid, &info))
		return false;
	/*
	 * si_pid is in the target's own pid namespace; SI_TKILL with a SIGURG that we expect is enough. Beyond RLIMIT_SIGPENDING the
	 * kernel forgets who sent a signal: nobody.
	 */
	return info.si.si_code == SI_TKILL || (info.si.si_code == SI_USER && !info.si.si_pid);
}

int remote_run(struct remote *r, const struct cpu_regs *regs)
{
	uint64_t deadline_ns = ptrace_now_ns() + (uint64_t)r->timeout_ms * 1000000u;
	int err = ptrace_set_sigmask(r->tid, ~(1ull << (SIGURG - 1)));

	if (!err)
		err = ptrace_set_regs(r->tid, regs);
	if (!err)
		err = ptrace_cont(r->tid, 0);
	while (!err) {
		struct ptrace_stop stop;

		err = ptrace_wait(r->tid, deadline_ns, &stop);
		if (err || (stop.kind == PTRACE_STOP_SIGNAL && stop.sig == SIGURG && sent_by_itself(r)))
			break;
		err = pass_by(r, &stop, ptrace_cont);
	}
	return err ? fail(err, "pid %d thread %d: run the parasite", r->pid, r->tid) : 0;
}
