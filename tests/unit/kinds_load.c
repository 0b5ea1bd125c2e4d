/*
 * Messages of the kinds: each kind takes a whole one, and refuses it with a sentence when one field is damaged. What it says names
 * the file, so that one can find it in files.img.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "images/fdinfo.pb-c.h"
#include "kinds/kinds.h"

enum { ID = 4711, TTY_ID = 12, SHMEM_ID = 13, INODE_ID = 14, STATE_ESTABLISHED = 1, STATE_CLOSE = 7, STATE_LISTEN = 10 };

static int failures;
static int messages; /* where sentences go */

/* A message of every kind, whole. */
static struct {
	FownEntry fown;
	SkOptsEntry opts;
	IpOptsEntry ip;
	IpOptsRawEntry raw;
	TcpOptsEntry tcp;
	FilePermsEntry perms;
	RegFileEntry reg;
	PipeEntry pipe;
	FifoEntry fifo;
	InetSkEntry inet;
	UnixSkEntry usk;
	EventfdFileEntry efd;
	EventpollFileEntry epoll;
	EventpollTfdEntry item, *items[1];
	TimerfdEntry timer;
	SignalfdEntry sgfd;
	MemfdFileEntry memfd;
	TtyFileEntry tty;
	uint32_t addr[4];
	char name[200];
} w;

/* What is given to load(). */
static FileEntry entry;

static void make_common(void)
{
	memset(&w, 0, sizeof(w));
	file_entry__init(&entry);
	entry.id = ID;
	fown_entry__init(&w.fown);
	sk_opts_entry__init(&w.opts);
	ip_opts_entry__init(&w.ip);
	ip_opts_raw_entry__init(&w.raw);
	tcp_opts_entry__init(&w.tcp);
	file_perms_entry__init(&w.perms);
	w.fown.pid = 100;
	w.fown.pid_type = 1;
	w.opts.so_sndbuf = w.opts.so_rcvbuf = 212992;
	entry.reg = &w.reg;
	entry.pipe = &w.pipe;
	entry.fifo = &w.fifo;
	entry.isk = &w.inet;
	entry.usk = &w.usk;
	entry.efd = &w.efd;
	entry.epfd = &w.epoll;
	entry.tfd = &w.timer;
	entry.sgfd = &w.sgfd;
	entry.memfd = &w.memfd;
	entry.tty = &w.tty;
}

static void make_files(void)
{
	reg_file_entry__init(&w.reg);
	pipe_entry__init(&w.pipe);
	fifo_entry__init(&w.fifo);
	tty_file_entry__init(&w.tty);
	w.reg.id = w.pipe.id = w.fifo.id = w.tty.id = ID;
	w.reg.fown = w.pipe.fown = w.tty.fown = &w.fown;
	strcpy(w.name, "/some/where");
	w.reg.name = w.name;
	w.reg.pos = 4096;
	w.pipe.pipe_id = w.fifo.pipe_id = 9;
	w.tty.tty_info_id = TTY_ID;
}

static void make_events(void)
{
	eventfd_file_entry__init(&w.efd);
	eventpoll_file_entry__init(&w.epoll);
	eventpoll_tfd_entry__init(&w.item);
	timerfd_entry__init(&w.timer);
	signalfd_entry__init(&w.sgfd);
	memfd_file_entry__init(&w.memfd);
	w.efd.id = w.epoll.id = w.item.id = w.timer.id = w.sgfd.id = w.memfd.id = ID;
	w.efd.fown = w.epoll.fown = w.timer.fown = w.sgfd.fown = w.memfd.fown = &w.fown;
	w.memfd.inode_id = INODE_ID;
	w.efd.counter = UINT64_MAX - 1;
	w.item.tfd = 5;
	w.items[0] = &w.item;
	w.epoll.tfd = w.items;
	w.epoll.n_tfd = 1;
	w.timer.clockid = CLOCK_MONOTONIC;
	w.timer.settime_flags = TFD_TIMER_ABSTIME;
	w.timer.vsec = 3;
	w.timer.vnsec = 999999999;
}

