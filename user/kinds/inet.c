/*
 * TCP and UDP sockets over IPv4 and IPv6 without a peer: listening ones, bound ones, new ones. Whatever has a connection, or
 * data that nobody has read, is refused.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>

#include <arpa/inet.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "kinds/common.h"
#include "kinds/sockopt.h"
#include "observe/observe.h"

/* net/tcp_states.h of the kernel; other protocols borrow its numbers. */
enum { STATE_ESTABLISHED = 1, STATE_CLOSE = 7, STATE_LISTEN = 10 };

enum { IOCTL_SIOCGSKNS = 0x894c };

static const uint64_t USEC = 1000000;

static bool inet_match(const struct file_record *rec)
{
	return rec->sb_magic == MAGIC_SOCKFS && (rec->sock.family == AF_INET || rec->sock.family == AF_INET6);
}

static bool is_tcp(const struct file *f)
{
	return f->inet.proto == IPPROTO_TCP;
}

/* Not carried; so they must have their defaults. */
static const struct sockopt_default defaults[] = {
	{ SOL_SOCKET, SO_BROADCAST, "SO_BROADCAST" },
	{ SOL_SOCKET, SO_LINGER, "SO_LINGER" },
	{ SOL_SOCKET, SO_OOBINLINE, "SO_OOBINLINE" },
	{ SOL_SOCKET, SO_DONTROUTE, "SO_DONTROUTE" },
	{ SOL_SOCKET, SO_NO_CHECK, "SO_NO_CHECK" },
	{ SOL_SOCKET, SO_TIMESTAMP, "SO_TIMESTAMP" },
	{ SOL_SOCKET, SO_TIMESTAMPNS, "SO_TIMESTAMPNS" },
	{ SOL_SOCKET, SO_TIMESTAMPING, "SO_TIMESTAMPING" },
	{ SOL_SOCKET, SO_PEEK_OFF, "SO_PEEK_OFF" },
	{ SOL_SOCKET, SO_BUSY_POLL, "SO_BUSY_POLL" },
	{ SOL_SOCKET, SO_ZEROCOPY, "SO_ZEROCOPY" },
	{ SOL_SOCKET, SO_RXQ_OVFL, "SO_RXQ_OVFL" },
	{ SOL_SOCKET, SO_MAX_PACING_RATE, "SO_MAX_PACING_RATE" },
	{ SOL_SOCKET, SO_BINDTODEVICE, "SO_BINDTODEVICE" },
	{ IPPROTO_IP, IP_TOS, "IP_TOS" },
	{ IPPROTO_IP, IP_TTL, "IP_TTL" },
	{ IPPROTO_IP, IP_TRANSPARENT, "IP_TRANSPARENT" },
	{ IPPROTO_IP, IP_PKTINFO, "IP_PKTINFO" },
	{ IPPROTO_IP, IP_RECVTTL, "IP_RECVTTL" },
	{ IPPROTO_IP, IP_RECVTOS, "IP_RECVTOS" },
	{ IPPROTO_IP, IP_RECVERR, "IP_RECVERR" },
	{ IPPROTO_IP, IP_MTU_DISCOVER, "IP_MTU_DISCOVER" },
	{ IPPROTO_IP, IP_MULTICAST_TTL, "IP_MULTICAST_TTL" },
	{ IPPROTO_IP, IP_MULTICAST_LOOP, "IP_MULTICAST_LOOP" },
	{ IPPROTO_IP, IP_MULTICAST_IF, "IP_MULTICAST_IF" },
	{ IPPROTO_IP, IP_MINTTL, "IP_MINTTL" },
	{ IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, "IP_BIND_ADDRESS_NO_PORT" },
	{ IPPROTO_IPV6, IPV6_RECVPKTINFO, "IPV6_RECVPKTINFO" },
	{ IPPROTO_IPV6, IPV6_RECVERR, "IPV6_RECVERR" },
	{ IPPROTO_IPV6, IPV6_TCLASS, "IPV6_TCLASS" },
	{ IPPROTO_IPV6, IPV6_UNICAST_HOPS, "IPV6_UNICAST_HOPS" },
	{ IPPROTO_IPV6, IPV6_MULTICAST_HOPS, "IPV6_MULTICAST_HOPS" },
	{ IPPROTO_IPV6, IPV6_TRANSPARENT, "IPV6_TRANSPARENT" },
};

