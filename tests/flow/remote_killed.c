/*
 * bcr is killed right before each single ptrace call that it makes to get a userfaultfd of the target: the thread goes on, its
 * registers, FPU state, signal mask and alternate stack are what they were, and its own system calls end as they should.
 * user/sys/tracee.c is compiled in here, with ptrace counted.
 */
#include <sys/ptrace.h>
#include <unistd.h>

static int calls, fatal_call;
static unsigned fatal_delay_us;

static void count_call(void);

#define ptrace(...) (count_call(), ptrace(__VA_ARGS__))
#include "../../user/sys/tracee.c"
#undef ptrace

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>

#include "base/log.h"
#include "capture/userfaultfd.h"

/* The sanitizer gives every thread an alternate stack; here it is the test's own. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "use_sigaltstack=0";
}

enum { ALTSTACK_BYTES = 32768, PATIENCE_MS = 10000, MAX_CALLS = 200 };

static struct {
	atomic_long steps, handled;
	atomic_int ready, failures;
	char why[256];
} *shared;

static int pipe_fds[2];
static char altstack_memory[ALTSTACK_BYTES];

static void count_call(void)
{
	if (++calls != fatal_call)
		return;
	if (fatal_delay_us)
		usleep(fatal_delay_us);
	kill(getpid(), SIGKILL);
	pause();
}

static void wrong(const char *what)
{
	if (!shared->failures++)
		snprintf(shared->why, sizeof(shared->why), "%s (%s)", what, strerror(errno));
}

/* --- what the target does --- */

/* Every register holds a number, for a while. */
static void count_in_registers(void)
{
	uint64_t bad;

	__asm__ volatile("mov $0x1111, %%rbx; mov $0x2222, %%rcx; mov $0x3333, %%rdx; mov $0x4444, %%rsi\n\t"
			 "mov $0x5555, %%rdi; mov $0x8888, %%r8; mov $0x9999, %%r9; mov $0xaaaa, %%r10\n\t"
			 "mov $0xbbbb, %%r11; mov $0xcccc, %%r12; mov $0xdddd, %%r13; mov $0xeeee, %%r14\n\t"
			 "movq %%rbx, %%xmm0; movq %%rcx, %%xmm7; movq %%r14, %%xmm15\n\t"
			 "movl $0x7777, -64(%%rsp)\n\t" /* the red zone */
			 "mov $2000000, %%rax\n"
			 "1:\tdec %%rax; jnz 1b\n\t"
			 "movq %%xmm0, %%r15; sub %%rbx, %%r15; or %%r15, %%rax\n\t"
			 "movq %%xmm7, %%r15; sub %%rcx, %%r15; or %%r15, %%rax\n\t"
			 "movq %%xmm15, %%r15; sub %%r14, %%r15; or %%r15, %%rax\n\t"
			 "sub $0x1111, %%rbx; or %%rbx, %%rax; sub $0x2222, %%rcx; or %%rcx, %%rax\n\t"
			 "sub $0x3333, %%rdx; or %%rdx, %%rax; sub $0x4444, %%rsi; or %%rsi, %%rax\n\t"
			 "sub $0x5555, %%rdi; or %%rdi, %%rax; sub $0x8888, %%r8; or %%r8, %%rax\n\t"
			 "sub $0x9999, %%r9; or %%r9, %%rax; sub $0xaaaa, %%r10; or %%r10, %%rax\n\t"
			 "sub $0xbbbb, %%r11; or %%r11, %%rax; sub $0xcccc, %%r12; or %%r12, %%rax\n\t"
			 "sub $0xdddd, %%r13; or %%r13, %%rax; sub $0xeeee, %%r14; or %%r14, %%rax\n\t"
			 "mov -64(%%rsp), %%ebx; sub $0x7777, %%ebx; or %%rbx, %%rax"
			 : "=a"(bad)
			 :
			 : "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm0",
			   "xmm7", "xmm15", "cc", "memory");
	if (bad)
		wrong("a register changed");
}

static void read_a_pipe(void)
{
	char c;

	if (read(pipe_fds[0], &c, 1) != 1)
		wrong("read");
}

static void nap(void)
{
	struct timespec t = { .tv_nsec = 3000000 };

	if (nanosleep(&t, NULL))
		wrong("nanosleep");
}

static void wait_for_events(void)
{
	static int ep = -1;
	struct epoll_event ev;

	if (ep < 0)
		ep = epoll_create1(EPOLL_CLOEXEC);
	/* A call that never restarts: EINTR by a stop whose tracer died before it had hidden that. */
	int n = epoll_wait(ep, &ev, 1, 5);
	if (n > 0 || (n < 0 && errno != EINTR))
		wrong("epoll_wait");
}

static void poll_with_mask(void)
{
	struct timespec t = { .tv_nsec = 3000000 };
	sigset_t mask;

	sigfillset(&mask);
	if (ppoll(NULL, 0, &t, &mask))
		wrong("ppoll");
}

