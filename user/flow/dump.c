/*
 * Dump: running process tree → image set.
 *
 * Theory of operation. Up to `freeze` the target runs and is only looked at; everything bcr cannot do is refused there. From `freeze` on it is
 * stopped, and what was seen is read once more, for good. There are two orders of events from there on:
 *
 * - A target that is ended, or left stopped, stays stopped until its images are complete, so that a full disk never costs a
 *   process. Most of its memory is copied before, in rounds while it runs (`precopy`).
 *   `commit` makes the set valid and only then ends the target: the one stage that cannot be undone.
 * - A target that goes on running is stopped for a cut only (live.c). When its memory cannot be followed, the first order of events is
 *   taken, as it is where the kernel cannot track, or the user does not want it.
 */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "capture/capture.h"
#include "flow/rounds.h"
#include "flow/stages.h"
#include "flow/steps.h"
#include "flow/worker.h"

static void undo_precopy(struct flow *f)
{
	precopy_close(f->precopy);
	f->precopy = NULL;
	observer_set_tracked(f->observer, false);
	freeze_destroy(f->freeze);
	f->freeze = NULL;
}

static int observe_round(void *arg, const struct model **ret)
{
	struct flow *f = arg;
	int err = step_observe_running(f);

	*ret = f->running;
	return err;
}

/* What the user named is taken at its word; by default, a machine that cannot has everything copied inside the stop. */
static int wants_precopy(const struct dump_request *req, bool *ret)
{
	const char *why = "";
	int err = 0;

	*ret = false;
	if (req->leave_running || (req->track && !strcmp(req->track, "none")))
		return 0;
	if (req->track && !strcmp(req->track, "soft-dirty"))
		return unsupported("--track=soft-dirty: only with --leave-running; other dumps copy memory ahead by wp-async, or not at all "
				   "with none");
	err = precopy_probe(&why);
	*ret = !err;
	if (err && req->track)
		return fail(err, "--track=%s: not on this machine (%s)", req->track, why);
	if (err)
		log_info("memory is copied inside the stop: %s", why);
	return 0;
}

static int copy_ahead(struct flow *f)
{
	const struct track_env env = { .arg = f, .userfaultfd = step_userfaultfd, .pause = step_pause };
	const struct rounds_env rounds = { .arg = f, .observe = observe_round, .progress = step_progress };
	bool wanted;
	int err = wants_precopy(f->req, &wanted);

	if (err || !wanted)
		return err;
	err = step_prepare_freeze(f);
	if (!err)
		err = precopy_open(&env, f->set, &f->precopy);
	if (err)
		return err;
	observer_set_tracked(f->observer, true);
	if (f->req->progress)
		progress_begin("Copying memory ahead");
	err = rounds_run(f->precopy, f->running, &rounds);
	progress_end();
	return err;
}

static int copy_memory(struct flow *f)
{
	uint64_t start = clock_us();
	int err;

	if (f->req->progress)
		progress_begin("Copying memory");
	if (f->precopy) {
		err = precopy_finish(f->precopy, f->model, &f->stats);
		if (!err)
			err = capture_shmems(f->model, f->set, &f->stats, step_progress);
	} else {
		err = capture_memory(f->model, f->set, &f->stats, step_progress);
	}
	if (!err)
		err = capture_kin(f->model);
	progress_end();
	f->stats.memdump_us = clock_us() - start;
	return err;
}

static const struct stage dump_stages[] = {
	{ "images", step_images, step_images_undo },
	{ "open-observer", step_observer, step_observer_undo },
	{ "observe", step_observe_running, step_observe_running_undo },
	{ "precopy", copy_ahead, undo_precopy },
	{ "freeze", step_freeze, step_freeze_undo },
	{ "capture-state", step_observe_stopped, step_observe_stopped_undo },
	{ "capture-files", step_files, NULL },
	{ "capture-memory", copy_memory, NULL },
	{ "thaw", step_let_go, NULL },
	{ "save", step_save, NULL },
	{ "commit", step_commit, NULL },
};
enum { NR_DUMP_STAGES = sizeof(dump_stages) / sizeof(dump_stages[0]) };

static int dump_in_worker(void *arg)
{
	struct flow f = { .req = arg };
	int err = live_wanted(f.req) ? live_run(&f) : -EAGAIN;

	if (err == -EAGAIN)
		err = stages_run(dump_stages, NR_DUMP_STAGES, &f, worker_should_stop, step_note_time);
	if (err)
		return err;
	freeze_destroy(f.freeze);
	f.freeze = NULL;
	precopy_close(f.precopy);
	tracker_close(f.tracker);
	step_observer_undo(&f);
	model_destroy(f.running);
	model_destroy(f.model);
	VEC_FREE(&f.seccomp);
	return 0;
}

int flow_dump(const struct dump_request *req)
{
	int err = worker_run(dump_in_worker, (void *)req);

	if (!err)
		status_ready(req->status_fd);
	return err;
}

void flow_list_stages(const char *verb, bool leave_running)
{
	if (!strcmp(verb, "restore"))
		restore_list_stages();
	else if (!strcmp(verb, "pre-dump"))
		pre_dump_list_stages();
	else if (leave_running)
		live_list_stages();
	else
		stages_list(dump_stages, NR_DUMP_STAGES);
}
