/* For targets that run as others than root: raw system calls, which change one thread only, and what /proc says of it. */
#ifndef CREDS_H
#define CREDS_H

#include <linux/capability.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "target.h"

/* Whoever the target becomes can say that it is ready. */
static inline void creds_open_directory(void)
{
	CHECK(!chmod(".", 0777));
}

struct creds_text {
	char text[1 << 20];
};

/* The lines of this thread's status that tell who it is. */
static inline void creds_read(struct creds_text *t)
{
	static const char *const wanted[] = { "Umask:", "Uid:", "Gid:", "Groups:", "Cap", "NoNewPrivs:", NULL };
	char *line = NULL;
	size_t cap = 0, len = 0;
	FILE *f = fopen("/proc/thread-self/status", "re");

	CHECK(f);
	while (getline(&line, &cap, f) > 0)
		for (int i = 0; wanted[i]; i++)
			if (!strncmp(line, wanted[i], strlen(wanted[i]))) {
				CHECK(len + strlen(line) < sizeof(t->text));
				len += sprintf(t->text + len, "%s", line);
			}
	free(line);
	fclose(f);
}

static inline void creds_compare(const char *who, const struct creds_text *before, const struct creds_text *after)
{
	const char *a = before->text, *b = after->text;

	while (*a || *b) {
		int la = strcspn(a, "\n"), lb = strcspn(b, "\n");

		if (la != lb || memcmp(a, b, la))
			TARGET_FAIL("%s: '%.*s' was '%.*s'", who, lb < 200 ? lb : 200, b, la < 200 ? la : 200, a);
		a += la + (a[la] != 0);
		b += lb + (b[lb] != 0);
	}
}

static inline void creds_capset(uint64_t eff, uint64_t prm, uint64_t inh)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = {
		{ .effective = eff, .permitted = prm, .inheritable = inh },
		{ .effective = eff >> 32, .permitted = prm >> 32, .inheritable = inh >> 32 },
	};

	CHECK(!syscall(SYS_capset, &head, data));
}

#endif
