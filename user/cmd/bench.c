/*
 * bcr bench: takes snapshots of one running workload by each combination of back ends, and prints what they cost.
 *
 * Every round goes once over all combinations, so that what changes on the machine meanwhile hits all of them. The workload is bcr's own, or a
 * process of the user's; both go on running, and nothing is left behind, unless bcr is killed: then its directory of images is.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/vec.h"
#include "cmd/bench_load.h"
#include "cmd/cmd.h"
#include "flow/flow.h"
#include "flow/worker.h"
#include "freeze/freeze.h"
#include "observe/observe.h"
#include "sys/pid_check.h"
#include "track/track.h"

enum { OBSERVE, FREEZER, TRACK, NR_DIMENSIONS, MAX_CHOICES = 4 };

/* A back end, and why this machine or target has not got it (NULL: it has). */
struct choice {
	const char *name, *why;
};

/* What can be chosen in one way: the best first. */
struct dimension {
	const char *name, *only; /* only: what the user named, or NULL */
	struct choice choices[MAX_CHOICES];
	size_t nr;
};

enum figure { GAP, FROZEN, WHOLE, IN_STOP, SAVED, TORN, RESTOPS, RETAKES, NR_FIGURES };

static const struct {
	const char *title, *key;
	int width;
	bool is_time; /* kept in microseconds, shown in milliseconds */
} figures[NR_FIGURES] = {
	[GAP] = { "gap ms", "gap_us", 9, true },
	[FROZEN] = { "stopped ms", "frozen_us", 11, true },
	[WHOLE] = { "dump ms", "dump_us", 9, true },
	[IN_STOP] = { "in stop", "pages_copied_in_stop", 8, false },
	[SAVED] = { "before write", "pages_copied_before_write", 13, false },
	[TORN] = { "torn", "pages_torn", 6, false },
	[RESTOPS] = { "stops again", "stops_made_again", 12, false },
	[RETAKES] = { "cuts again", "cuts_made_again", 11, false },
};

struct sample {
	uint64_t v[NR_FIGURES];
};

/* One combination, and what was measured of it. */
struct combination {
	const char *names[NR_DIMENSIONS];
	bool failed;
	VEC(struct sample) samples;
};

struct bench {
	const struct options *o;
	struct dimension dimensions[NR_DIMENSIONS];
	VEC(struct combination) combinations;
	char dir[4096];
	int images_fd;
	pid_t pid;
	struct bench_load *load; /* NULL: the process is the user's */
	struct dump_stats *stats; /* shared with the children that dump */
	VEC(uint64_t) idle_gaps_us; /* the workload's gaps when nothing is done to it */
};

static volatile sig_atomic_t stop_asked;

static void ask_stop(int sig)
{
	(void)sig;
	stop_asked = 1;
}

static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000ULL + ts.tv_nsec / 1000;
}

/* --- what there is to compare --- */

static void add_choice(struct dimension *d, const char *name, int err, const char *why)
{
	d->choices[d->nr++] = (struct choice){ name, !err ? NULL : why && *why ? why : strerror(-err) };
}

static void find_observers(struct bench *b)
{
	const struct observe_ops *const all[] = { &observe_bpf_ops, &observe_proc_ops };

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		const char *why = NULL;
		int err = all[i]->probe ? all[i]->probe(&why) : 0;

		add_choice(&b->dimensions[OBSERVE], all[i]->name, err, why);
	}
}

static void find_freezers(struct bench *b)
{
	const char *why = b->load ? bench_load_own_cgroup(b->load) : NULL;
	int err = why ? -EOPNOTSUPP : freeze_probe_cgroup(b->pid, &why);

	add_choice(&b->dimensions[FREEZER], "cgroup", err, why);
	add_choice(&b->dimensions[FREEZER], "ptrace", 0, NULL);
}

