/* Waits for an event, so that no test has to sleep: `await [-t SECONDS] exit PID` and others, see usage(). */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static void usage(void)
{
	fputs("await [-t SECONDS] exit PID           until the process is gone and reaped\n"
	      "await [-t SECONDS] file PATH          until the file is there and not empty\n"
	      "await [-t SECONDS] number PATH N      until the number in the file is N or more\n"
	      "await [-t SECONDS] field PATH K N     until the K-th number in the file, from 1, is N or more\n"
	      "await [-t SECONDS] text PATH STRING   until the file holds the string\n"
	      "await [-t SECONDS] size PATH BYTES    until the file is that large\n"
	      "await [-t SECONDS] entries DIR SUFFIX N  until N names in the directory end so\n"
	      "await [-t SECONDS] state PID LETTERS  until every thread is in one of the states\n"
	      "Exit status 0: so it is; 1: not within the time (30 s).\n", stderr);
	exit(2);
}

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

static double deadline_s;

/* Milliseconds until the deadline, at most `cap`; 0 when it has passed. */
static int left_ms(int cap)
{
	double left = (deadline_s - now_s()) * 1e3;

	return left <= 0 ? 0 : left < cap ? (int)left + 1 : cap;
}

static bool await_exit(pid_t pid)
{
	int fd = syscall(SYS_pidfd_open, pid, 0);
	struct pollfd p = { .fd = fd, .events = POLLIN };

	if (fd >= 0)
		poll(&p, 1, left_ms(INT_MAX));
	/* Not every kernel tells when a zombie has been reaped, and its parent is about to: look again shortly. */
	while (kill(pid, 0) == 0 || errno != ESRCH) {
		int ms = left_ms(2);

		if (!ms)
			return false;
		poll(NULL, 0, ms);
	}
	return true;
}

/* The k-th word, from 1. */
static const char *word_at(const char *text, int k)
{
	for (; k > 1 && text; k--) {
		text = strchr(text, ' ');
		text += text != NULL;
	}
	return text;
}

static bool file_has(const char *path, const char *what, char **args)
{
	const char *arg = args[0];
	static char buf[1 << 20];
	FILE *f = fopen(path, "re");

	if (!f)
		return false;
	size_t len = fread(buf, 1, sizeof(buf) - 1, f);
	fclose(f);
	buf[len] = 0;
	if (!strcmp(what, "file"))
		return len > 0;
	if (!strcmp(what, "number"))
		return isdigit((unsigned char)buf[0]) && strtoll(buf, NULL, 10) >= strtoll(arg, NULL, 10);
	if (!strcmp(what, "field")) {
		const char *word = word_at(buf, atoi(args[0]));

		return word && isdigit((unsigned char)*word) && strtoll(word, NULL, 10) >= strtoll(args[1], NULL, 10);
	}
	return memmem(buf, len, arg, strlen(arg)) != NULL;
}

static bool directory_has(const char *path, const char *suffix, int wanted)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	int nr = 0;

	while (dir && (entry = readdir(dir))) {
		size_t len = strlen(entry->d_name), end = strlen(suffix);

		/* Every name ends with an empty suffix; the directory itself and the one above are nothing that came. */
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			nr += len >= end && !strcmp(entry->d_name + len - end, suffix);
	}
	if (dir)
		closedir(dir);
	return nr >= wanted;
}

/* args: PATH, and what is wanted of it */
static bool is_so(const char *what, char **args)
{
	struct stat st;

	if (!strcmp(what, "entries"))
		return directory_has(args[0], args[1], atoi(args[2]));
	if (!strcmp(what, "size"))
		return stat(args[0], &st) == 0 && st.st_size >= atoll(args[1]);
	return file_has(args[0], what, args + 1);
}

static bool await_file(const char *what, char **args)
{
	char dir[PATH_MAX], events[4096];
	int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	struct pollfd p = { .fd = fd, .events = POLLIN };

	snprintf(dir, sizeof(dir), "%s", args[0]);
	if (strcmp(what, "entries")) {
		char *slash = strrchr(dir, '/');

		strcpy(slash ? slash : dir, slash ? "" : ".");
	}
	if (inotify_add_watch(fd, dir, IN_CREATE | IN_MODIFY | IN_MOVED_TO | IN_CLOSE_WRITE) < 0) {
		perror(dir);
		return false;
	}
	while (!is_so(what, args)) {
		if (!left_ms(INT_MAX))
			return false;
		/* Stores through a mapping tell nobody: look every 10 ms as well. */
		if (poll(&p, 1, left_ms(10)) > 0 && read(fd, events, sizeof(events)) < 0 && errno != EAGAIN)
			return false;
	}
	return true;
}

/* Is the first character after "State:" of every thread among the letters? */
static bool in_state(const char *pid, const char *letters)
{
	char cmd[256];

	for (const char *c = pid; *c; c++)
		if (!isdigit((unsigned char)*c))
			usage();
	snprintf(cmd, sizeof(cmd), "cat /proc/%s/task/*/status 2>/dev/null | grep '^State:'", pid);
	FILE *f = popen(cmd, "re");
	char line[256];
	bool seen = false, all = true;

	while (f && fgets(line, sizeof(line), f)) {
		seen = true;
		all &= strchr(letters, line[7]) != NULL;
	}
	if (f)
		pclose(f);
	return seen && all;
}

static bool await_state(const char *pid, const char *letters)
{
	while (!in_state(pid, letters)) {
		int ms = left_ms(5);

		if (!ms)
			return false;
		poll(NULL, 0, ms);
	}
	return true;
}

int main(int argc, char **argv)
{
	deadline_s = now_s() + 30;
	if (argc > 2 && !strcmp(argv[1], "-t")) {
		deadline_s = now_s() + atof(argv[2]);
		argc -= 2;
		argv += 2;
	}
	if (argc == 3 && !strcmp(argv[1], "exit"))
		return !await_exit(atoi(argv[2]));
	if ((argc == 3 && !strcmp(argv[1], "file")) ||
	    (argc == 4 && (!strcmp(argv[1], "number") || !strcmp(argv[1], "text") || !strcmp(argv[1], "size"))) ||
	    (argc == 5 && (!strcmp(argv[1], "entries") || !strcmp(argv[1], "field"))))
		return !await_file(argv[1], argv + 2);
	if (argc == 4 && !strcmp(argv[1], "state"))
		return !await_state(argv[2], argv[3]);
	usage();
}
