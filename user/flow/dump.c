/*
 * Dump: running process tree → image set.
 *
 * Theory of operation. Up to `freeze` the target runs and is only looked at; everything bcr cannot do is refused there. From `freeze` on it is
 * stopped, and what was seen is read once more, for good. A target that goes on running is let go as soon as its memory has been
 * copied; one that does not stays stopped until its images are complete, so that a full disk never costs a process. `commit` makes the set
 * valid and only then ends the target: the one stage that cannot be undone.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/log.h"
#include "capture/capture.h"
#include "flow/flow.h"
#include "flow/stages.h"
#include "flow/worker.h"
#include "freeze/freeze.h"
#include "image/image.h"
#include "observe/observe.h"

struct flow {
	const struct dump_request *req;
	struct image_set *set;
	struct observer *observer;
	struct freeze *freeze;
	struct model *model;
	struct dump_stats stats;
};

static int create_images(struct flow *f)
{
	return image_set_create(f->req->images_dirfd, f->req->images_dir, &f->set);
}

static void undo_images(struct flow *f)
{
	image_set_abort(f->set);
	f->set = NULL;
}

static int open_observer(struct flow *f)
{
	const struct dump_request *req = f->req;
	struct observe_options opts = {
		.backend = req->observe,
		.shell_job = req->shell_job,
		.file_locks = req->file_locks,
		.tcp_established = req->tcp_established,
		.ext_unix_sk = req->ext_unix_sk,
		.ghost_limit_bytes = req->ghost_limit_bytes,
	};

	return observer_open(req->root, &opts, &f->observer);
}

static void undo_observer(struct flow *f)
{
	observer_close(f->observer);
	f->observer = NULL;
}

/* Observes, and reports all refusals as one list. */
static int look(struct flow *f, bool stopped)
{
	refusals_begin();
	int err = observer_run(f->observer, stopped, &f->model);
	size_t nr = refusals_end();

	if (!err && nr)
		err = -EOPNOTSUPP;
	if (err == -EOPNOTSUPP)
		log_error("pid %d cannot be dumped: %zu reason%s above; it has not been changed",
			  f->req->root, nr, nr == 1 ? "" : "s");
	return err;
}

static int observe_running(struct flow *f)
{
	int err = look(f, false);

	model_destroy(f->model);
	f->model = NULL;
	return err;
}

static int freeze_target(struct flow *f)
{
	int err = freeze_create(f->req->freezer, f->req->root, f->req->timeout_s, &f->freeze);

	return err ? err : freeze_stop(f->freeze);
}

/* Lets the target go on; what its threads were doing when it was stopped is known to the model, if there is one. */
static void undo_freeze(struct flow *f)
{
	if (f->freeze)
		freeze_thaw(f->freeze, THAW_RUN, f->model);
	freeze_destroy(f->freeze);
	f->freeze = NULL;
}

static int observe_stopped(struct flow *f)
{
	int err = look(f, true);

	if (err)
		return err;
	f->model->uptime_us = clock_us();
	if (!strcmp(observer_backend(f->observer), "proc")) {
		err = freeze_read_cpu(f->freeze, f->model);
		if (!err)
			err = capture_thread_state(f->freeze, f->model);
		if (err)
			return err;
	}
	VEC_FOREACH(t, &f->model->tasks) {
		if (t->state != TASK_ZOMBIE)
			t->state = freeze_was_stopped(f->freeze, t->pid) ? TASK_STOPPED : TASK_ALIVE;
	}
	capture_fix_syscalls(f->model);
	return 0;
}

static void undo_model(struct flow *f)
{
	/* While the model is still there: the next undo has to do without. */
	freeze_thaw(f->freeze, THAW_RUN, f->model);
	model_destroy(f->model);
	f->model = NULL;
}

static int copy_files(struct flow *f)
{
	return capture_files(f->model);
}