static void find_trackers(struct bench *b)
{
	const struct track_ops *ops;

	for (size_t i = 0; (ops = track_ops_at(i)) && i < MAX_CHOICES; i++) {
		const char *why = NULL;
		int err = track_probe(ops, &why);

		add_choice(&b->dimensions[TRACK], ops->name, err, why);
	}
}

static bool is_wanted(const struct dimension *d, const struct choice *c)
{
	return !c->why && (!d->only || !strcmp(d->only, c->name));
}

/* The best that is wanted and works, or NULL. */
static const char *best_of(const struct dimension *d)
{
	for (size_t i = 0; i < d->nr; i++)
		if (is_wanted(d, &d->choices[i]))
			return d->choices[i].name;
	return NULL;
}

/* Adds the combination of these choices, if they are wanted and work and, without `all`, at most one is not the best. */
static int add_combination(struct bench *b, const size_t chosen[NR_DIMENSIONS])
{
	struct combination c = { 0 };
	unsigned others = 0;

	for (int i = 0; i < NR_DIMENSIONS; i++) {
		const struct dimension *d = &b->dimensions[i];
		const struct choice *choice = &d->choices[chosen[i]];

		if (!is_wanted(d, choice))
			return 0;
		c.names[i] = choice->name;
		others += strcmp(choice->name, best_of(d)) != 0;
	}
	if (others > 1 && !b->o->all)
		return 0;
	return VEC_PUSH(&b->combinations, c) ? fail(-ENOMEM, "bench") : 0;
}

static int combine(struct bench *b)
{
	size_t i[NR_DIMENSIONS];
	int err = 0;

	for (int k = 0; k < NR_DIMENSIONS; k++) {
		const struct dimension *d = &b->dimensions[k];

		if (best_of(d))
			continue;
		for (size_t n = 0; n < d->nr; n++)
			if (d->only && !strcmp(d->choices[n].name, d->only))
				return fail(0, "bench: --%s=%s cannot be used: %s", d->name, d->only, d->choices[n].why);
		return fail(0, "bench: nothing works for --%s; bcr check says more", d->name);
	}
	for (i[0] = 0; i[0] < b->dimensions[0].nr; i[0]++)
		for (i[1] = 0; i[1] < b->dimensions[1].nr; i[1]++)
			for (i[2] = 0; i[2] < b->dimensions[2].nr && !err; i[2]++)
				err = add_combination(b, i);
	return err;
}

/* --- measuring --- */