static void make_sockets(void)
{
	inet_sk_entry__init(&w.inet);
	unix_sk_entry__init(&w.usk);
	w.inet.id = w.usk.id = ID;
	w.inet.fown = w.usk.fown = &w.fown;
	w.inet.opts = w.usk.opts = &w.opts;
	w.inet.family = AF_INET;
	w.inet.type = w.usk.type = SOCK_STREAM;
	w.inet.proto = IPPROTO_TCP;
	w.inet.state = w.usk.state = STATE_LISTEN;
	w.inet.src_port = 65535;
	w.inet.backlog = w.usk.backlog = 128;
	w.inet.src_addr = w.addr;
	w.inet.n_src_addr = 1;
	w.inet.ip_opts = &w.ip;
	w.inet.tcp_opts = &w.tcp;
	w.usk.name.data = (uint8_t *)w.name;
	w.usk.name.len = strlen(w.name);
	w.usk.file_perms = &w.perms;
}

/* A kind may look things up in the model: there is one terminal in it, and one file in memory. */
static bool add_objects(struct model *m)
{
	struct shmem *s = model_add_shmem(m, SHMEM_ID);

	if (!s || !model_add_tty(m, TTY_ID))
		return false;
	s->sort = SHMEM_MEMFD;
	s->ino = INODE_ID;
	return true;
}

static int load(enum file_type type, struct file *f)
{
	struct model *m = model_create();
	const struct kind *kind = kind_of_type(type);

	if (!m || !kind || !add_objects(m))
		abort();
	memset(f, 0, sizeof(*f));
	f->id = ID;
	f->type = type;
	if (type == FILE_FIFO) /* the image's reader brings it, of another entry */
		f->path = strdup(w.name);
	int err = kind->load(m, &entry, f);
	if (type == FILE_EPOLL)
		VEC_FREE(&f->epoll.items);
	free(f->path);
	f->path = NULL;
	model_destroy(m);
	return err;
}

static const char *said(void)
{
	static char text[4096];
	ssize_t len = pread(messages, text, sizeof(text) - 1, 0);

	text[len > 0 ? len : 0] = 0;
	if (ftruncate(messages, 0) || lseek(messages, 0, SEEK_SET))
		abort();
	return text;
}

static void make_whole(void)
{
	make_common();
	make_files();
	make_events();
	make_sockets();
}

static void accept_whole(enum file_type type, const char *what)
{
	struct file f;
	int err = load(type, &f);
	const char *text = said();

	if (err || *text) {
		printf("%s %s: not taken (%d): %s\n", kind_of_type(type)->name, what, err, text);
		failures++;
	}
}

static void refuse(enum file_type type, const char *damage, const char *want)
{
	struct file f;
	char id[16];
	int err = load(type, &f);
	const char *text = said();

	snprintf(id, sizeof(id), " %d", ID);
	if (err >= 0 || !strstr(text, want) || !strstr(text, id) || strchr(text, '\n') != strrchr(text, '\n')) {
		printf("%s with %s: %d, it says '%s', not one line with '%s'\n", kind_of_type(type)->name, damage, err, text, want);
		failures++;
	}
}

