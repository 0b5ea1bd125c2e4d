/*
 * What the targets of the flow tests share: a program that builds state, says that it is ready, is dumped and restored
 * (or left running), is told to go, looks at its state again from inside, and prints PASS or what differed.
 */
#ifndef TESTS_FLOW_LIB_SELF_H
#define TESTS_FLOW_LIB_SELF_H

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The directory the test gave us: absolute, and our working directory. */
static const char *self_dir;

/* Ends this process, after a line that says what differed. */
__attribute__((noreturn, format(printf, 4, 5)))
static inline void self_fail(const char *file, int line, const char *cond, const char *format, ...)
{
	char buf[512];
	int len = snprintf(buf, sizeof(buf), "%s:%d: pid %d: not so: %s; ", file, line, getpid(), cond);
	va_list args;

	va_start(args, format);
	len += vsnprintf(buf + len, sizeof(buf) - len, format, args);
	va_end(args);
	if (len > (int)sizeof(buf) - 2)
		len = sizeof(buf) - 2;
	buf[len++] = '\n';
	if (write(STDOUT_FILENO, buf, len) != len)
		_exit(2);
	_exit(1);
}

/* CHECK(condition, "what is so instead", ...) */
#define CHECK(cond, ...) \
	do { \
		if (!(cond)) \
			self_fail(__FILE__, __LINE__, #cond, __VA_ARGS__); \
	} while (0)

/* For preparations: CHECK with errno. */
#define NEED(cond) CHECK(cond, "%s", strerror(errno))

static inline void self_init(int argc, char **argv)
{
	if (argc < 2 || chdir(argv[1])) {
		fprintf(stderr, "usage: %s DIR\n", argv[0]);
		exit(2);
	}
	self_dir = argv[1];
}

/* Makes the file with all of its content at once. */
static inline void self_write_file(const char *name, const char *text)
{
	char tmp[64];

	snprintf(tmp, sizeof(tmp), "%.50s.tmp", name);
	int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	NEED(fd >= 0);
	NEED(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
	NEED(rename(tmp, name) == 0);
}

static inline void self_ready(void)
{
	char pid[16];

	snprintf(pid, sizeof(pid), "%d\n", getpid());
	self_write_file("ready", pid);
}

static inline void self_nap(long ns)
{
	struct timespec ts = { ns / 1000000000, ns % 1000000000 };

	CHECK(nanosleep(&ts, NULL) == 0, "a nap ended with %s", strerror(errno));
}

/*
 * Waits until the test says go. Looks for the file again and again: nothing that could wake us from outside may be
 * part of a target.
 */
static inline void self_wait(void)
{
	while (access("go", F_OK))
		self_nap(2000000);
}

__attribute__((noreturn)) static inline void self_pass(void)
{
	fflush(stdout);
	NEED(write(STDOUT_FILENO, "PASS\n", 5) == 5);
	exit(0);
}

/* Reaps the child and expects it to have ended well. */
static inline void self_join(pid_t pid)
{
	int status;

	NEED(waitpid(pid, &status, 0) == pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "child %d: wait status %#x", pid, status);
}

static inline int64_t self_now_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

#endif
