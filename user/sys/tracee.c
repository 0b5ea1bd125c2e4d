/* Tracees: thin ptrace wrappers that return 0 or a negative errno. */
#include "sys/tracee.h"

#include <elf.h>
#include <errno.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "model/cpu-x86_64.h"

_Static_assert(sizeof(struct cpu_regs) == sizeof(struct user_regs_struct), "the kernel's register set");

/* glibc's header has no names for these. */
enum { REQUEST_GET_RSEQ = 0x420f };

static int call(int request, pid_t tid, unsigned long addr, unsigned long data)
{
	return ptrace(request, tid, addr, data) < 0 ? -errno : 0;
}

int ptrace_seize(pid_t tid, unsigned long options)
{
	return call(PTRACE_SEIZE, tid, 0, options);
}

int ptrace_interrupt(pid_t tid)
{
	return call(PTRACE_INTERRUPT, tid, 0, 0);
}

int ptrace_detach(pid_t tid, int sig)
{
	return call(PTRACE_DETACH, tid, 0, (unsigned long)sig);
}

int ptrace_cont(pid_t tid, int sig)
{
	return call(PTRACE_CONT, tid, 0, (unsigned long)sig);
}

int ptrace_syscall(pid_t tid, int sig)
{
	return call(PTRACE_SYSCALL, tid, 0, (unsigned long)sig);
}

int ptrace_set_options(pid_t tid, unsigned long options)
{
	return call(PTRACE_SETOPTIONS, tid, 0, options);
}

int ptrace_get_regs(pid_t tid, struct cpu_regs *ret)
{
	return call(PTRACE_GETREGS, tid, 0, (unsigned long)ret);
}

int ptrace_set_regs(pid_t tid, const struct cpu_regs *regs)
{
	return call(PTRACE_SETREGS, tid, 0, (unsigned long)regs);
}

int ptrace_set_result(pid_t tid, int64_t result)
{
	return call(PTRACE_POKEUSER, tid, offsetof(struct user_regs_struct, rax), (unsigned long)result);
}

int ptrace_get_xstate(pid_t tid, void *buf, size_t *len_bytes)
{
	struct iovec iov = { .iov_base = buf, .iov_len = *len_bytes };
	int err = call(PTRACE_GETREGSET, tid, NT_X86_XSTATE, (unsigned long)&iov);

	*len_bytes = iov.iov_len;
	return err;
}

int ptrace_set_xstate(pid_t tid, const void *buf, size_t len_bytes)
{
	struct iovec iov = { .iov_base = (void *)buf, .iov_len = len_bytes };

	return call(PTRACE_SETREGSET, tid, NT_X86_XSTATE, (unsigned long)&iov);
}

int ptrace_get_siginfo(pid_t tid, void *ret_128_bytes)
{
	return call(PTRACE_GETSIGINFO, tid, 0, (unsigned long)ret_128_bytes);
}

int ptrace_set_siginfo(pid_t tid, const void *info_128_bytes)
{
	return call(PTRACE_SETSIGINFO, tid, 0, (unsigned long)info_128_bytes);
}

int ptrace_get_sigmask(pid_t tid, uint64_t *ret)
{
	return call(PTRACE_GETSIGMASK, tid, sizeof(*ret), (unsigned long)ret);
}

int ptrace_set_sigmask(pid_t tid, uint64_t mask)
{
	return call(PTRACE_SETSIGMASK, tid, sizeof(mask), (unsigned long)&mask);
}

int ptrace_peek_siginfo(pid_t tid, bool shared, uint64_t first, uint32_t nr, void *ret)
{
	struct __ptrace_peeksiginfo_args args = {
		.off = first,
		.flags = shared ? PTRACE_PEEKSIGINFO_SHARED : 0,
		.nr = (int32_t)nr,
	};
	long got = ptrace(PTRACE_PEEKSIGINFO, tid, &args, ret);

	return got < 0 ? -errno : (int)got;
}

int ptrace_get_rseq(pid_t tid, struct ptrace_rseq *ret)
{
	struct {
		uint64_t ptr;
		uint32_t len_bytes, sig, flags, pad;
	} conf = { 0 };

	/* Unlike the other requests this one returns the length it copied. */
	int err = call(REQUEST_GET_RSEQ, tid, sizeof(conf), (unsigned long)&conf);
	if (err)
		return err;
	*ret = (struct ptrace_rseq){ conf.ptr, conf.len_bytes, conf.sig, conf.flags };
	return 0;
}

