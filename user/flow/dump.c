/*
 * Dump: running process tree → image set.
 *
 * Theory of operation. Up to `freeze` the target runs and is only looked at; everything bcr cannot do is refused there. From `freeze` on it is
 * stopped, and what was seen is read once more, for good. There are two orders of events from there on:
 *
 * - A target that is ended, or left stopped, stays stopped until its images are complete, so that a full disk never costs a
 *   process. Most of its memory is copied before, in rounds while it runs (`precopy`).
 *   `commit` makes the set valid and only then ends the target: the one stage that cannot be undone.
 * - A target that goes on running is stopped for the cut only (docs/freeze.md): its memory is tracked, and copied after the
 *   thaw as it was at the cut. A cut that cannot be completed is made again; after CUT_TRIES the first order of events is taken,
 *   as it is where the kernel cannot track, or the user does not want it.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/log.h"
#include "capture/capture.h"
#include "capture/userfaultfd.h"
#include "flow/flow.h"
#include "flow/rounds.h"
#include "flow/stages.h"
#include "flow/worker.h"
#include "freeze/freeze.h"
#include "image/image.h"
#include "observe/observe.h"
#include "track/track.h"

struct flow {
	const struct dump_request *req;
	struct image_set *set;
	struct observer *observer;
	struct freeze *freeze;
	struct freeze_lister lister;
	struct model *model;
	struct tracker *tracker;     /* of a target that goes on running */
	struct model *running;       /* as observed before the stop, for the tracker */
	bool same;                   /* the model was made before the stop, and its objects are the same still */
	unsigned retakes;
	unsigned restops;            /* stops in vain, of this cut: the target had changed since the look */
	unsigned all_restops;
	bool standing;               /* the target, between "freeze" and its thaw */
	uint32_t freezing_us;        /* of the last stop, pauses of the tracker apart */
	uint32_t frozen_us;          /* of all of them, also those in vain */
	struct precopy *precopy;     /* of a target that does not */
	struct dump_stats stats;
};

enum {
	CUT_TRIES = 5,
	LOOK_TRIES = 20, /* for a look that is still right when it is over; they cost the target nothing */
	STOP_TRIES = 4,  /* for one that is still right inside the stop; the last does without */
	MAX_STOP_BYTES = 8 << 20, /* more is not copied inside the stop of a cut */
};