static const struct sockopt_default tcp_defaults[] = {
	{ IPPROTO_TCP, TCP_CORK, "TCP_CORK" },
	{ IPPROTO_TCP, TCP_MAXSEG, "TCP_MAXSEG" },
	{ IPPROTO_TCP, TCP_SYNCNT, "TCP_SYNCNT" },
	{ IPPROTO_TCP, TCP_LINGER2, "TCP_LINGER2" },
	{ IPPROTO_TCP, TCP_DEFER_ACCEPT, "TCP_DEFER_ACCEPT" },
	{ IPPROTO_TCP, TCP_WINDOW_CLAMP, "TCP_WINDOW_CLAMP" },
	{ IPPROTO_TCP, TCP_CONGESTION, "TCP_CONGESTION" },
	{ IPPROTO_TCP, TCP_USER_TIMEOUT, "TCP_USER_TIMEOUT" },
	{ IPPROTO_TCP, TCP_FASTOPEN, "TCP_FASTOPEN" },
	{ IPPROTO_TCP, TCP_NOTSENT_LOWAT, "TCP_NOTSENT_LOWAT" },
	{ IPPROTO_TCP, TCP_SAVE_SYN, "TCP_SAVE_SYN" },
	{ IPPROTO_TCP, TCP_ULP, "TCP_ULP" },
};

#define LENGTH(v) (sizeof(v) / sizeof((v)[0]))

static const char *proto_word(const struct file *f)
{
	return is_tcp(f) ? "tcp" : "udp";
}

static int get_timeout(int fd, int option, uint64_t *ret_us)
{
	struct timeval tv;
	socklen_t len = sizeof(tv);

	if (getsockopt(fd, SOL_SOCKET, option, &tv, &len))
		return -errno;
	*ret_us = tv.tv_sec * USEC + tv.tv_usec;
	return 0;
}

static int set_timeout(int fd, int option, uint64_t us)
{
	struct timeval tv = { .tv_sec = us / USEC, .tv_usec = us % USEC };

	return us && setsockopt(fd, SOL_SOCKET, option, &tv, sizeof(tv)) ? -errno : 0;
}

/* --- collect --- */

/* One table for reading, setting: the integer options carried. */
struct option {
	int level, option;
	size_t offset;
	bool is_bool, tcp, ipv6, before_bind;
};

#define WORD(l, o, field, ...) { l, o, offsetof(struct file, inet.field), .is_bool = false, ##__VA_ARGS__ }
#define FLAG(l, o, field, ...) { l, o, offsetof(struct file, inet.field), .is_bool = true, ##__VA_ARGS__ }

static const struct option options[] = {
	FLAG(SOL_SOCKET, SO_REUSEADDR, reuseaddr),
	FLAG(SOL_SOCKET, SO_REUSEPORT, reuseport, .before_bind = true),
	FLAG(SOL_SOCKET, SO_KEEPALIVE, keepalive),
	WORD(SOL_SOCKET, SO_PRIORITY, so_priority),
	WORD(SOL_SOCKET, SO_MARK, so_mark, .before_bind = true),
	WORD(SOL_SOCKET, SO_RCVLOWAT, so_rcvlowat),
	FLAG(IPPROTO_IP, IP_FREEBIND, freebind, .before_bind = true),
	FLAG(IPPROTO_IPV6, IPV6_V6ONLY, v6only, .ipv6 = true, .before_bind = true),
	FLAG(IPPROTO_TCP, TCP_NODELAY, nodelay, .tcp = true),
	WORD(IPPROTO_TCP, TCP_KEEPCNT, keepcnt, .tcp = true),
	WORD(IPPROTO_TCP, TCP_KEEPIDLE, keepidle, .tcp = true),
	WORD(IPPROTO_TCP, TCP_KEEPINTVL, keepintvl, .tcp = true),
};

