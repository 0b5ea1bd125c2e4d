/*
 * The steps that dumps have in common, as functions of the tables of stages, and what is kept from one to the next. All return 0
 * or a reported negative errno; step_X_undo() gives back what step_X() took, and does nothing when that is nothing.
 */
#ifndef BCR_FLOW_STEPS_H
#define BCR_FLOW_STEPS_H

#include "flow/flow.h"
#include "freeze/freeze.h"
#include "observe/observe.h"
#include "track/precopy.h"
#include "track/track.h"

struct waits;

/* The newest seccomp filter of a thread, as thread.seccomp_filter. */
struct seccomp_of {
	pid_t tid;
	uint32_t filter;
};

struct flow {
	const struct dump_request *req;
	struct image_set *set;
	struct observer *observer;
	struct freeze *freeze;
	struct waits *waits;         /* NULL: not to be had */
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
	VEC(struct seccomp_of) seccomp; /* read inside the stop, for threads that the model gets after it */
	struct dump_stats stats;
};

/* The new set, hidden until it is valid. */
int step_images(struct flow *f);
void step_images_undo(struct flow *f);

int step_observer(struct flow *f);
void step_observer_undo(struct flow *f);

/* Observes into f->model, and reports all refusals as one list. */
int step_look(struct flow *f, bool stopped);

/* The sentence below a list of `nr` refusals. Returns -EOPNOTSUPP. */
int step_refused(const struct flow *f, size_t nr);

/* The observation of the running target, f->running: what cannot be dumped is refused here. */
int step_observe_running(struct flow *f);
void step_observe_running_undo(struct flow *f);

/* f->freeze, which stops nobody yet. Nothing when it is there. */
int step_prepare_freeze(struct flow *f);

int step_freeze(struct flow *f);
/* Lets the target go on; what its threads were doing when it was stopped is known to the model, if there is one. */
void step_freeze_undo(struct flow *f);
int step_thaw(struct flow *f, enum thaw_mode mode);
/* As the user wants it to be after the dump. A target that is to be ended stays stopped until the set is valid. */
int step_let_go(struct flow *f);

/* Has some thread of the model seccomp filters? They are read by ptrace. */
bool step_has_seccomp(const struct model *m);

/* The observation of the stopped target, f->model, whole. */
int step_observe_stopped(struct flow *f);
void step_observe_stopped_undo(struct flow *f);
/* What was read of threads becomes what the image holds. */
void step_finish_tasks(struct flow *f);

/* What queues hold. */
int step_files(struct flow *f);

/* For whoever copies memory: shows how far it is. Asks for an end by returning -EINTR. */
int step_progress(uint64_t done_bytes, uint64_t all_bytes);

/* Of track_env; `arg` is the flow. */
int step_userfaultfd(void *arg, pid_t pid, int *ret_fd);
int step_pause(void *arg, bool stop);

int step_save(struct flow *f);

/* Cannot be undone: the set becomes valid, and a target that is not to go on is ended. */
int step_commit(struct flow *f);

/*
 * Keeps the times of the stages of the stop, which begins with "freeze" and, for a target that goes on, ends with
 * "thaw". "stop" stands for stages that have been told of themselves.
 */
void step_note_time(struct flow *f, const char *name, uint64_t us);

/* finish.c: what the steps know themselves goes into f->stats; what the user is told of it. */
void step_gather_stats(struct flow *f);
void step_report_stats(struct flow *f);

/* live.c: is the memory of a target that goes on running to be tracked? */
bool live_wanted(const struct dump_request *req);

/* A snapshot of it. -EAGAIN: its memory cannot be followed; nothing has been left behind. */
int live_run(struct flow *f);

void live_list_stages(void);

/* pre_dump.c */
void pre_dump_list_stages(void);

#endif
