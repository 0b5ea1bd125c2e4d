/* Memory only, of the running target. */
#include "capture/capture.h"
#include "flow/stages.h"
#include "flow/steps.h"
#include "flow/worker.h"

static int copy_running_memory(struct flow *f)
{
	uint64_t start = clock_us();

	if (f->req->progress)
		progress_begin("Copying memory");
	f->running->uptime_us = start;
	int err = capture_memory_running(f->running, f->set, &f->stats, step_progress);
	progress_end();
	f->stats.memdump_us = clock_us() - start;
	return err;
}

static int save_memory(struct flow *f)
{
	uint64_t start = clock_us();
	int err = image_set_save_memory(f->set, f->running);

	f->stats.memwrite_us = clock_us() - start;
	return err;
}

static int commit_memory(struct flow *f)
{
	int err = image_set_commit(f->set);

	if (err)
		return err;
	image_set_close(f->set);
	f->set = NULL;
	step_gather_stats(f);
	step_report_stats(f);
	return stats_write_dump(f->req->work_dirfd, &f->stats);
}

static const struct stage pre_dump_stages[] = {
	{ "images", step_images, step_images_undo },
	{ "open-observer", step_observer, step_observer_undo },
	{ "observe", step_observe_running, step_observe_running_undo },
	{ "copy", copy_running_memory, NULL },
	{ "save", save_memory, NULL },
	{ "commit", commit_memory, NULL },
};
enum { NR_PRE_DUMP_STAGES = sizeof(pre_dump_stages) / sizeof(pre_dump_stages[0]) };

static int pre_dump_in_worker(void *arg)
{
	struct flow f = { .req = arg };
	int err = stages_run(pre_dump_stages, NR_PRE_DUMP_STAGES, &f, worker_should_stop, NULL);

	if (err)
		return err;
	step_observer_undo(&f);
	model_destroy(f.running);
	return 0;
}

int flow_pre_dump(const struct dump_request *req)
{
	int err = worker_run(pre_dump_in_worker, (void *)req);

	if (!err)
		status_ready(req->status_fd);
	return err;
}

void pre_dump_list_stages(void)
{
	stages_list(pre_dump_stages, NR_PRE_DUMP_STAGES);
}
