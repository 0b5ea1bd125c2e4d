/*
 * Filters of seccomp(2): one that all threads share, by TSYNC; one after it that a thread has for itself; a child that inherited
 * them, and got another one, by which munmap and futex, prctl and more would fail: nothing of bcr's may be judged by it. No
 * privileges are left, nor is there no_new_privs in those that had them when they installed theirs.
 */
#include <pthread.h>
#include <stdint.h>
#include <sys/wait.h>

#include "seccomp_filters.h"
#include "target.h"

static int pipes[4][2];

static void await_byte(int which)
{
	char byte;

	CHECK_EQUAL(read(pipes[which][0], &byte, 1), 1);
}

static void send_byte(int which)
{
	CHECK_EQUAL(write(pipes[which][1], "x", 1), 1);
}

/* The call fails with this error; 0: it does not. */
static void check_call(int nr, int error)
{
	long ret = syscall(nr, 0, 0, 0);

	if (error)
		CHECK(ret == -1 && errno == error);
	else
		CHECK(ret != -1 || (errno != EXDEV && errno != ENOTBLK && errno != EUCLEAN));
}

/* Number of filters of the calling thread, from /proc. */
static int nr_filters(void)
{
	char line[256];
	int nr = -1;
	FILE *f = fopen("/proc/thread-self/status", "re");

	while (f && fgets(line, sizeof(line), f))
		sscanf(line, "Seccomp_filters: %d", &nr);
	CHECK(f && !fclose(f));
	return nr;
}

static void *confined(void *arg)
{
	pid_t *tid = arg;

	CHECK(!filter_call(SYS_getpgrp, ENOTBLK, SECCOMP_FILTER_FLAG_LOG));
	*tid = gettid();
	send_byte(1);
	await_byte(0);
	check_call(SYS_getppid, EXDEV);
	check_call(SYS_getpgrp, ENOTBLK);
	CHECK_EQUAL(nr_filters(), 2);
	return NULL;
}

static void *shared_only(void *arg)
{
	await_byte(2);
	check_call(SYS_getppid, EXDEV);
	check_call(SYS_getpgrp, 0);
	/* The main thread has installed one more by then, for all. */
	check_call(SYS_getpgid, ENOTBLK);
	CHECK_EQUAL(nr_filters(), 2);
	CHECK_EQUAL(prctl(PR_GET_SECCOMP), SECCOMP_MODE_FILTER);
	return arg;
}

/* A child that can do hardly anything any more. */
static void narrow_child(void)
{
	static const int calls[] = { SYS_munmap, SYS_futex, SYS_prctl, SYS_mmap, SYS_mprotect, SYS_rt_sigaction, SYS_setresuid,
				     SYS_capset, SYS_userfaultfd, SYS_getpgrp, SYS_arch_prctl, SYS_set_robust_list };
	char byte;

	CHECK(!setresgid(1000, 1000, 1000) && !setresuid(1000, 1000, 1000));
	CHECK(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	/* The last one first: after it seccomp(2) itself would still work. */
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		CHECK(!filter_call(calls[i], EUCLEAN, 0));
	send_byte(1);
	while (read(pipes[3][0], &byte, 1) == -1)
		;
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		check_call(calls[i], EUCLEAN);
	check_call(SYS_getppid, EXDEV);
	_exit(0);
}

int main(void)
{
	pthread_t one, other;
	pid_t confined_tid = 0;
	int status;

	for (int i = 0; i < 4; i++)
		CHECK(!pipe(pipes[i]));
	CHECK(!pthread_create(&other, NULL, shared_only, NULL));
	CHECK(!filter_call(SYS_getppid, EXDEV, SECCOMP_FILTER_FLAG_TSYNC));
	CHECK(!pthread_create(&one, NULL, confined, &confined_tid));
	await_byte(1);
	pid_t child = fork();
	CHECK(child >= 0);
	if (!child)
		narrow_child();
	await_byte(1);
	target_ready();

	check_call(SYS_getppid, EXDEV);
	check_call(SYS_getpgrp, 0);
	CHECK_EQUAL(nr_filters(), 1);
	CHECK_EQUAL(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 0);
	/* One thread has filters that are not ours; without it we may install for all again: those of the others are our own. */
	CHECK_EQUAL(filter_call(SYS_getsid, ENOTBLK, SECCOMP_FILTER_FLAG_TSYNC), confined_tid);
	send_byte(0);
	CHECK(!pthread_join(one, NULL));
	/* It has ended, and is in the way until it is off the list of threads, too. */
	while (!syscall(SYS_tgkill, getpid(), confined_tid, 0))
		usleep(1000);
	CHECK_EQUAL(filter_call(SYS_getpgid, ENOTBLK, SECCOMP_FILTER_FLAG_TSYNC_ESRCH | SECCOMP_FILTER_FLAG_TSYNC), 0);
	send_byte(2);
	CHECK(!pthread_join(other, NULL));
	send_byte(3);
	CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
	return target_pass();
}
