/*
 * Remote system calls: made by a stopped thread of the target, which does not notice.
 *
 * The thread must be in a ptrace stop of ours (freeze_stop(), freeze_read_cpu()) and is in one again after remote_end(),
 * with the registers it had: an interrupted call of its own is still restarted. If bcr is killed between remote_begin()
 * and remote_end(), the thread goes back to its work by itself (capture/way_back.h) after at most one call. Without that
 * it is lost: keep it short, and run where no signal of the user reaches.
 */
#ifndef BCR_CAPTURE_REMOTE_H
#define BCR_CAPTURE_REMOTE_H

#include "capture/way_back.h"
#include "model/model.h"

struct remote {
	pid_t pid, tid;
	struct cpu_regs saved;
	uint64_t saved_sigmask;
	taddr_t syscall_ip;        /* of a `syscall` instruction */
	taddr_t rseq_cs_at;        /* 0: no critical section to keep */
	uint64_t rseq_cs;
	uint64_t held_back;        /* signals (bit n - 1) that came meanwhile although they were not wanted */
	bool trapped;              /* it is back in the kind of stop it was taken from */
	struct way_back way_back;
	unsigned timeout_ms;       /* of one call; remote_begin() sets 10 s */
};

/*
 * Failures of all of these have been reported. `code` (may be NULL: the thread is lost when bcr is killed) is for its
 * way back.
 */
int remote_begin(struct remote *r, pid_t pid, pid_t tid, const struct way_back_code *code);

/*
 * Makes one system call; *ret is what the kernel returned (negative errno included). The return value is about
 * the making: -ETIMEDOUT when it had to be broken off, -ESRCH when the thread died.
 */
int remote_syscall(struct remote *r, long nr, const uint64_t args[6], int64_t *ret);

/* The same for a call that makes a descriptor, which is closed should bcr be killed before it is. */
int remote_open(struct remote *r, long nr, const uint64_t args[6], int64_t *ret);

/* close(2), as the last call before remote_end(), which is quicker then. */
int remote_close(struct remote *r, int fd);

/* Gives the thread back as it was. */
int remote_end(struct remote *r);

/* Private memory of `len_bytes` in the target; *ret is its address. */
int remote_map(struct remote *r, size_t len_bytes, taddr_t *ret);
int remote_unmap(struct remote *r, taddr_t addr, size_t len_bytes);

/* 0, or a negative errno that is not reported. */
int remote_peek(pid_t pid, taddr_t addr, void *buf, size_t len_bytes);

int remote_read(pid_t pid, taddr_t addr, void *buf, size_t len_bytes);
int remote_write(pid_t pid, taddr_t addr, const void *buf, size_t len_bytes);

/*
 * Runs from `regs` (sigmask as remote_begin() left it, all blocked, but for SIGURG) until the thread sends
 * SIGURG to itself. For the parasite.
 */
int remote_run(struct remote *r, const struct cpu_regs *regs);

#endif
