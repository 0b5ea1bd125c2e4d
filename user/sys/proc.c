/* Small readers of /proc. */
#include "sys/proc.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"

int proc_open(pid_t pid, int *ret)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/%d", pid);
	*ret = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return *ret < 0 ? -errno : 0;
}

int proc_read(int dirfd, const char *name, char **ret, size_t *ret_len)
{
	_cleanup_close_ int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC);
	_cleanup_free_ char *text = NULL;
	size_t len = 0, cap = 0;

	if (fd < 0)
		return -errno;
	for (;;) {
		if (cap - len < 4096) {
			cap = cap ? cap * 2 : 8192;
			char *grown = realloc(text, cap);
			if (!grown)
				return -ENOMEM;
			text = grown;
		}
		ssize_t n = read(fd, text + len, cap - len - 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			break;
		len += n;
	}
	text[len] = 0;
	*ret = take_ptr(text);
	if (ret_len)
		*ret_len = len;
	return 0;
}

int proc_readlink(int dirfd, const char *name, char **ret)
{
	char buf[PATH_MAX + 16];
	ssize_t n = readlinkat(dirfd, name, buf, sizeof(buf) - 1);

	if (n < 0)
		return -errno;
	buf[n] = 0;
	*ret = strdup(buf);
	return *ret ? 0 : -ENOMEM;
}

static int compare_ints(const void *a, const void *b)
{
	const int *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

int proc_list(int dirfd, const char *name, proc_numbers *ret)
{
	_cleanup_close_ int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	_cleanup_closedir_ DIR *dir = fdopendir(fd);
	if (!dir)
		return -errno;
	take_fd(&fd);
	for (;;) {
		errno = 0;
		const struct dirent *e = readdir(dir);
		if (!e)
			break;
		if (!isdigit((unsigned char)e->d_name[0]))
			continue;
		int err = VEC_PUSH(ret, atoi(e->d_name));
		if (err)
			return err;
	}
	if (errno)
		return -errno;
	if (ret->nr)
		qsort(ret->v, ret->nr, sizeof(int), compare_ints);
	return 0;
}

const char *proc_field(const char *text, const char *key)
{
	size_t len = strlen(key);

	while (text && *text) {
		if (!strncmp(text, key, len) && text[len] == ':') {
			text += len + 1;
			return text + strspn(text, " \t");
		}
		text = strchr(text, '\n');
		if (text)
			text++;
	}
	return NULL;
}

uint64_t proc_field_u64(const char *text, const char *key, int base, uint64_t missing)
{
	const char *value = proc_field(text, key);

	return value ? strtoull(value, NULL, base) : missing;
}

int proc_read_u64(int dirfd, const char *name, int base, uint64_t *ret)
{
	_cleanup_free_ char *text = NULL;
	int err = proc_read(dirfd, name, &text, NULL);

	if (err)
		return err;
	char *end;
	*ret = strtoull(text, &end, base);
	return end == text ? -EPROTO : 0;
}

int proc_read_stat(int dirfd, const char *name, struct proc_stat *ret)
{
	_cleanup_free_ char *text = NULL;
	int err = proc_read(dirfd, name, &text, NULL);

	if (err)
		return err;
	memset(ret, 0, sizeof(*ret));
	/* The name in parentheses may itself contain parentheses and blanks; nothing behind it does. */
	char *open = strchr(text, '('), *close = strrchr(text, ')');
	if (!open || !close || close < open || close[1] != ' ' || !close[2])
		return -EPROTO;
	*close = 0;
	snprintf(ret->comm, sizeof(ret->comm), "%s", open + 1);
	ret->field[1] = strtoull(text, NULL, 10);
	ret->state = close[2];
	const char *p = close + 3;
	for (int i = 4; i <= PROC_STAT_FIELDS; i++) {
		char *end;

		ret->field[i] = strtoull(p, &end, 10);
		if (end == p)
			return -EPROTO;
		p = end;
	}
	return 0;
}

uint32_t proc_dev(uint64_t st_dev)
{
	return major(st_dev) << 20 | minor(st_dev);
}

static bool has_exited(int dirfd, const char *name)
{
	struct proc_stat stat;

	return !proc_read_stat(dirfd, name, &stat) && (stat.state == 'Z' || stat.state == 'X');
}

pid_t proc_living(pid_t pid)
{
	_cleanup_close_ int dir = -1;
	proc_numbers tids = {};
	pid_t ret = pid;

	if (proc_open(pid, &dir) || !has_exited(dir, "stat") || proc_list(dir, "task", &tids))
		return pid;
	for (size_t i = 0; i < tids.nr && ret == pid; i++) {
		char name[48];

		snprintf(name, sizeof(name), "task/%d/stat", tids.v[i]);
		if (tids.v[i] != pid && !has_exited(dir, name))
			ret = tids.v[i];
	}
	VEC_FREE(&tids);
	return ret;
}
