/* bcr exec: one system call in another task. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "capture/remote.h"
#include "cmd/cmd.h"
#include "freeze/freeze.h"

enum { MAX_ARGS = 6, MAX_STRINGS_BYTES = 1 << 20 };

static const struct syscall_name {
	const char *name;
	long nr;
} syscall_names[] = {
#include "syscalls.h"
};

struct exec_request {
	pid_t pid;
	unsigned timeout_s;
	const char *name;
	long nr;
	size_t nr_args;
	uint64_t args[MAX_ARGS];
	/* Strings are put one behind the other into memory of the target: where each begins, or -1 for a number. */
	long string_at[MAX_ARGS];
	VEC(char) strings;
};

static void exec_usage(FILE *out)
{
	fprintf(out, "Usage: bcr exec -t PID [--timeout S] SYSCALL [ARGUMENT...]\n\n"
		     "Stops the tree of PID, makes its main thread execute one system call, and lets everything go on.\n"
		     "Prints the result, or the name of the error.\n\n"
		     "  SYSCALL    a name (getpid, prctl) or a number\n"
		     "  ARGUMENT   a number (decimal, 0x hexadecimal, 0 octal), or a string, which is copied into the\n"
		     "             target and passed by address; str:TEXT is a string even if TEXT is a number\n\n"
		     "  -t, --tree PID       the process\n"
		     "      --timeout S      give up after S seconds (10)\n"
		     "  -h, --help           print this text\n");
}

/* A whole word as a number; negative ones as two's complement. */
static bool parse_number(const char *word, uint64_t *ret)
{
	char *end;

	errno = 0;
	*ret = word[0] == '-' ? (uint64_t)strtoll(word, &end, 0) : strtoull(word, &end, 0);
	return word[0] && !*end && !errno && word[0] != ' ' && word[0] != '\t';
}

static int find_syscall(struct exec_request *req, const char *word)
{
	uint64_t nr;

	req->name = word;
	for (size_t i = 0; i < sizeof(syscall_names) / sizeof(syscall_names[0]); i++)
		if (strcmp(syscall_names[i].name, word) == 0) {
			req->nr = syscall_names[i].nr;
			return 0;
		}
	if (!parse_number(word, &nr) || nr > 0xffff)
		return fail(0, "exec: there is no system call \"%s\"", word);
	req->nr = (long)nr;
	return 0;
}

/* Calls after which the thread is another one, or none, have no registers to be given back. */
static int refuse_own_life(const struct exec_request *req)
{
	static const long refused[] = {
		SYS_fork, SYS_vfork,  SYS_clone,      SYS_clone3,       SYS_execve,
		SYS_exit, SYS_execveat, SYS_exit_group, SYS_rt_sigreturn, SYS_restart_syscall,
	};

	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
		if (req->nr == refused[i])
			return unsupported("exec: %s makes, ends or replaces the thread that would have to go on afterwards",
					   req->name);
	return 0;
}

static int add_string(struct exec_request *req, size_t arg, const char *text)
{
	size_t len_bytes = strlen(text) + 1;

	if (req->strings.nr + len_bytes > MAX_STRINGS_BYTES)
		return fail(-E2BIG, "exec: argument %zu", arg + 1);
	if (VEC_RESERVE(&req->strings, req->strings.nr + len_bytes))
		return fail(-ENOMEM, "exec: argument %zu", arg + 1);
	req->string_at[arg] = (long)req->strings.nr;
	memcpy(req->strings.v + req->strings.nr, text, len_bytes);
	req->strings.nr += len_bytes;
	return 0;
}

static int parse_args(struct exec_request *req, char **words)
{
	for (; words[req->nr_args]; req->nr_args++) {
		size_t i = req->nr_args;
		const char *word = words[i];

		if (i == MAX_ARGS)
			return fail(0, "exec: a system call has at most %d arguments", MAX_ARGS);
		req->string_at[i] = -1;
		if (strncmp(word, "str:", 4) != 0 && parse_number(word, &req->args[i]))
			continue;
		int err = add_string(req, i, strncmp(word, "str:", 4) == 0 ? word + 4 : word);
		if (err)
			return err;
	}
	return 0;
}

