/* What every command begins with: options, log, directories. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "cmd/cmd.h"

/* CRIU counts 0 messages, 1 errors, 2 warnings, 3 information, 4 debug. */
static enum log_level level_of(int verbosity)
{
	return verbosity <= 1 ? LOG_ERROR : (enum log_level)(verbosity - 1);
}

static int open_dir(const char *what, const char *path, int *ret)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return fail(-errno, "%s directory %s: open", what, path);
	*ret = fd;
	return 0;
}

static int refuse_options(const struct options *o)
{
	int err = 0;

	for (size_t i = 0; i < o->refused.nr; i++)
		err = unsupported("%s: not supported yet", o->refused.v[i]);
	return err;
}

int cmd_begin(const struct options *o, struct cmd_dirs *ret)
{
	const char *work_dir = o->work_dir ? o->work_dir : o->images_dir;
	_cleanup_dirs_ struct cmd_dirs dirs = CMD_DIRS_NONE;
	int err;

	log_set_level(level_of(o->verbosity));
	log_set_modules(getenv("BCR_LOG"));
	log_set_pids(o->log_pids);
	err = open_dir(o->work_dir ? "work" : "images", work_dir, &dirs.work_fd);
	if (!err && o->log_file)
		err = log_open_file(dirs.work_fd, o->log_file);
	if (!err)
		err = refuse_options(o);
	if (!err)
		err = open_dir("images", o->images_dir, &dirs.images_fd);
	if (err)
		return err;
	*ret = (struct cmd_dirs){ take_fd(&dirs.images_fd), take_fd(&dirs.work_fd) };
	return 0;
}

void cmd_dirs_close(struct cmd_dirs *dirs)
{
	cleanup_close(&dirs->images_fd);
	cleanup_close(&dirs->work_fd);
}

bool cmd_parse(enum verb verb, int argc, char **argv, bool takes_rest, struct options *ret,
	       int *exit_code)
{
	*exit_code = cmd_exit_code(options_parse(verb, argc, argv, ret));
	if (*exit_code)
		return false;
	if (ret->help) {
		options_usage(verb, argv[0], stdout);
		options_deinit(ret);
		return false;
	}
	if (ret->rest[0] && !takes_rest) {
		fail(0, "%s: unexpected argument; see --help", ret->rest[0]);
		*exit_code = 1;
		options_deinit(ret);
		return false;
	}
	return true;
}

int cmd_check_status_fd(const struct options *o)
{
	if (o->status_fd < 0)
		return 0;
	int flags = fcntl(o->status_fd, F_GETFL);

	if (flags < 0)
		return fail(-errno, "--status-fd %d", (int)o->status_fd);
	if ((flags & O_ACCMODE) == O_RDONLY)
		return fail(0, "--status-fd %d: the descriptor is not open for writing",
			    (int)o->status_fd);
	return 0;
}