/* A whole message with one change. */
#define DAMAGED(type, change, want)                                                                \
	do {                                                                                       \
		make_whole();                                                                      \
		change;                                                                            \
		refuse(type, #change, want);                                                       \
	} while (0)

#define TAKEN(type, change)                                                                        \
	do {                                                                                       \
		make_whole();                                                                      \
		change;                                                                            \
		accept_whole(type, #change);                                                       \
	} while (0)

static void owners(void)
{
	/* FIFOs have their owner in the entry of their path. */
	static const enum file_type types[] = { FILE_REG,     FILE_PIPE,  FILE_INET, FILE_UNIX,
						FILE_EVENTFD, FILE_EPOLL, FILE_TTY,  FILE_TIMERFD,
						FILE_SIGNALFD, FILE_MEMFD };

	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		TAKEN(types[i], w.fown.signum = 64);
		TAKEN(types[i], w.fown.pid_type = 2);
		DAMAGED(types[i], w.fown.signum = 65, "signal 65 is damaged");
		DAMAGED(types[i], w.fown.pid_type = 3, "type 3");
		DAMAGED(types[i], w.fown.pid = 0x80000000, "owner 2147483648");
	}
}

/* The message of the kind is missing, or belongs to another file. */
static void strangers(void)
{
	DAMAGED(FILE_REG, entry.reg = NULL, "damaged");
	DAMAGED(FILE_REG, w.reg.id++, "damaged");
	DAMAGED(FILE_PIPE, entry.pipe = NULL, "damaged");
	DAMAGED(FILE_PIPE, w.pipe.id++, "damaged");
	DAMAGED(FILE_FIFO, entry.fifo = NULL, "damaged");
	DAMAGED(FILE_FIFO, w.fifo.id++, "damaged");
	DAMAGED(FILE_INET, entry.isk = NULL, "damaged");
	DAMAGED(FILE_INET, w.inet.id++, "damaged");
	DAMAGED(FILE_UNIX, entry.usk = NULL, "damaged");
	DAMAGED(FILE_UNIX, w.usk.id++, "damaged");
	DAMAGED(FILE_EVENTFD, entry.efd = NULL, "damaged");
	DAMAGED(FILE_EVENTFD, w.efd.id++, "damaged");
	DAMAGED(FILE_EPOLL, entry.epfd = NULL, "damaged");
	DAMAGED(FILE_EPOLL, w.epoll.id++, "damaged");
	DAMAGED(FILE_TIMERFD, entry.tfd = NULL, "damaged");
	DAMAGED(FILE_TIMERFD, w.timer.id++, "damaged");
	DAMAGED(FILE_SIGNALFD, entry.sgfd = NULL, "damaged");
	DAMAGED(FILE_SIGNALFD, w.sgfd.id++, "damaged");
	DAMAGED(FILE_MEMFD, entry.memfd = NULL, "damaged");
	DAMAGED(FILE_MEMFD, w.memfd.id++, "damaged");
	DAMAGED(FILE_TTY, entry.tty = NULL, "damaged");
	DAMAGED(FILE_TTY, w.tty.id++, "damaged");
}

static void files(void)
{
	TAKEN(FILE_REG, w.reg.pos = INT64_MAX);
	DAMAGED(FILE_REG, w.reg.pos = 1ULL << 63, "position 9223372036854775808 is damaged");
	DAMAGED(FILE_REG, w.reg.name = NULL, "is not absolute");
	DAMAGED(FILE_REG, w.name[0] = 0, "is not absolute");
	DAMAGED(FILE_REG, w.name[0] = '.', "path '.some/where' is not absolute");
	DAMAGED(FILE_REG, w.reg.has_ext = w.reg.ext = true, "outside the mount namespace");
	TAKEN(FILE_MEMFD, w.memfd.pos = INT64_MAX);
	DAMAGED(FILE_MEMFD, w.memfd.pos = 1ULL << 63, "position 9223372036854775808 is damaged");
	DAMAGED(FILE_MEMFD, w.memfd.inode_id++, "its contents 15 are not in memfd.img");
	TAKEN(FILE_PIPE, (void)0);
	DAMAGED(FILE_PIPE, w.pipe.pipe_id = 0, "damaged");
	TAKEN(FILE_FIFO, (void)0);
	DAMAGED(FILE_FIFO, w.fifo.pipe_id = 0, "damaged");
	TAKEN(FILE_TTY, (void)0);
	DAMAGED(FILE_TTY, w.tty.tty_info_id++, "there is no terminal 13");
}

static void events(void)
{
	TAKEN(FILE_EVENTFD, (void)0);
	DAMAGED(FILE_EVENTFD, w.efd.counter = UINT64_MAX, "a counter cannot be 18446744073709551615");
	TAKEN(FILE_EPOLL, w.item.tfd = INT32_MAX);
	TAKEN(FILE_EPOLL, w.epoll.n_tfd = 0);
	DAMAGED(FILE_EPOLL, w.item.tfd = 0x80000000, "item 2147483648 of file 4711 is damaged");
	DAMAGED(FILE_EPOLL, w.item.id++, "item 5 of file 4712 is damaged");
	TAKEN(FILE_SIGNALFD, w.sgfd.sigmask = UINT64_MAX);
	TAKEN(FILE_TIMERFD, (void)0);
	TAKEN(FILE_TIMERFD, w.timer.clockid = CLOCK_BOOTTIME_ALARM);
	DAMAGED(FILE_TIMERFD, w.timer.clockid = CLOCK_PROCESS_CPUTIME_ID, "there is no clock 2");
	DAMAGED(FILE_TIMERFD, w.timer.clockid = 99, "there is no clock 99");
	DAMAGED(FILE_TIMERFD, w.timer.settime_flags = 4, "flags 0x4 are not known");
	DAMAGED(FILE_TIMERFD, w.timer.vnsec = 1000000000, "times are damaged");
	DAMAGED(FILE_TIMERFD, w.timer.insec = 1000000000, "times are damaged");
	DAMAGED(FILE_TIMERFD, w.timer.vsec = UINT64_MAX, "times are damaged");
	/* Seconds that overflow when they are made nanoseconds. */
	DAMAGED(FILE_TIMERFD, w.timer.isec = UINT64_MAX / 1000000000 + 1, "times are damaged");
}

static void inet_sockets(void)
{
	TAKEN(FILE_INET, (void)0);
	TAKEN(FILE_INET, (w.inet.family = AF_INET6, w.inet.n_src_addr = 4));
	TAKEN(FILE_INET, (w.inet.type = SOCK_DGRAM, w.inet.proto = IPPROTO_UDP, w.inet.state = STATE_CLOSE));
	DAMAGED(FILE_INET, w.inet.family = AF_UNIX, "family 1 is not IPv4 or IPv6");
	DAMAGED(FILE_INET, w.inet.type = SOCK_RAW, "type 3");
	DAMAGED(FILE_INET, w.inet.proto = IPPROTO_UDP, "type 1, protocol 17");
	DAMAGED(FILE_INET, w.inet.n_src_addr = 4, "address or backlog is damaged");
	DAMAGED(FILE_INET, w.inet.n_src_addr = 0, "address or backlog is damaged");
	DAMAGED(FILE_INET, w.inet.family = AF_INET6, "address or backlog is damaged");
	DAMAGED(FILE_INET, w.inet.src_port = 65536, "address or backlog is damaged");
	DAMAGED(FILE_INET, w.inet.backlog = 0x80000000, "address or backlog is damaged");
	DAMAGED(FILE_INET, w.inet.state = STATE_ESTABLISHED, "it was connected (state 1)");
	DAMAGED(FILE_INET, (w.inet.type = SOCK_DGRAM, w.inet.proto = IPPROTO_UDP), "it was connected (state 10)");
	DAMAGED(FILE_INET, w.inet.dst_port = 80, "it has a peer");
	DAMAGED(FILE_INET, w.inet.ifname = w.name, "bound to interface");
	DAMAGED(FILE_INET, (w.inet.has_shutdown = true, w.inet.shutdown = SK_SHUTDOWN__READ), "shut down");
	DAMAGED(FILE_INET, w.inet.opts = NULL, "options are missing");
	DAMAGED(FILE_INET, w.ip.has_pktinfo = w.ip.pktinfo = true, "IP options");
	DAMAGED(FILE_INET, (w.ip.has_tos = true, w.ip.tos = 8), "IP options");
	DAMAGED(FILE_INET, w.ip.raw = &w.raw, "IP options");
	DAMAGED(FILE_INET, w.tcp.has_cork = w.tcp.cork = true, "TCP_CORK");
}

static void unix_sockets(void)
{
	TAKEN(FILE_UNIX, (void)0);
	TAKEN(FILE_UNIX, w.name[0] = 0); /* abstract */
	TAKEN(FILE_UNIX, (w.usk.type = SOCK_DGRAM, w.usk.state = STATE_CLOSE, w.usk.name.len = 0));
	TAKEN(FILE_UNIX, (memset(w.name, '/', 108), w.usk.name.len = 108));
	DAMAGED(FILE_UNIX, (memset(w.name, '/', 109), w.usk.name.len = 109), "its name or backlog is damaged");
	DAMAGED(FILE_UNIX, w.usk.backlog = 0x80000000, "its name or backlog is damaged");
	DAMAGED(FILE_UNIX, w.usk.type = SOCK_RAW, "type 3 is damaged");
	DAMAGED(FILE_UNIX, w.usk.type = SOCK_DGRAM, "it cannot have listened");
	DAMAGED(FILE_UNIX, w.usk.name.len = 0, "it cannot have listened");
	TAKEN(FILE_UNIX, (w.usk.state = STATE_ESTABLISHED, w.usk.peer = 12345, w.usk.name.len = 0));
	TAKEN(FILE_UNIX, (w.usk.state = STATE_ESTABLISHED, w.usk.name.len = 0, w.usk.has_shutdown = true,
			  w.usk.shutdown = SK_SHUTDOWN__BOTH));
	DAMAGED(FILE_UNIX, (w.usk.state = STATE_ESTABLISHED, w.usk.name.len = 0, w.usk.has_shutdown = true,
			    w.usk.shutdown = 4), "that are shut down are damaged");
	DAMAGED(FILE_UNIX, w.usk.state = 2, "state 2 is not supported");
	DAMAGED(FILE_UNIX, w.usk.state = STATE_ESTABLISHED, "it was connected by name");
	DAMAGED(FILE_UNIX, w.usk.peer = 12345, "it was connected by name");
	DAMAGED(FILE_UNIX, w.usk.uflags = 1, "external, deleted, relative or shut down");
	DAMAGED(FILE_UNIX, w.usk.has_deleted = w.usk.deleted = true, "external, deleted, relative or shut down");
	DAMAGED(FILE_UNIX, w.usk.name_dir = w.name, "external, deleted, relative or shut down");
	DAMAGED(FILE_UNIX, (w.usk.has_shutdown = true, w.usk.shutdown = SK_SHUTDOWN__BOTH),
		"external, deleted, relative or shut down");
	DAMAGED(FILE_UNIX, w.name[0] = 's', "its path is relative");
	DAMAGED(FILE_UNIX, w.usk.opts = NULL, "options are missing");
}

static void socket_options(void)
{
	static const enum file_type types[] = { FILE_INET, FILE_UNIX };
	uint64_t filter = 6;

	for (int i = 0; i < 2; i++) {
		TAKEN(types[i], w.opts.has_reuseaddr = w.opts.reuseaddr = true);
		TAKEN(types[i], w.opts.so_rcv_tmo_usec = 999999);
		DAMAGED(types[i], w.opts.has_so_passsec = w.opts.so_passsec = true, "SO_PASSSEC");
		DAMAGED(types[i], w.opts.has_so_dontroute = w.opts.so_dontroute = true, "SO_DONTROUTE");
		DAMAGED(types[i], w.opts.has_so_no_check = w.opts.so_no_check = true, "SO_NO_CHECK");
		DAMAGED(types[i], w.opts.so_bound_dev = w.name, "SO_BINDTODEVICE");
		DAMAGED(types[i], (w.opts.so_filter = &filter, w.opts.n_so_filter = 1), "SO_ATTACH_FILTER");
		DAMAGED(types[i], w.opts.has_so_broadcast = w.opts.so_broadcast = true, "SO_BROADCAST");
		DAMAGED(types[i], w.opts.has_so_oobinline = w.opts.so_oobinline = true, "SO_OOBINLINE");
		DAMAGED(types[i], w.opts.has_so_linger = true, "SO_LINGER");
		DAMAGED(types[i], w.opts.so_snd_tmo_usec = 1000000, "timeouts are damaged");
		DAMAGED(types[i], w.opts.so_rcv_tmo_usec = 1000000, "timeouts are damaged");
		DAMAGED(types[i], w.opts.so_snd_tmo_sec = 1ULL << 31, "timeouts are damaged");
		DAMAGED(types[i], w.opts.so_rcv_tmo_sec = UINT64_MAX, "timeouts are damaged");
	}
}

/* Every kind of the registry has been looked at here: a new one fails until its messages are damaged, too. */
static void all_kinds(void)
{
	static const enum file_type known[] = { FILE_REG,     FILE_PIPE,  FILE_FIFO, FILE_INET,	  FILE_UNIX,
						FILE_EVENTFD, FILE_EPOLL, FILE_TTY,  FILE_TIMERFD,
						FILE_SIGNALFD, FILE_MEMFD };
	const struct kind *kind;

	for (size_t i = 0; (kind = kind_at(i)); i++) {
		size_t k = 0;

		while (k < sizeof(known) / sizeof(known[0]) && known[k] != kind->type)
			k++;
		if (k == sizeof(known) / sizeof(known[0])) {
			printf("kind %s: no damaged message of it is tried here\n", kind->name);
			failures++;
		}
	}
}

int main(void)
{
	messages = memfd_create("messages", MFD_CLOEXEC);
	if (messages < 0)
		return 1;
	log_set_err_fd(messages);
	all_kinds();
	owners();
	strangers();
	files();
	events();
	inet_sockets();
	unix_sockets();
	socket_options();
	return failures ? 1 : 0;
}
