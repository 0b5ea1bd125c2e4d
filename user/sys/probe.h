/* Probes: what the running kernel, and this process's privileges, can do of what bcr uses. */
#ifndef BCR_SYS_PROBE_H
#define BCR_SYS_PROBE_H

#include <stdbool.h>
#include <stddef.h>

enum probe_need {
	PROBE_NEEDED,   /* without it bcr does not work */
	PROBE_FALLBACK, /* bcr goes another way */
	PROBE_EXTRA,    /* only targets that use the thing need it */
	PROBE_UNUSED,   /* bcr does not use it yet */
};

struct probe {
	const char *name; /* also a feature name where CRIU has one for it */
	const char *what;
	const char *lost; /* what is lost without it */
	enum probe_need need;
	/* 0: there; a negative errno: not. Leaves no trace. */
	int (*run)(void);
};

/* i from 0 until NULL. */
const struct probe *probe_at(size_t i);

#endif
