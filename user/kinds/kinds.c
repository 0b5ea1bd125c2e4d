/* The registry of kinds. The first that matches a record has it. */
#include "kinds/kinds.h"

#include <fcntl.h>

static const struct kind *const kinds[] = {
	&pipe_kind, &fifo_kind,	   &inet_kind, &unix_kind, &eventfd_kind,
	&epoll_kind, &timerfd_kind, &signalfd_kind, &tty_kind, &memfd_kind, &reg_kind,
};

enum { NR_KINDS = sizeof(kinds) / sizeof(kinds[0]) };

const struct kind *kind_match(const struct file_record *rec)
{
	/* An O_PATH descriptor is a place in the file system only, whatever lies there. */
	if (rec->flags & O_PATH)
		return memfd_kind.match(rec) ? &memfd_kind : reg_kind.match(rec) ? &reg_kind : NULL;
	for (size_t i = 0; i < NR_KINDS; i++) {
		if (kinds[i]->match(rec))
			return kinds[i];
	}
	return NULL;
}

const struct kind *kind_of_type(enum file_type type)
{
	for (size_t i = 0; i < NR_KINDS; i++) {
		if (kinds[i]->type == type)
			return kinds[i];
	}
	return NULL;
}

const struct kind *kind_at(size_t i)
{
	return i < NR_KINDS ? kinds[i] : NULL;
}
