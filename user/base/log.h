/* Log lines and failures: who reports what, at which level. */
#ifndef BCR_BASE_LOG_H
#define BCR_BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG, LOG_TRACE };

/*
 * Where lines go. Until log_open_file() is called, lines at or below the level go to stderr.
 * Afterwards all go to the file, and errors and warnings to stderr as well.
 */
void log_set_level(enum log_level level);

/* Per-module levels, "freeze:debug,kinds:trace"; NULL and unknown words are ignored with a warning. */
void log_set_modules(const char *spec);

/*
 * Creates (truncates) the log file `name` below the directory `dirfd`.
 * Returns 0 or a negative errno; the failure has been reported on stderr.
 */
int log_open_file(int dirfd, const char *name);

/* Prefixes each line with the pid of the process that writes it. */
void log_set_pids(bool on);

/* The descriptor of the log file, or -1; restore keeps it out of the way of the tasks' numbers. */
int log_fd(void);
void log_set_fd(int fd);

/* Errors and warnings go to `err_fd` instead of descriptor 2, which may come to be a program's own. -1: nowhere. */
void log_set_err_fd(int err_fd);

/* Failures are reported as information from now on, or as errors again: for what may fail without anything being the worse for it. */
void log_failures_matter(bool on);

/* Keeps lines in memory, with the time they were made at, until it is called with false: for moments in which a write takes too long. */
void log_hold(bool on);

__attribute__((format(printf, 3, 4))) void log_line(enum log_level level, const char *file,
						    const char *fmt, ...);

#define log_error(...) log_line(LOG_ERROR, __FILE__, __VA_ARGS__)
#define log_warn(...) log_line(LOG_WARN, __FILE__, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, __FILE__, __VA_ARGS__)
#define log_debug(...) log_line(LOG_DEBUG, __FILE__, __VA_ARGS__)
#define log_trace(...) log_line(LOG_TRACE, __FILE__, __VA_ARGS__)

/*
 * Reports a failure, once, where it was discovered, and returns its code.
 * `err` is a negative errno; its text is appended: "pid 812 fd 7: open /x: No such file or directory".
 * Pass 0 as `err` for a failure without an errno: nothing is appended and -EINVAL is returned.
 */
__attribute__((format(printf, 3, 4))) int fail_at(const char *file, int err, const char *fmt, ...);
#define fail(err, ...) fail_at(__FILE__, (err), __VA_ARGS__)

/*
 * Refuses something bcr does not support. Between refusals_begin() and refusals_end() the sentences are
 * gathered so that the user sees all of them; outside, the sentence is reported at once. Returns -EOPNOTSUPP.
 */
__attribute__((format(printf, 2, 3))) int unsupported_at(const char *file, const char *fmt, ...);
#define unsupported(...) unsupported_at(__FILE__, __VA_ARGS__)

void refusals_begin(void);

/* Reports everything gathered as one list. Returns the number of refusals (0: nothing was refused). */
size_t refusals_end(void);

/* Forgets what has been gathered, and goes on gathering if it did: the same is looked at once more. */
void refusals_forget(void);

/* Ends gathering without reporting. */
void refusals_discard(void);

#endif
