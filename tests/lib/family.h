/*
 * For targets that are several processes: each notes who and where it is, waits, looks whether that is so still, and ends well
 * or not. After target.h's rules; the root alone calls target_ready(), then family_go().
 */
#ifndef FAMILY_H
#define FAMILY_H

#include <linux/futex.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "state.h"
#include "target.h"

enum { FAMILY_MAX = 600 };

/* Shared by all. */
static struct family {
	int go;
	struct member {
		pid_t pid, ppid, pgid, sid;
	} members[FAMILY_MAX];
} *family;

static inline void family_nap(void)
{
	const struct timespec pause = { .tv_nsec = 2 * 1000 * 1000 };

	nanosleep(&pause, NULL);
}

static inline void family_note(int who)
{
	struct member *m = &family->members[who];

	*m = (struct member){ 0, getppid(), getpgrp(), getsid(0) };
	__atomic_store_n(&m->pid, getpid(), __ATOMIC_RELEASE);
}

static inline void family_init(void)
{
	family = mmap(NULL, sizeof(*family), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(family != MAP_FAILED);
	family_note(0);
}

/* Waits until the member has noted itself; returns its pid. */
static inline pid_t family_await(int who)
{
	pid_t pid;

	while (!(pid = __atomic_load_n(&family->members[who].pid, __ATOMIC_ACQUIRE)))
		family_nap();
	return pid;
}

static inline void family_check(int who)
{
	struct member *m = &family->members[who];

	CHECK_EQUAL(getpid(), m->pid);
	/* The parent of the root is outside of the tree, and another one after a restore. */
	if (who)
		CHECK_EQUAL(getppid(), m->ppid);
	CHECK_EQUAL(getpgrp(), m->pgid);
	CHECK_EQUAL(getsid(0), m->sid);
}

/* Hundreds that look again and again would keep the machine busy. */
static inline void family_wait(void)
{
	while (!__atomic_load_n(&family->go, __ATOMIC_ACQUIRE))
		syscall(SYS_futex, &family->go, FUTEX_WAIT, 0, NULL, NULL, 0);
}

static inline void family_go(void)
{
	__atomic_store_n(&family->go, 1, __ATOMIC_RELEASE);
	syscall(SYS_futex, &family->go, FUTEX_WAKE, FAMILY_MAX, NULL, NULL, 0);
}

/* As fork(2), with flags of clone(2). */
static inline pid_t family_fork(uint64_t flags, int exit_signal)
{
	struct clone_args ca = { .flags = flags, .exit_signal = exit_signal };

	fflush(stdout);
	pid_t pid = syscall(SYS_clone3, &ca, sizeof(ca));
	CHECK(pid >= 0);
	return pid;
}

/* Sees that child, or any (-1), end well. */
static inline void family_join(pid_t pid)
{
	int status = -1;
	pid_t got = waitpid(pid, &status, __WALL);

	CHECK(got > 0 && (pid < 0 || got == pid));
	CHECK_EQUAL(status, 0);
}

/* A member that waits, looks, and sees `nr_children` children end well. */
__attribute__((noreturn)) static inline void family_stay(int who, int nr_children)
{
	family_note(who);
	family_wait();
	family_check(who);
	while (nr_children--)
		family_join(-1);
	_exit(0);
}

/* The same for one whose parent ends, and who is adopted. */
__attribute__((noreturn)) static inline void family_stay_orphan(int who, pid_t first_parent)
{
	while (getppid() == first_parent)
		family_nap();
	family_stay(who, 0);
}

static inline void family_await_zombie(pid_t pid)
{
	siginfo_t info;

	CHECK(!waitid(P_PID, pid, &info, WEXITED | WNOWAIT | __WALL));
}

#endif
