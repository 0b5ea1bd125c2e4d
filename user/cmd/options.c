/* The table of command-line options, and the parser that works from it. */
#include "cmd/options.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/vec.h"

enum {
	P = VERB_PRE_DUMP,
	D = VERB_DUMP | P,
	R = VERB_RESTORE,
	DR = D | R,
	S = VERB_SHOW,
	C = VERB_CHECK,
	B = VERB_BENCH,
	DB = D | B,
	DRB = D | R | B,
	SET_VERBS = D | R | S | C, /* those with an image set, or a work directory */
	NOT_PRE = VERB_DUMP | R, /* a pre-dump stops nobody, and leaves no tree behind */
	ALL_VERBS = SET_VERBS | B,
	CONFIG_MAX_BYTES = 1 << 20,
	VERBOSITY_DEFAULT = 2,
	VERBOSITY_MAX = 5,
};

#define AT(member) offsetof(struct options, member)
#define FLAG(verbs_, letter_, name_, member_, help_)                                               \
	{                                                                                          \
		.name = name_, .letter = letter_, .arg = ARG_NONE, .effect = OPTION_FLAG,          \
		.verbs = verbs_, .offset = AT(member_), .help = help_,                             \
	}
#define VALUE(verbs_, letter_, name_, effect_, placeholder_, member_, help_)                       \
	{                                                                                          \
		.name = name_, .letter = letter_, .arg = ARG_REQUIRED, .effect = effect_,          \
		.verbs = verbs_, .offset = AT(member_), .placeholder = placeholder_,               \
		.help = help_,                                                                     \
	}
#define CHOICE(verbs_, name_, choices_, member_, help_)                                            \
	{                                                                                          \
		.name = name_, .arg = ARG_REQUIRED, .effect = OPTION_CHOICE, .verbs = verbs_,      \
		.offset = AT(member_), .placeholder = choices_, .choices = choices_,               \
		.help = help_,                                                                     \
	}
#define IGNORED(verbs_, letter_, name_, arg_, placeholder_, choices_, help_)                       \
	{                                                                                          \
		.name = name_, .letter = letter_, .arg = arg_, .effect = OPTION_IGNORED,           \
		.verbs = verbs_, .offset = AT(ignored), .placeholder = placeholder_,               \
		.choices = choices_, .help = help_,                                                \
	}
#define NOT_YET(verbs_, letter_, name_, arg_, placeholder_, choices_, help_)                       \
	{                                                                                          \
		.name = name_, .letter = letter_, .arg = arg_, .effect = OPTION_NOT_YET,           \
		.verbs = verbs_, .offset = AT(ignored), .placeholder = placeholder_,               \
		.choices = choices_, .help = help_,                                                \
	}

