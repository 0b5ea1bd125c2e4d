/*
 * What the tests of the tracker share. A target is forked; it is stopped, observed, cut, let go and copied; inside the stop
 * capture_memory() makes the reference: every page of the copy has to be equal to it, and exactly the same pages have to be there.
 * With TRACK in the environment, only that back end is tested.
 */
#ifndef TESTS_FLOW_TRACK_RIG_H
#define TESTS_FLOW_TRACK_RIG_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "capture/capture.h"
#include "flow/userfaultfd.h"
#include "freeze/freeze.h"
#include "image/image.h"
#include "observe/observe.h"
#include "track/track.h"

enum {
	RIG_PAGE = 4096,
	RIG_MAX_TRIES = 100, /* for one cut: some are not whole, more where the machine is slow; what is wrong fails at once */
	RIG_STATUS_DIFFERENT = 3,
};

/* Shared by the test and its targets. */
struct rig_shared {
	atomic_int ready, go, failures;
	atomic_long steps;
	char why[512];
};

struct rig {
	pid_t pid;
	char dir[64];
	struct observer *observer, *reference;
	struct freeze *freeze; /* of pauses and cuts */
	struct tracker *tracker;
	bool compare;          /* make a reference inside the stop; otherwise only measure */
	uint64_t stop_ns;      /* from before the stop to after the thaw, of the last cut, without the reference */
	uint64_t copy_ns;
	unsigned retakes;
	unsigned same;         /* cuts by a look before the stop that was still right inside it */
	size_t pages;          /* of the last copy */
};

static struct rig_shared *rig_shared;
static const char *rig_base = ".";
static int rig_failed_status = 1;
static bool rig_foreign;  /* the target has write protection of its own, which is to be overlooked */
static bool rig_refusals_do_not_matter;
static void (*rig_before_open)(void);      /* NULL, or: called when the target has been observed, and is tracked next */
static void (*rig_before_pause)(void);     /* NULL, or: called when the target is held next, other than for the cut */
static void (*rig_before_follow)(void);    /* NULL, or: called when memory has been looked at, and hints are followed next */
static void (*rig_hold_others)(bool hold); /* NULL, or: those who write from outside pause while the target is stopped */
static char rig_dir[64]; /* for files of targets, too */

__attribute__((noreturn, format(printf, 1, 2))) static inline void rig_fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	printf("FAIL: ");
	vprintf(format, args);
	printf("\n");
	fflush(stdout);
	va_end(args);
	_exit(rig_failed_status);
}

