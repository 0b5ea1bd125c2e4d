/* bcr dump, bcr pre-dump: options → dump request. What can be refused by looking at the command line alone is refused here. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "cmd/cmd.h"
#include "flow/flow.h"
#include "sys/pid_check.h"

static int check_images_dir(const struct options *o, const struct cmd_dirs *dirs)
{
	if (faccessat(dirs->images_fd, ".", W_OK | X_OK, AT_EACCESS))
		return fail(-errno, "images directory %s: cannot create files in it", o->images_dir);
	return 0;
}

static const char *verb_name(const struct options *o)
{
	return o->verb == VERB_DUMP ? "dump" : "pre-dump";
}

static int dump(const struct options *o, int (*flow)(const struct dump_request *req))
{
	_cleanup_dirs_ struct cmd_dirs dirs = CMD_DIRS_NONE;
	int err = cmd_begin(o, &dirs);

	if (!err)
		err = cmd_check_status_fd(o);
	if (!err && !o->tree)
		err = fail(0, "%s: give the process to dump, a number greater than 0, with --tree PID", verb_name(o));
	if (!err && o->leave_running && o->leave_stopped)
		err = fail(0, "dump: --leave-running and --leave-stopped exclude each other");
	if (!err)
		err = check_images_dir(o, &dirs);
	if (!err)
		err = pid_check_target(o->tree);
	if (err)
		return err;

	const struct dump_request req = {
		.root = o->tree,
		.images_dir = o->images_dir,
		.work_dir = o->work_dir ? o->work_dir : o->images_dir,
		.images_dirfd = dirs.images_fd,
		.work_dirfd = dirs.work_fd,
		.leave_running = o->leave_running,
		.leave_stopped = o->leave_stopped,
		.shell_job = o->shell_job,
		.file_locks = o->file_locks,
		.tcp_established = o->tcp_established,
		.ext_unix_sk = o->ext_unix_sk,
		.prev_images_dir = o->prev_images_dir,
		.observe = o->observe,
		.freezer = o->freezer,
		.track = o->track,
		.timeout_s = o->timeout_s,
		.ghost_limit_bytes = o->ghost_limit_bytes,
		.status_fd = o->status_fd,
		.display_stats = o->display_stats,
		.progress = isatty(STDERR_FILENO),
	};
	return flow(&req);
}

/* --fail-at list, or the environment variable it sets. */
static bool wants_stages(void)
{
	const char *stage = getenv("BCR_FAIL_AT");

	return stage && !strcmp(stage, "list");
}

static int run(enum verb verb, int argc, char **argv, int (*flow)(const struct dump_request *req))
{
	struct options o;
	int code;

	if (!cmd_parse(verb, argc, argv, false, &o, &code))
		return code;
	if (wants_stages())
		flow_list_stages(argv[0], o.leave_running);
	else
		code = cmd_exit_code(dump(&o, flow));
	options_deinit(&o);
	return code;
}

int cmd_dump(int argc, char **argv)
{
	return run(VERB_DUMP, argc, argv, flow_dump);
}

int cmd_pre_dump(int argc, char **argv)
{
	return run(VERB_PRE_DUMP, argc, argv, flow_pre_dump);
}
