/*
 * Children that were stopped and continued: those that the parent has not waited for are still to be waited for (WCONTINUED), once;
 * the others are not. A SIGCONT that is blocked stays pending with all it says; so does the SIGCHLD of a continuation, if it
 * was, and only then.
 */
#include <pthread.h>

#include "../lib/family.h"

enum { NR = 4, PARENT = NR, OF_PARENT, VALUE = 4711 };

static const struct kid {
	bool reported; /* the parent has waited for it to go on */
	bool threads;  /* two more of them */
	bool blocks;   /* SIGCONT, one for the process; with threads one for the first of them, too */
} kids[NR] = { { false, false, false }, { true, false, false }, { false, true, true }, { false, false, true } };

static sigset_t cont, chld;
static int *goes_on; /* shared: by kid */

/* By the system call: the C library does not tell SI_TKILL from SI_USER. */
static void await_sigcont(int code)
{
	siginfo_t info;
	const struct timespec now = { 0 };

	CHECK_EQUAL(syscall(SYS_rt_sigtimedwait, &cont, &info, &now, 8), SIGCONT);
	CHECK_EQUAL(info.si_code, code);
	CHECK(code != SI_QUEUE || info.si_value.sival_int == VALUE);
}

static void *be_thread(void *arg)
{
	if (arg)
		CHECK(!tgkill(getpid(), gettid(), SIGCONT));
	family_wait();
	if (arg)
		await_sigcont(SI_TKILL);
	return arg;
}

static void be_kid(int who)
{
	const struct kid *k = &kids[who];
	pthread_t threads[2];

	CHECK(!sigprocmask(k->blocks ? SIG_BLOCK : SIG_UNBLOCK, &cont, NULL));
	family_note(1 + who);
	/* The stop takes away what is pending: it comes first. */
	raise(SIGSTOP);
	for (long i = 0; k->threads && i < 2; i++)
		CHECK(!pthread_create(&threads[i], NULL, be_thread, (void *)(1 - i)));
	__atomic_store_n(&goes_on[who], 1, __ATOMIC_RELEASE);
	family_wait();
	for (int i = 0; k->threads && i < 2; i++)
		CHECK(!pthread_join(threads[i], NULL));
	if (k->blocks)
		await_sigcont(SI_QUEUE);
	const struct timespec now = { 0 };
	CHECK(sigtimedwait(&cont, NULL, &now) < 0);
	_exit(0);
}

static void await(pid_t pid, int how)
{
	siginfo_t info;

	CHECK(!waitid(P_PID, pid, &info, how));
	CHECK_EQUAL(info.si_code, how & WSTOPPED ? CLD_STOPPED : CLD_CONTINUED);
}

/* Stops by itself, and is continued; to the parent that is known, or not. */
static void stop_and_continue(int who, bool reported)
{
	pid_t pid = family_await(1 + who);

	await(pid, WSTOPPED);
	CHECK(!sigqueue(pid, SIGCONT, (union sigval){ .sival_int = VALUE }));
	await(pid, reported ? WCONTINUED : WCONTINUED | WNOWAIT);
	while (!__atomic_load_n(&goes_on[who], __ATOMIC_ACQUIRE))
		family_nap();
}

static void check_continued(pid_t pid, bool reported)
{
	siginfo_t info = { 0 };

	CHECK(!waitid(P_PID, pid, &info, WSTOPPED | WNOHANG));
	CHECK_EQUAL(info.si_pid, 0);
	CHECK(!waitid(P_PID, pid, &info, WCONTINUED | WNOHANG));
	CHECK_EQUAL(info.si_pid, reported ? 0 : pid);
	if (!reported)
		CHECK(info.si_code == CLD_CONTINUED && info.si_status == SIGCONT);
	info.si_pid = 0;
	CHECK(!waitid(P_PID, pid, &info, WCONTINUED | WNOHANG));
	CHECK_EQUAL(info.si_pid, 0);
}

static void drain(void)
{
	const struct timespec now = { 0 };

	while (sigtimedwait(&chld, NULL, &now) > 0)
		;
}

/* A parent that has the SIGCHLD pending. */
static void be_parent(void)
{
	const struct timespec now = { 0 };
	siginfo_t info;

	if (!family_fork(0, SIGCHLD)) {
		family_note(1 + OF_PARENT);
		raise(SIGSTOP);
		__atomic_store_n(&goes_on[OF_PARENT], 1, __ATOMIC_RELEASE);
		for (;;)
			pause();
	}
	pid_t pid = family_await(1 + OF_PARENT);
	await(pid, WSTOPPED | WNOWAIT);
	/* It is stopped before its parent is told. */
	CHECK_EQUAL(sigwaitinfo(&chld, NULL), SIGCHLD);
	drain();
	stop_and_continue(OF_PARENT, false);
	family_note(1 + PARENT);
	family_wait();
	CHECK_EQUAL(sigtimedwait(&chld, &info, &now), SIGCHLD);
	CHECK_EQUAL(info.si_code, CLD_CONTINUED);
	CHECK_EQUAL(info.si_pid, pid);
	check_continued(pid, false);
	CHECK(!kill(pid, SIGKILL) && waitpid(pid, NULL, 0) == pid);
	_exit(0);
}

int main(void)
{
	const struct timespec now = { 0 };
	pid_t parent;

	family_init();
	goes_on = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(goes_on != MAP_FAILED);
	sigemptyset(&cont);
	sigaddset(&cont, SIGCONT);
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	CHECK(!sigprocmask(SIG_BLOCK, &chld, NULL));
	for (int i = 0; i < NR; i++) {
		if (!family_fork(0, SIGCHLD))
			be_kid(i);
		stop_and_continue(i, kids[i].reported);
	}
	parent = family_fork(0, SIGCHLD);
	if (!parent)
		be_parent();
	family_await(1 + PARENT);
	drain();
	target_ready();

	siginfo_t info;
	if (sigtimedwait(&chld, &info, &now) > 0)
		TARGET_FAIL("a SIGCHLD of %d, code %d, is pending, and was not", info.si_pid, info.si_code);
	for (int i = 0; i < NR; i++)
		check_continued(family->members[1 + i].pid, kids[i].reported);
	family_go();
	for (int i = 0; i < NR; i++)
		family_join(family->members[1 + i].pid);
	family_join(parent);
	return target_pass();
}
