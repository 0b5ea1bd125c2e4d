/* Options: every form a driver uses, the order of configuration files, what is refused; man page and completion are whole. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "cmd/options.h"

static int failures;

#define CHECK(cond)                                                                                \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			printf("line %d: %s\n", __LINE__, #cond);                                  \
			failures++;                                                                \
		}                                                                                  \
	} while (0)

/* Parses the words of `line`; the words stay valid until the next call. */
static int parse(enum verb verb, const char *line, struct options *ret)
{
	static char text[1024];
	static char *argv[32];
	int argc = 0;
	char *save = NULL;

	snprintf(text, sizeof(text), "%s", line);
	for (char *w = strtok_r(text, " ", &save); w; w = strtok_r(NULL, " ", &save))
		argv[argc++] = w;
	argv[argc] = NULL;
	memset(ret, 0, sizeof(*ret));
	return options_parse(verb, argc, argv, ret);
}

static void test_forms(void)
{
	struct options o;

	CHECK(!parse(VERB_DUMP, "dump -t 12 -D /x -o d.log -j -R", &o));
	CHECK(o.tree == 12 && !strcmp(o.images_dir, "/x") && !strcmp(o.log_file, "d.log"));
	CHECK(o.shell_job && o.leave_running && !o.leave_stopped);
	CHECK(o.timeout_s == 10 && o.ghost_limit_bytes == 1 << 20 && o.status_fd == -1);
	options_deinit(&o);

	CHECK(!parse(VERB_DUMP, "dump --tree=12 --images-dir /x --shell-job --no-shell-job", &o));
	CHECK(o.tree == 12 && !strcmp(o.images_dir, "/x") && !o.shell_job);
	options_deinit(&o);

	CHECK(!parse(VERB_DUMP, "dump -t12 -jR --ghost-limit 3M --timeout 7 --freezer cgroup", &o));
	CHECK(o.tree == 12 && o.shell_job && o.leave_running && o.ghost_limit_bytes == 3 << 20);
	CHECK(o.timeout_s == 7 && !strcmp(o.freezer, "cgroup"));
	options_deinit(&o);

	CHECK(!parse(VERB_BENCH, "bench -t 12 --rounds 3 --track none", &o));
	CHECK(o.tree == 12 && o.rounds == 3 && o.mib && o.threads && !strcmp(o.track, "none"));
	options_deinit(&o);

	CHECK(!parse(VERB_RESTORE, "restore -d --exec-cmd -v4 -- cmd -a --tree", &o));
	CHECK(o.detached && o.exec_cmd && o.verbosity == 4);
	CHECK(o.rest[0] && !strcmp(o.rest[0], "cmd") && !strcmp(o.rest[1], "-a"));
	CHECK(!strcmp(o.rest[2], "--tree") && !o.rest[3]);
	options_deinit(&o);
}

static void test_verbosity(void)
{
	static const struct {
		const char *line;
		int level;
	} cases[] = {
		{ "dump", 2 },		     { "dump -v", 3 },
		{ "dump -vv", 4 },	     { "dump -v -v", 4 },
		{ "dump -vvvvvvv", 5 },	     { "dump -v4", 4 },
		{ "dump -v0", 0 },	     { "dump --verbosity=1", 1 },
		{ "dump -verbosity=0", 0 },  { "dump --verbosity", 3 },
		{ "dump -v4 -D /x -v1", 1 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct options o;

		if (parse(VERB_DUMP, cases[i].line, &o) || o.verbosity != cases[i].level) {
			printf("'%s': verbosity %d, expected %d\n", cases[i].line, o.verbosity,
			       cases[i].level);
			failures++;
		}
		options_deinit(&o);
	}
}

static void test_bad(void)
{
	static const char *const lines[] = {
		"dump --foo", "dump -t", "dump -t x", "dump -t -5", "dump -t 1x", "dump --tree",
		"dump -t 99999999999", "dump --freezer v1", "dump --ghost-limit 1Q",
		"dump --ghost-limit 99999999999G", "dump --ghost-limit", "dump --shell-job=yes",
		"dump -vx", "dump --pre-dump-mode fast", "dump --no-tree", "dump -Z",
		"dump --config /nonexistent/file", "dump --timeout -1",
	};

	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		struct options o;

		if (!parse(VERB_DUMP, lines[i], &o)) {
			printf("'%s' was accepted\n", lines[i]);
			options_deinit(&o);
			failures++;
		}
	}
}

static void test_not_yet(void)
{
	struct options o;

	CHECK(!parse(VERB_DUMP, "dump --tcp-close --external a[b]:c --manage-cgroups=none", &o));
	CHECK(o.refused.nr == 2 && !strcmp(o.refused.v[0], "--tcp-close"));
	CHECK(o.refused.nr == 2 && !strcmp(o.refused.v[1], "--external=a[b]:c"));
	options_deinit(&o);
	CHECK(!parse(VERB_DUMP, "dump --no-tcp-close --libdir /x --pre-dump-mode splice", &o));
	CHECK(o.refused.nr == 0);
	options_deinit(&o);
	/* An option of another verb means nothing here, whatever it is. */
	CHECK(!parse(VERB_RESTORE, "restore -t 5 --prev-images-dir x", &o));
	CHECK(o.refused.nr == 0 && !o.tree);
	options_deinit(&o);
}