static int create_images(struct flow *f)
{
	return image_set_create(f->req->images_dirfd, f->req->images_dir, f->req->prev_images_dir, &f->set);
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

static int refused(const struct flow *f, size_t nr)
{
	log_error("pid %d cannot be dumped: %zu reason%s above; it has not been changed", f->req->root, nr,
		  nr == 1 ? "" : "s");
	return -EOPNOTSUPP;
}

/* Observes, and reports all refusals as one list. */
static int look(struct flow *f, bool stopped)
{
	refusals_begin();
	int err = observer_run(f->observer, stopped, &f->model);
	size_t nr = refusals_end();

	return err == -EOPNOTSUPP || (!err && nr) ? refused(f, nr) : err;
}

static int observe_running(struct flow *f)
{
	int err = look(f, false);

	model_destroy(f->running);
	f->running = f->model;
	f->model = NULL;
	return err;
}

static void undo_observe(struct flow *f)
{
	model_destroy(f->running);
	f->running = NULL;
}

struct adder {
	int (*add)(void *ctx, pid_t pid, pid_t tid);
	void *ctx;
};

static int add_thread(void *ctx, pid_t pid, pid_t tid, const struct cpu_regs *regs)
{
	const struct adder *a = ctx;

	(void)regs;
	return a->add(a->ctx, pid, tid);
}

/* The freezer lists the tree by the observer's program. */
static int list_threads(void *arg, int (*add)(void *ctx, pid_t pid, pid_t tid), void *ctx)
{
	struct flow *f = arg;
	struct adder a = { add, ctx };

	return observer_list(f->observer, add_thread, &a);
}

static int create_freeze(struct flow *f)
{
	int err = f->freeze ? 0 : freeze_create(f->req->freezer, f->req->root, f->req->timeout_s, &f->freeze);

	if (err)
		return err;
	f->lister = (struct freeze_lister){ f, list_threads };
	freeze_set_lister(f->freeze, &f->lister);
	return 0;
}

static int freeze_target(struct flow *f)
{
	int err = f->freeze ? 0 : create_freeze(f);

	if (err)
		return err;
	log_hold(f->tracker); /* otherwise memory is copied inside the stop, which takes long */
	err = freeze_stop(f->freeze);
	f->standing = !err;
	if (err)
		log_hold(false);
	return err;
}

static int thaw_target(struct flow *f, enum thaw_mode mode)
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
static void undo_freeze(struct flow *f)
{
	if (f->freeze)
		thaw_target(f, THAW_RUN);
	freeze_destroy(f->freeze);
	f->freeze = NULL;
}

/* What was read of threads becomes what the image holds. */
static void finish_tasks(struct flow *f)
{
	VEC_FOREACH(t, &f->model->tasks) {
		if (t->state != TASK_ZOMBIE)
			t->state = freeze_was_stopped(f->freeze, t->pid) ? TASK_STOPPED : TASK_ALIVE;
	}
	capture_fix_syscalls(f->model);
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
	finish_tasks(f);
	return 0;
}

static void undo_model(struct flow *f)
{
	/* While the model is still there: the next undo has to do without. */
	thaw_target(f, THAW_RUN);
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
	int err;

	if (f->req->progress)
		progress_begin("Copying memory");
	if (f->precopy) {
		err = precopy_finish(f->precopy, f->model, &f->stats);
		if (!err)
			err = capture_shmems(f->model, f->set, &f->stats, memory_progress);
	} else {
		err = capture_memory(f->model, f->set, &f->stats, memory_progress);
	}
	progress_end();
	f->stats.memdump_us = clock_us() - start;
	return err;
}

static int let_go(struct flow *f)
{
	const struct dump_request *req = f->req;

	if (!req->leave_running && !req->leave_stopped)
		return 0;
	return thaw_target(f, req->leave_stopped ? THAW_STOP : THAW_RUN);
}

/* --- a target that goes on running --- */

static int give_userfaultfd(void *arg, pid_t pid, int *ret_fd)
{
	(void)arg;
	return capture_userfaultfd(pid, ret_fd);
}

/* Holds the tree while the tracker catches up, or lets it go on. */
static int pause_target(void *arg, bool stop)
{
	struct flow *f = arg;

	if (stop)
		log_hold(true);
	int err = stop ? freeze_stop(f->freeze) : freeze_thaw(f->freeze, THAW_RUN, NULL);
	if (err || !stop)
		log_hold(false);
	return err;
}

static int each_thread(void *arg, int (*fn)(void *ctx, pid_t pid, pid_t tid, const struct cpu_regs *regs), void *ctx)
{
	struct flow *f = arg;

	return observer_each_thread(f->observer, fn, ctx);
}

static int open_tracker(struct flow *f)
{
	struct track_env env = {
		.arg = f,
		.userfaultfd = give_userfaultfd,
		.pause = pause_target,
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

/* --- a target that does not: memory is copied while it still runs --- */

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
	int err = observe_running(f);

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
	const struct track_env env = { .arg = f, .userfaultfd = give_userfaultfd, .pause = pause_target };
	const struct rounds_env rounds = { .arg = f, .observe = observe_round, .progress = memory_progress };
	bool wanted;
	int err = wants_precopy(f->req, &wanted);

	if (err || !wanted)
		return err;
	err = create_freeze(f);
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

/* --- the cut --- */

static int precut(struct flow *f)
{
	return tracker_precut(f->tracker, f->running);
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
	int err = look(f, false);
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
	int err = create_freeze(f);

	if (err)
		return err;
	freeze_set_short(f->freeze, true);
	for (int i = 0; i < LOOK_TRIES && again && !err; i++)
		err = look_once(f, &again);
	if (!err && again)
		log_debug("pid %d: it changes faster than it can be looked at", f->req->root);
	return err ? err : tracker_follow(f->tracker);
}

/*
 * Reads what changes by itself. When the rest is not what it was, -EAGAIN: another look, another stop; or, at last,
 * all of it is observed inside this one.
 */
static int read_stopped(struct flow *f)
{
	int err = observer_read(f->observer, f->model, &f->same);

	if (err && err != -EOPNOTSUPP)
		return err;
	if (f->same) {
		f->model->uptime_us = clock_us();
		return 0;
	}
	if (!err && f->restops + 1 < STOP_TRIES)
		return -EAGAIN;
	forget_model(f);
	return observe_stopped(f);
}

static void undo_stop(struct flow *f)
{
	undo_freeze(f);
	forget_model(f);
}

/*
 * Keeps the times of the stages of the stop, which begins with "freeze" and, for a target that goes on, ends with
 * "thaw". "stop" stands for stages that have been told of themselves.
 */
static void note_time(struct flow *f, const char *name, uint64_t us)
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

static const struct stage stop_stages[] = {
	{ "look", look_before_stop, undo_stop },
	{ "freeze", freeze_target, undo_freeze },
	{ "capture-state", read_stopped, NULL },
};
enum { NR_STOP_STAGES = sizeof(stop_stages) / sizeof(stop_stages[0]) };

static int stop(struct flow *f)
{
	int err = -EAGAIN;

	for (f->restops = 0; err == -EAGAIN && f->restops < STOP_TRIES; f->restops++)
		err = stages_run(stop_stages, NR_STOP_STAGES, f, worker_should_stop, note_time);
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
	if (!f->same)
		return 0;
	refusals_begin();
	int err = observer_refresh(f->observer, f->model);
	size_t nr = refusals_end();

	if (err == -EOPNOTSUPP || (!err && nr))
		return refused(f, nr);
	if (!err)
		finish_tasks(f);
	return err;
}

static int copy_after_cut(struct flow *f)
{
	uint64_t start = clock_us();

	if (f->req->progress)
		progress_begin("Copying memory");
	int err = tracker_copy(f->tracker, f->model, f->set, &f->stats, memory_progress);
	progress_end();
	f->stats.memdump_us = clock_us() - start;
	return err;
}

static int save_images(struct flow *f)
{
	uint64_t start = clock_us();
	int err = image_set_save(f->set, f->model);

	f->stats.memwrite_us = clock_us() - start;
	return err;
}

/* What the steps know themselves, at the end. */
static void gather_stats(struct flow *f)
{
	struct dump_stats *s = &f->stats;

	snprintf(s->observe, sizeof(s->observe), "%s", observer_backend(f->observer));
	if (!f->freeze)
		return; /* a pre-dump stops nobody */
	s->freezing_us = f->freezing_us;
	s->frozen_us = f->frozen_us;
	s->retakes = f->retakes;
	s->restops = f->all_restops;
	s->pages_copied_in_stop = s->pages_written + s->shpages_written;
	snprintf(s->freezer, sizeof(s->freezer), "%s", freeze_backend(f->freeze));
	if (f->precopy) {
		const struct precopy_stats *p = precopy_stats(f->precopy);

		s->frozen_us += p->paused_us;
		s->rounds = p->rounds;
		s->pages_copied_ahead = p->pages_ahead;
		s->pages_copied_in_stop = p->pages_in_stop + s->shpages_written;
		snprintf(s->track, sizeof(s->track), "wp-async");
	}
	if (!f->tracker)
		return;
	const struct track_stats *t = tracker_stats(f->tracker);

	s->frozen_us += t->paused_us;
	log_debug("cut at %llu places, full %d", (unsigned long long)t->cut_hints, t->cut_full);
	s->pages_saved = t->pages_saved;
	s->pages_copied_in_stop = t->cut_pages_copied;
	s->pages_torn = t->pages_torn;
	snprintf(s->track, sizeof(s->track), "%s", tracker_backend(f->tracker));
}

static void display_stats(const struct dump_stats *s)
{
	printf("Displaying dump stats:\n"
	       "Freezing time: %u us\n"
	       "Frozen time: %u us\n",
	       s->freezing_us, s->frozen_us);
	for (uint32_t i = 0; i < s->nr_stages; i++)
		printf("Frozen time, %s: %u us\n", s->stages[i].name, s->stages[i].us);
	printf("Memory dump time: %u us\n"
	       "Memory write time: %u us\n"
	       "Memory pages scanned: %llu\n"
	       "Memory pages skipped from parent: %llu\n"
	       "Memory pages written: %llu\n"
	       "Shared memory pages scanned: %llu\n"
	       "Shared memory pages skipped from parent: %llu\n"
	       "Shared memory pages written: %llu\n",
	       s->memdump_us, s->memwrite_us, (unsigned long long)s->pages_scanned,
	       (unsigned long long)s->pages_skipped_parent, (unsigned long long)s->pages_written,
	       (unsigned long long)s->shpages_scanned, (unsigned long long)s->shpages_skipped_parent,
	       (unsigned long long)s->shpages_written);
	printf("Observed by: %s\n"
	       "Stopped by: %s\n"
	       "Tracked by: %s\n"
	       "Rounds before the stop: %u\n"
	       "Pages copied before the stop: %llu\n"
	       "Pages copied before a write: %llu\n"
	       "Pages copied inside the stop: %llu\n"
	       "Pages torn: %llu\n"
	       "Stops made again: %u\n"
	       "Cuts made again: %u\n",
	       s->observe, s->freezer, *s->track ? s->track : "none", s->rounds,
	       (unsigned long long)s->pages_copied_ahead, (unsigned long long)s->pages_saved,
	       (unsigned long long)s->pages_copied_in_stop, (unsigned long long)s->pages_torn, s->restops,
	       s->retakes);
	fflush(stdout);
}

static void report_stats(struct flow *f)
{
	const struct dump_stats *s = &f->stats;

	log_info("stopped in %u us, stood still for %u us, %llu pages written, %llu found in the parent set", s->freezing_us,
		 s->frozen_us, (unsigned long long)(s->pages_written + s->shpages_written),
		 (unsigned long long)(s->pages_skipped_parent + s->shpages_skipped_parent));
	if (f->req->display_stats)
		display_stats(s);
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
		err = thaw_target(f, THAW_KILL);
		if (err)
			return err;
	}
	gather_stats(f);
	report_stats(f);
	if (req->stats)
		*req->stats = f->stats;
	return stats_write_dump(req->work_dirfd, &f->stats);
}

static const struct stage dump_stages[] = {
	{ "images", create_images, undo_images },
	{ "open-observer", open_observer, undo_observer },
	{ "observe", observe_running, undo_observe },
	{ "precopy", copy_ahead, undo_precopy },
	{ "freeze", freeze_target, undo_freeze },
	{ "capture-state", observe_stopped, undo_model },
	{ "capture-files", copy_files, NULL },
	{ "capture-memory", copy_memory, NULL },
	{ "thaw", let_go, NULL },
	{ "save", save_images, NULL },
	{ "commit", commit, NULL },
};
enum { NR_DUMP_STAGES = sizeof(dump_stages) / sizeof(dump_stages[0]) };

/* One cut, from the arming to the images; made again as a whole when it says -EAGAIN. */
static const struct stage cut_stages[] = {
	{ "images", create_images, undo_images },
	{ "precut", precut, NULL },
	{ "stop", stop, undo_stop },
	{ "capture-files", copy_files, NULL },
	{ "cut", cut, NULL },
	{ "thaw", let_go, NULL },
	{ "refresh", refresh_model, NULL },
	{ "copy", copy_after_cut, NULL },
	{ "save", save_images, NULL },
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
			err = observe_running(f);
			if (err)
				return err;
		}
		err = stages_run(cut_stages, NR_CUT_STAGES, f, worker_should_stop, note_time);
	}
	return err;
}