static const struct option_desc table[] = {
	/* What to work on, and where. */
	VALUE(DB, 't', "tree", OPTION_NUMBER, "PID", tree,
	      "root of the process tree to dump; bench: measure it, and no workload of bcr's own"),
	VALUE(SET_VERBS, 'D', "images-dir", OPTION_STRING, "DIR", images_dir,
	      "directory of the image set (default: the current directory)"),
	VALUE(SET_VERBS, 'W', "work-dir", OPTION_STRING, "DIR", work_dir,
	      "directory for logs, pidfile and statistics (default: the images directory)"),
	VALUE(ALL_VERBS, 'o', "log-file", OPTION_STRING, "FILE", log_file,
	      "write log lines to FILE in the work directory instead of stderr"),
	{ .name = "verbosity", .letter = 'v', .arg = ARG_OPTIONAL, .effect = OPTION_VERBOSITY,
	  .verbs = ALL_VERBS, .offset = AT(verbosity), .placeholder = "N",
	  .help = "1 errors, 2 warnings (default), 3 stages, 4 debug, 5 trace; each -v adds one" },
	FLAG(ALL_VERBS, 0, "log-pid", log_pids, "begin each log line with the pid that wrote it"),
	{ .name = "config", .arg = ARG_REQUIRED, .effect = OPTION_CONFIG, .verbs = ALL_VERBS,
	  .placeholder = "FILE", .help = "read options from FILE, one a line, without dashes" },
	{ .name = "no-default-config", .arg = ARG_NONE, .effect = OPTION_NO_CONFIG,
	  .verbs = ALL_VERBS,
	  .help = "do not read /etc/criu/default.conf and ~/.criu/default.conf" },
	{ .name = "help", .letter = 'h', .arg = ARG_NONE, .effect = OPTION_FLAG,
	  .verbs = ALL_VERBS, .offset = AT(help), .help = "print this text" },

	/* Dump. */
	FLAG(VERB_DUMP, 'R', "leave-running", leave_running, "the target goes on running after the dump"),
	FLAG(NOT_PRE, 's', "leave-stopped", leave_stopped,
	     "the target stays, or is left, in state T (stopped) at the end"),
	CHOICE(DB, "observe", "bpf|proc", observe,
	       "how state is gathered (default: bpf where the kernel can, else proc)"),
	CHOICE(VERB_DUMP | B, "freezer", "ptrace|cgroup", freezer,
	       "how the target is stopped (default: cgroup if it has a v2 cgroup of its own)"),
	CHOICE(VERB_DUMP | B, "track", "wp-cow|wp-async|soft-dirty|none", track,
	       "how memory is copied while the target runs (default: the best the kernel has)"),
	VALUE(D, 0, "prev-images-dir", OPTION_STRING, "DIR", prev_images_dir,
	      "write only pages that the set in DIR (relative to the images directory) does not have"),
	FLAG(D, 0, "track-mem", track_mem,
	     "accepted without effect: pages are compared with those of the parent set, nothing is armed"),
	VALUE(DB, 0, "ghost-limit", OPTION_SIZE, "SIZE", ghost_limit_bytes,
	      "largest unlinked file to carry in the images; K, M, G (default 1M)"),

	/* Restore. */
	FLAG(R, 'd', "restore-detached", detached, "leave as soon as the tree runs"),
	FLAG(R, 'S', "restore-sibling", sibling,
	     "the root becomes a child of bcr's parent; needs -d"),
	FLAG(R, 0, "exec-cmd", exec_cmd,
	     "after the restore execute the command that follows --; it becomes the parent"),

	/* Dump and restore. */
	FLAG(DRB, 'j', "shell-job", shell_job,
	     "the session leader or the terminal's other side is outside the tree"),
	FLAG(DRB, 'l', "file-locks", file_locks, "the tree may hold file locks"),
	FLAG(DRB, 0, "tcp-established", tcp_established, "the tree may hold TCP connections"),
	FLAG(DRB, 'x', "ext-unix-sk", ext_unix_sk,
	     "Unix sockets may be connected to processes outside the tree"),
	VALUE(NOT_PRE | B, 0, "timeout", OPTION_NUMBER, "SECONDS", timeout_s,
	      "give up when stopping the target takes longer (default 10)"),
	VALUE(DR, 0, "status-fd", OPTION_NUMBER, "N", status_fd,
	      "write one zero byte to descriptor N when ready, then close it"),
	VALUE(NOT_PRE, 0, "pidfile", OPTION_STRING, "FILE", pidfile,
	      "restore: write the root's pid to FILE; dump: neither written nor removed"),
	FLAG(DR, 0, "display-stats", display_stats, "print times and page counts at the end"),

	/* Show, check and bench. */
	FLAG(S | C | B, 0, "json", json, "print JSON"),
	FLAG(S, 0, "plan", plan, "print what a restore would do, operation by operation"),
	VALUE(C, 0, "feature", OPTION_STRING, "NAME", feature,
	      "answer for one feature: exit 0 if bcr can use it; NAME 'list' lists them"),
	FLAG(C, 0, "extra", extra, "also check what only some targets need"),
	FLAG(C | B, 0, "all", all,
	     "check: everything, and what bcr does not use as well; bench: all combinations of back ends"),

	/* Bench. */
	VALUE(B, 0, "mib", OPTION_NUMBER, "N", mib, "memory of the workload (default 256)"),
	VALUE(B, 0, "threads", OPTION_NUMBER, "N", threads,
	      "threads of the workload: one watches the clock, one writes, others sleep (default 4)"),
	VALUE(B, 0, "write", OPTION_NUMBER, "N", write_mb,
	      "MB/s that the workload writes, at random pages (default 100)"),
	VALUE(B, 0, "rounds", OPTION_NUMBER, "N", rounds, "snapshots by each combination (default 5)"),

	/* Ignored, because ignoring them is right. */
	IGNORED(D, 0, "pre-dump-mode", ARG_REQUIRED, "splice|read", "splice|read",
		"ignored: both mean bcr's own way of copying pages"),
	IGNORED(DR, 0, "network-lock", ARG_REQUIRED, "iptables|nftables|skip", "iptables|nftables|skip",
		"ignored: bcr dumps no connection that would have to be locked"),
	IGNORED(D, 0, "ghost-fiemap", ARG_NONE, NULL, NULL,
		"ignored: a hint on how to read sparse unlinked files"),
	IGNORED(DR, 'L', "libdir", ARG_REQUIRED, "DIR", NULL, "ignored: bcr has no plugins"),
	IGNORED(R, 0, "weak-sysctls", ARG_NONE, NULL, NULL, "ignored: bcr restores no sysctls"),

	/* Known, with values that mean what bcr does, or not built yet. */
	NOT_YET(DR, 0, "file-validation", ARG_REQUIRED, "filesize|buildid", "filesize",
		"'filesize' is what bcr does; 'buildid' is not supported yet"),
	NOT_YET(DR, 0, "manage-cgroups", ARG_OPTIONAL, "MODE", "none|ignore",
		"'none' and 'ignore' are what bcr does; other modes are not supported yet"),
	NOT_YET(DR, 0, "cpu-cap", ARG_OPTIONAL, "CAP", "none",
		"'none' is accepted; checks of processor features are not supported yet"),
	NOT_YET(DR, 0, "auto-dedup", ARG_NONE, NULL, NULL, "deduplication of incremental sets"),
	NOT_YET(DR, 0, "tcp-close", ARG_NONE, NULL, NULL, "restore connections closed"),
	NOT_YET(D, 0, "skip-in-flight", ARG_NONE, NULL, NULL, "drop connections not accepted yet"),
	NOT_YET(D, 0, "link-remap", ARG_NONE, NULL, NULL, "unlinked files that have other names"),
	NOT_YET(D, 0, "evasive-devices", ARG_NONE, NULL, NULL, "devices without a path"),
	NOT_YET(DR, 'r', "root", ARG_REQUIRED, "PATH", NULL, "another root directory"),
	NOT_YET(DR, 0, "external", ARG_REQUIRED, "RES", NULL, "resources outside the tree"),
	NOT_YET(R, 0, "inherit-fd", ARG_REQUIRED, "fd[N]:RES", NULL, "descriptors of the caller"),
	NOT_YET(DR, 0, "cgroup-root", ARG_REQUIRED, "[CTRL:]PATH", NULL, "cgroups"),
	NOT_YET(DR, 0, "cgroup-props", ARG_REQUIRED, "TEXT", NULL, "cgroup properties"),
	NOT_YET(DR, 0, "cgroup-props-file", ARG_REQUIRED, "FILE", NULL, "cgroup properties"),
	NOT_YET(DR, 0, "cgroup-dump-controller", ARG_REQUIRED, "NAME", NULL, "cgroup controllers"),
	NOT_YET(DR, 0, "cgroup-yard", ARG_REQUIRED, "PATH", NULL, "cgroup mounts"),
	NOT_YET(D, 0, "freeze-cgroup", ARG_REQUIRED, "PATH", NULL,
		"stop by a given cgroup (see --freezer)"),
	NOT_YET(DR, 0, "action-script", ARG_REQUIRED, "FILE", NULL, "scripts called at stages"),
	NOT_YET(DR, 0, "empty-ns", ARG_REQUIRED, "net", NULL, "namespaces without contents"),
	NOT_YET(R, 0, "join-ns", ARG_REQUIRED, "NS:PID", NULL, "enter existing namespaces"),
	NOT_YET(DR, 0, "enable-fs", ARG_REQUIRED, "LIST", NULL, "file systems of containers"),
	NOT_YET(DR, 0, "skip-mnt", ARG_REQUIRED, "PATH", NULL, "mounts to leave out"),
	NOT_YET(DR, 0, "force-irmap", ARG_NONE, NULL, NULL, "names of watched inodes"),
	NOT_YET(DR, 0, "irmap-scan-path", ARG_REQUIRED, "PATH", NULL, "names of watched inodes"),
	NOT_YET(DR, 0, "ext-mount-map", ARG_REQUIRED, "KEY:VALUE", NULL, "mounts of containers"),
	NOT_YET(DR, 0, "enable-external-sharing", ARG_NONE, NULL, NULL, "mounts of containers"),
	NOT_YET(DR, 0, "enable-external-masters", ARG_NONE, NULL, NULL, "mounts of containers"),
	NOT_YET(R, 0, "veth-pair", ARG_REQUIRED, "IN=OUT", NULL, "network links of containers"),
	NOT_YET(DR, 0, "unprivileged", ARG_NONE, NULL, NULL, "work without root"),
	NOT_YET(DR, 0, "lsm-profile", ARG_REQUIRED, "TYPE:NAME", NULL, "security labels"),
	NOT_YET(DR, 0, "lsm-mount-context", ARG_REQUIRED, "CONTEXT", NULL, "security labels"),
	NOT_YET(R, 0, "skip-file-rwx-check", ARG_NONE, NULL, NULL, "files whose mode changed"),
	NOT_YET(DR, 0, "page-server", ARG_NONE, NULL, NULL, "pages over the network"),
	NOT_YET(DR, 0, "address", ARG_REQUIRED, "A", NULL, "pages over the network"),
	NOT_YET(DR, 0, "port", ARG_REQUIRED, "P", NULL, "pages over the network"),
	NOT_YET(DR, 0, "lazy-pages", ARG_NONE, NULL, NULL, "memory on demand"),
	NOT_YET(DR, 0, "stream", ARG_NONE, NULL, NULL, "image streams"),

	/* For tests: see docs/architecture.md. */
	{ .name = "fail-at", .arg = ARG_REQUIRED, .effect = OPTION_FAIL_AT, .verbs = DR,
	  .placeholder = "STAGE", .hidden = true,
	  .help = "fail at the named stage; 'list' prints the stages (for tests)" },
};