uint64_t ptrace_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static struct ptrace_stop classify(int status)
{
	if (!WIFSTOPPED(status))
		return (struct ptrace_stop){ PTRACE_GONE, status };

	int sig = WSTOPSIG(status), event = status >> 16;

	if (!event && sig == (SIGTRAP | 0x80))
		return (struct ptrace_stop){ PTRACE_STOP_SYSCALL, SIGTRAP };
	if (!event)
		return (struct ptrace_stop){ PTRACE_STOP_SIGNAL, sig };
	if (event != PTRACE_EVENT_STOP)
		return (struct ptrace_stop){ PTRACE_STOP_OTHER, sig };
	return (struct ptrace_stop){ sig == SIGTRAP ? PTRACE_STOP_TRAP : PTRACE_STOP_GROUP, sig };
}

/*
 * Blocks until a SIGCHLD or `deadline_ns`. Another thread of ours, or an ignored SIGCHLD, can swallow the signal:
 * the wait is therefore cut into slices, after each of which the caller looks again.
 */
static int wait_for_sigchld(const sigset_t *chld, uint64_t deadline_ns)
{
	static const uint64_t slice_ns = 20000000;
	uint64_t now_ns = ptrace_now_ns();

	if (now_ns >= deadline_ns)
		return -ETIMEDOUT;

	uint64_t left_ns = deadline_ns - now_ns < slice_ns ? deadline_ns - now_ns : slice_ns;
	struct timespec timeout = { .tv_nsec = (long)left_ns };

	sigtimedwait(chld, NULL, &timeout);
	return 0;
}

int ptrace_take(pid_t tid, bool block, struct ptrace_stop *ret)
{
	int status;
	pid_t got = waitpid(tid, &status, __WALL | (block ? 0 : WNOHANG));

	/* A thread that another one's execve replaced has no status to give. */
	if (got < 0 && errno == ECHILD)
		*ret = (struct ptrace_stop){ PTRACE_GONE, -1 };
	else if (got < 0)
		return errno == EINTR ? 0 : -errno;
	else if (got > 0)
		*ret = classify(status);
	return got != 0;
}

/* A thread that makes one call for us stops within this time: to sleep and be woken takes as long again. */
static const uint64_t spin_ns = 60000;

static int take_soon(pid_t tid, struct ptrace_stop *ret)
{
	uint64_t until_ns = ptrace_now_ns() + spin_ns;
	int got;

	do
		got = ptrace_take(tid, false, ret);
	while (!got && ptrace_now_ns() < until_ns);
	return got;
}

int ptrace_wait(pid_t tid, uint64_t deadline_ns, struct ptrace_stop *ret)
{
	sigset_t chld, saved;
	int got = take_soon(tid, ret), err = 0;

	if (got)
		return got < 0 ? got : 0;

	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	sigprocmask(SIG_BLOCK, &chld, &saved);
	while (!(got = ptrace_take(tid, false, ret)) && !err)
		err = wait_for_sigchld(&chld, deadline_ns);
	sigprocmask(SIG_SETMASK, &saved, NULL);
	return got < 0 ? got : got ? 0 : err;
}

/* A signal handler gets no argument of ours. */
static void (*volatile bell_ring)(void *arg);
static void *volatile bell_arg;

static void on_bell(int sig)
{
	int saved_errno = errno;

	(void)sig;
	bell_ring(bell_arg);
	errno = saved_errno;
}

int ptrace_bell_start(struct ptrace_bell *bell, uint64_t period_ns, void (*ring)(void *arg), void *arg)
{
	/* Without SA_RESTART: breaking off waitpid() is what it is for. It rings again, should it come just before the call. */
	struct sigaction action = { .sa_handler = on_bell };
	struct timeval period = { (time_t)(period_ns / 1000000000u), (suseconds_t)(period_ns / 1000 % 1000000) };
	struct itimerval when = { period, period };
	sigset_t alarm;

	bell_ring = ring;
	bell_arg = arg;
	sigemptyset(&alarm);
	sigaddset(&alarm, SIGALRM);
	sigaction(SIGALRM, &action, &bell->old_action);
	pthread_sigmask(SIG_UNBLOCK, &alarm, &bell->old_mask);
	return setitimer(ITIMER_REAL, &when, NULL) ? -errno : 0;
}

void ptrace_bell_stop(struct ptrace_bell *bell)
{
	const struct itimerval never = {};

	setitimer(ITIMER_REAL, &never, NULL);
	pthread_sigmask(SIG_SETMASK, &bell->old_mask, NULL);
	sigaction(SIGALRM, &bell->old_action, NULL);
}