static bool option_applies(const struct option *o, const struct file *f)
{
	return (!o->tcp || is_tcp(f)) && (!o->ipv6 || f->inet.family == AF_INET6);
}

static int collect_options(int fd, struct file *f)
{
	struct sockopt_buffers b;
	int err = sockopt_get_buffers(fd, &b);

	for (size_t i = 0; !err && i < LENGTH(options); i++) {
		const struct option *o = &options[i];
		char *field = (char *)f + o->offset;
		uint32_t value;

		if (!option_applies(o, f))
			continue;
		err = sockopt_get(fd, o->level, o->option, &value);
		if (!err && o->is_bool)
			*(bool *)field = value;
		else if (!err)
			*(uint32_t *)field = value;
	}
	if (!err)
		err = get_timeout(fd, SO_RCVTIMEO, &f->inet.so_rcvtimeo_us);
	if (!err)
		err = get_timeout(fd, SO_SNDTIMEO, &f->inet.so_sndtimeo_us);
	if (err)
		return err;
	f->inet.so_sndbuf = b.sndbuf;
	f->inet.so_rcvbuf = b.rcvbuf;
	f->inet.so_buf_lock = b.lock;
	return 0;
}

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

static int collect_address(const struct observed_file *of, int fd, struct file *f)
{
	union address a = {};
	socklen_t len = sizeof(a);

	if (getsockname(fd, &a.any, &len))
		return fail(-errno, "pid %u fd %d: address of the socket", of->rec.tgid, of->rec.fd);
	if (f->inet.family == AF_INET) {
		f->inet.port = ntohs(a.v4.sin_port);
		f->inet.addr[0] = a.v4.sin_addr.s_addr;
		return 0;
	}
	f->inet.port = ntohs(a.v6.sin6_port);
	memcpy(f->inet.addr, &a.v6.sin6_addr, sizeof(f->inet.addr));
	if (a.v6.sin6_scope_id)
		return unsupported("pid %u fd %d: the socket is bound to a link-local address, which is not supported",
				   of->rec.tgid, of->rec.fd);
	return 0;
}

static int check_tcp(const struct observed_file *of, int fd, struct file *f)
{
	struct tcp_info info = {};
	socklen_t len = sizeof(info);

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len))
		return fail(-errno, "pid %u fd %d: state of the TCP socket", of->rec.tgid, of->rec.fd);
	f->inet.state = info.tcpi_state;
	switch (info.tcpi_state) {
	case STATE_LISTEN:
		/* For a listening socket these two mean the backlog. */
		f->inet.backlog = info.tcpi_sacked;
		if (info.tcpi_unacked)
			return unsupported("pid %u fd %d: tcp port %u: %u connections wait to be accepted, which is not supported; try again",
					   of->rec.tgid, of->rec.fd, f->inet.port, info.tcpi_unacked);
		return 0;
	case STATE_CLOSE:
		if (info.tcpi_segs_in || info.tcpi_segs_out)
			return unsupported("pid %u fd %d: tcp port %u: the socket was connected, which is not supported",
					   of->rec.tgid, of->rec.fd, f->inet.port);
		return 0;
	}
	return unsupported("pid %u fd %d: tcp port %u: the socket is connected (state %u); --tcp-established is not supported yet",
			   of->rec.tgid, of->rec.fd, f->inet.port, info.tcpi_state);
}

