/* Labels of security modules: what they mean to a checkpoint. */
#include "sys/label.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "sys/proc.h"

/* SELinux: user:role:type[:range]. */
static bool has_type(const char *label, size_t len, const char *type)
{
	const char *end = label + len, *at = label;

	for (int i = 0; i < 2; i++) {
		at = memchr(at, ':', end - at);
		if (!at)
			return false;
		at++;
	}
	return (size_t)(end - at) >= strlen(type) && !strncmp(at, type, strlen(type)) &&
	       (at + strlen(type) == end || at[strlen(type)] == ':');
}

bool label_is_unconfined(const char *label)
{
	/* AppArmor; SELinux without a policy; Smack's own for everybody. */
	static const char *const words[] = { "unconfined", "kernel", "_" };
	size_t len = strcspn(label, "\n");

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (len == strlen(words[i]) && !strncmp(label, words[i], len))
			return true;
	return !len || has_type(label, len, "unconfined_t");
}

int label_read(int pid, int tid, char **ret)
{
	_cleanup_close_ int dir = -1;
	char name[48];
	int err = proc_open(pid, &dir);

	snprintf(name, sizeof(name), "task/%d/attr/current", tid);
	return err ? err : proc_read(dir, name, ret, NULL);
}

bool label_in_use(void)
{
	_cleanup_free_ char *own = NULL;

	/* EINVAL: a kernel that could have such a module, and has none. */
	return !label_read(getpid(), getpid(), &own);
}
