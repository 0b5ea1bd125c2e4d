/*
 * For programs that are dumped and restored: build state, target_ready(), look at the state again, target_pass().
 * argv[1] is a fresh directory, the working directory as well; stdout is the log, whose last line must be PASS.
 */
#ifndef TARGET_H
#define TARGET_H

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Ends the program as failed, with what differed. */
#define TARGET_FAIL(...)                                                                           \
	do {                                                                                       \
		printf("%s:%d: ", __FILE__, __LINE__);                                             \
		printf(__VA_ARGS__);                                                               \
		printf("\n");                                                                      \
		fflush(stdout);                                                                    \
		exit(1);                                                                           \
	} while (0)

/* What must be true, before as after. */
#define CHECK(condition)                                                                           \
	do {                                                                                       \
		if (!(condition))                                                                  \
			TARGET_FAIL("not so: %s (errno %d)", #condition, errno);                   \
	} while (0)

/* Two numbers that must be equal. */
#define CHECK_EQUAL(a, b)                                                                          \
	do {                                                                                       \
		long long a_ = (a), b_ = (b);                                                      \
		if (a_ != b_)                                                                      \
			TARGET_FAIL("%s is %lld, expected %lld", #a, a_, b_);                      \
	} while (0)

/* Announces that dump must refuse this program, with these words. Before target_ready(). */
static inline void target_expect_refusal(const char *words)
{
	printf("EXPECT-REFUSAL: %s\n", words);
	fflush(stdout);
}

/*
 * Says that the state is built, and returns when it is to be looked at. Polls: whoever waits here is dumped while it waits,
 * and an event would be state of its own. Changes no descriptor: all it opens is closed before it says so.
 */
static inline void target_ready(void)
{
	const struct timespec pause = { .tv_nsec = 20 * 1000 * 1000 };
	char pid[16];
	int len = snprintf(pid, sizeof(pid), "%d\n", getpid());
	int fd = open("ready.tmp", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	fflush(stdout);
	CHECK(fd >= 0);
	CHECK_EQUAL(write(fd, pid, len), len);
	CHECK(!close(fd));
	CHECK(!rename("ready.tmp", "ready"));
	while (access("go", F_OK))
		nanosleep(&pause, NULL);
}

/* For a machine that lacks what the state is made of: the test is skipped, with this reason. Before target_ready(). */
__attribute__((noreturn)) static inline void target_skip(const char *reason)
{
	FILE *f = fopen("ready.tmp", "we");

	printf("%s\n", reason);
	fflush(stdout);
	CHECK(f && fputs("skip\n", f) >= 0 && !fclose(f) && !rename("ready.tmp", "ready"));
	exit(0);
}

static inline int target_pass(void)
{
	printf("PASS\n");
	fflush(stdout);
	return 0;
}

#endif