static int check_udp(const struct observed_file *of, int fd, struct file *f)
{
	union address peer;
	socklen_t len = sizeof(peer);
	int64_t queued = sockopt_queued(fd);

	f->inet.state = STATE_CLOSE;
	if (queued < 0)
		return fail(queued, "pid %u fd %d: look at the socket's queue", of->rec.tgid, of->rec.fd);
	if (!getpeername(fd, &peer.any, &len))
		return unsupported("pid %u fd %d: udp port %u: the socket is connected, which is not supported", of->rec.tgid,
				   of->rec.fd, f->inet.port);
	if (queued)
		return unsupported("pid %u fd %d: udp port %u: datagrams wait to be read, which is not supported; try again",
				   of->rec.tgid, of->rec.fd, f->inet.port);
	return 0;
}

/* A socket stays in the network namespace it was made in, wherever its holder goes. */
static int check_namespace(const struct observed_file *of, int fd)
{
	_cleanup_close_ int ns = ioctl(fd, IOCTL_SIOCGSKNS);
	struct stat theirs, ours;

	if (ns < 0 || fstat(ns, &theirs) || stat("/proc/self/ns/net", &ours))
		return fail(-errno, "pid %u fd %d: network namespace of the socket", of->rec.tgid, of->rec.fd);
	if (theirs.st_ino != ours.st_ino)
		return unsupported("pid %u fd %d: the socket belongs to another network namespace, which is not supported",
				   of->rec.tgid, of->rec.fd);
	return 0;
}

static int check_type(const struct observed_file *of)
{
	const struct file_record *rec = &of->rec;

	if (rec->sock.type == SOCK_STREAM && rec->sock.proto == IPPROTO_TCP)
		return 0;
	if (rec->sock.type == SOCK_DGRAM && rec->sock.proto == IPPROTO_UDP)
		return 0;
	return unsupported("pid %u fd %d: sockets of type %u, protocol %u are not supported; close it first", rec->tgid,
			   rec->fd, rec->sock.type, rec->sock.proto);
}

static int inet_collect(const struct collect_ctx *ctx, const struct observed_file *of, struct file *f)
{
	_cleanup_close_ int fd = -1;
	struct stat st;
	int err = check_type(of);

	if (!err)
		err = common_duplicate(of, &fd);
	if (!err)
		err = check_namespace(of, fd);
	if (err)
		return err;
	f->inet.ino = of->rec.ino;
	f->inet.family = of->rec.sock.family;
	f->inet.type = of->rec.sock.type;
	f->inet.proto = of->rec.sock.proto;
	if (!fstat(fd, &st))
		f->inet.uid = st.st_uid;
	err = collect_address(of, fd, f);
	if (!err)
		err = is_tcp(f) ? check_tcp(of, fd, f) : check_udp(of, fd, f);
	if (!err)
		err = sockopt_check_defaults(of, fd, defaults, LENGTH(defaults));
	if (!err && is_tcp(f))
		err = sockopt_check_defaults(of, fd, tcp_defaults, LENGTH(tcp_defaults));
	if (err)
		return err;
	err = collect_options(fd, f);
	if (err)
		return fail(err, "pid %u fd %d: read the socket's options", of->rec.tgid, of->rec.fd);
	return common_collect_owner(ctx, of, f);
}

/* --- save and load --- */

static SkOptsEntry *save_options(struct save_ctx *ctx, const struct file *f)
{
	SkOptsEntry *e = NEW_MESSAGE(ctx, SkOptsEntry, sk_opts_entry__init);

	if (!e)
		return NULL;
	e->so_sndbuf = f->inet.so_sndbuf;
	e->so_rcvbuf = f->inet.so_rcvbuf;
	e->so_snd_tmo_sec = f->inet.so_sndtimeo_us / USEC;
	e->so_snd_tmo_usec = f->inet.so_sndtimeo_us % USEC;
	e->so_rcv_tmo_sec = f->inet.so_rcvtimeo_us / USEC;
	e->so_rcv_tmo_usec = f->inet.so_rcvtimeo_us % USEC;
	e->has_reuseaddr = e->has_so_reuseport = e->has_so_keepalive = true;
	e->reuseaddr = f->inet.reuseaddr;
	e->so_reuseport = f->inet.reuseport;
	e->so_keepalive = f->inet.keepalive;
	e->has_so_priority = e->has_so_rcvlowat = e->has_so_mark = e->has_so_buf_lock = true;
	e->so_priority = f->inet.so_priority;
	e->so_rcvlowat = f->inet.so_rcvlowat;
	e->so_mark = f->inet.so_mark;
	e->so_buf_lock = f->inet.so_buf_lock;
	if (is_tcp(f)) {
		e->has_tcp_keepcnt = e->has_tcp_keepidle = e->has_tcp_keepintvl = true;
		e->tcp_keepcnt = f->inet.keepcnt;
		e->tcp_keepidle = f->inet.keepidle;
		e->tcp_keepintvl = f->inet.keepintvl;
	}
	return e;
}