enum { NR_OPTIONS = sizeof(table) / sizeof(table[0]), CODE_SET = 256, CODE_NO = 1024 };

const struct option_desc *option_at(size_t i)
{
	return i < NR_OPTIONS ? &table[i] : NULL;
}

static bool has_no_form(const struct option_desc *d)
{
	return d->arg == ARG_NONE && d->effect != OPTION_NO_CONFIG && strcmp(d->name, "help");
}

/* Whether `value` is one of "a|b|c". */
static bool is_choice(const char *choices, const char *value)
{
	size_t len = strlen(value);

	while (choices && *choices) {
		size_t n = strcspn(choices, "|");

		if (n == len && !strncmp(choices, value, n))
			return true;
		choices += n + (choices[n] == '|');
	}
	return false;
}

static int parse_number(const char *name, const char *text, uint64_t max, uint64_t *ret)
{
	char *end;

	errno = 0;
	unsigned long long value = strtoull(text, &end, 10);
	if (!isdigit((unsigned char)*text) || *end || errno || value > max)
		return fail(0, "--%s: '%s' is not a number from 0 to %llu", name, text,
			    (unsigned long long)max);
	*ret = value;
	return 0;
}

static int parse_size(const char *name, const char *text, uint64_t *ret)
{
	static const char units[] = "KMG";
	char *end;

	errno = 0;
	unsigned long long value = strtoull(text, &end, 10);
	const char *unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
	unsigned shift = unit ? 10 * (unit - units + 1) : 0;

	if (!isdigit((unsigned char)*text) || errno || (*end && (!unit || end[1])) ||
	    value > (uint64_t)INT64_MAX >> shift)
		return fail(0, "--%s: '%s' is not a size such as 4096, 64K, 1M or 2G", name, text);
	*ret = value << shift;
	return 0;
}