static const struct {
	const char *name;
	void (*run)(void);
} works[] = {
	{ "computes", count_in_registers }, { "reads a pipe", read_a_pipe },	   { "sleeps", nap },
	{ "waits for events", wait_for_events }, { "polls with a signal mask", poll_with_mask },
};
enum { NR_WORKS = sizeof(works) / sizeof(works[0]) };

static void handle(int sig)
{
	shared->handled++;
}

static void check_state(void)
{
	sigset_t mask;
	stack_t st;

	sigprocmask(SIG_BLOCK, NULL, &mask);
	for (int sig = 1; sig < 32; sig++)
		if (sigismember(&mask, sig) != (sig == SIGUSR2))
			wrong("the signal mask changed");
	if (sigaltstack(NULL, &st) || st.ss_sp != altstack_memory || st.ss_size != ALTSTACK_BYTES || st.ss_flags)
		wrong("the alternate stack changed");
}

static void target(size_t work)
{
	stack_t st = { .ss_sp = altstack_memory, .ss_size = ALTSTACK_BYTES };
	struct sigaction sa = { .sa_handler = handle, .sa_flags = SA_RESTART };
	sigset_t mask;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigaltstack(&st, NULL);
	sigaction(SIGUSR1, &sa, NULL);
	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR2);
	sigprocmask(SIG_SETMASK, &mask, NULL);
	shared->ready = 1;
	for (;;) {
		works[work].run();
		check_state();
		shared->steps++;
	}
}

/* --- the test --- */

__attribute__((noreturn)) static void bad(size_t work, int call, const char *what)
{
	printf("FAIL: a target that %s, bcr killed before ptrace call %d: %s\n", works[work].name, call,
	       shared->failures ? shared->why : what);
	fflush(stdout);
	_exit(1);
}

static void feed(void)
{
	if (write(pipe_fds[1], "x", 1) != 1 && errno != EAGAIN)
		_exit(2);
}

/* Two steps more: the one in progress, and a whole one. Then a signal, where none would disturb. */
static void expect_alive(pid_t pid, size_t work, int call)
{
	long steps = shared->steps, handled = shared->handled;

	for (int ms = 0; shared->steps < steps + 2 || shared->handled == handled; ms++) {
		if (shared->failures || waitpid(pid, NULL, WNOHANG) || ms > PATIENCE_MS)
			bad(work, call, "it does not go on");
		feed();
		usleep(1000);
		/* A handler that runs makes nanosleep and others return, and should: these are not asked. */
		if (shared->steps >= steps + 2 && shared->handled == handled) {
			if (work == 0 || work == 1)
				kill(pid, SIGUSR1);
			else
				break;
		}
	}
}

/* How many descriptors of that kind the target has. */
static int count_userfaultfds(pid_t pid)
{
	char path[64], text[64];
	int nr = 0;

	for (int fd = 0; fd < 1024; fd++) {
		snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, fd);
		ssize_t len = readlink(path, text, sizeof(text) - 1);
		text[len < 0 ? 0 : len] = 0;
		nr += strstr(text, "userfaultfd") != NULL;
	}
	return nr;
}

/* Returns whether it came so far as to be killed. */
static bool kill_once(pid_t target_pid, int call, unsigned delay_us)
{
	pid_t pid = fork();
	int status, fd;

	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		fatal_call = call;
		fatal_delay_us = delay_us;
		_exit(capture_userfaultfd(target_pid, NULL, &fd) ? 1 : 0);
	}
	if (waitpid(pid, &status, 0) != pid || (WIFEXITED(status) && WEXITSTATUS(status))) {
		printf("FAIL: the userfaultfd could not be had\n");
		exit(1);
	}
	return WIFSIGNALED(status);
}

static void run(size_t work)
{
	int call, kills = 0;

	memset(shared, 0, sizeof(*shared));
	pid_t pid = fork();
	if (!pid)
		target(work);
	while (!shared->ready)
		usleep(1000);
	for (call = 1; call < MAX_CALLS; call++) {
		bool killed = kill_once(pid, call, 0);

		expect_alive(pid, work, call);
		if (!killed)
			break;
		kill_once(pid, call, 300);
		expect_alive(pid, work, call);
		kills += 2;
	}
	int left = count_userfaultfds(pid);
	printf("a target that %s: %d kills, %d userfaultfds left open in it\n", works[work].name, kills, left);
	if (kills < 30 || left)
		bad(work, call, "too few calls, or descriptors left behind");
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

int main(int argc, char **argv)
{
	log_set_modules(getenv("BCR_LOG"));
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED || pipe2(pipe_fds, O_CLOEXEC))
		return 2;
	fcntl(pipe_fds[1], F_SETFL, O_NONBLOCK);
	for (size_t work = 0; work < NR_WORKS; work++)
		run(work);
	puts("PASS");
	return 0;
}