static void write_file(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	if (!f || fputs(text, f) < 0 || fclose(f)) {
		perror(path);
		exit(1);
	}
}

static void test_config(void)
{
	struct options o;
	char dir[] = "/tmp/bcr-options.XXXXXX";
	char path[128], line[512];

	if (!mkdtemp(dir)) {
		perror(dir);
		exit(1);
	}
	setenv("HOME", dir, 1);
	snprintf(path, sizeof(path), "%s/.criu", dir);
	mkdir(path, 0700);
	snprintf(path, sizeof(path), "%s/.criu/default.conf", dir);
	write_file(path, "# comment\n\nshell-job\nimages-dir /from/default # why\ntimeout = 3\n"
			 "restore-detached\n");
	CHECK(!parse(VERB_DUMP, "dump -t 1", &o));
	CHECK(o.shell_job && !strcmp(o.images_dir, "/from/default") && o.timeout_s == 3);
	options_deinit(&o);
	CHECK(!parse(VERB_DUMP, "dump --no-default-config -t 1", &o));
	CHECK(!o.shell_job && !strcmp(o.images_dir, ".") && o.timeout_s == 10);
	options_deinit(&o);

	snprintf(path, sizeof(path), "%s/own.conf", dir);
	write_file(path, "no-shell-job\n--timeout=4\nlog-file \"a b.log\"\nv4\n");
	snprintf(line, sizeof(line), "dump --config %s -t 1 --timeout 5", path);
	CHECK(parse(VERB_DUMP, line, &o)); /* "v4" is no long option */
	write_file(path, "no-shell-job\n--timeout=4\nlog-file \"a b.log\"\nv 4\n");
	CHECK(!parse(VERB_DUMP, line, &o));
	CHECK(!o.shell_job && o.timeout_s == 5 && !strcmp(o.log_file, "a b.log"));
	CHECK(!strcmp(o.images_dir, "/from/default") && o.verbosity == 4);
	options_deinit(&o);
	write_file(path, "no-such-option\n");
	CHECK(parse(VERB_DUMP, line, &o));
	write_file(path, "shell-job\nstray\n");
	CHECK(parse(VERB_DUMP, line, &o));

	unlink(path);
	snprintf(path, sizeof(path), "%s/.criu/default.conf", dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/.criu", dir);
	rmdir(path);
	rmdir(dir);
}

static char *read_source(const char *name)
{
	const char *src = getenv("SRC");
	char path[4096];
	static char text[2][1 << 18];
	static int next;
	char *buf = text[next++ % 2];

	snprintf(path, sizeof(path), "%s/%s", src ? src : ".", name);
	FILE *f = fopen(path, "r");
	size_t len = f ? fread(buf, 1, sizeof(text[0]) - 1, f) : 0;
	if (f)
		fclose(f);
	if (!len) {
		printf("cannot read %s\n", path);
		failures++;
	}
	buf[len] = 0;
	return buf;
}

/* "tcp-close" as the man page writes it: "\-\-tcp\-close". */
static bool man_page_has(const char *page, const char *name)
{
	char text[128] = "\\-\\-";
	char *p = text + strlen(text);

	for (; *name; name++) {
		if (*name == '-')
			*p++ = '\\';
		*p++ = *name;
	}
	*p = 0;
	for (const char *at = page; (at = strstr(at, text)); at++) {
		char after = at[strlen(text)];

		/* Not the beginning of a longer name. */
		if (after != '\\' && (after < 'a' || after > 'z'))
			return true;
		if (after == '\\' && at[strlen(text) + 1] == 'f')
			return true;
	}
	return false;
}

static void test_documents(void)
{
	const char *page = read_source("docs/bcr.8");
	const struct option_desc *d;

	for (size_t i = 0; (d = option_at(i)); i++) {
		if (!d->help || !*d->help || !d->verbs) {
			printf("--%s has no help text or no verb\n", d->name);
			failures++;
		}
		if (!d->hidden && !man_page_has(page, d->name)) {
			printf("--%s is missing in docs/bcr.8\n", d->name);
			failures++;
		}
		for (size_t k = 0; k < i; k++) {
			if (!strcmp(option_at(k)->name, d->name) ||
			    (d->letter && option_at(k)->letter == d->letter)) {
				printf("--%s is in the table twice\n", d->name);
				failures++;
			}
		}
	}
	/* The completion asks `bcr VERB --help`, so it only has to do that. */
	CHECK(strstr(read_source("tools/bcr.bash-completion"), "--help"));
}

static void test_usage(void)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);
	const struct option_desc *d;

	options_usage(VERB_DUMP, "dump", out);
	fclose(out);
	for (size_t i = 0; (d = option_at(i)); i++) {
		char name[80];

		snprintf(name, sizeof(name), "--%s", d->name);
		if (d->verbs & VERB_DUMP && !d->hidden && !strstr(text, name)) {
			printf("%s is missing in the usage text\n", name);
			failures++;
		}
	}
	free(text);
}

int main(void)
{
	setenv("HOME", "/nonexistent", 1);
	test_forms();
	test_verbosity();
	test_bad();
	test_not_yet();
	test_config();
	test_usage();
	test_documents();
	if (failures)
		return 1;
	puts("PASS");
	return 0;
}
