/* The table of commands. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "cmd/cmd.h"

struct command {
	const char *name;
	int (*run)(int argc, char **argv); /* NULL: not built yet */
	const char *help;
};

static const struct command commands[] = {
	{ "dump", cmd_dump, "checkpoint a process tree into an image set" },
	{ "pre-dump", cmd_pre_dump, "copy memory before a dump, so that the dump has less to copy" },
	{ "restore", cmd_restore, "bring a process tree back from an image set" },
	{ "show", cmd_show, "print what is in an image set" },
	{ "check", cmd_check, "say what this machine can do for bcr" },
	{ "exec", cmd_exec, "run one system call in another task" },
	{ "bench", cmd_bench, "compare the back ends by what a snapshot costs" },
	{ "page-server", NULL, "receive pages over the network" },
	{ "lazy-pages", NULL, "serve memory on demand" },
	{ "service", NULL, "answer requests on a socket" },
	{ "swrk", NULL, "answer requests on a descriptor" },
	{ "dedup", NULL, "remove duplicate pages from incremental sets" },
	{ "cpuinfo", NULL, "write or compare processor features" },
	{ "plan", NULL, "say what a dump would do" },
	{ "attach", NULL, "arm a target for quick dumps" },
	{ "watch", NULL, "dump an armed target again and again" },
	{ "log", NULL, "list the dumps of a watched target" },
	{ "core", NULL, "write a core file out of an image set" },
};

enum { NR_COMMANDS = sizeof(commands) / sizeof(commands[0]) };

static void usage(FILE *out)
{
	fprintf(out, "Usage: bcr VERB [OPTIONS]     (bcr VERB --help lists the options)\n\n");
	for (size_t i = 0; i < NR_COMMANDS; i++)
		if (commands[i].run)
			fprintf(out, "  %-12s  %s\n", commands[i].name, commands[i].help);
	fprintf(out, "\nNot supported yet:");
	for (size_t i = 0; i < NR_COMMANDS; i++)
		if (!commands[i].run)
			fprintf(out, " %s", commands[i].name);
	fprintf(out, "\n\n  -h, --help     print this text\n  -V, --version  print the version\n");
}

static bool is_one_of(const char *arg, const char *letter, const char *name)
{
	return !strcmp(arg, letter) || !strcmp(arg, name);
}

static const struct command *find_command(const char *name)
{
	for (size_t i = 0; i < NR_COMMANDS; i++)
		if (!strcmp(commands[i].name, name))
			return &commands[i];
	return NULL;
}

static int run_command(int argc, char **argv)
{
	const struct command *c = find_command(argv[0]);

	if (!c) {
		log_error(argv[0][0] == '-' ? "%s: the verb comes first; see bcr --help" :
					      "%s: no such verb; see bcr --help",
			  argv[0]);
		return 1;
	}
	if (!c->run) {
		log_error("%s: not supported yet", c->name);
		return 1;
	}
	return c->run(argc, argv);
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		usage(stderr);
		return 1;
	}
	if (is_one_of(argv[1], "-V", "--version")) {
		printf("Version: %s\n", BCR_VERSION);
		return 0;
	}
	if (is_one_of(argv[1], "-h", "--help")) {
		usage(stdout);
		return 0;
	}
	return run_command(argc - 1, argv + 1);
}
