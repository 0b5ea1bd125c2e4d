/*
 * Observation, the part common to all back ends: what a back end saw becomes a model.
 *
 * Theory of operation. A run takes these steps, in this order:
 *
 *   back end     tasks, identities, mappings and file records
 *   objects      one mm, fs, signal handler table and descriptor table for each identity: equal ids are shared objects
 *   files        pass one gives every open file description its id, pass two lets its kind collect it: by then an
 *                epoll set finds the id of whatever it watches
 *   others       executables, working and root directories, mapped files: opened by path, so two of them are one
 *                file when device, inode, path and access are equal
 *   terminals    controlling terminals are found among those that the tree has open
 *   refusals     whatever cannot be carried is said, all of it, before anything is done to the target
 */
#include "observe/observe.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "observe/refuse.h"
#include "observe/run.h"
#include "observe/timers.h"
#include "sys/clocks.h"
#include "sys/label.h"

/* How often a running tree may change under an observation before bcr gives up. */
enum { OBSERVE_TRIES = 50 };

static const struct observe_ops *const backends[] = { &observe_bpf_ops, &observe_proc_ops };

static void observed_file_deinit(struct observed_file *of)
{
	free(of->path);
	VEC_FREE(&of->epoll_items);
}

void observation_deinit(struct observation *obs)
{
	VEC_FOREACH(id, &obs->idents) {
		VEC_FREE(&id->layout.auxv);
		VEC_FREE(&id->layout.vmas);
		VEC_FREE(&id->layout.pages);
		VEC_FREE(&id->vma_files);
	}
	VEC_FOREACH(of, &obs->fds)
		observed_file_deinit(of);
	VEC_FOREACH(of, &obs->others)
		observed_file_deinit(of);
	VEC_FREE(&obs->idents);
	VEC_FREE(&obs->fds);
	VEC_FREE(&obs->others);
}

void run_deinit(struct run *r)
{
	observation_deinit(&r->obs);
	model_destroy(r->m);
	ident_map_deinit(&r->mms);
	ident_map_deinit(&r->fss);
	ident_map_deinit(&r->sighands);
	ident_map_deinit(&r->tables);
	ident_map_deinit(&r->files);
	ident_map_deinit(&r->others);
	ident_map_deinit(&r->mapped);
	ident_map_deinit(&r->shmems);
	ident_map_deinit(&r->ghosts);
}

int run_note(struct run *r, int err)
{
	if (err != -EOPNOTSUPP)
		return err;
	r->refused = true;
	return 0;
}

int run_changed(const struct run *r, pid_t pid, const char *what)
{
	return r->stopped ? fail(-ESTALE, "pid %d: %s", pid, what) : -EAGAIN;
}

/* --- refusals --- */

static int run_tree(struct run *r)
{
	struct tree_flaw flaw;

	if (r->o->opts.any_tree)
		return 0;
	int err = refuse_tree(&r->obs, r->o->opts.shell_job, &flaw);
	return err == -EUCLEAN ? run_changed(r, flaw.pid, flaw.text) : run_note(r, err);
}

/*
 * Who waits for a vfork child cannot be stopped before the child goes on, which a stop would prevent: wait for it
 * while the tree runs, it takes a moment only.
 */
static bool passes_soon(const struct run *r)
{
	VEC_FOREACH(id, &r->obs.idents) {
		if (id->vfork_wait)
			return !r->stopped && !r->last_try;
	}
	return false;
}

int run_refusals(struct run *r)
{
	if (passes_soon(r))
		return -EAGAIN;
	VEC_FOREACH(t, &r->m->tasks)
		observe_timers(t, r->stopped);
	for (size_t i = 0; i < r->m->tasks.nr; i++) {
		int err = run_note(r, refuse_task(r->m, &r->m->tasks.v[i], &r->obs.idents.v[i],
							r->stopped || r->last_try));
		if (!err && !r->stopped)
			err = run_note(r, refuse_children_namespaces(&r->m->tasks.v[i]));
		if (!err && !r->stopped && r->o->has_labels)
			err = run_note(r, refuse_labels(&r->m->tasks.v[i]));
		if (err)
			return err;
	}
	int err = run_tree(r);
	if (!err && !r->stopped && r->obs.outsiders && !r->o->opts.any_tree)
		err = run_note(r, refuse_outsiders(&r->obs));
	if (!err)
		err = run_note(r, refuse_programs(r->m));
	if (!err)
		err = run_note(r, refuse_sessions(r->m, r->o->opts.shell_job));
	return err ? err : run_note(r, refuse_locks(&r->obs, r->o->opts.file_locks));
}

