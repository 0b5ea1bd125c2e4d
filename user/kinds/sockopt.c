/* Socket options that inet and unix sockets share. */
#include "kinds/sockopt.h"

#include <errno.h>
#include <linux/sock_diag.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "observe/observe.h"

enum { OPTION_BUF_LOCK = 72, /* SO_BUF_LOCK, since Linux 5.14 */ };

int sockopt_get(int fd, int level, int option, uint32_t *ret)
{
	uint32_t value = 0;
	socklen_t len = sizeof(value);

	if (getsockopt(fd, level, option, &value, &len))
		return -errno;
	*ret = value;
	return 0;
}

int sockopt_set(int fd, int level, int option, uint32_t value)
{
	return setsockopt(fd, level, option, &value, sizeof(value)) ? -errno : 0;
}

int sockopt_differ_set(int fd, int level, int option, uint32_t value)
{
	uint32_t now = 0;
	int err = sockopt_get(fd, level, option, &now);

	return err || now == value ? err : sockopt_set(fd, level, option, value);
}

/* Are the values equal, whatever their size? Options that this kernel, or this kind of socket, does not have, are. */
static bool same_value(int a, int b, const struct sockopt_default *o)
{
	char x[64] = {}, y[64] = {};
	socklen_t len_x = sizeof(x), len_y = sizeof(y);
	int err_x = getsockopt(a, o->level, o->option, x, &len_x) ? errno : 0;
	int err_y = getsockopt(b, o->level, o->option, y, &len_y) ? errno : 0;

	return err_x == err_y && (err_x || (len_x == len_y && !memcmp(x, y, len_x)));
}

int sockopt_check_defaults(const struct observed_file *of, int fd, const struct sockopt_default *v, size_t nr)
{
	const struct file_record *rec = &of->rec;
	_cleanup_close_ int fresh = socket(rec->sock.family, rec->sock.type | SOCK_CLOEXEC, rec->sock.proto);
	socklen_t filter = 0;
	int err = 0;

	if (fresh < 0)
		return fail(-errno, "pid %u fd %d: make a socket to compare with", rec->tgid, rec->fd);
	for (size_t i = 0; i < nr; i++) {
		if (!same_value(fd, fresh, &v[i]))
			err = unsupported("pid %u fd %d: socket option %s is set, which is not supported", rec->tgid, rec->fd,
					  v[i].name);
	}
	/* With no room given, the kernel says how many instructions the filter has. */
	if (!getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, NULL, &filter) && filter)
		err = unsupported("pid %u fd %d: the socket has a packet filter, which is not supported", rec->tgid, rec->fd);
	return err;
}

int sockopt_get_buffers(int fd, struct sockopt_buffers *ret)
{
	int err = sockopt_get(fd, SOL_SOCKET, SO_SNDBUF, &ret->sndbuf);

	if (!err)
		err = sockopt_get(fd, SOL_SOCKET, SO_RCVBUF, &ret->rcvbuf);
	return err ? err : sockopt_get(fd, SOL_SOCKET, OPTION_BUF_LOCK, &ret->lock);
}

/* Sizes read are twice those set. Setting one marks it as set by the program, which ends its tuning by the kernel. */
static int set_buffer(int fd, int option, int force, uint32_t value)
{
	uint32_t now = 0;
	int err = sockopt_get(fd, SOL_SOCKET, option, &now);

	if (err || now == value)
		return err;
	err = sockopt_set(fd, SOL_SOCKET, force, value / 2);
	return err == -EPERM ? sockopt_set(fd, SOL_SOCKET, option, value / 2) : err;
}

int sockopt_set_buffers(int fd, const struct sockopt_buffers *b)
{
	int err = set_buffer(fd, SO_SNDBUF, SO_SNDBUFFORCE, b->sndbuf);

	if (!err)
		err = set_buffer(fd, SO_RCVBUF, SO_RCVBUFFORCE, b->rcvbuf);
	return err ? err : sockopt_differ_set(fd, SOL_SOCKET, OPTION_BUF_LOCK, b->lock);
}

int64_t sockopt_queued(int fd)
{
	uint32_t info[SK_MEMINFO_VARS] = {};
	socklen_t len = sizeof(info);

	if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &len))
		return -errno;
	return info[SK_MEMINFO_RMEM_ALLOC];
}

int sockopt_check_message(const char *name, uint32_t id, const SkOptsEntry *e)
{
	const struct {
		bool set;
		const char *word;
	} refused[] = {
		{ e->has_so_passsec && e->so_passsec, "SO_PASSSEC" },
		{ e->has_so_dontroute && e->so_dontroute, "SO_DONTROUTE" },
		{ e->has_so_no_check && e->so_no_check, "SO_NO_CHECK" },
		{ e->so_bound_dev && e->so_bound_dev[0], "SO_BINDTODEVICE" },
		{ e->n_so_filter, "SO_ATTACH_FILTER" },
		{ e->has_so_broadcast && e->so_broadcast, "SO_BROADCAST" },
		{ e->has_so_oobinline && e->so_oobinline, "SO_OOBINLINE" },
		{ e->has_so_linger, "SO_LINGER" },
	};

	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		if (refused[i].set)
			return unsupported("%s %u: socket option %s is not supported", name, id, refused[i].word);
	}
	if (e->so_snd_tmo_usec >= 1000000 || e->so_rcv_tmo_usec >= 1000000 || e->so_snd_tmo_sec > INT32_MAX ||
	    e->so_rcv_tmo_sec > INT32_MAX)
		return fail(0, "%s %u: its timeouts are damaged", name, id);
	return 0;
}