#define RIG_NEED(cond) \
	do { \
		if (!(cond)) \
			rig_fail("%s:%d: not so: %s (%s)", __FILE__, __LINE__, #cond, strerror(errno)); \
	} while (0)

static inline uint64_t rig_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static inline uint64_t rig_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static inline void *rig_memory(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	RIG_NEED(p != MAP_FAILED);
	return p;
}

/* Forks the target and waits until it says that it is ready. Exits with the test. */
static inline void rig_start(struct rig *r, int (*target)(void))
{
	memset(r, 0, sizeof(*r));
	r->compare = true;
	if (!rig_shared) {
		rig_shared = mmap(NULL, sizeof(*rig_shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		RIG_NEED(rig_shared != MAP_FAILED);
	}
	memset(rig_shared, 0, sizeof(*rig_shared));
	snprintf(r->dir, sizeof(r->dir), "%s/bcr-track-XXXXXX", rig_base);
	RIG_NEED(mkdtemp(r->dir));
	strcpy(rig_dir, r->dir);
	r->pid = fork();
	RIG_NEED(r->pid >= 0);
	if (!r->pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		setsid();
		/* Nothing of the test's surroundings belongs to what is observed. */
		int null = open("/dev/null", O_RDWR);
		for (int fd = 0; fd < 3; fd++)
			dup2(null, fd);
		syscall(SYS_close_range, 3, ~0u, 0);
		_exit(target());
	}
	while (!rig_shared->ready) {
		RIG_NEED(waitpid(r->pid, NULL, WNOHANG) == 0);
		usleep(1000);
	}
}

static inline int rig_userfaultfd(void *arg, pid_t pid, int *ret)
{
	const proc_numbers sharers = { .v = &pid, .nr = 1 };
	uint32_t held_us = 0;

	return userfaultfd_take(pid, &sharers, 10, NULL, &held_us, ret);
}

static inline int rig_pause(void *arg, bool stop)
{
	struct rig *r = arg;

	if (stop && rig_before_pause)
		rig_before_pause();
	return stop ? freeze_stop(r->freeze) : freeze_thaw(r->freeze, THAW_RUN, NULL);
}

static inline bool rig_holds(void *arg, pid_t pid)
{
	struct rig *r = arg;
	const pid_t *pids;
	size_t nr = freeze_pids(r->freeze, &pids);

	for (size_t i = 0; i < nr; i++)
		if (pids[i] == pid)
			return true;
	return false;
}

static inline struct model *rig_observe_with(struct observer *o, bool stopped)
{
	struct model *m = NULL;

	refusals_begin();
	int err = observer_run(o, stopped, &m);
	if (rig_refusals_do_not_matter && err == -EOPNOTSUPP && m) {
		refusals_discard();
		return m;
	}
	if (refusals_end() || err)
		rig_fail("observe: %s", strerror(-err));
	return m;
}

static inline struct model *rig_observe(struct rig *r, bool stopped)
{
	return rig_observe_with(r->observer, stopped);
}

static inline int rig_each_thread(void *arg,
				  int (*fn)(void *ctx, pid_t pid, pid_t tid, const struct cpu_regs *regs), void *ctx)
{
	struct rig *r = arg;

	return observer_each_thread(r->observer, fn, ctx);
}

static inline void rig_open(struct rig *r, const char *backend, const struct track_env *extra)
{
	struct observe_options opts = { .shell_job = true, .ext_unix_sk = true, .file_locks = true,
					.any_tree = true };
	struct track_env env = extra ? *extra : (struct track_env){};

	env.arg = r;
	env.userfaultfd = rig_userfaultfd;
	env.pause = rig_pause;
	env.holds = rig_holds;
	env.each_thread = rig_each_thread;
	RIG_NEED(!observer_open(r->pid, &opts, &r->observer));
	RIG_NEED(!observer_open(r->pid, &opts, &r->reference));
	RIG_NEED(!freeze_create("ptrace", r->pid, 10, &r->freeze));
	observer_set_tracked(r->observer, rig_foreign);
	struct model *m = rig_observe(r, false);
	if (rig_before_open)
		rig_before_open();
	RIG_NEED(!tracker_open(backend, m, &env, &r->tracker));
	model_destroy(m);
	observer_set_tracked(r->observer, true);
	observer_set_tracked(r->reference, true);
}

/* Can files of the tests be read directly? tmpfs refuses it before Linux 6.6, and copies as ever since. */
static inline bool rig_has_direct_reads(void)
{
	struct statfs fs;

	if (!statfs(rig_base, &fs) && fs.f_type != TMPFS_MAGIC)
		return true;
	printf("no direct reads: %s is a tmpfs\n", rig_base);
	return false;
}

/* The next back end that works here, from *i on; NULL behind the last. Says why others do not. */
static inline const char *rig_backend(size_t *i)
{
	const struct track_ops *ops;

	while ((ops = track_ops_at((*i)++))) {
		const char *why = "no reason known";

		if (getenv("TRACK") && strcmp(getenv("TRACK"), ops->name))
			continue;
		if (!ops->probe(&why))
			return ops->name;
		printf("%s: not on this machine (%s)\n", ops->name, why);
	}
	return NULL;
}

/* For tests of the first back end alone: ends the test as one that is skipped where it does not work, or is not asked for. */
static inline void rig_need_saving(void)
{
	const struct track_ops *ops = track_ops_at(0);
	const char *why = "no reason known";

	if (getenv("TRACK") && strcmp(getenv("TRACK"), ops->name))
		printf("tests %s alone\n", ops->name);
	else if (track_probe(ops, &why))
		printf("%s: not on this machine (%s)\n", ops->name, why);
	else
		return;
	fflush(stdout);
	_exit(77);
}

static inline struct image_set *rig_set(struct rig *r, const char *name, int *ret_dirfd)
{
	char path[128];
	struct image_set *set;

	snprintf(path, sizeof(path), "%s/%s", r->dir, name);
	RIG_NEED(!mkdir(path, 0700) || errno == EEXIST);
	*ret_dirfd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	RIG_NEED(*ret_dirfd >= 0);
	RIG_NEED(!image_set_create(*ret_dirfd, path, NULL, &set));
	return set;
}

/* pages-N.img of a set that is still being written. */
static inline const uint8_t *rig_map_pages(int dirfd, uint32_t id, size_t *ret_bytes)
{
	char name[300];
	DIR *d = fdopendir(dup(dirfd));
	int fd = -1;

	RIG_NEED(d);
	rewinddir(d);
	for (struct dirent *e; fd < 0 && (e = readdir(d));) {
		snprintf(name, sizeof(name), "%s/pages-%u.img", e->d_name, id);
		fd = openat(dirfd, name, O_RDONLY);
	}
	closedir(d);
	struct stat st;
	RIG_NEED(fd >= 0 && !fstat(fd, &st));
	*ret_bytes = st.st_size;
	const uint8_t *p = NULL;
	if (st.st_size) {
		p = mmap(NULL, st.st_size, PROT_READ, MAP_SHARED, fd, 0);
		RIG_NEED(p != MAP_FAILED);
	}
	close(fd);
	return p;
}

/* The next page of a list of runs; false at the end. */
struct rig_cursor {
	const struct page_run *v;
	size_t nr, run;
	uint64_t page;
};

static inline bool rig_next(struct rig_cursor *c, uint64_t *addr, uint32_t *flags, uint64_t *offset)
{
	if (c->run == c->nr)
		return false;
	const struct page_run *r = &c->v[c->run];

	*addr = r->start + c->page * RIG_PAGE;
	*flags = r->flags;
	*offset = r->offset_bytes + c->page * RIG_PAGE;
	if (++c->page == r->nr_pages) {
		c->page = 0;
		c->run++;
	}
	return true;
}

static inline bool rig_is_zero(const uint8_t *p)
{
	return !p[0] && !memcmp(p, p + 1, RIG_PAGE - 1);
}

/* A page of zeros and a hole are the same memory: which of them is in a copy does not matter. */
static inline size_t rig_compare(const char *what, pid_t pid, struct rig_cursor a, int a_dir, uint32_t a_id,
				 struct rig_cursor b, int b_dir, uint32_t b_id)
{
	size_t a_bytes, b_bytes, nr = 0, bad = 0, more = 0, missing = 0;
	const uint8_t *ap = rig_map_pages(a_dir, a_id, &a_bytes), *bp = rig_map_pages(b_dir, b_id, &b_bytes);
	uint64_t at = 0, bt = 0, ao = 0, bo = 0, first = 0;
	uint32_t af = 0, bf = 0;
	bool ha = rig_next(&a, &at, &af, &ao), hb = rig_next(&b, &bt, &bf, &bo);

	while (ha || hb) {
		if (ha && (!hb || at < bt)) {
			if (af & PAGES_PRESENT && rig_is_zero(ap + ao)) {
				ha = rig_next(&a, &at, &af, &ao);
				continue;
			}
			missing++;
			first = first ? first : at;
			ha = rig_next(&a, &at, &af, &ao);
			continue;
		}
		if (hb && (!ha || bt < at)) {
			if (bf & PAGES_PRESENT && rig_is_zero(bp + bo)) {
				hb = rig_next(&b, &bt, &bf, &bo);
				continue;
			}
			more++;
			first = first ? first : bt;
			hb = rig_next(&b, &bt, &bf, &bo);
			continue;
		}
		if (af != bf || (af & PAGES_PRESENT && (ao + RIG_PAGE > a_bytes || bo + RIG_PAGE > b_bytes ||
							memcmp(ap + ao, bp + bo, RIG_PAGE)))) {
			bad++;
			first = first ? first : at;
		}
		nr++;
		ha = rig_next(&a, &at, &af, &ao);
		hb = rig_next(&b, &bt, &bf, &bo);
	}
	if (ap)
		munmap((void *)ap, a_bytes);
	if (bp)
		munmap((void *)bp, b_bytes);
	if (bad || more || missing)
		rig_failed_status = RIG_STATUS_DIFFERENT;
	if (bad || more || missing)
		rig_fail("pid %d %s: of %zu pages %zu differ, %zu are missing, %zu too many; the first at %llx", pid, what,
			 nr, bad, missing, more, (unsigned long long)first);
	return nr;
}

#define RIG_CURSOR(x) ((struct rig_cursor){ .v = (x)->pages.v, .nr = (x)->pages.nr })

static inline void rig_compare_all(struct rig *r, const struct model *want, int want_dir, const struct model *got,
				   int got_dir)
{
	RIG_NEED(want->mms.nr == got->mms.nr && want->shmems.nr == got->shmems.nr);
	r->pages = 0;
	for (size_t i = 0; i < want->mms.nr; i++) {
		const struct mm *a = want->mms.v[i], *b = got->mms.v[i];

		RIG_NEED(a->pid == b->pid);
		r->pages += rig_compare("memory", a->pid, RIG_CURSOR(a), want_dir, a->pages_id, RIG_CURSOR(b), got_dir,
					b->pages_id);
	}
	for (size_t i = 0; i < want->shmems.nr; i++) {
		const struct shmem *a = want->shmems.v[i], *b = got->shmems.v[i];

		r->pages += rig_compare("shared memory", a->pid, RIG_CURSOR(a), want_dir, a->pages_id, RIG_CURSOR(b),
					got_dir, b->pages_id);
	}
}

static inline int rig_progress(uint64_t done, uint64_t all)
{
	return 0;
}

/* One cut and its copy, compared with the reference. 0 or -EAGAIN; everything else ends the test. */
static inline int rig_cut_once(struct rig *r)
{
	struct dump_stats stats = {}, ref_stats = {};
	struct image_set *set = NULL, *ref = NULL;
	struct model *ref_model = NULL;
	int dir = -1, ref_dir = -1;

	set = rig_set(r, "copy", &dir);
	if (r->compare)
		ref = rig_set(r, "reference", &ref_dir);
	int err = tracker_precut(r->tracker, NULL);
	RIG_NEED(!err);
	struct model *m = rig_observe(r, false);
	RIG_NEED(!tracker_ready(r->tracker, m));
	if (rig_before_follow)
		rig_before_follow();
	RIG_NEED(!tracker_follow(r->tracker));
	uint64_t begin_ns = rig_now_ns(), spent_ns = 0;
	bool same = false;

	if (rig_hold_others)
		rig_hold_others(true);
	RIG_NEED(!freeze_stop(r->freeze));
	/* -EOPNOTSUPP: not by this observer; and a look that refused is none to build on. */
	int read_err = rig_refusals_do_not_matter ? 0 : observer_read(r->observer, m, freeze_was_listed(r->freeze), &same);
	RIG_NEED(!read_err || read_err == -EOPNOTSUPP);
	if (!same) {
		model_destroy(m);
		m = rig_observe(r, true);
	}
	r->same += same;
	err = tracker_cut(r->tracker, m, same);
	if (!err && r->compare) {
		uint64_t ref_ns = rig_now_ns();

		ref_model = rig_observe_with(r->reference, true);
		RIG_NEED(!capture_memory(ref_model, ref, &ref_stats, rig_progress));
		spent_ns = rig_now_ns() - ref_ns;
	}
	RIG_NEED(!freeze_thaw(r->freeze, THAW_RUN, m));
	if (rig_hold_others)
		rig_hold_others(false);
	r->stop_ns = rig_now_ns() - begin_ns - spent_ns;
	if (same)
		RIG_NEED(!observer_refresh(r->observer, m));
	begin_ns = rig_now_ns();
	if (!err)
		err = tracker_copy(r->tracker, m, set, &stats, rig_progress);
	r->copy_ns = rig_now_ns() - begin_ns;
	if (err && err != -EAGAIN)
		rig_fail("cut or copy: %s", strerror(-err));
	if (!err && r->compare)
		rig_compare_all(r, ref_model, ref_dir, m, dir);
	image_set_abort(set);
	image_set_abort(ref);
	close(dir);
	if (ref_dir >= 0)
		close(ref_dir);
	model_destroy(m);
	model_destroy(ref_model);
	return err;
}

/* As a flow does it: newer observations, and again until it is whole. */
static inline void rig_cut(struct rig *r, unsigned max_tries)
{
	for (unsigned i = 0; i < max_tries; i++) {
		if (!rig_cut_once(r))
			return;
		r->retakes++;
		struct model *m = rig_observe(r, false);
		int err = m ? tracker_precut(r->tracker, m) : 0;
		if (err && err != -EAGAIN)
			rig_fail("precut: %s", strerror(-err));
		model_destroy(m);
	}
	rig_fail("not whole after %u cuts: %llu torn pages", max_tries,
		 (unsigned long long)tracker_stats(r->tracker)->pages_torn);
}

static inline void rig_print(const struct rig *r, const char *what)
{
	const struct track_stats *s = tracker_stats(r->tracker);

	printf("%s (%s): %zu pages, stop %llu us (cut %llu, %s, %llu hints, %llu pages copied in it), copy %llu ms, %llu saved, "
	       "%llu torn, %llu pauses of %llu us, %u retakes, %u by the look before\n",
	       what, tracker_backend(r->tracker), r->pages, (unsigned long long)r->stop_ns / 1000,
	       (unsigned long long)s->cut_us, s->cut_full ? "full scan" : "by hints", (unsigned long long)s->cut_hints,
	       (unsigned long long)s->cut_pages_copied, (unsigned long long)r->copy_ns / 1000000,
	       (unsigned long long)s->pages_saved, (unsigned long long)s->pages_torn, (unsigned long long)s->pauses,
	       (unsigned long long)s->paused_us, r->retakes, r->same);
	fflush(stdout);
}

static inline void rig_close(struct rig *r)
{
	tracker_close(r->tracker);
	freeze_destroy(r->freeze);
	observer_close(r->observer);
	observer_close(r->reference);
	r->tracker = NULL;
}

/* Ends the target (which looks at itself when told to go) and removes what was written. */
static inline void rig_end(struct rig *r)
{
	int status;
	char cmd[128];

	rig_shared->go = 1;
	RIG_NEED(waitpid(r->pid, &status, 0) == r->pid);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", r->dir);
	RIG_NEED(system(cmd) == 0);
	if (status || rig_shared->failures)
		rig_fail("the target ended with status %#x: %s", status, rig_shared->why);
}

#endif