/* -v, -vv, -v4, --verbosity=4, and "-verbosity=0", which getopt reads as -v with the value "erbosity=0". */
static int set_verbosity(const char *value, int *verbosity)
{
	static const char old_form[] = "erbosity=";
	uint64_t level;

	if (!value) {
		*verbosity += 1;
	} else if (strspn(value, "v") == strlen(value) && *value) {
		*verbosity += strlen(value) + 1;
	} else {
		if (!strncmp(value, old_form, strlen(old_form)))
			value += strlen(old_form);
		int err = parse_number("verbosity", value, INT_MAX, &level);
		if (err)
			return err;
		*verbosity = level;
	}
	if (*verbosity > VERBOSITY_MAX)
		*verbosity = VERBOSITY_MAX;
	return 0;
}

static int refuse(struct options *o, const struct option_desc *d, const char *value)
{
	char *text;

	if (asprintf(&text, "--%s%s%s", d->name, value ? "=" : "", value ? value : "") < 0)
		return fail(-ENOMEM, "--%s", d->name);
	if (VEC_PUSH(&o->refused, text)) {
		free(text);
		return fail(-ENOMEM, "--%s", d->name);
	}
	return 0;
}

static int apply(struct options *o, const struct option_desc *d, bool no, const char *value)
{
	void *member = (char *)o + d->offset;
	uint64_t number;
	int err;

	switch (d->effect) {
	case OPTION_FLAG:
		*(bool *)member = !no;
		return 0;
	case OPTION_STRING:
		*(const char **)member = value;
		return 0;
	case OPTION_CHOICE:
		if (!is_choice(d->choices, value))
			return fail(0, "--%s: '%s' is not one of %s", d->name, value, d->choices);
		*(const char **)member = value;
		return 0;
	case OPTION_NUMBER:
		err = parse_number(d->name, value, INT_MAX, &number);
		if (!err)
			*(uint64_t *)member = number;
		return err;
	case OPTION_SIZE:
		return parse_size(d->name, value, member);
	case OPTION_VERBOSITY:
		return set_verbosity(value, member);
	case OPTION_FAIL_AT:
		if (setenv("BCR_FAIL_AT", value, 1))
			return fail(-errno, "--%s", d->name);
		return 0;
	case OPTION_IGNORED:
		if (d->choices && !is_choice(d->choices, value))
			return fail(0, "--%s: '%s' is not one of %s", d->name, value, d->choices);
		return 0;
	case OPTION_NOT_YET:
		if (no || (value && is_choice(d->choices, value)))
			return 0;
		return refuse(o, d, value);
	case OPTION_CONFIG:
	case OPTION_NO_CONFIG:
		return 0; /* read before everything else */
	}
	return fail(0, "--%s: no such effect", d->name);
}

