/*
 * Restore: image set → running process tree.
 *
 * Theory of operation. The images are read and checked as a whole, and everything that can be known to fail is found
 * before the first process is made. Until `resume` every process of the new tree is traced with PTRACE_O_EXITKILL, or has
 * asked for SIGKILL at the death of its parent: a failure, or the death of bcr, leaves none behind.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "flow/flow.h"
#include "flow/stages.h"
#include "image/image.h"
#include "restore/restore.h"

struct flow {
	const struct restore_request *req;
	struct model *model;
	struct restore *restore;
	struct restore_stats stats;
	uint64_t start_us;
};

/*
 * A detached tree is bcr's child until bcr ends, right after the restore: a signal that the root wants at the death of its parent
 * would come then, and mostly end it.
 */
static void forget_death_signals(struct task *root)
{
	bool had = false;

	VEC_FOREACH(th, &root->threads) {
		had |= th->pdeath_signal != 0;
		th->pdeath_signal = 0;
	}
	if (had)
		log_warn("pid %d: will get no signal at the death of its parent (PR_SET_PDEATHSIG): that is bcr, which ends now",
			 root->pid);
}

static int load_images(struct flow *f)
{
	int err = images_load(f->req->images_dirfd, f->req->images_dir, &f->model);

	if (!err && f->req->detached && !f->req->sibling)
		forget_death_signals(model_root(f->model));
	return err;
}

static void undo_load(struct flow *f)
{
	model_destroy(f->model);
	f->model = NULL;
}

static int make_plan(struct flow *f)
{
	const struct restore_request *req = f->req;
	struct restore_options opts = {
		.images_dirfd = req->images_dirfd,
		.shell_job = req->shell_job,
		.sibling = req->sibling,
		.leave_stopped = req->leave_stopped,
		.progress = req->progress ? progress_show : NULL,
	};

	return restore_create(f->model, &opts, &f->restore);
}

/* Ends every process made so far. */
static void undo_restore(struct flow *f)
{
	restore_abort(f->restore);
	restore_destroy(f->restore);
	f->restore = NULL;
}

static int check_system(struct flow *f)
{
	return restore_check(f->restore);
}

static int open_files(struct flow *f)
{
	return restore_files(f->restore);
}

static int make_tree(struct flow *f)
{
	uint64_t start = clock_us();

	/* Each task fills its memory before it forks its children. */
	if (f->req->progress)
		progress_begin("Filling memory");
	int err = restore_fork(f->restore);
	progress_end();

	f->stats.forking_us = clock_us() - start;
	return err;
}

static void undo_fork(struct flow *f)
{
	restore_abort(f->restore);
}

static int fill_tasks(struct flow *f)
{
	return restore_tasks(f->restore);
}

/* Written beside and renamed: a reader sees the whole pid or nothing. Relative to the work directory. */
static int write_pidfile(struct flow *f)
{
	const struct restore_request *req = f->req;
	char tmp[4096], text[24];

	if (!req->pidfile)
		return 0;
	if (snprintf(tmp, sizeof(tmp), "%s.tmp", req->pidfile) >= (int)sizeof(tmp))
		return fail(-ENAMETOOLONG, "pid file %s", req->pidfile);
	_cleanup_close_ int fd = openat(req->work_dirfd, tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return fail(-errno, "pid file %s: create", tmp);
	int len = snprintf(text, sizeof(text), "%d", restore_root_pid(f->restore));
	int err = 0;
	if (write(fd, text, len) != len || renameat(req->work_dirfd, tmp, req->work_dirfd, req->pidfile))
		err = fail(-errno, "pid file %s: write", req->pidfile);
	if (err)
		unlinkat(req->work_dirfd, tmp, 0);
	return err;
}

static void undo_pidfile(struct flow *f)
{
	if (f->req->pidfile)
		unlinkat(f->req->work_dirfd, f->req->pidfile, 0);
}

/* Cannot be undone once the tree runs; a failure inside ends every process all the same. */
static int resume(struct flow *f)
{
	int err = restore_resume(f->restore, &f->stats);

	if (err)
		return err;
	f->stats.restore_us = clock_us() - f->start_us;
	log_info("restored in %u us, of which forking %u us", f->stats.restore_us, f->stats.forking_us);
	if (f->req->display_stats) {
		printf("Displaying restore stats:\n"
		       "Pages compared: %llu\n"
		       "Pages skipped COW: %llu\n"
		       "Pages restored: %llu\n"
		       "Restore time: %u us\n"
		       "Forking time: %u us\n",
		       (unsigned long long)f->stats.pages_compared,
		       (unsigned long long)f->stats.pages_skipped_cow,
		       (unsigned long long)f->stats.pages_restored, f->stats.restore_us,
		       f->stats.forking_us);
		fflush(stdout);
	}
	/* The tree runs: statistics that cannot be written are no reason to call that a failure. */
	if (stats_write_restore(f->req->work_dirfd, &f->stats))
		log_warn("stats-restore was not written");
	return 0;
}

static const struct stage restore_stages[] = {
	{ "load", load_images, undo_load },
	{ "plan", make_plan, undo_restore },
	{ "check", check_system, NULL },
	{ "files", open_files, NULL },
	{ "fork", make_tree, undo_fork },
	{ "tasks", fill_tasks, undo_fork },
	{ "pidfile", write_pidfile, undo_pidfile },
	{ "resume", resume, NULL },
};
enum { NR_RESTORE_STAGES = sizeof(restore_stages) / sizeof(restore_stages[0]) };

void restore_list_stages(void)
{
	stages_list(restore_stages, NR_RESTORE_STAGES);
}

/* Attached: bcr ends as the root task does. */
static int wait_for_root(pid_t root)
{
	int status;

	while (waitpid(root, &status, 0) < 0) {
		if (errno != EINTR) {
			fail(-errno, "pid %d: wait for the restored root task", root);
			return 1;
		}
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int flow_restore(const struct restore_request *req)
{
	struct flow f = { .req = req, .start_us = clock_us() };

	if (stages_run(restore_stages, NR_RESTORE_STAGES, &f, NULL, NULL))
		return 1;
	pid_t root = restore_root_pid(f.restore);
	restore_destroy(f.restore);
	model_destroy(f.model);
	status_ready(req->status_fd);
	if (req->exec_cmd) {
		execvp(req->exec_cmd[0], req->exec_cmd);
		fail(-errno, "--exec-cmd %s: execute", req->exec_cmd[0]);
		return 1;
	}
	return req->detached || req->sibling ? 0 : wait_for_root(root);
}
