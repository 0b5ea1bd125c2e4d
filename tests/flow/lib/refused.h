/*
 * Programs in states that dump refuses: PROGRAM DIR MODE... builds the state of each mode, says which sentence it expects (lines
 * "EXPECT: regular expression" in its output), gets ready, and looks afterwards whether all is as it was. Where this
 * machine cannot build a state, a line "UNAVAILABLE: why" says so, and the program ends before it is ready.
 */
#ifndef TESTS_FLOW_LIB_REFUSED_H
#define TESTS_FLOW_LIB_REFUSED_H

#include "self.h"

struct mode {
	const char *name;
	void (*build)(void);
	void (*check)(void); /* NULL: that the program is still there is all there is to see */
};

/* A whole sentence must match; what varies is left to the expression. */
#define EXPECT(...)                                                                                \
	do {                                                                                       \
		NEED(dprintf(STDOUT_FILENO, "EXPECT: ") > 0);                                      \
		NEED(dprintf(STDOUT_FILENO, __VA_ARGS__) > 0);                                     \
		NEED(dprintf(STDOUT_FILENO, "\n") > 0);                                            \
	} while (0)

__attribute__((noreturn)) static inline void unavailable(const char *what)
{
	dprintf(STDOUT_FILENO, "UNAVAILABLE: %s: %s\n", what, strerror(errno));
	exit(0);
}

static inline const struct mode *find_mode(const struct mode *modes, const char *name)
{
	for (; modes->name; modes++)
		if (!strcmp(modes->name, name))
			return modes;
	fprintf(stderr, "there is no mode %s\n", name);
	exit(2);
}

/* argv[2] and up are modes of the table, which ends with a nameless one. */
static inline int refused_main(int argc, char **argv, const struct mode *modes)
{
	self_init(argc, argv);
	if (argc == 2)
		for (const struct mode *m = modes; m->name; m++)
			puts(m->name);
	for (int i = 2; i < argc; i++)
		find_mode(modes, argv[i])->build();
	if (argc == 2)
		return 0;
	self_ready();
	self_wait();
	for (int i = 2; i < argc; i++) {
		const struct mode *m = find_mode(modes, argv[i]);

		if (m->check)
			m->check();
	}
	self_pass();
	return 0;
}

#endif
