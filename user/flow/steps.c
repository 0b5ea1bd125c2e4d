/* The steps that dumps have in common. */
#include "flow/steps.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "capture/capture.h"
#include "flow/stages.h"
#include "flow/userfaultfd.h"
#include "flow/worker.h"
#include "sys/waits.h"

int step_images(struct flow *f)
{
	return image_set_create(f->req->images_dirfd, f->req->images_dir, f->req->prev_images_dir, &f->set);
}

void step_images_undo(struct flow *f)
{
	image_set_abort(f->set);
	f->set = NULL;
}

int step_observer(struct flow *f)
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

	int err = observer_open(req->root, &opts, &f->observer);
	if (!err)
		f->waits = waits_open();
	return err;
}

void step_observer_undo(struct flow *f)
{
	observer_close(f->observer);
	f->observer = NULL;
	if (f->freeze)
		freeze_set_waits(f->freeze, NULL);
	waits_close(f->waits);
	f->waits = NULL;
}

int step_refused(const struct flow *f, size_t nr)
{
	log_error("pid %d cannot be dumped: %zu reason%s above; it has not been changed", f->req->root, nr,
		  nr == 1 ? "" : "s");
	return -EOPNOTSUPP;
}

/* Observes, and reports all refusals as one list. */
int step_look(struct flow *f, bool stopped)
{
	refusals_begin();
	int err = observer_run(f->observer, stopped, &f->model);
	size_t nr = refusals_end();

	return err == -EOPNOTSUPP || (!err && nr) ? step_refused(f, nr) : err;
}

int step_observe_running(struct flow *f)
{
	int err = step_look(f, false);

	model_destroy(f->running);
	f->running = f->model;
	f->model = NULL;
	return err;
}

void step_observe_running_undo(struct flow *f)
{
	model_destroy(f->running);
	f->running = NULL;
}

int step_prepare_freeze(struct flow *f)
{
	int err = f->freeze ? 0 : freeze_create(f->req->freezer, f->req->root, f->req->timeout_s, &f->freeze);

	if (err)
		return err;
	/* The freezer lists the tree by the observer's program. */
	f->lister = (struct freeze_lister){ f->observer, observer_list };
	freeze_set_lister(f->freeze, &f->lister);
	freeze_set_waits(f->freeze, f->waits);
	return 0;
}

int step_freeze(struct flow *f)
{
	int err = f->freeze ? 0 : step_prepare_freeze(f);

	if (err)
		return err;
	log_hold(f->tracker); /* otherwise memory is copied inside the stop, which takes long */
	err = freeze_stop(f->freeze);
	f->standing = !err;
	if (err)
		log_hold(false);
	return err;
}

int step_thaw(struct flow *f, enum thaw_mode mode)
{
	int err = freeze_thaw(f->freeze, mode, f->model);

	if (f->standing) {
		f->standing = false;
		f->freezing_us = freeze_freezing_us(f->freeze);
		f->frozen_us += freeze_frozen_us(f->freeze);
	}
	log_hold(false);
	return err;
}

/* Lets the target go on; what its threads were doing when it was stopped is known to the model, if there is one. */
void step_freeze_undo(struct flow *f)
{
	if (f->freeze)
		step_thaw(f, THAW_RUN);
	freeze_destroy(f->freeze);
	f->freeze = NULL;
}

/*
 * Was it stopped by a signal when bcr's own stop came? The freezer met it so; a SIGCONT may have come in the moment until
 * all of the tree stood still, which what was read since then says. Through /proc it does not: there, bcr's stop looks
 * like any other.
 */
static bool is_stopped(const struct flow *f, const struct task *t)
{
	return freeze_was_stopped(f->freeze, t->pid) &&
	       (t->state == TASK_STOPPED || !strcmp(observer_backend(f->observer), "proc"));
}