/* getopt's tables, made from ours. */
struct getopt_tables {
	struct option longs[2 * NR_OPTIONS + 1];
	char no_names[NR_OPTIONS][48];
	char shorts[4 * NR_OPTIONS + 2];
};

static void make_tables(struct getopt_tables *t)
{
	static const int has_arg[] = { no_argument, required_argument, optional_argument };
	size_t nr = 0;
	char *s = t->shorts;

	memset(t, 0, sizeof(*t));
	*s++ = ':';
	for (size_t i = 0; i < NR_OPTIONS; i++) {
		const struct option_desc *d = &table[i];

		t->longs[nr++] = (struct option){ d->name, has_arg[d->arg], NULL, CODE_SET + i };
		if (has_no_form(d)) {
			snprintf(t->no_names[i], sizeof(t->no_names[i]), "no-%s", d->name);
			t->longs[nr++] = (struct option){ t->no_names[i], no_argument, NULL,
							  CODE_NO + i };
		}
		if (d->letter) {
			*s++ = d->letter;
			for (int c = 0; c < (int)d->arg; c++)
				*s++ = ':';
		}
	}
}

static const struct option_desc *desc_of(int code, bool *no)
{
	*no = code >= CODE_NO;
	if (code >= CODE_NO)
		return &table[code - CODE_NO];
	if (code >= CODE_SET)
		return &table[code - CODE_SET];
	for (size_t i = 0; i < NR_OPTIONS; i++)
		if (table[i].letter == code)
			return &table[i];
	return NULL;
}

enum parse_pass {
	PASS_CONFIG_OPTIONS, /* only --config and --no-default-config */
	PASS_CONFIG_FILE,    /* options out of a file: those of other verbs have no meaning here */
	PASS_COMMAND_LINE,
};

struct config_choice {
	const char *file;
	bool no_default;
};