static void undo_cut(struct flow *f)
{
	/* In the order of the stages it is made of, backwards; all of these do nothing when there is nothing. */
	undo_stop(f);
	undo_images(f);
}

static const struct stage live_stages[] = {
	{ "open-observer", open_observer, undo_observer },
	{ "observe", observe_running, undo_observe },
	{ "track", open_tracker, undo_tracker },
	{ "snapshot", take_cut, undo_cut },
	{ "commit", commit, NULL },
};
enum { NR_LIVE_STAGES = sizeof(live_stages) / sizeof(live_stages[0]) };

/* Is memory to be tracked? What the user named is taken at its word: tracker_open() says what is missing. */
static bool wants_tracking(const struct dump_request *req)
{
	const struct track_ops *ops;
	const char *why = "";

	if (!req->leave_running)
		return false;
	if (req->track)
		return strcmp(req->track, "none");
	/* Back ends that save pages need what another one needs, and BPF: tracker_open() asks for that, it takes time. */
	for (size_t i = 0; (ops = track_ops_at(i)); i++) {
		if (strcmp(ops->name, "none") && !ops->saves && !ops->probe(&why))
			return true;
	}
	log_info("memory is copied inside the stop: %s", why);
	return false;
}

static int dump_in_worker(void *arg)
{
	struct flow f = { .req = arg };
	int err = -EAGAIN;

	if (wants_tracking(f.req))
		err = stages_run(live_stages, NR_LIVE_STAGES, &f, worker_should_stop, NULL);
	if (err == -EAGAIN) {
		if (f.retakes)
			log_warn("pid %d: its memory changed in ways that could not be followed in %d tries; it is copied "
				 "inside the stop",
				 f.req->root, CUT_TRIES);
		err = stages_run(dump_stages, NR_DUMP_STAGES, &f, worker_should_stop, note_time);
	}
	if (err)
		return err;
	freeze_destroy(f.freeze);
	precopy_close(f.precopy);
	tracker_close(f.tracker);
	observer_close(f.observer);
	model_destroy(f.running);
	model_destroy(f.model);
	return 0;
}

