/*
 * A dump of a target that goes on running, its memory tracked.
 *
 * Theory of operation. The target is stopped for the cut only (docs/freeze.md). Memory is protected before, and copied after the thaw as
 * it was at the cut. State is looked at before, and compared inside the stop; when it is another one, the target is let go
 * and looked at again, up to STOP_TRIES times. A cut that cannot be completed is made again, up to CUT_TRIES times.
 */
#include <errno.h>
#include <linux/seccomp.h>
#include <string.h>

#include "base/log.h"
#include "capture/capture.h"
#include "flow/stages.h"
#include "flow/steps.h"
#include "flow/worker.h"

enum {
	CUT_TRIES = 5,
	LOOK_TRIES = 20, /* for a look that is still right when it is over; they cost the target nothing */
	STOP_TRIES = 4,  /* for one that is still right inside the stop; the last does without */
	MAX_STOP_BYTES = 8 << 20, /* more is not copied inside the stop of a cut */
};

static int each_thread(void *arg, int (*fn)(void *ctx, pid_t pid, pid_t tid, const struct cpu_regs *regs), void *ctx)
{
	struct flow *f = arg;

	return observer_each_thread(f->observer, fn, ctx);
}

static bool is_held(const struct flow *f, pid_t pid)
{
	const pid_t *pids;
	size_t nr = freeze_pids(f->freeze, &pids);

	for (size_t i = 0; i < nr; i++)
		if (pids[i] == pid)
			return true;
	return false;
}

/* All that had the memory of this process at the cut. */
static bool holds(void *arg, pid_t pid)
{
	struct flow *f = arg;
	const struct task *of = model_find_task(f->model, pid);

	VEC_FOREACH(t, &f->model->tasks) {
		if (of && t->mm_id == of->mm_id && !is_held(f, t->pid))
			return false;
	}
	return of;
}

static int open_tracker(struct flow *f)
{
	struct track_env env = {
		.arg = f,
		.userfaultfd = step_userfaultfd,
		.pause = step_pause,
		.holds = holds,
		.each_thread = each_thread,
		.max_stop_bytes = MAX_STOP_BYTES,
	};

	int err = tracker_open(f->req->track, f->running, &env, &f->tracker);

	/* A userfaultfd of the program's own has been refused by now: what is seen from here on is ours. */
	observer_set_tracked(f->observer, !err);
	return err;
}

static void undo_tracker(struct flow *f)
{
	tracker_close(f->tracker);
	f->tracker = NULL;
	observer_set_tracked(f->observer, false);
}

static int precut(struct flow *f)
{
	int err = step_prepare_freeze(f); /* the tracker may hold the target */

	return err ? err : tracker_precut(f->tracker, f->running);
}

static void forget_model(struct flow *f)
{
	model_destroy(f->model);
	f->model = NULL;
}

/*
 * The model as it most likely will be: what can be prepared for the stop is prepared by it. *again: the target has
 * changed meanwhile, and another look may be a better one.
 */
static int look_once(struct flow *f, bool *again)
{
	bool same = false;

	*again = false;
	forget_model(f);
	int err = step_look(f, false);
	if (!err)
		err = tracker_ready(f->tracker, f->model);
	/* The list of threads is to be fresh: their numbers may come to be others'. */
	if (!err)
		err = freeze_prepare(f->freeze);
	if (err)
		return err;
	err = observer_recheck(f->observer, &same);
	if (err == -EOPNOTSUPP) /* it cannot tell: everything will be observed inside the stop */
		return 0;
	*again = !same;
	return err;
}

static int look_before_stop(struct flow *f)
{
	bool again = true;
	int err = step_prepare_freeze(f);

	if (err)
		return err;
	freeze_set_short(f->freeze, true);
	for (int i = 0; i < LOOK_TRIES && again && !err; i++)
		err = look_once(f, &again);
	if (!err && again)
		log_debug("pid %d: it changes faster than it can be looked at", f->req->root);
	return err ? err : tracker_follow(f->tracker);
}

static int read_seccomp_of(void *arg, pid_t pid, pid_t tid, const struct cpu_regs *regs)
{
	struct flow *f = arg;
	struct seccomp_of of = { .tid = tid };
	int err = capture_seccomp_thread(f->model, pid, tid, &of.filter);

	(void)regs;
	if (!err && of.filter && VEC_PUSH(&f->seccomp, of))
		err = fail(-ENOMEM, "pid %d thread %d: note its seccomp filters", pid, tid);
	return err;
}

/* Filters come to be seldom: they are looked for where some had been before the stop. */
static int read_seccomp(struct flow *f)
{
	f->seccomp.nr = 0;
	return step_has_seccomp(f->model) ? observer_each_thread(f->observer, read_seccomp_of, f) : 0;
}

/* To the threads as they were in the stop. -EAGAIN: one got its first filter right before it. */
static int apply_seccomp(struct flow *f)
{
	VEC_FOREACH(t, &f->model->tasks) {
		VEC_FOREACH(th, &t->threads) {
			if (th->seccomp_mode != SECCOMP_MODE_FILTER || th->exited || t->state == TASK_ZOMBIE)
				continue;
			VEC_FOREACH(of, &f->seccomp) {
				if (of->tid == th->tid)
					th->seccomp_filter = of->filter;
			}
			if (!th->seccomp_filter)
				return -EAGAIN;
		}
	}
	return 0;
}

/*
 * Reads what changes by itself. When the rest is not what it was, -EAGAIN: another look, another stop; or, at last,
 * all of it is observed inside this one.
 */
