/*
 * Programs in states that dump refuses: PROGRAM DIR MODE... builds the state of each mode, says which sentence it expects (lines
 * "EXPECT: regular expression" in its output), gets ready, and looks afterwards whether all is as it was. Where this
 * machine cannot build a state, a line "UNAVAILABLE: why" says so, and "ready" holds no pid.
 */
#ifndef TESTS_FLOW_LIB_REFUSED_H
#define TESTS_FLOW_LIB_REFUSED_H

#include "self.h"

#include <sys/syscall.h>

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
	self_write_file("ready", "unavailable\n");
	exit(0);
}

/*
 * A child that builds the state, waits for join_child(), and looks at it. After build() it calls nothing but read, write, exit
 * and what check() does: that may be all it is allowed to.
 */
static pid_t refused_child;
static int refused_child_pipe;

static int child_ready, child_go;

/* In the child; called by build() where that does not return. */
static inline void child_wait(void)
{
	char byte;

	NEED(write(child_ready, "", 1) == 1);
	NEED(read(child_go, &byte, 1) == 1);
}

static inline void start_child(void (*build)(void), void (*check)(void))
{
	int ready[2], go[2];
	char byte;

	NEED(pipe2(ready, O_CLOEXEC) == 0 && pipe2(go, O_CLOEXEC) == 0);
	refused_child = fork();
	NEED(refused_child >= 0);
	if (!refused_child) {
		close(ready[0]);
		close(go[1]);
		child_ready = ready[1];
		child_go = go[0];
		build();
		child_wait();
		if (check)
			check();
		syscall(SYS_exit, 0);
	}
	close(ready[1]);
	close(go[0]);
	refused_child_pipe = go[1];
	NEED(read(ready[0], &byte, 1) == 1);
	close(ready[0]);
}

static inline void join_child(void)
{
	NEED(write(refused_child_pipe, "", 1) == 1);
	self_join(refused_child);
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
	for (int i = 2; i < argc; i++)
		find_mode(modes, argv[i])->build();
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