static int parse_positive(const char *option, const char *word, uint64_t max, uint64_t *ret)
{
	if (word[0] == '-' || !parse_number(word, ret) || !*ret || *ret > max)
		return fail(0, "exec: %s %s: not a positive number", option, word);
	return 0;
}

/* Returns 0, a reported negative errno, or 1 when usage has been printed as wanted. */
static int parse_command_line(int argc, char **argv, struct exec_request *req)
{
	static const struct option longs[] = {
		{ "tree", required_argument, NULL, 't' },
		{ "timeout", required_argument, NULL, 'T' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	uint64_t number;
	int code, err = 0;

	req->timeout_s = 10;
	optind = 0;
	while (!err && (code = getopt_long(argc, argv, "+t:h", longs, NULL)) != -1) {
		switch (code) {
		case 't':
			err = parse_positive("-t", optarg, INT32_MAX, &number);
			req->pid = (pid_t)number;
			break;
		case 'T':
			err = parse_positive("--timeout", optarg, 86400, &number);
			req->timeout_s = (unsigned)number;
			break;
		case 'h':
			exec_usage(stdout);
			return 1;
		default:
			return -EINVAL; /* getopt has said why */
		}
	}
	if (err)
		return err;
	if (!req->pid)
		return fail(0, "exec: -t PID is missing; see --help");
	if (!argv[optind])
		return fail(0, "exec: the system call is missing; see --help");
	err = find_syscall(req, argv[optind]);
	if (!err)
		err = refuse_own_life(req);
	return err ? err : parse_args(req, argv + optind + 1);
}

/* Puts the strings into the target and their addresses into the arguments. */
static int place_strings(struct remote *r, struct exec_request *req, taddr_t *ret_scratch)
{
	if (!req->strings.nr)
		return 0;
	int err = remote_map(r, req->strings.nr, ret_scratch);
	if (!err)
		err = remote_write(req->pid, *ret_scratch, req->strings.v, req->strings.nr);
	for (size_t i = 0; !err && i < req->nr_args; i++)
		if (req->string_at[i] >= 0)
			req->args[i] = *ret_scratch + (taddr_t)req->string_at[i];
	return err;
}

static int call_in_target(struct exec_request *req, int64_t *ret)
{
	struct remote r;
	taddr_t scratch = 0;
	struct way_back_code code;

	way_back_find(req->pid, &code);
	int err = remote_begin(&r, req->pid, req->pid, &code);

	if (err)
		return err;
	r.timeout_ms = req->timeout_s * 1000;
	err = place_strings(&r, req, &scratch);
	if (!err)
		err = remote_syscall(&r, req->nr, req->args, ret);
	if (scratch) {
		int err_unmap = remote_unmap(&r, scratch, req->strings.nr);
		err = err ? err : err_unmap;
	}
	int err_end = remote_end(&r);
	return err ? err : err_end;
}

/* A signal from the terminal must not end bcr while the thread has foreign registers. */
static void hold_signals(void)
{
	sigset_t set;

	sigfillset(&set);
	sigprocmask(SIG_BLOCK, &set, NULL);
}

static int run_request(struct exec_request *req, int64_t *ret)
{
	struct freeze *f = NULL;
	int err = freeze_create("ptrace", req->pid, req->timeout_s, &f);

	if (err)
		return err;
	hold_signals();
	err = freeze_stop(f);
	if (!err)
		err = call_in_target(req, ret);
	freeze_destroy(f);
	return err;
}

static int print_result(const struct exec_request *req, int64_t result)
{
	if (result < 0 && result > -4096) {
		const char *name = strerrorname_np((int)-result);

		printf("%s = -1 %s (%s)\n", req->name, name ? name : "?", strerror((int)-result));
		return 1;
	}
	if (result > 0xffffffffll || result < 0)
		printf("%s = %#llx\n", req->name, (unsigned long long)result);
	else
		printf("%s = %lld\n", req->name, (long long)result);
	return 0;
}

int cmd_exec(int argc, char **argv)
{
	struct exec_request req = { 0 };
	int64_t result = 0;
	int err = parse_command_line(argc, argv, &req);

	if (!err)
		err = run_request(&req, &result);
	VEC_FREE(&req.strings);
	if (err)
		return err < 0 ? 1 : 0;
	int code = print_result(&req, result);
	return fflush(stdout) ? 1 : code;
}
