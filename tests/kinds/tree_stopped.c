/*
 * Stopped children, by different signals: those whose stop the parent has waited for are not reported once more, those it
 * has not are, with the signal; the SIGCHLD of the stop is pending as it was, or not. Continued, all run on where they were.
 */
#include <pthread.h>

#include "../lib/family.h"

enum { NR = 7 };

static const struct kid {
	int sig;
	bool reported;  /* the parent has waited for it */
	bool threads;   /* two more of them */
	bool own_group; /* job control stops no member of an orphaned group: its parent is in another one of the session */
} kids[NR] = {
	{ SIGSTOP, true, false, false }, { SIGSTOP, false, false, false }, { SIGTSTP, true, false, true },
	{ SIGTSTP, false, false, true }, { SIGTTIN, false, true, true },   { SIGTTOU, true, true, true },
	{ SIGSTOP, false, true, false },
};

static volatile uint64_t *counts; /* shared: what a kid's threads count while they run */
static void *count(void *arg)
{
	while (!__atomic_load_n(&family->go, __ATOMIC_ACQUIRE)) {
		counts[(long)arg]++;
		family_nap();
	}
	return arg;
}

static void be_kid(int who)
{
	const struct kid *k = &kids[who];
	pthread_t threads[2];

	if (k->own_group)
		CHECK(!setpgid(0, 0));
	for (long i = 0; k->threads && i < 2; i++)
		CHECK(!pthread_create(&threads[i], NULL, count, (void *)(4 * (long)who + 1 + i)));
	family_note(1 + who);
	count((void *)(4 * (long)who));
	for (int i = 0; k->threads && i < 2; i++)
		CHECK(!pthread_join(threads[i], NULL));
	family_check(1 + who);
	_exit(0);
}

static void await_stop(pid_t pid)
{
	siginfo_t info;

	CHECK(!waitid(P_PID, pid, &info, WSTOPPED | WNOWAIT));
}

static void check_kids(const uint64_t *before)
{
	for (int i = 0; i < NR; i++) {
		pid_t pid = family->members[1 + i].pid;
		siginfo_t info = { 0 };

		CHECK_EQUAL(state_of(pid), 'T');
		CHECK(!waitid(P_PID, pid, &info, WSTOPPED | WNOHANG | WNOWAIT));
		CHECK_EQUAL(info.si_pid, kids[i].reported ? 0 : pid);
		if (!kids[i].reported)
			CHECK(info.si_code == CLD_STOPPED && info.si_status == kids[i].sig);
		for (int k = 0; k < 4; k++)
			CHECK_EQUAL(counts[4 * i + k], before[4 * i + k]);
	}
}

int main(void)
{
	struct timespec now = { 0 };
	uint64_t before[4 * NR];
	sigset_t chld;
	siginfo_t info;
	int status;

	family_init();
	counts = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(counts != MAP_FAILED);
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	CHECK(!sigprocmask(SIG_BLOCK, &chld, NULL));
	for (int i = 0; i < NR; i++) {
		if (!family_fork(0, SIGCHLD))
			be_kid(i);
		pid_t pid = family_await(1 + i);
		CHECK(!kill(pid, kids[i].sig));
		await_stop(pid);
		/* It is stopped before its parent is told. */
		CHECK_EQUAL(sigwaitinfo(&chld, NULL), SIGCHLD);
		if (kids[i].reported)
			CHECK(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status) && WSTOPSIG(status) == kids[i].sig);
	}
	while (sigtimedwait(&chld, NULL, &now) > 0)
		;
	memcpy(before, (void *)counts, sizeof(before));

	target_ready();

	check_kids(before);
	if (sigtimedwait(&chld, &info, &now) > 0)
		TARGET_FAIL("a SIGCHLD of %d, code %d, is pending, and was not", info.si_pid, info.si_code);
	family_go();
	for (int i = 0; i < NR; i++) {
		CHECK(!kill(family->members[1 + i].pid, SIGCONT));
		family_join(family->members[1 + i].pid);
	}
	CHECK(sigtimedwait(&chld, NULL, &now) == SIGCHLD);
	return target_pass();
}
