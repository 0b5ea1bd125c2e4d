/* Listening TCP sockets, IPv4 and IPv6, with their options, accept connections afterwards. */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include "target.h"

static int option(int fd, int level, int name)
{
	int value = -1;
	socklen_t len = sizeof(value);

	CHECK(!getsockopt(fd, level, name, &value, &len));
	return value;
}

/* Of 127.0.0.0/8, for this process alone: nobody takes the port while it is gone. */
static in_addr_t own_address(void)
{
	return htonl(0x7f000000 | (getpid() & 0xfffffe) | 2);
}

int main(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = own_address() }, now;
	struct sockaddr_in6 b = { .sin6_family = AF_INET6 };
	socklen_t len = sizeof(a);
	const int on = 1, idle = 77, buffer = 40000;
	int s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), s6 = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int fresh = socket(AF_INET, SOCK_STREAM, 0);

	CHECK(!setsockopt(s, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)));
	CHECK(!setsockopt(s, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle)));
	CHECK(!setsockopt(s, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof(buffer)));
	CHECK(!bind(s, (void *)&a, sizeof(a)) && !listen(s, 7));
	CHECK(!getsockname(s, (void *)&a, &len));
	if (s6 >= 0) {
		CHECK(!setsockopt(s6, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)));
		CHECK(!setsockopt(s6, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)));
		CHECK(!bind(s6, (void *)&b, sizeof(b)) && !listen(s6, 3));
	}
	target_ready();
	len = sizeof(now);
	CHECK(!getsockname(s, (void *)&now, &len));
	CHECK(!memcmp(&now, &a, sizeof(a)));
	CHECK_EQUAL(option(s, SOL_SOCKET, SO_KEEPALIVE), 1);
	CHECK_EQUAL(option(s, SOL_SOCKET, SO_REUSEADDR), 0);
	CHECK_EQUAL(option(s, SOL_SOCKET, SO_RCVBUF), 80000);
	CHECK_EQUAL(option(s, IPPROTO_TCP, TCP_KEEPIDLE), 77);
	if (s6 >= 0) {
		CHECK_EQUAL(option(s6, IPPROTO_IPV6, IPV6_V6ONLY), 1);
		CHECK_EQUAL(option(s6, SOL_SOCKET, SO_REUSEADDR), 1);
		CHECK_EQUAL(option(s6, SOL_SOCKET, SO_ACCEPTCONN), 1);
	}
	CHECK_EQUAL(accept(s, NULL, NULL), -1);
	CHECK_EQUAL(errno, EAGAIN);
	CHECK(!connect(fresh, (void *)&a, sizeof(a)));
	CHECK_EQUAL(poll(&(struct pollfd){ .fd = s, .events = POLLIN }, 1, -1), 1);
	CHECK(accept(s, NULL, NULL) >= 0);
	return target_pass();
}
