/* Tracees: thin ptrace wrappers that return 0 or a negative errno and report nothing. Call them from one thread only. */
/* (Named so that <sys/ptrace.h> stays the C library's.) */
#ifndef BCR_SYS_TRACEE_H
#define BCR_SYS_TRACEE_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

struct cpu_regs;

/* Attaches without stopping the thread; when the tracer dies, the thread simply goes on. */
int ptrace_seize(pid_t tid, unsigned long options);
int ptrace_interrupt(pid_t tid);
int ptrace_detach(pid_t tid, int sig);
int ptrace_cont(pid_t tid, int sig);
/* Goes on until the next entry to or exit from a system call. */
int ptrace_syscall(pid_t tid, int sig);
int ptrace_set_options(pid_t tid, unsigned long options);

int ptrace_get_regs(pid_t tid, struct cpu_regs *ret);
int ptrace_set_regs(pid_t tid, const struct cpu_regs *regs);
/* Only the result register: cheaper than a set of all. */
int ptrace_set_result(pid_t tid, int64_t result);

/* The xsave area as the kernel gives it; *len_bytes is the room before and the length after. */
int ptrace_get_xstate(pid_t tid, void *buf, size_t *len_bytes);
int ptrace_set_xstate(pid_t tid, const void *buf, size_t len_bytes);

int ptrace_get_siginfo(pid_t tid, void *ret_128_bytes);
int ptrace_set_siginfo(pid_t tid, const void *info_128_bytes);
int ptrace_get_sigmask(pid_t tid, uint64_t *ret);
int ptrace_set_sigmask(pid_t tid, uint64_t mask);

/* Copies up to `nr` pending signals from number `first` on, 128 bytes each; returns how many, or a negative errno. */
int ptrace_peek_siginfo(pid_t tid, bool shared, uint64_t first, uint32_t nr, void *ret);

struct ptrace_rseq {
	uint64_t ptr; /* 0: not registered */
	uint32_t len_bytes;
	uint32_t sig;
	uint32_t flags;
};
/* -EIO or -EINVAL: the kernel cannot tell (before 5.13, or built without rseq). */
int ptrace_get_rseq(pid_t tid, struct ptrace_rseq *ret);

enum ptrace_stop_kind {
	PTRACE_STOP_TRAP,   /* by PTRACE_INTERRUPT */
	PTRACE_STOP_GROUP,  /* the process is stopped by a signal, `sig` */
	PTRACE_STOP_SIGNAL, /* about to get signal `sig`; lost unless handed on when the thread is resumed */
	PTRACE_STOP_SYSCALL, /* at a system call's entry or exit (ptrace_syscall() and PTRACE_O_TRACESYSGOOD) */
	PTRACE_STOP_OTHER,  /* a PTRACE_EVENT_* of an option */
	PTRACE_GONE,        /* exited: `sig` is the wait status; or replaced by another thread's execve: -1 */
};

struct ptrace_stop {
	enum ptrace_stop_kind kind;
	int sig;
};

/* Monotonic clock, nanoseconds. */
uint64_t ptrace_now_ns(void);

/*
 * Takes the next stop (or the end) of a traced thread. Returns 1, or 0 when there is none yet (`block`: when a
 * signal came first), or a negative errno.
 */
int ptrace_take(pid_t tid, bool block, struct ptrace_stop *ret);

/*
 * Waits for the next stop (or the end) of a traced thread, until `deadline_ns` of CLOCK_MONOTONIC. Blocks
 * SIGCHLD while it waits. Returns 0, -ETIMEDOUT or another negative errno.
 */
int ptrace_wait(pid_t tid, uint64_t deadline_ns, struct ptrace_stop *ret);

/*
 * A bell: SIGALRM, sent again and again, so that who blocks in ptrace_take() can look at the clock. Waiting for one thread among
 * many is then not disturbed by the stops of the others, each of which sends a SIGCHLD. For the main thread of a process, which
 * the kernel prefers (signal(7)). It is setitimer(2)'s: a timer_create(2) would fail where the user's signals are used up
 * (RLIMIT_SIGPENDING), by the target perhaps.
 */
struct ptrace_bell {
	struct sigaction old_action;
	sigset_t old_mask;
};

/* `ring(arg)` is called each time, in a signal handler. There can be one bell at a time. */
int ptrace_bell_start(struct ptrace_bell *bell, uint64_t period_ns, void (*ring)(void *arg), void *arg);
void ptrace_bell_stop(struct ptrace_bell *bell);

#endif
