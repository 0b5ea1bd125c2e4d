/* Log lines and failures. */
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/vec.h"

static struct {
	enum log_level level;
	char modules[256];
	int fd;
	bool pids;
	int err_fd;
	struct timespec start;
} logger = { .level = LOG_WARN, .fd = -1, .err_fd = STDERR_FILENO };

/* Lines kept while the target stands still: written when it runs again. */
static struct {
	bool active;
	size_t len_bytes;
	char bytes[64 << 10]; /* of each line: descriptor, length, text */
} held;

struct held_line {
	int fd, len;
};

struct refusal {
	const char *file; /* that refused; a literal */
	char *text;       /* owned */
};

/* Refusals of one observation; `active` while they are gathered rather than reported. */
static struct {
	bool active;
	VEC(struct refusal) list;
} refusals;

static const char *const level_names[] = { "Error", "Warn", "Info", "Debug", "Trace" };
static const char *const level_words[] = { "error", "warn", "info", "debug", "trace" };

void log_set_level(enum log_level level)
{
	logger.level = level > LOG_TRACE ? LOG_TRACE : level;
}

void log_set_modules(const char *spec)
{
	if (!spec)
		return;
	if (strlen(spec) >= sizeof(logger.modules)) {
		log_warn("BCR_LOG is longer than %zu characters and was ignored",
			 sizeof(logger.modules) - 1);
		return;
	}
	strcpy(logger.modules, spec);
}

void log_set_pids(bool on)
{
	logger.pids = on;
}

void log_set_err_fd(int err_fd)
{
	logger.err_fd = err_fd;
}

int log_fd(void)
{
	return logger.fd;
}

void log_set_fd(int fd)
{
	logger.fd = fd;
}

int log_open_file(int dirfd, const char *name)
{
	int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
	if (fd < 0)
		return fail(-errno, "log file %s: create", name);

	logger.fd = fd;
	clock_gettime(CLOCK_MONOTONIC, &logger.start);
	return 0;
}

/* "user/kinds/pipe.c" → "kinds/pipe": what BCR_LOG matches and what prefixes the line. */
static void module_name(const char *file, char *buf, size_t size)
{
	const char *user = strstr(file, "user/");

	snprintf(buf, size, "%s", user ? user + 5 : file);
	char *dot = strrchr(buf, '.');
	if (dot)
		*dot = 0;
}

static enum log_level module_level(const char *module)
{
	const char *p = logger.modules;

	while (*p) {
		size_t len = strcspn(p, ",");
		const char *colon = memchr(p, ':', len);

		if (colon && (size_t)(colon - p) <= strlen(module) &&
		    !strncmp(p, module, colon - p)) {
			for (int l = LOG_ERROR; l <= LOG_TRACE; l++)
				if (!strncmp(colon + 1, level_words[l], strlen(level_words[l])))
					return l;
		}
		p += len + (p[len] == ',');
	}
	return logger.level;
}

static void write_held(void)
{
	for (size_t at = 0; at < held.len_bytes;) {
		struct held_line head;

		memcpy(&head, held.bytes + at, sizeof(head));
		at += sizeof(head);
		if (write(head.fd, held.bytes + at, head.len) < 0 && errno == EBADF && head.fd == logger.fd)
			logger.fd = -1;
		at += head.len;
	}
	held.len_bytes = 0;
}

void log_hold(bool on)
{
	held.active = on;
	if (!on)
		write_held();
}

/* 0 or a negative errno. */
static int put_line(int fd, const char *text, int len)
{
	struct held_line head = { fd, len };

	if (held.len_bytes + sizeof(head) + len > sizeof(held.bytes))
		write_held();
	if (!held.active)
		return write(fd, text, len) < 0 ? -errno : 0;
	memcpy(held.bytes + held.len_bytes, &head, sizeof(head));
	memcpy(held.bytes + held.len_bytes + sizeof(head), text, len);
	held.len_bytes += sizeof(head) + len;
	return 0;
}