/* One observation; r->m is the model, which the caller takes. */
static int run_once(struct run *r)
{
	static int (*const steps[])(struct run *r) = {
		run_index_others, run_objects, run_files, run_terminals, run_foreign_shmems, run_refusals,
	};
	struct timespec now;

	r->m = r->obs.m = model_create();
	if (!r->m)
		return -ENOMEM;
	r->obs.tracked = r->o->tracked;
	memcpy(r->m->root_ns, r->o->root_ns, sizeof(r->m->root_ns));
	clock_gettime(CLOCK_MONOTONIC, &now);
	clocks_name(r->m->clocks);
	r->m->uptime_us = now.tv_sec * 1000000ULL + now.tv_nsec / 1000;
	int err = run_note(r, r->o->ops->run(r->o->state, r->stopped, &r->obs));
	if (!err && !r->m->tasks.nr)
		err = run_changed(r, r->o->root, "is gone");
	for (size_t i = 0; !err && i < sizeof(steps) / sizeof(steps[0]); i++)
		err = steps[i](r);
	return err;
}

/* What a restore will not give back, and most programs do not miss. */
static void warn_of_losses(struct observer *o, const struct run *r)
{
	for (size_t i = 0; i < r->m->tasks.nr && !o->warned; i++) {
		if (!r->obs.idents.v[i].session_keyring)
			continue;
		log_warn("pid %d: has another session keyring than bcr; restored it will have that of bcr, and not its own keys",
			 r->m->tasks.v[i].pid);
		o->warned = true;
	}
}

int observer_run(struct observer *o, bool stopped, struct model **ret)
{
	*ret = NULL;
	run_forget(o);
	for (int i = 0; i < OBSERVE_TRIES; i++) {
		struct run r = { .o = o, .stopped = stopped, .last_try = i + 1 == OBSERVE_TRIES };
		int err = run_once(&r);

		if (!err) {
			warn_of_losses(o, &r);
			*ret = take_ptr(r.m);
			err = r.refused ? -EOPNOTSUPP : stopped ? 0 : run_keep(o, &r, *ret);
		}
		run_deinit(&r);
		if (err == -ENOMEM)
			return fail(err, "pid %d: observe", o->root);
		if (err != -EAGAIN)
			return err;
		refusals_forget();
		log_debug("pid %d: the tree changed while it was observed, once more", o->root);
	}
	return fail(-EAGAIN, "pid %d: its process tree changes too fast to be observed (%d tries)", o->root,
		    OBSERVE_TRIES);
}

/* --- opening --- */

static int read_own_namespaces(uint32_t root_ns[8])
{
	static const char *const names[] = { "pid", "net", "ipc", "uts", "mnt", "user", "cgroup", "time" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		char path[32];
		struct stat st;

		snprintf(path, sizeof(path), "/proc/self/ns/%s", names[i]);
		/* A kernel built without this kind of namespace has only one of them: nothing to compare. */
		if (!stat(path, &st))
			root_ns[i] = st.st_ino;
		else if (errno != ENOENT)
			return fail(-errno, "%s", path);
	}
	return 0;
}

static const struct observe_ops *find_backend(const char *name)
{
	for (size_t i = 0; i < sizeof(backends) / sizeof(backends[0]); i++)
		if (!strcmp(backends[i]->name, name))
			return backends[i];
	return NULL;
}

/* The back end asked for, or the first that this machine can do. */
static int choose_backend(const char *name, const struct observe_ops **ret)
{
	const char *why = NULL;

	if (name) {
		*ret = find_backend(name);
		if (!*ret)
			return fail(0, "--observe=%s: there is no such way to observe; use bpf or proc", name);
		int err = (*ret)->probe(&why);
		return err ? fail(err, "--observe=%s: not on this machine (%s)", name, why ? why : "no reason known") :
			     0;
	}
	for (size_t i = 0; i < sizeof(backends) / sizeof(backends[0]); i++) {
		int err = backends[i]->probe(&why);

		*ret = backends[i];
		if (!err)
			return 0;
		if (i + 1 == sizeof(backends) / sizeof(backends[0]))
			return fail(err, "this machine can observe by no means bcr has (%s)",
				    why ? why : "no reason known");
		log_info("observing by %s instead of %s: %s", backends[i + 1]->name, backends[i]->name,
			 why ? why : strerror(-err));
	}
	return -ENODEV;
}

int observer_open(pid_t root, const struct observe_options *opts, struct observer **ret)
{
	_cleanup_free_ struct observer *o = calloc(1, sizeof(*o));

	*ret = NULL;
	if (!o)
		return fail(-ENOMEM, "pid %d: observe", root);
	o->root = root;
	o->opts = *opts;
	o->has_labels = label_in_use();
	int err = choose_backend(opts->backend, &o->ops);
	if (!err)
		err = read_own_namespaces(o->root_ns);
	if (!err)
		err = o->ops->open(root, &o->state);
	if (err)
		return err;
	*ret = take_ptr(o);
	return 0;
}

const char *observer_backend(const struct observer *o)
{
	return o->ops->name;
}

void observer_set_tracked(struct observer *o, bool tracked)
{
	o->tracked = tracked;
}

void observer_close(struct observer *o)
{
	if (!o)
		return;
	run_forget(o);
	VEC_FREE(&o->asking);
	o->ops->close(o->state);
	free(o);
}