static int save_rest(struct save_ctx *ctx, const struct file *f, InetSkEntry *e)
{
	size_t words = f->inet.family == AF_INET6 ? 4 : 1;

	e->src_addr = ctx->alloc(ctx, sizeof(f->inet.addr));
	e->dst_addr = ctx->alloc(ctx, sizeof(f->inet.addr));
	e->ip_opts = NEW_MESSAGE(ctx, IpOptsEntry, ip_opts_entry__init);
	if (!e->src_addr || !e->dst_addr || !e->ip_opts)
		return -ENOMEM;
	memcpy(e->src_addr, f->inet.addr, words * sizeof(*e->src_addr));
	memset(e->dst_addr, 0, words * sizeof(*e->dst_addr));
	e->n_src_addr = e->n_dst_addr = words;
	e->ip_opts->has_freebind = true;
	e->ip_opts->freebind = f->inet.freebind;
	if (!is_tcp(f))
		return 0;
	e->tcp_opts = NEW_MESSAGE(ctx, TcpOptsEntry, tcp_opts_entry__init);
	if (!e->tcp_opts)
		return -ENOMEM;
	e->tcp_opts->has_nodelay = true;
	e->tcp_opts->nodelay = f->inet.nodelay;
	return 0;
}

static int inet_save(struct save_ctx *ctx, const struct file *f, FileEntry *msg)
{
	InetSkEntry *e = NEW_MESSAGE(ctx, InetSkEntry, inet_sk_entry__init);

	if (!e)
		return -ENOMEM;
	e->fown = common_save_owner(ctx, f);
	e->opts = save_options(ctx, f);
	if (!e->fown || !e->opts || save_rest(ctx, f, e))
		return -ENOMEM;
	e->id = f->id;
	e->ino = f->inet.ino;
	e->family = f->inet.family;
	e->type = f->inet.type;
	e->proto = f->inet.proto;
	e->state = f->inet.state;
	e->src_port = f->inet.port;
	e->flags = f->flags;
	e->backlog = f->inet.backlog;
	e->has_v6only = f->inet.family == AF_INET6;
	e->v6only = f->inet.v6only;
	msg->isk = e;
	return 0;
}