/* One write per line, so that lines of several processes never mix. */
static void emit(enum log_level level, const char *module, const char *text)
{
	char line[4400];
	char pid[24] = "";
	struct timespec now;

	if (logger.pids)
		snprintf(pid, sizeof(pid), "%6d: ", getpid());
	if (logger.fd >= 0) {
		clock_gettime(CLOCK_MONOTONIC, &now);
		long us = (now.tv_sec - logger.start.tv_sec) * 1000000L +
			  (now.tv_nsec - logger.start.tv_nsec) / 1000;
		int len = snprintf(line, sizeof(line), "(%02ld.%06ld) %s%s%s%s: %s\n", us / 1000000,
				   us % 1000000, pid, level <= LOG_WARN ? level_names[level] : "",
				   level <= LOG_WARN ? " " : "", module, text);
		if (len >= (int)sizeof(line))
			len = sizeof(line) - 1;
		if (put_line(logger.fd, line, len) == -EBADF)
			logger.fd = -1;
	}
	if (logger.fd < 0 || level <= LOG_WARN) {
		int len = snprintf(line, sizeof(line), "bcr: %s%s%s\n", pid,
				   level == LOG_WARN ? "warning: " : "", text);
		if (len >= (int)sizeof(line))
			len = sizeof(line) - 1;
		put_line(logger.err_fd, line, len); /* may fail: nobody is left to tell */
	}
}

static void vlog(enum log_level level, const char *file, const char *fmt, va_list ap)
{
	char module[64];
	char text[4096];

	module_name(file, module, sizeof(module));
	if (level > module_level(module))
		return;
	vsnprintf(text, sizeof(text), fmt, ap);
	emit(level, module, text);
}

void log_line(enum log_level level, const char *file, const char *fmt, ...)
{
	int saved = errno;
	va_list ap;

	va_start(ap, fmt);
	vlog(level, file, fmt, ap);
	va_end(ap);
	errno = saved;
}

static enum log_level failure_level = LOG_ERROR;

void log_failures_matter(bool on)
{
	failure_level = on ? LOG_ERROR : LOG_INFO;
}

int fail_at(const char *file, int err, const char *fmt, ...)
{
	char text[4096];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (!err) {
		log_line(failure_level, file, "%s", text);
		return -EINVAL;
	}
	log_line(failure_level, file, "%s: %s", text, strerror(-err));
	return err;
}

static bool already_refused(const char *text)
{
	VEC_FOREACH(refusal, &refusals.list) {
		if (!strcmp(refusal->text, text))
			return true;
	}
	return false;
}

int unsupported_at(const char *file, const char *fmt, ...)
{
	struct refusal refusal = { .file = file };
	va_list ap;

	va_start(ap, fmt);
	int len = vasprintf(&refusal.text, fmt, ap);
	va_end(ap);
	if (len < 0)
		return -EOPNOTSUPP;
	if (refusals.active && already_refused(refusal.text)) {
		free(refusal.text);
		return -EOPNOTSUPP;
	}
	/* What cannot be gathered for want of memory is said at once: a line of the list is never lost. */
	if (!refusals.active || VEC_PUSH(&refusals.list, refusal)) {
		log_line(LOG_ERROR, file, "%s", refusal.text);
		free(refusal.text);
	}
	return -EOPNOTSUPP;
}

void refusals_begin(void)
{
	refusals_discard();
	refusals.active = true;
}

void refusals_forget(void)
{
	VEC_FOREACH(refusal, &refusals.list)
		free(refusal->text);
	VEC_FREE(&refusals.list);
}

void refusals_discard(void)
{
	refusals_forget();
	refusals.active = false;
}

size_t refusals_end(void)
{
	size_t nr = refusals.list.nr;

	refusals.active = false;
	VEC_FOREACH(refusal, &refusals.list)
		log_line(LOG_ERROR, refusal->file, "%s", refusal->text);
	refusals_discard();
	return nr;
}