static int memory_progress(uint64_t done_bytes, uint64_t all_bytes)
{
	progress_show(done_bytes, all_bytes);
	return worker_should_stop() ? fail(-EINTR, "told to stop while copying memory") : 0;
}

static int copy_memory(struct flow *f)
{
	uint64_t start = clock_us();

	if (f->req->progress)
		progress_begin("Copying memory");
	int err = capture_memory(f->model, f->set, &f->stats, memory_progress);
	progress_end();
	f->stats.memdump_us = clock_us() - start;
	return err;
}

static int let_go(struct flow *f)
{
	const struct dump_request *req = f->req;

	if (!req->leave_running && !req->leave_stopped)
		return 0;
	return freeze_thaw(f->freeze, req->leave_stopped ? THAW_STOP : THAW_RUN, f->model);
}

static int save_images(struct flow *f)
{
	uint64_t start = clock_us();
	int err = image_set_save(f->set, f->model);

	f->stats.memwrite_us = clock_us() - start;
	return err;
}

static void report_stats(const struct flow *f)
{
	const struct dump_stats *s = &f->stats;

	log_info("stopped in %u us, stood still for %u us, %llu pages written", s->freezing_us,
		 s->frozen_us, (unsigned long long)(s->pages_written + s->shpages_written));
	if (!f->req->display_stats)
		return;
	printf("Displaying dump stats:\n"
	       "Freezing time: %u us\n"
	       "Frozen time: %u us\n"
	       "Memory dump time: %u us\n"
	       "Memory write time: %u us\n"
	       "Memory pages scanned: %llu\n"
	       "Memory pages written: %llu\n"
	       "Shared memory pages scanned: %llu\n"
	       "Shared memory pages written: %llu\n",
	       s->freezing_us, s->frozen_us, s->memdump_us, s->memwrite_us,
	       (unsigned long long)s->pages_scanned, (unsigned long long)s->pages_written,
	       (unsigned long long)s->shpages_scanned, (unsigned long long)s->shpages_written);
	fflush(stdout);
}

/* Cannot be undone: the set becomes valid, and a target that is not to go on is ended. */
static int commit(struct flow *f)
{
	const struct dump_request *req = f->req;
	int err = image_set_commit(f->set);

	if (err)
		return err;
	image_set_close(f->set);
	f->set = NULL;
	if (!req->leave_running && !req->leave_stopped) {
		err = freeze_thaw(f->freeze, THAW_KILL, f->model);
		if (err)
			return err;
	}
	f->stats.freezing_us = freeze_freezing_us(f->freeze);
	f->stats.frozen_us = freeze_frozen_us(f->freeze);
	report_stats(f);
	return stats_write_dump(req->work_dirfd, &f->stats);
}

static const struct stage dump_stages[] = {
	{ "images", create_images, undo_images },
	{ "open-observer", open_observer, undo_observer },
	{ "observe", observe_running, NULL },
	{ "freeze", freeze_target, undo_freeze },
	{ "capture-state", observe_stopped, undo_model },
	{ "capture-files", copy_files, NULL },
	{ "capture-memory", copy_memory, NULL },
	{ "thaw", let_go, NULL },
	{ "save", save_images, NULL },
	{ "commit", commit, NULL },
};
enum { NR_DUMP_STAGES = sizeof(dump_stages) / sizeof(dump_stages[0]) };

static int dump_in_worker(void *arg)
{
	struct flow f = { .req = arg };
	int err = stages_run(dump_stages, NR_DUMP_STAGES, &f, worker_should_stop);

	if (err)
		return err;
	freeze_destroy(f.freeze);
	observer_close(f.observer);
	model_destroy(f.model);
	return 0;
}

int flow_dump(const struct dump_request *req)
{
	int err = worker_run(dump_in_worker, (void *)req);

	if (!err)
		status_ready(req->status_fd);
	return err;
}

void flow_list_stages(const char *verb)
{
	if (!strcmp(verb, "restore"))
		restore_list_stages();
	else
		stages_list(dump_stages, NR_DUMP_STAGES);
}
