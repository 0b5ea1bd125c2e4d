/*
 * Listening Unix sockets, by path and abstract; a bound datagram socket. Mode and peer credentials are right, and so is
 * SO_REUSEADDR, which does nothing here, but servers set it on whatever they listen on.
 */
#include <stddef.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "target.h"

static socklen_t name(struct sockaddr_un *a, const char *dir, const char *last, int abstract)
{
	memset(a, 0, sizeof(*a));
	a->sun_family = AF_UNIX;
	int len = snprintf(a->sun_path + abstract, sizeof(a->sun_path) - abstract, "%s/%s", dir, last);
	CHECK(len + abstract < (int)sizeof(a->sun_path));
	return offsetof(struct sockaddr_un, sun_path) + abstract + len + !abstract;
}

static void check_connect(int server, int type, const struct sockaddr_un *a, socklen_t len)
{
	struct ucred cred;
	socklen_t cred_len = sizeof(cred);
	int client = socket(AF_UNIX, type, 0);

	CHECK(!connect(client, (const void *)a, len));
	CHECK(!getsockopt(client, SOL_SOCKET, SO_PEERCRED, &cred, &cred_len));
	CHECK_EQUAL(cred.pid, getpid());
	CHECK_EQUAL(cred.uid, geteuid());
	CHECK(accept(server, NULL, NULL) >= 0);
	close(client);
}

static int reuses_address(int s)
{
	int on = -1;
	socklen_t len = sizeof(on);

	CHECK(!getsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, &len));
	return on;
}

int main(int argc, char **argv)
{
	struct sockaddr_un p, q, d;
	const char *dir = argc > 1 ? argv[1] : ".";
	socklen_t p_len = name(&p, dir, "stream", 0), q_len = name(&q, dir, "abstract", 1), d_len = name(&d, dir, "dgram", 0);
	int s = socket(AF_UNIX, SOCK_STREAM, 0), t = socket(AF_UNIX, SOCK_SEQPACKET, 0), u = socket(AF_UNIX, SOCK_DGRAM, 0);
	int client = socket(AF_UNIX, SOCK_DGRAM, 0);
	const int on = 1;
	struct stat st;
	char buf[8];

	CHECK(!setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)));
	CHECK(!bind(s, (void *)&p, p_len) && !listen(s, 5) && !chmod(p.sun_path, 0640));
	CHECK(!bind(t, (void *)&q, q_len) && !listen(t, 6));
	CHECK(!bind(u, (void *)&d, d_len));
	target_ready();
	CHECK(!stat(p.sun_path, &st));
	CHECK_EQUAL(st.st_mode & 07777, 0640);
	CHECK_EQUAL(reuses_address(s), 1);
	CHECK_EQUAL(reuses_address(t), 0);
	check_connect(s, SOCK_STREAM, &p, p_len);
	check_connect(t, SOCK_SEQPACKET, &q, q_len);
	CHECK_EQUAL(sendto(client, "hello", 5, 0, (void *)&d, d_len), 5);
	CHECK_EQUAL(recv(u, buf, sizeof(buf), 0), 5);
	return target_pass();
}
