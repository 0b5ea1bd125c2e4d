/* Socket options that inet and unix sockets share. Private to kinds/. */
#ifndef BCR_KINDS_SOCKOPT_H
#define BCR_KINDS_SOCKOPT_H

#include "images/sk-opts.pb-c.h"
#include "kinds/common.h"

/* The value of an integer option; 0 or a negative errno. */
int sockopt_get(int fd, int level, int option, uint32_t *ret);
int sockopt_set(int fd, int level, int option, uint32_t value);

/* Sets it only where it differs: setting an option to its default is not always the same as never having set it. */
int sockopt_differ_set(int fd, int level, int option, uint32_t value);

/* An option that bcr does not carry: it must be what a new socket has. */
struct sockopt_default {
	int level, option;
	const char *name;
};

/* Refuses, naming them, options that differ from those of a new socket of that family, type and protocol. */
int sockopt_check_defaults(const struct observed_file *of, int fd, const struct sockopt_default *v, size_t nr);

/* Buffer sizes and which of them the program has set. */
struct sockopt_buffers {
	uint32_t sndbuf, rcvbuf, lock;
};
int sockopt_get_buffers(int fd, struct sockopt_buffers *ret);
int sockopt_set_buffers(int fd, const struct sockopt_buffers *b);

/* Bytes of memory in the receive queue, or a negative errno. */
int64_t sockopt_queued(int fd);

/* Refuses options in a message that bcr does not restore. `name` is the kind's. */
int sockopt_check_message(const char *name, uint32_t id, const SkOptsEntry *e);

#endif