/* What was read of threads becomes what the image holds. */
void step_finish_tasks(struct flow *f)
{
	/* BPF reads of a traced process, too, whether a signal has stopped it. */
	bool by_proc = !strcmp(observer_backend(f->observer), "proc");

	VEC_FOREACH(t, &f->model->tasks) {
		if (t->state == TASK_ZOMBIE)
			continue;
		if (by_proc)
			t->state = is_stopped(f, t) ? TASK_STOPPED : TASK_ALIVE;
		if (t->state == TASK_STOPPED && !t->stop_signal)
			t->stop_signal = SIGSTOP;
		if (t->state == TASK_STOPPED)
			continue;
		t->stop_signal = 0;
		t->stop_reported = false;
	}
	capture_fix_syscalls(f->model, f->waits);
}

bool step_has_seccomp(const struct model *m)
{
	VEC_FOREACH(t, &m->tasks)
		VEC_FOREACH(th, &t->threads)
			if (th->seccomp_mode == SECCOMP_MODE_FILTER)
				return true;
	return false;
}

int step_observe_stopped(struct flow *f)
{
	int err = step_look(f, true);

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
	if (step_has_seccomp(f->model)) {
		err = freeze_need_ptrace(f->freeze);
		if (!err)
			err = capture_seccomp(f->model, !strcmp(observer_backend(f->observer), "proc"));
		if (err)
			return err;
	}
	step_finish_tasks(f);
	return 0;
}

void step_observe_stopped_undo(struct flow *f)
{
	/* While the model is still there: the next undo has to do without. */
	step_thaw(f, THAW_RUN);
	model_destroy(f->model);
	f->model = NULL;
}

int step_files(struct flow *f)
{
	return capture_files(f->model);
}

int step_progress(uint64_t done_bytes, uint64_t all_bytes)
{
	progress_show(done_bytes, all_bytes);
	return worker_should_stop() ? fail(-EINTR, "told to stop while copying memory") : 0;
}

int step_let_go(struct flow *f)
{
	const struct dump_request *req = f->req;

	if (!req->leave_running && !req->leave_stopped)
		return 0;
	return step_thaw(f, req->leave_stopped ? THAW_STOP : THAW_RUN);
}

/* The processes that have the descriptors of `pid`, itself first. */
static int find_sharers(const struct model *m, pid_t pid, proc_numbers *ret)
{
	const struct task *of = model_find_task(m, pid);
	int err = VEC_PUSH(ret, pid);

	VEC_FOREACH(t, &m->tasks)
		if (!err && of && of->files_id && t->pid != pid && t->files_id == of->files_id)
			err = VEC_PUSH(ret, t->pid);
	return err ? fail(-ENOMEM, "pid %d: list who has its descriptors", pid) : 0;
}

int step_userfaultfd(void *arg, pid_t pid, int *ret_fd)
{
	struct flow *f = arg;
	proc_numbers sharers = {};
	int err = find_sharers(f->running, pid, &sharers);

	if (!err)
		err = userfaultfd_take(pid, &sharers, f->req->timeout_s, f->waits, &f->frozen_us, ret_fd);
	VEC_FREE(&sharers);
	return err;
}

/* Holds the tree while the tracker catches up, or lets it go on. */
int step_pause(void *arg, bool stop)
{
	struct flow *f = arg;

	if (stop)
		log_hold(true);
	int err = stop ? freeze_stop(f->freeze) : freeze_thaw(f->freeze, THAW_RUN, NULL);
	if (err || !stop)
		log_hold(false);
	return err;
}

int step_save(struct flow *f)
{
	uint64_t start = clock_us();
	int err = image_set_save(f->set, f->model);

	f->stats.memwrite_us = clock_us() - start;
	return err;
}

/*
 * Keeps the times of the stages of the stop, which begins with "freeze" and, for a target that goes on, ends with
 * "thaw". "stop" stands for stages that have been told of themselves.
 */
void step_note_time(struct flow *f, const char *name, uint64_t us)
{
	struct dump_stats *s = &f->stats;

	if (!strcmp(name, "freeze"))
		s->nr_stages = 0;
	else if (!strcmp(name, "stop") || !s->nr_stages || s->nr_stages == STATS_MAX_STAGES ||
		 (f->req->leave_running && !strcmp(s->stages[s->nr_stages - 1].name, "thaw")))
		return;
	struct stage_time *stage = &s->stages[s->nr_stages++];

	snprintf(stage->name, sizeof(stage->name), "%s", name);
	stage->us = us;
}
