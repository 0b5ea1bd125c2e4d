/* Command-line options: one table, from which parsing, usage text, completion and the man-page check derive. */
#ifndef BCR_CMD_OPTIONS_H
#define BCR_CMD_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "base/vec.h"

/* The verbs an option belongs to; a set of bits. */
enum verb {
	VERB_DUMP = 1 << 0,
	VERB_RESTORE = 1 << 1,
	VERB_SHOW = 1 << 2,
	VERB_CHECK = 1 << 3,
	VERB_BENCH = 1 << 4,
	VERB_PRE_DUMP = 1 << 5,
};

/* What the command line asks for. Strings point into argv or into `configs`. */
struct options {
	enum verb verb;
	const char *images_dir; /* never NULL: "." by default */
	const char *work_dir;   /* NULL: the images directory */
	const char *log_file;   /* NULL: stderr */
	int verbosity;          /* 0 to 5, CRIU's numbers */
	bool log_pids;

	int64_t tree; /* 0: not given */
	bool leave_running, leave_stopped, shell_job, file_locks, tcp_established, ext_unix_sk;
	bool track_mem, display_stats;
	const char *prev_images_dir; /* NULL: the set is complete */
	uint64_t timeout_s;
	uint64_t ghost_limit_bytes;
	int64_t status_fd; /* -1: none */
	const char *pidfile;
	const char *observe, *freezer, *track;

	bool detached, sibling;
	bool exec_cmd; /* the command is in `rest` */

	bool json, plan;

	const char *feature;
	bool extra, all;

	uint64_t mib, threads, write_mb, rounds;

	bool help;
	bool ignored; /* where options without effect store their value */

	char **rest; /* what follows the options, NULL-terminated; points into argv */

	/* Texts of configuration files that strings above may point into. Owned. */
	VEC(char *) configs;

	/* Options bcr does not support yet, as given: cmd_begin() reports them, when the log file is there. Owned. */
	VEC(char *) refused;
};

enum option_arg { ARG_NONE, ARG_REQUIRED, ARG_OPTIONAL };

/* What bcr does with an option. */
enum option_effect {
	OPTION_FLAG,      /* bool; --no-NAME clears it */
	OPTION_STRING,
	OPTION_CHOICE,    /* string out of `choices` */
	OPTION_NUMBER,    /* uint64_t or int64_t, not negative */
	OPTION_SIZE,      /* uint64_t, bytes; K, M and G are units */
	OPTION_VERBOSITY,
	OPTION_CONFIG,
	OPTION_NO_CONFIG,
	OPTION_FAIL_AT,
	OPTION_IGNORED,   /* accepted; ignoring it is its right meaning here, and the help text says why */
	OPTION_NOT_YET,   /* known, answered "not supported yet"; the values in `choices` are accepted without effect */
};

struct option_desc {
	const char *name; /* without dashes */
	char letter;      /* 0: none */
	enum option_arg arg;
	enum option_effect effect;
	unsigned verbs; /* set of enum verb */
	size_t offset;  /* of the member of struct options */
	const char *placeholder; /* of the argument in usage text */
	const char *choices;     /* "a|b" */
	const char *help;
	bool hidden; /* not in the usage text */
};

/* The table: i from 0 until NULL. */
const struct option_desc *option_at(size_t i);

/*
 * Parses the arguments of a verb; argv[0] is the verb. Reads configuration files first, so that the command
 * line wins. Returns 0 or -EINVAL / another negative errno; the failure has been reported.
 */
int options_parse(enum verb verb, int argc, char **argv, struct options *ret);

void options_deinit(struct options *o);

/* Usage text of one verb, from the table. */
void options_usage(enum verb verb, const char *name, FILE *out);

#endif