static int load_check(const struct file *f, const InetSkEntry *e)
{
	bool tcp = e->type == SOCK_STREAM && e->proto == IPPROTO_TCP;
	bool udp = e->type == SOCK_DGRAM && e->proto == IPPROTO_UDP;

	if (e->family != AF_INET && e->family != AF_INET6)
		return fail(0, "socket %u: family %u is not IPv4 or IPv6", f->id, e->family);
	if (!tcp && !udp)
		return unsupported("socket %u: type %u, protocol %u", f->id, e->type, e->proto);
	if (e->n_src_addr != (e->family == AF_INET6 ? 4 : 1) || e->src_port > UINT16_MAX || e->backlog > INT32_MAX)
		return fail(0, "socket %u: its address or backlog is damaged", f->id);
	if (e->state != STATE_CLOSE && !(tcp && e->state == STATE_LISTEN))
		return unsupported("socket %u, port %u: it was connected (state %u); --tcp-established is not supported yet",
				   f->id, e->src_port, e->state);
	if (e->dst_port)
		return unsupported("socket %u, port %u: it has a peer", f->id, e->src_port);
	if (e->ifname && e->ifname[0])
		return unsupported("socket %u, port %u: it is bound to interface %s", f->id, e->src_port, e->ifname);
	if (e->has_shutdown && e->shutdown != SK_SHUTDOWN__NONE)
		return unsupported("socket %u, port %u: it is shut down", f->id, e->src_port);
	if (!e->opts)
		return fail(0, "socket %u: its options are missing", f->id);
	if (e->ip_opts && ((e->ip_opts->has_pktinfo && e->ip_opts->pktinfo) || (e->ip_opts->has_tos && e->ip_opts->tos) ||
			   e->ip_opts->raw))
		return unsupported("socket %u, port %u: IP options pktinfo, tos and those of raw sockets", f->id, e->src_port);
	if (e->tcp_opts && e->tcp_opts->has_cork && e->tcp_opts->cork)
		return unsupported("socket %u, port %u: TCP_CORK", f->id, e->src_port);
	return sockopt_check_message("socket", f->id, e->opts);
}

static void load_options(const InetSkEntry *e, struct file *f)
{
	const SkOptsEntry *o = e->opts;
	const TcpOptsEntry *t = e->tcp_opts;

	f->inet.so_sndbuf = o->so_sndbuf;
	f->inet.so_rcvbuf = o->so_rcvbuf;
	f->inet.so_buf_lock = o->has_so_buf_lock ? o->so_buf_lock & 3 : 0;
	f->inet.so_sndtimeo_us = o->so_snd_tmo_sec * USEC + o->so_snd_tmo_usec;
	f->inet.so_rcvtimeo_us = o->so_rcv_tmo_sec * USEC + o->so_rcv_tmo_usec;
	f->inet.reuseaddr = o->reuseaddr;
	f->inet.reuseport = o->so_reuseport;
	f->inet.keepalive = o->so_keepalive;
	f->inet.so_priority = o->so_priority;
	f->inet.so_rcvlowat = o->has_so_rcvlowat ? o->so_rcvlowat : 1;
	f->inet.so_mark = o->so_mark;
	f->inet.keepcnt = t && t->has_keepcnt ? t->keepcnt : o->tcp_keepcnt;
	f->inet.keepidle = t && t->has_keepidle ? t->keepidle : o->tcp_keepidle;
	f->inet.keepintvl = t && t->has_keepintvl ? t->keepintvl : o->tcp_keepintvl;
	f->inet.nodelay = t && t->has_nodelay && t->nodelay;
	f->inet.freebind = e->ip_opts && e->ip_opts->has_freebind && e->ip_opts->freebind;
	f->inet.v6only = e->has_v6only && e->v6only;
}

static int inet_load(struct model *m, const FileEntry *msg, struct file *f)
{
	const InetSkEntry *e = msg->isk;

	if (!e || e->id != f->id)
		return fail(0, "socket %u: its entry is damaged", f->id);
	int err = load_check(f, e);
	if (err)
		return err;
	f->inet.ino = e->ino;
	f->inet.family = e->family;
	f->inet.type = e->type;
	f->inet.proto = e->proto;
	f->inet.state = e->state;
	f->inet.port = e->src_port;
	f->inet.backlog = e->backlog;
	memcpy(f->inet.addr, e->src_addr, e->n_src_addr * sizeof(f->inet.addr[0]));
	load_options(e, f);
	return common_load("socket", e->flags, e->fown, f);
}

/* --- restore --- */

static int set_options(const struct file *f, int fd, bool before_bind)
{
	for (size_t i = 0; i < LENGTH(options); i++) {
		const struct option *o = &options[i];
		const char *field = (const char *)f + o->offset;
		uint32_t value = o->is_bool ? *(const bool *)field : *(const uint32_t *)field;

		if (o->before_bind != before_bind || !option_applies(o, f))
			continue;
		if (o->tcp && !o->is_bool && !value) /* images without keep-alive times */
			continue;
		int err = sockopt_differ_set(fd, o->level, o->option, value);
		if (err)
			return err;
	}
	return 0;
}

