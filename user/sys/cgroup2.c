/* Where the version 2 control group of a process is. */
#include "sys/cgroup2.h"

#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"

/* Undoes the \ooo of /proc/PID/mountinfo. */
static void unescape(char *s)
{
	char *out = s;

	while (*s) {
		unsigned c;

		if (s[0] == '\\' && sscanf(s + 1, "%3o", &c) == 1) {
			*out++ = (char)c;
			s += 4;
		} else {
			*out++ = *s++;
		}
	}
	*out = 0;
}

bool cgroup2_name(pid_t pid, char *name, size_t len)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/cgroup", pid);
	_cleanup_fclose_ FILE *in = fopen(path, "re");
	_cleanup_free_ char *line = NULL;
	size_t room = 0;

	while (in && getline(&line, &room, in) > 0) {
		if (strncmp(line, "0::", 3) != 0)
			continue;
		line[strcspn(line, "\n")] = 0;
		return (size_t)snprintf(name, len, "%s", line + 3) < len;
	}
	return false;
}

/* A mount may show all of the hierarchy or a part of it. */
bool cgroup2_dir(const char *name, char *path, size_t len)
{
	_cleanup_fclose_ FILE *in = fopen("/proc/self/mountinfo", "re");
	_cleanup_free_ char *line = NULL;
	size_t room = 0;

	while (in && getline(&line, &room, in) > 0) {
		_cleanup_free_ char *root = NULL, *point = NULL;
		const char *fs = strstr(line, " - ");

		if (!fs || strncmp(fs, " - cgroup2 ", 11) != 0 ||
		    sscanf(line, "%*d %*d %*s %ms %ms", &root, &point) != 2)
			continue;
		unescape(root);
		unescape(point);
		size_t len_root = strcmp(root, "/") == 0 ? 0 : strlen(root);
		if (strncmp(name, root, len_root) == 0 && (name[len_root] == '/' || !name[len_root]))
			return (size_t)snprintf(path, len, "%s%s", point, name + len_root) < len;
	}
	return false;
}
