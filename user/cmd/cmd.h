/* The commands: each takes its own argv (argv[0] is the verb) and returns bcr's exit code. */
#ifndef BCR_CMD_CMD_H
#define BCR_CMD_CMD_H

#include "cmd/options.h"

int cmd_dump(int argc, char **argv);
int cmd_pre_dump(int argc, char **argv);
int cmd_restore(int argc, char **argv);
int cmd_show(int argc, char **argv);
int cmd_check(int argc, char **argv);
int cmd_exec(int argc, char **argv);
int cmd_bench(int argc, char **argv);

/* The directories of a command; descriptors are owned. */
struct cmd_dirs {
	int images_fd, work_fd;
};

#define CMD_DIRS_NONE { -1, -1 }

/*
 * Starts what all commands begin with: log levels, the work directory, the log file in it (first of all, so that it
 * exists whatever happens next), then the images directory. Returns 0 or a reported negative errno.
 */
int cmd_begin(const struct options *o, struct cmd_dirs *ret);

void cmd_dirs_close(struct cmd_dirs *dirs);
#define _cleanup_dirs_ __attribute__((cleanup(cmd_dirs_close)))

/*
 * Parses, and handles --help and stray arguments. Returns true when the command is to go on; otherwise *exit_code
 * says how to end. With `takes_rest`, arguments after the options are the command's.
 */
bool cmd_parse(enum verb verb, int argc, char **argv, bool takes_rest, struct options *ret,
	       int *exit_code);

/* Checks that --status-fd, when given, names a descriptor that can be written to. */
int cmd_check_status_fd(const struct options *o);

/* A negative errno, or 0, as an exit code. */
static inline int cmd_exit_code(int err)
{
	return err ? 1 : 0;
}

#endif
