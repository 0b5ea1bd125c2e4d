/* bcr restore: options → restore request. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "cmd/cmd.h"
#include "flow/flow.h"

static int check_options(const struct options *o)
{
	int err = cmd_check_status_fd(o);

	if (err)
		return err;
	if (o->sibling && !o->detached)
		return fail(0, "restore: --restore-sibling needs --restore-detached");
	if (o->exec_cmd && !o->rest[0])
		return fail(0, "restore: --exec-cmd needs a command after --");
	if (o->exec_cmd && o->detached)
		return fail(0, "restore: --exec-cmd and --restore-detached exclude each other");
	if (!o->exec_cmd && o->rest[0])
		return fail(0, "%s: unexpected argument; see --help", o->rest[0]);
	return 0;
}

static int restore(const struct options *o)
{
	_cleanup_dirs_ struct cmd_dirs dirs = CMD_DIRS_NONE;

	if (cmd_begin(o, &dirs) || check_options(o))
		return 1;

	const struct restore_request req = {
		.images_dir = o->images_dir,
		.work_dir = o->work_dir ? o->work_dir : o->images_dir,
		.images_dirfd = dirs.images_fd,
		.work_dirfd = dirs.work_fd,
		.shell_job = o->shell_job,
		.detached = o->detached,
		.sibling = o->sibling,
		.leave_stopped = o->leave_stopped,
		.pidfile = o->pidfile,
		.status_fd = o->status_fd,
		.display_stats = o->display_stats,
		.progress = isatty(STDERR_FILENO),
		.exec_cmd = o->exec_cmd ? o->rest : NULL,
	};
	return flow_restore(&req);
}

int cmd_restore(int argc, char **argv)
{
	struct options o;
	int code;

	if (!cmd_parse(VERB_RESTORE, argc, argv, true, &o, &code))
		return code;

	const char *stage = getenv("BCR_FAIL_AT");
	if (stage && !strcmp(stage, "list"))
		flow_list_stages("restore", false);
	else
		code = restore(&o);
	options_deinit(&o);
	return code;
}