static int bad_option(int code, char **argv)
{
	if (code == ':')
		return fail(0, "%s: needs a value; see --help", argv[optind - 1]);
	if (optopt && optopt < CODE_SET)
		return fail(0, "-%c: unknown option; see --help", optopt);
	if (optopt)
		return fail(0, "%s: takes no value; see --help", argv[optind - 1]);
	return fail(0, "%s: unknown or ambiguous option; see --help", argv[optind - 1]);
}

static int parse(struct options *o, enum parse_pass pass, struct config_choice *config, int argc,
		 char **argv)
{
	struct getopt_tables t;
	int code, err;

	make_tables(&t);
	optind = 0; /* also forgets where an earlier pass stood */
	opterr = 0;
	while ((code = getopt_long(argc, argv, t.shorts, t.longs, NULL)) != -1) {
		if (code == '?' || code == ':')
			return bad_option(code, argv);

		bool no;
		const struct option_desc *d = desc_of(code, &no);

		if (pass == PASS_CONFIG_OPTIONS) {
			if (d->effect == OPTION_CONFIG)
				config->file = optarg;
			if (d->effect == OPTION_NO_CONFIG)
				config->no_default = true;
			continue;
		}
		if (!(d->verbs & o->verb)) {
			if (pass == PASS_COMMAND_LINE)
				log_warn("--%s has no meaning for %s and was ignored", d->name,
					 argv[0]);
			continue;
		}
		err = apply(o, d, no, optarg);
		if (err)
			return err;
	}
	return 0;
}

/* Reads a whole file as text. A file that need not exist, and does not or is somebody else's, is empty. */
static int read_text(const char *path, bool must_exist, char **ret)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0 && !must_exist && (errno == ENOENT || errno == ENOTDIR || errno == EACCES)) {
		*ret = strdup("");
		return *ret ? 0 : fail(-ENOMEM, "configuration %s", path);
	}
	if (fd < 0)
		return fail(-errno, "configuration %s: open", path);
	if (fstat(fd, &st))
		return fail(-errno, "configuration %s: stat", path);
	if (!S_ISREG(st.st_mode) || st.st_size > CONFIG_MAX_BYTES)
		return fail(0, "configuration %s: not a regular file of at most 1 MiB", path);

	_cleanup_free_ char *text = calloc(1, st.st_size + 1);
	if (!text)
		return fail(-ENOMEM, "configuration %s: read", path);

	ssize_t len = read(fd, text, st.st_size);
	if (len < 0)
		return fail(-errno, "configuration %s: read", path);
	text[len] = 0;
	*ret = take_ptr(text);
	return 0;
}

static char *trim(char *s)
{
	s += strspn(s, " \t\r");
	for (size_t n = strlen(s); n && strchr(" \t\r", s[n - 1]); n--)
		s[n - 1] = 0;
	return s;
}

/*
 * One line, "leave-running", "images-dir /tmp/x" or "log-file=dump.log", as an argument for getopt:
 * "--leave-running", "--images-dir=/tmp/x". NULL in *ret: the line is empty.
 */
static int config_argument(char *line, char **ret)
{
	*ret = NULL;
	char *comment = strchr(line, '#');
	if (comment)
		*comment = 0;
	line = trim(line);
	line += strspn(line, "-");
	if (!*line)
		return 0;

	size_t name_len = strcspn(line, " \t=");
	char *value = line + name_len;
	if (*value) {
		*value++ = 0;
		value = trim(value);
		if (*value == '=')
			value = trim(value + 1);
		size_t n = strlen(value);
		if (n >= 2 && (*value == '"' || *value == '\'') && value[n - 1] == *value) {
			value[n - 1] = 0;
			value++;
		}
	}
	if (asprintf(ret, "%s%s%s%s", name_len == 1 ? "-" : "--", line,
		     *value && name_len > 1 ? "=" : "", value) < 0)
		return fail(-ENOMEM, "configuration");
	return 0;
}