/* In their order: those of the cut stand for "snapshot", those of the stop for "stop". */
static void list_live_stages(void)
{
	stages_list(live_stages, NR_LIVE_STAGES - 1);
	stages_list(cut_stages, AT_STOP);
	stages_list(stop_stages, NR_STOP_STAGES);
	stages_list(&cut_stages[AT_STOP + 1], NR_CUT_STAGES - AT_STOP - 1);
	stages_list(&live_stages[NR_LIVE_STAGES - 1], 1);
}

/* --- memory only --- */

static int copy_running_memory(struct flow *f)
{
	uint64_t start = clock_us();

	if (f->req->progress)
		progress_begin("Copying memory");
	f->running->uptime_us = start;
	int err = capture_memory_running(f->running, f->set, &f->stats, memory_progress);
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
	gather_stats(f);
	report_stats(f);
	return stats_write_dump(f->req->work_dirfd, &f->stats);
}

static const struct stage pre_dump_stages[] = {
	{ "images", create_images, undo_images },
	{ "open-observer", open_observer, undo_observer },
	{ "observe", observe_running, undo_observe },
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
	observer_close(f.observer);
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
		stages_list(pre_dump_stages, NR_PRE_DUMP_STAGES);
	else if (leave_running)
		list_live_stages();
	else
		stages_list(dump_stages, NR_DUMP_STAGES);
}