static int read_stopped(struct flow *f)
{
	/* Which lists the tree anew, by what the observer reads. */
	int err = step_has_seccomp(f->model) ? freeze_need_ptrace(f->freeze) : 0;

	if (err)
		return err;
	err = observer_read(f->observer, f->model, freeze_was_listed(f->freeze), &f->same);

	if (err && err != -EOPNOTSUPP)
		return err;
	if (f->same) {
		f->model->uptime_us = clock_us();
		return read_seccomp(f);
	}
	if (!err && f->restops + 1 < STOP_TRIES)
		return -EAGAIN;
	forget_model(f);
	return step_observe_stopped(f);
}

static void undo_stop(struct flow *f)
{
	step_freeze_undo(f);
	forget_model(f);
}

static const struct stage stop_stages[] = {
	{ "look", look_before_stop, undo_stop },
	{ "freeze", step_freeze, step_freeze_undo },
	{ "capture-state", read_stopped, NULL },
};
enum { NR_STOP_STAGES = sizeof(stop_stages) / sizeof(stop_stages[0]) };

static int stop(struct flow *f)
{
	int err = -EAGAIN;

	for (f->restops = 0; err == -EAGAIN && f->restops < STOP_TRIES; f->restops++)
		err = stages_run(stop_stages, NR_STOP_STAGES, f, worker_should_stop, step_note_time);
	f->all_restops += --f->restops;
	return err;
}

static int cut(struct flow *f)
{
	return tracker_cut(f->tracker, f->model, f->same);
}

/* The target runs again: the model is brought to what was read inside the stop. */
static int refresh_model(struct flow *f)
{
	tracker_resumed(f->tracker);
	if (!f->same)
		return 0;
	refusals_begin();
	int err = observer_refresh(f->observer, f->model);
	size_t nr = refusals_end();

	if (err == -EOPNOTSUPP || (!err && nr))
		return step_refused(f, nr);
	if (!err)
		err = apply_seccomp(f);
	if (!err)
		step_finish_tasks(f);
	return err;
}

static int copy_after_cut(struct flow *f)
{
	uint64_t start = clock_us();

	if (f->req->progress)
		progress_begin("Copying memory");
	int err = tracker_copy(f->tracker, f->model, f->set, &f->stats, step_progress);
	if (!err)
		err = capture_kin(f->model);
	progress_end();
	f->stats.memdump_us = clock_us() - start;
	return err;
}

/* One cut, from the arming to the images; made again as a whole when it says -EAGAIN. */
static const struct stage cut_stages[] = {
	{ "images", step_images, step_images_undo },
	{ "precut", precut, NULL },
	{ "stop", stop, undo_stop },
	{ "capture-files", step_files, NULL },
	{ "cut", cut, NULL },
	{ "thaw", step_let_go, NULL },
	{ "refresh", refresh_model, NULL },
	{ "copy", copy_after_cut, NULL },
	{ "save", step_save, NULL },
};
enum { NR_CUT_STAGES = sizeof(cut_stages) / sizeof(cut_stages[0]), AT_STOP = 2 };

static int take_cut(struct flow *f)
{
	int err = -EAGAIN;

	for (unsigned try = 0; try < CUT_TRIES && err == -EAGAIN; try++) {
		/* What is new since the last look is tracked as well. */
		if (try) {
			f->retakes++;
			log_info("the cut could not be completed (%llu pages torn so far): once more",
				 (unsigned long long)tracker_stats(f->tracker)->pages_torn);
			err = step_observe_running(f);
			if (err)
				return err;
		}
		err = stages_run(cut_stages, NR_CUT_STAGES, f, worker_should_stop, step_note_time);
	}
	return err;
}

static void undo_cut(struct flow *f)
{
	/* In the order of the stages it is made of, backwards; all of these do nothing when there is nothing. */
	undo_stop(f);
	step_images_undo(f);
}

static int release_memory(struct flow *f)
{
	return tracker_release(f->tracker);
}

static const struct stage live_stages[] = {
	{ "open-observer", step_observer, step_observer_undo },
	{ "observe", step_observe_running, step_observe_running_undo },
	{ "track", open_tracker, undo_tracker },
	{ "snapshot", take_cut, undo_cut },
	{ "release", release_memory, NULL },
	{ "commit", step_commit, NULL },
};
enum { NR_LIVE_STAGES = sizeof(live_stages) / sizeof(live_stages[0]), AT_RELEASE = 4 };

/* Is memory to be tracked? What the user named is taken at its word: tracker_open() says what is missing. */
bool live_wanted(const struct dump_request *req)
{
	const struct track_ops *ops;
	const char *why = "";

	if (!req->leave_running)
		return false;
	if (req->track)
		return strcmp(req->track, "none");
	for (size_t i = 0; (ops = track_ops_at(i)); i++) {
		if (strcmp(ops->name, "none") && !ops->probe(&why))
			return true;
	}
	log_info("memory is copied inside the stop: %s", why);
	return false;
}

/* In their order: those of the cut stand for "snapshot", those of the stop for "stop". */
void live_list_stages(void)
{
	stages_list(live_stages, AT_RELEASE);
	stages_list(cut_stages, AT_STOP);
	stages_list(stop_stages, NR_STOP_STAGES);
	stages_list(&cut_stages[AT_STOP + 1], NR_CUT_STAGES - AT_STOP - 1);
	stages_list(&live_stages[AT_RELEASE], NR_LIVE_STAGES - AT_RELEASE);
}

int live_run(struct flow *f)
{
	int err = stages_run(live_stages, NR_LIVE_STAGES, f, worker_should_stop, NULL);

	if (err == -EAGAIN && f->retakes)
		log_warn("pid %d: its memory changed in ways that could not be followed in %d tries; it is copied inside the stop",
			 f->req->root, CUT_TRIES);
	return err;
}