/* Splits a configuration into arguments and parses them; values stay valid until options_deinit(). */
static int parse_config(struct options *o, const char *path, bool must_exist, const char *verb)
{
	_cleanup_free_ char *text = NULL;
	VEC(char *) argv = { 0 };
	char *save = NULL;
	int err = read_text(path, must_exist, &text);

	if (err)
		return err;
	if (VEC_PUSH(&argv, (char *)verb))
		return fail(-ENOMEM, "configuration %s", path);
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *arg;

		err = config_argument(line, &arg);
		if (err)
			goto out;
		if (!arg)
			continue;
		if (VEC_PUSH(&o->configs, arg)) {
			free(arg);
			err = fail(-ENOMEM, "configuration %s", path);
			goto out;
		}
		if (VEC_PUSH(&argv, arg)) {
			err = fail(-ENOMEM, "configuration %s", path);
			goto out;
		}
	}
	if (VEC_PUSH(&argv, NULL)) {
		err = fail(-ENOMEM, "configuration %s", path);
		goto out;
	}
	err = parse(o, PASS_CONFIG_FILE, NULL, argv.nr - 1, argv.v);
	if (!err && optind < (int)argv.nr - 1)
		err = fail(0, "'%s' is not an option", argv.v[optind]);
	if (err)
		fail(err, "configuration %s was not read", path);
out:
	VEC_FREE(&argv);
	return err;
}

static int parse_configs(struct options *o, const struct config_choice *config, const char *verb)
{
	int err = 0;

	if (!config->no_default) {
		const char *home = getenv("HOME");
		char user[PATH_MAX] = "";

		err = parse_config(o, "/etc/criu/default.conf", false, verb);
		if (!err && home && snprintf(user, sizeof(user), "%s/.criu/default.conf", home) <
					    (int)sizeof(user))
			err = parse_config(o, user, false, verb);
	}
	if (!err && config->file)
		err = parse_config(o, config->file, true, verb);
	return err;
}

int options_parse(enum verb verb, int argc, char **argv, struct options *ret)
{
	struct options o = {
		.verb = verb,
		.images_dir = ".",
		.verbosity = VERBOSITY_DEFAULT,
		.timeout_s = 10,
		.ghost_limit_bytes = 1 << 20,
		.status_fd = -1,
		.mib = 256,
		.threads = 4,
		.write_mb = 100,
		.rounds = 5,
	};
	struct config_choice config = { 0 };

	/* The first pass permutes argv (values stay behind their options), so it is done on the real one. */
	int err = parse(&o, PASS_CONFIG_OPTIONS, &config, argc, argv);
	if (!err)
		err = parse_configs(&o, &config, argv[0]);
	if (!err)
		err = parse(&o, PASS_COMMAND_LINE, NULL, argc, argv);
	if (err) {
		options_deinit(&o);
		return err;
	}
	o.rest = argv + optind;
	*ret = o;
	return 0;
}

void options_deinit(struct options *o)
{
	for (size_t i = 0; i < o->configs.nr; i++)
		free(o->configs.v[i]);
	VEC_FREE(&o->configs);
	for (size_t i = 0; i < o->refused.nr; i++)
		free(o->refused.v[i]);
	VEC_FREE(&o->refused);
}

static void usage_line(const struct option_desc *d, FILE *out)
{
	char left[80];
	char letter[8] = "    ";

	if (d->letter)
		snprintf(letter, sizeof(letter), "-%c, ", d->letter);
	snprintf(left, sizeof(left), "%s--%s%s%s%s", letter, d->name,
		 d->arg == ARG_REQUIRED ? " " :
		 d->arg == ARG_OPTIONAL ? "[=" :
					  "",
		 d->placeholder ? d->placeholder : "", d->arg == ARG_OPTIONAL ? "]" : "");
	if (strlen(left) > 28)
		fprintf(out, "  %s\n  %28s  %s\n", left, "", d->help);
	else
		fprintf(out, "  %-28s  %s\n", left, d->help);
}

static void usage_part(enum verb verb, bool not_yet, FILE *out)
{
	for (size_t i = 0; i < NR_OPTIONS; i++)
		if (table[i].verbs & verb && !table[i].hidden &&
		    (table[i].effect == OPTION_NOT_YET) == not_yet)
			usage_line(&table[i], out);
}

void options_usage(enum verb verb, const char *name, FILE *out)
{
	fprintf(out, "Usage: bcr %s [OPTIONS]\n\nOptions (flags have a --no- form):\n", name);
	usage_part(verb, false, out);
	if (verb & DR) {
		fprintf(out, "\nKnown, but not supported yet:\n");
		usage_part(verb, true, out);
	}
}