/* Address and port; nothing for a socket that had none. */
static int bind_socket(const struct file *f, int fd)
{
	union address a = {};
	socklen_t len = sizeof(a.v4);

	if (!f->inet.port)
		return 0;
	a.any.sa_family = f->inet.family;
	if (f->inet.family == AF_INET) {
		a.v4.sin_port = htons(f->inet.port);
		a.v4.sin_addr.s_addr = f->inet.addr[0];
	} else {
		len = sizeof(a.v6);
		a.v6.sin6_port = htons(f->inet.port);
		memcpy(&a.v6.sin6_addr, f->inet.addr, sizeof(f->inet.addr));
	}
	if (bind(fd, &a.any, len) == 0)
		return 0;
	if (errno == EADDRINUSE)
		return fail(-errno, "%s port %u: another program has it", proto_word(f), f->inet.port);
	return fail(-errno, "%s port %u: bind", proto_word(f), f->inet.port);
}

static int set_up(const struct file *f, int fd)
{
	/* Connections of the old socket may be in TIME_WAIT: they must not be in the way. Its own value comes after. */
	int err = is_tcp(f) ? sockopt_set(fd, SOL_SOCKET, SO_REUSEADDR, 1) : sockopt_set(fd, SOL_SOCKET, SO_REUSEADDR,
											      f->inet.reuseaddr);
	struct sockopt_buffers b = { f->inet.so_sndbuf, f->inet.so_rcvbuf, f->inet.so_buf_lock };

	if (!err)
		err = set_options(f, fd, true);
	if (err)
		return fail(err, "%s port %u: set its options", proto_word(f), f->inet.port);
	err = bind_socket(f, fd);
	if (err)
		return err;
	err = set_options(f, fd, false);
	if (!err)
		err = sockopt_set_buffers(fd, &b);
	if (!err)
		err = set_timeout(fd, SO_RCVTIMEO, f->inet.so_rcvtimeo_us);
	if (!err)
		err = set_timeout(fd, SO_SNDTIMEO, f->inet.so_sndtimeo_us);
	if (err)
		return fail(err, "%s port %u: set its options", proto_word(f), f->inet.port);
	if (f->inet.state == STATE_LISTEN && listen(fd, f->inet.backlog))
		return fail(-errno, "tcp port %u: listen", f->inet.port);
	return 0;
}

static int inet_restore(const struct restore_ctx *ctx, const struct file *f, int *ret)
{
	_cleanup_close_ int fd = socket(f->inet.family, f->inet.type | SOCK_CLOEXEC, f->inet.proto);

	if (fd < 0)
		return fail(-errno, "%s port %u: make the socket", proto_word(f), f->inet.port);
	int err = set_up(f, fd);
	if (!err)
		err = common_set_flags("socket", f, fd);
	if (!err)
		*ret = take_fd(&fd);
	return err;
}

static void inet_show(const struct model *m, const struct file *f, FILE *out)
{
	char addr[INET6_ADDRSTRLEN] = "?";

	inet_ntop(f->inet.family, f->inet.addr, addr, sizeof(addr));
	fprintf(out, "%s%s %s port %u", proto_word(f), f->inet.family == AF_INET6 ? "6" : "", addr, f->inet.port);
	if (f->inet.state == STATE_LISTEN)
		fprintf(out, ", listens, backlog %u", f->inet.backlog);
}

const struct kind inet_kind = {
	.name = "inet",
	.type = FILE_INET,
	.match = inet_match,
	.collect = inet_collect,
	.asks = true,
	.save = inet_save,
	.load = inet_load,
	.restore = inet_restore,
	.connect = common_connect,
	.show = inet_show,
};