/* A directory of its own: in $TMPDIR, else in memory where two sets fit, else in /tmp. */
static int make_dir(struct bench *b)
{
	const char *where = getenv("TMPDIR");
	struct statvfs fs;

	if (!where || !*where) {
		uint64_t needed = 2 * (b->o->mib << 20) + (64 << 20);
		bool fits = !b->o->tree && !statvfs("/dev/shm", &fs) && (uint64_t)fs.f_bavail * fs.f_frsize > needed;

		where = fits ? "/dev/shm" : "/tmp";
	}
	snprintf(b->dir, sizeof(b->dir) - 16, "%s/bcr-bench.XXXXXX", where);
	if (!mkdtemp(b->dir)) {
		int err = -errno;

		b->dir[0] = 0;
		return fail(err, "bench: make a directory in %s", where);
	}
	size_t len = strlen(b->dir);

	strcpy(b->dir + len, "/images");
	int err = mkdir(b->dir, 0700) ? -errno : 0;
	if (!err) {
		b->images_fd = open(b->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		err = b->images_fd < 0 ? -errno : 0;
	}
	b->dir[len] = 0;
	return err ? fail(err, "bench: make a directory in %s", b->dir) : 0;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	if (remove(path))
		log_warn("%s: cannot be removed: %s", path, strerror(errno));
	return 0;
}

static int dump_once(struct bench *b, const struct combination *c)
{
	const struct options *o = b->o;
	const struct dump_request req = {
		.root = b->pid,
		.images_dir = b->dir,
		.work_dir = b->dir,
		.images_dirfd = b->images_fd,
		.work_dirfd = b->images_fd,
		.leave_running = true,
		.shell_job = o->shell_job,
		.file_locks = o->file_locks,
		.tcp_established = o->tcp_established,
		.ext_unix_sk = o->ext_unix_sk,
		.observe = c->names[OBSERVE],
		.freezer = c->names[FREEZER],
		.track = c->names[TRACK],
		.timeout_s = o->timeout_s,
		.ghost_limit_bytes = o->ghost_limit_bytes,
		.status_fd = -1,
		.stats = b->stats,
	};

	return flow_dump(&req);
}

/* One snapshot. A failure has been reported and is the combination's; -EINTR means that the user wants to stop. */
static int measure(struct bench *b, struct combination *c)
{
	const struct dump_stats *r = b->stats;
	struct sample s = { 0 };

	if (b->load)
		bench_load_take_gap(b->load);
	uint64_t start_us = now_us();
	int err = dump_once(b, c);

	s.v[WHOLE] = now_us() - start_us;
	if (err == -EINTR || worker_should_stop() || stop_asked)
		return -EINTR;
	if (err) {
		c->failed = true;
		return 0;
	}
	s.v[GAP] = b->load ? bench_load_take_gap(b->load) / 1000 : 0;
	s.v[FROZEN] = r->frozen_us;
	s.v[IN_STOP] = r->pages_copied_in_stop;
	s.v[SAVED] = r->pages_saved;
	s.v[TORN] = r->pages_torn;
	s.v[RESTOPS] = r->restops;
	s.v[RETAKES] = r->retakes;
	return VEC_PUSH(&c->samples, s) ? fail(-ENOMEM, "bench") : 0;
}

/* The gap that the workload sees when nothing is done to it, over as long a time as the last dump took. */
static int measure_idle(struct bench *b, const struct combination *c)
{
	if (!b->load || !c->samples.nr)
		return 0;
	uint64_t us = c->samples.v[c->samples.nr - 1].v[WHOLE];
	struct timespec span = { .tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000 };

	bench_load_take_gap(b->load);
	if (nanosleep(&span, NULL))
		return -EINTR;
	return VEC_PUSH(&b->idle_gaps_us, bench_load_take_gap(b->load) / 1000) ? fail(-ENOMEM, "bench") : 0;
}

static int run_rounds(struct bench *b)
{
	uint64_t all = b->o->rounds * b->combinations.nr, done = 0;
	bool progress = isatty(STDERR_FILENO);
	int err = 0;

	for (uint64_t round = 0; round < b->o->rounds && !err; round++) {
		VEC_FOREACH(c, &b->combinations) {
			if (progress)
				fprintf(stderr, "\r\033[Kmeasuring %llu of %llu: %s %s %s", (unsigned long long)++done,
					(unsigned long long)all, c->names[OBSERVE], c->names[FREEZER], c->names[TRACK]);
			if (!c->failed)
				err = stop_asked ? -EINTR : measure(b, c);
			if (err)
				break;
		}
		if (!err)
			err = measure_idle(b, &b->combinations.v[0]);
	}
	if (progress)
		fputs("\r\033[K", stderr);
	return err;
}

/* --- what it says --- */

static int compare_numbers(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static uint64_t median(uint64_t *v, size_t nr)
{
	qsort(v, nr, sizeof(*v), compare_numbers);
	return nr ? (v[(nr - 1) / 2] + v[nr / 2]) / 2 : 0;
}

static int median_of(const struct combination *c, enum figure f, uint64_t *ret)
{
	_cleanup_free_ uint64_t *v = calloc(c->samples.nr + 1, sizeof(*v));

	if (!v)
		return fail(-ENOMEM, "bench");
	for (size_t i = 0; i < c->samples.nr; i++)
		v[i] = c->samples.v[i].v[f];
	*ret = median(v, c->samples.nr);
	return 0;
}

static bool is_shown(const struct bench *b, enum figure f)
{
	return f != GAP || b->load;
}

static void print_names(const char *const names[NR_DIMENSIONS])
{
	printf("%-8s %-7s %-10s", names[OBSERVE], names[FREEZER], names[TRACK]);
}

static int print_row(const struct bench *b, const struct combination *c)
{
	print_names(c->names);
	if (c->failed) {
		puts("  failed: see the messages");
		return 0;
	}
	for (enum figure f = 0; f < NR_FIGURES; f++) {
		uint64_t value;
		int err = median_of(c, f, &value);

		if (err)
			return err;
		if (!is_shown(b, f))
			continue;
		if (figures[f].is_time)
			printf(" %*.2f", figures[f].width, value / 1000.0);
		else
			printf(" %*llu", figures[f].width, (unsigned long long)value);
	}
	putchar('\n');
	return 0;
}

static void print_missing(const struct bench *b)
{
	for (int i = 0; i < NR_DIMENSIONS; i++) {
		const struct dimension *d = &b->dimensions[i];

		for (size_t k = 0; k < d->nr; k++)
			if (d->choices[k].why)
				printf("not here: --%s=%s: %s\n", d->name, d->choices[k].name, d->choices[k].why);
	}
}

static int print_table(struct bench *b)
{
	static const char *const titles[NR_DIMENSIONS] = { "observe", "freezer", "track" };
	const struct options *o = b->o;
	int err = 0;

	if (b->load)
		printf("A workload of %llu MiB and %llu threads, %llu MB/s written",
		       (unsigned long long)o->mib, (unsigned long long)o->threads, (unsigned long long)o->write_mb);
	else
		printf("Process %d", b->pid);
	printf("; medians of %llu snapshots each\n", (unsigned long long)o->rounds);
	print_names(titles);
	for (enum figure f = 0; f < NR_FIGURES; f++)
		if (is_shown(b, f))
			printf(" %*s", figures[f].width, figures[f].title);
	putchar('\n');
	VEC_FOREACH(c, &b->combinations) {
		err = print_row(b, c);
		if (err)
			return err;
	}
	if (b->idle_gaps_us.nr)
		printf("%-27s %*.2f\n", "without bcr", figures[GAP].width,
		       median(b->idle_gaps_us.v, b->idle_gaps_us.nr) / 1000.0);
	print_missing(b);
	return 0;
}

static int add_row_json(const struct bench *b, const struct combination *c, json_t *list)
{
	json_t *row = json_pack("{s:s, s:s, s:s, s:b}", "observe", c->names[OBSERVE], "freezer", c->names[FREEZER],
				"track", c->names[TRACK], "failed", c->failed);
	int err = 0;

	for (enum figure f = 0; f < NR_FIGURES && !c->failed && !err; f++) {
		uint64_t value;

		err = median_of(c, f, &value);
		if (!err && is_shown(b, f) && json_object_set_new(row, figures[f].key, json_integer(value)))
			err = fail(-ENOMEM, "bench: make JSON");
	}
	if (json_array_append_new(list, row) && !err)
		err = fail(-ENOMEM, "bench: make JSON");
	return err;
}

static json_t *missing_json(const struct bench *b)
{
	json_t *list = json_array();

	for (int i = 0; i < NR_DIMENSIONS; i++) {
		const struct dimension *d = &b->dimensions[i];

		for (size_t k = 0; k < d->nr; k++)
			if (d->choices[k].why)
				json_array_append_new(list, json_pack("{s:s, s:s, s:s}", "option", d->name, "name",
								      d->choices[k].name, "why", d->choices[k].why));
	}
	return list;
}

static int print_json(struct bench *b)
{
	json_t *rows = json_array();
	json_t *root = json_pack("{s:i, s:I, s:o, s:o}", "pid", b->pid, "rounds", (json_int_t)b->o->rounds, "rows", rows,
				 "missing", missing_json(b));
	int err = root ? 0 : fail(-ENOMEM, "bench: make JSON");

	if (!err && b->idle_gaps_us.nr)
		json_object_set_new(root, "gap_without_bcr_us",
				    json_integer(median(b->idle_gaps_us.v, b->idle_gaps_us.nr)));
	for (size_t i = 0; i < b->combinations.nr && !err; i++)
		err = add_row_json(b, &b->combinations.v[i], rows);
	if (!err && json_dumpf(root, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER))
		err = fail(-EIO, "bench: write JSON");
	json_decref(root);
	putchar('\n');
	return err;
}

/* --- the command --- */

static int check_options(const struct options *o)
{
	if (!o->rounds)
		return fail(0, "bench: --rounds must be at least 1");
	if (o->tree)
		return pid_check_target(o->tree);
	if (!o->mib || !o->threads)
		return fail(0, "bench: --mib and --threads must be at least 1");
	if (o->write_mb && o->threads < 2)
		return fail(0, "bench: the first thread watches the clock, so --write needs --threads=2 or more");
	return 0;
}

static int prepare(struct bench *b)
{
	const struct options *o = b->o;
	const struct bench_load_spec spec = { .mib = o->mib, .threads = o->threads, .write_mb = o->write_mb };
	int err = make_dir(b);

	if (err)
		return err;
	b->stats = mmap(NULL, sizeof(*b->stats), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (b->stats == MAP_FAILED) {
		b->stats = NULL;
		return fail(-errno, "bench");
	}
	b->pid = o->tree;
	if (!b->pid) {
		err = bench_load_start(&spec, b->dir, &b->load);
		if (err)
			return err;
		b->pid = bench_load_pid(b->load);
	}
	b->dimensions[OBSERVE] = (struct dimension){ .name = "observe", .only = o->observe };
	b->dimensions[FREEZER] = (struct dimension){ .name = "freezer", .only = o->freezer };
	b->dimensions[TRACK] = (struct dimension){ .name = "track", .only = o->track };
	find_observers(b);
	find_freezers(b);
	find_trackers(b);
	return combine(b);
}

static void clean_up(struct bench *b)
{
	bench_load_end(b->load);
	cleanup_close(&b->images_fd);
	if (b->dir[0])
		nftw(b->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	if (b->stats)
		munmap(b->stats, sizeof(*b->stats));
	VEC_FOREACH(c, &b->combinations)
		VEC_FREE(&c->samples);
	VEC_FREE(&b->combinations);
	VEC_FREE(&b->idle_gaps_us);
}

/* A signal lets the dump under way end, and everything be removed. */
static void handle_signals(void)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT };
	struct sigaction sa = { .sa_handler = ask_stop };

	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		sigaction(signals[i], &sa, NULL);
}

static int bench(const struct options *o)
{
	struct bench b = { .o = o, .images_fd = -1 };
	int err = check_options(o);

	if (err)
		return err;
	handle_signals();
	err = prepare(&b);
	if (!err)
		err = run_rounds(&b);
	if (err == -EINTR)
		log_error("bench: told to stop");
	if (!err)
		err = o->json ? print_json(&b) : print_table(&b);
	VEC_FOREACH(c, &b.combinations)
		if (!err && c->failed)
			err = -EIO;
	fflush(stdout);
	clean_up(&b);
	return err;
}

int cmd_bench(int argc, char **argv)
{
	_cleanup_dirs_ struct cmd_dirs dirs = CMD_DIRS_NONE;
	struct options o;
	int code;

	if (!cmd_parse(VERB_BENCH, argc, argv, false, &o, &code))
		return code;

	int err = cmd_begin(&o, &dirs);
	if (!err)
		err = bench(&o);
	options_deinit(&o);
	return cmd_exit_code(err);
}
