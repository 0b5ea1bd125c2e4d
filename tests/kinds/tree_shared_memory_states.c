/*
 * Processes that share memory, in states of their own: stopped by a signal, with a zombie for a child, with a main thread that
 * has exited, under a seccomp filter, asleep for an hour, with running timers, and a hundred of them that only wait.
 *
 * Each waits by bare system calls, for the C library's data are common to all.
 */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>

#include "../lib/family.h"

enum {
	STOPPED = 1, PARENT, HEADLESS, CONFINED, ASLEEP, TIMED, CROWD, LAST = CROWD + 100,
	STACK_BYTES = 16 << 10,
	TIMER_S = 3600,
};

/* Private, and common to all. */
static int go[LAST], done[LAST], headless_tid;
static pid_t pids[LAST], zombie;
static struct timespec asleep_left;
static long asleep_ret;

static long raw_call(long nr, long a, long b, long c, long d)
{
	register long r10 __asm__("r10") = d;
	long ret;

	__asm__ volatile("syscall" : "=a"(ret) : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
	return ret;
}

static void await_word(int *word)
{
	while (!__atomic_load_n(word, __ATOMIC_ACQUIRE))
		raw_call(SYS_futex, (long)word, FUTEX_WAIT, 0, 0);
}

static void set_word(int *word)
{
	__atomic_store_n(word, 1, __ATOMIC_RELEASE);
	raw_call(SYS_futex, (long)word, FUTEX_WAKE, FAMILY_MAX, 0);
}

__attribute__((noreturn)) static void leave(int who)
{
	set_word(&done[who]);
	raw_call(SYS_exit_group, 0, 0, 0, 0);
	__builtin_unreachable();
}

static int wait_only(void *arg)
{
	int who = (int)(intptr_t)arg;

	await_word(&go[who]);
	leave(who);
}

static void *new_stack(void)
{
	char *stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(stack != MAP_FAILED);
	return stack + STACK_BYTES;
}

/* Its child has ended, and nobody has waited for it. */
static int parent_main(void *arg)
{
	siginfo_t info;

	zombie = family_fork(0, SIGCHLD);
	if (!zombie)
		_exit(42);
	CHECK(!waitid(P_PID, zombie, &info, WEXITED | WNOWAIT));
	set_word(&done[PARENT]);
	await_word(&go[PARENT]);
	CHECK(!waitid(P_PID, zombie, &info, WEXITED) && info.si_status == 42);
	leave(PARENT);
	return arg != NULL;
}

static int headless_thread(void *arg)
{
	await_word(&go[HEADLESS]);
	CHECK_EQUAL(syscall(SYS_gettid), headless_tid);
	leave(HEADLESS);
	return arg != NULL;
}

static int headless_main(void *arg)
{
	headless_tid = clone(headless_thread, new_stack(),
			     CLONE_VM | CLONE_SIGHAND | CLONE_THREAD | CLONE_FILES | CLONE_FS, NULL);
	CHECK(headless_tid > 0);
	set_word(&done[HEADLESS]);
	raw_call(SYS_exit, 0, 0, 0, 0);
	return arg != NULL;
}

/* getppid fails for it. */
static int confined_main(void *arg)
{
	struct sock_filter insns[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EDOM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { .len = sizeof(insns) / sizeof(insns[0]), .filter = insns };

	CHECK(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog));
	set_word(&done[CONFINED]);
	await_word(&go[CONFINED]);
	CHECK_EQUAL(raw_call(SYS_getppid, 0, 0, 0, 0), -EDOM);
	leave(CONFINED);
	return arg != NULL;
}

static void on_alarm(int sig)
{
	(void)sig;
}

static int asleep_main(void *arg)
{
	struct timespec hour = { .tv_sec = TIMER_S };

	set_word(&done[ASLEEP]);
	asleep_ret = raw_call(SYS_nanosleep, (long)&hour, (long)&asleep_left, 0, 0);
	leave(ASLEEP);
	return arg != NULL;
}

static int timed_main(void *arg)
{
	const struct itimerspec hour = { .it_value.tv_sec = TIMER_S }, two_hours = { .it_value.tv_sec = 2 * TIMER_S };
	struct sigevent none = { .sigev_notify = SIGEV_NONE };
	struct itimerspec now;
	int id = -1;

	CHECK(!raw_call(SYS_timer_create, CLOCK_MONOTONIC, (long)&none, (long)&id, 0));
	CHECK(!raw_call(SYS_timer_settime, id, 0, (long)&hour, 0));
	alarm(2 * TIMER_S);
	set_word(&done[TIMED]);
	await_word(&go[TIMED]);
	CHECK(!raw_call(SYS_timer_gettime, id, (long)&now, 0, 0));
	CHECK(now.it_value.tv_sec <= TIMER_S && now.it_value.tv_sec > TIMER_S - 600);
	unsigned left = alarm(0);
	CHECK(left <= two_hours.it_value.tv_sec && left > two_hours.it_value.tv_sec - 600);
	leave(TIMED);
	return arg != NULL;
}

static void start(int who, int (*run)(void *), int flags, bool acts)
{
	pids[who] = clone(run, new_stack(), CLONE_VM | flags | SIGCHLD, (void *)(intptr_t)who);
	CHECK(pids[who] > 0);
	if (acts)
		await_word(&done[who]);
	done[who] = 0;
}

static void join(int who)
{
	set_word(&go[who]);
	await_word(&done[who]);
	family_join(pids[who]);
}

static void build(void)
{
	int status;

	start(STOPPED, wait_only, CLONE_SIGHAND, false);
	CHECK(!kill(pids[STOPPED], SIGSTOP));
	CHECK(waitpid(pids[STOPPED], &status, WUNTRACED) == pids[STOPPED] && WIFSTOPPED(status));
	start(PARENT, parent_main, CLONE_SIGHAND | CLONE_FILES, true);
	start(HEADLESS, headless_main, CLONE_FILES | CLONE_FS, true);
	while (state_of(pids[HEADLESS]) != 'Z')
		family_nap();
	start(CONFINED, confined_main, CLONE_SIGHAND, true);
	start(ASLEEP, asleep_main, CLONE_SIGHAND, true);
	start(TIMED, timed_main, 0, true);
	for (int i = CROWD; i < LAST; i++)
		start(i, wait_only, i % 2 ? CLONE_FILES | CLONE_SIGHAND | CLONE_FS : 0, false);
	while (state_of(pids[ASLEEP]) != 'S')
		family_nap();
}

int main(void)
{
	struct sigaction sa = { .sa_handler = on_alarm };
	int status;

	family_init();
	CHECK(!sigaction(SIGALRM, &sa, NULL));
	build();

	target_ready();

	CHECK_EQUAL(state_of(pids[STOPPED]), 'T');
	/* It has been waited for, and goes on only now. */
	CHECK_EQUAL(waitpid(pids[STOPPED], &status, WUNTRACED | WNOHANG), 0);
	set_word(&go[STOPPED]);
	CHECK_EQUAL(done[STOPPED], 0);
	CHECK(!kill(pids[STOPPED], SIGCONT));
	join(STOPPED);
	for (int i = LAST - 1; i >= CROWD; i--)
		join(i);
	CHECK_EQUAL(state_of(pids[HEADLESS]), 'Z');
	join(HEADLESS);
	join(PARENT);
	join(CONFINED);
	join(TIMED);
	CHECK(!kill(pids[ASLEEP], SIGALRM));
	join(ASLEEP);
	CHECK_EQUAL(asleep_ret, -EINTR);
	CHECK(asleep_left.tv_sec < TIMER_S && asleep_left.tv_sec > TIMER_S - 600);
	return target_pass();
}
