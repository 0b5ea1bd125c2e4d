/*
 * Children that are stopped for a second time before they could go on with a call that a stop had broken off: they are about
 * to issue restart_syscall(2), which works for the kernel alone. Continued, each wait ends when its time is over, well.
 */
#include <errno.h>
#include <poll.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <time.h>

#include "../lib/family.h"

enum { NR = 4, WAIT_MS = 4000, AT_ONCE_MS = 3500 };

static const struct timespec wait_time = { .tv_sec = WAIT_MS / 1000 };

static void wait_as(int who)
{
	int word = 0;

	if (who == 0)
		CHECK(!nanosleep(&wait_time, NULL));
	else if (who == 1)
		CHECK(!clock_nanosleep(CLOCK_BOOTTIME, 0, &wait_time, NULL));
	else if (who == 2)
		CHECK(!poll(NULL, 0, WAIT_MS));
	else
		CHECK(syscall(SYS_futex, &word, FUTEX_WAIT, 0, &wait_time, NULL, 0) < 0 && errno == ETIMEDOUT);
}

static long now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void be_kid(int who)
{
	long begin_ms = now_ms();

	family_note(1 + who);
	wait_as(who);
	CHECK(now_ms() - begin_ms >= WAIT_MS);
	family_check(1 + who);
	_exit(0);
}

/* What happens when a thread is stopped twice with too little time in between, but for certain. */
static void stop_twice(pid_t pid)
{
	struct user_regs_struct regs;
	int status;

	while (state_of(pid) != 'S')
		family_nap();
	CHECK(!ptrace(PTRACE_SEIZE, pid, 0, 0));
	CHECK(!ptrace(PTRACE_INTERRUPT, pid, 0, 0));
	CHECK(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status));
	CHECK(!ptrace(PTRACE_GETREGS, pid, 0, &regs));
	CHECK_EQUAL((long)regs.rax, -516);
	regs.rip -= 2;
	regs.rax = SYS_restart_syscall;
	CHECK(!ptrace(PTRACE_SETREGS, pid, 0, &regs));
	CHECK(!kill(pid, SIGSTOP));
	CHECK(!ptrace(PTRACE_CONT, pid, 0, 0));
	CHECK(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status));
	CHECK(!ptrace(PTRACE_DETACH, pid, 0, SIGSTOP));
	CHECK(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status));
}

int main(void)
{
	pid_t kids[NR];
	int status;

	family_init();
	for (int i = 0; i < NR; i++) {
		kids[i] = fork();
		if (!kids[i])
			be_kid(i);
		family_await(1 + i);
		stop_twice(kids[i]);
	}
	target_ready();
	long continued_ms = now_ms();
	for (int i = 0; i < NR; i++) {
		CHECK_EQUAL(state_of(kids[i]), 'T');
		CHECK(!kill(kids[i], SIGCONT));
	}
	for (int i = 0; i < NR; i++) {
		CHECK(waitpid(kids[i], &status, 0) == kids[i]);
		CHECK_EQUAL(status, 0);
	}
	CHECK(now_ms() - continued_ms <= WAIT_MS + AT_ONCE_MS);
	return target_pass();
}
