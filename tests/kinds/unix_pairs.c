/*
 * Socket pairs: with bytes in both directions, shared with a child, of each type, shut down, with an end that is closed;
 * options, flags and SO_PEERCRED.
 */
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "target.h"

enum { MUCH = 60000 };

static void pair(int type, int s[2])
{
	CHECK(!socketpair(AF_UNIX, type, 0, s));
}

/* Bytes that tell where they stand. */
static void send_bytes(int s, uint32_t seed, uint32_t len)
{
	uint8_t buf[1000];

	for (uint32_t at = 0; at < len;) {
		uint32_t n = len - at < sizeof(buf) ? len - at : sizeof(buf);

		for (uint32_t i = 0; i < n; i++)
			buf[i] = (seed + at + i) * 2654435761u >> 24;
		CHECK_EQUAL(send(s, buf, n, 0), n);
		at += n;
	}
}

static void receive_bytes(int s, uint32_t seed, uint32_t len)
{
	uint8_t byte;

	for (uint32_t at = 0; at < len; at++) {
		CHECK_EQUAL(recv(s, &byte, 1, MSG_DONTWAIT), 1);
		CHECK_EQUAL(byte, (seed + at) * 2654435761u >> 24);
	}
}

static void check_empty(int s)
{
	char byte;

	CHECK(recv(s, &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
}

static void check_end(int s)
{
	char byte;

	CHECK_EQUAL(recv(s, &byte, 1, MSG_DONTWAIT), 0);
}

static void check_talks(int s, int t)
{
	char buf[8] = "";

	CHECK_EQUAL(send(s, "there", 5, MSG_DONTWAIT), 5);
	CHECK_EQUAL(recv(t, buf, sizeof(buf), MSG_DONTWAIT), 5);
	CHECK(!memcmp(buf, "there", 5));
	CHECK_EQUAL(send(t, "back", 4, MSG_DONTWAIT), 4);
	CHECK_EQUAL(recv(s, buf, sizeof(buf), MSG_DONTWAIT), 4);
	CHECK(!memcmp(buf, "back", 4));
}

static int option(int s, int name)
{
	int value = -1;
	socklen_t len = sizeof(value);

	CHECK(!getsockopt(s, SOL_SOCKET, name, &value, &len));
	return value;
}

static void check_peer(int s, pid_t pid)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	CHECK(!getsockopt(s, SOL_SOCKET, SO_PEERCRED, &cred, &len));
	CHECK_EQUAL(cred.pid, pid);
	CHECK_EQUAL(cred.uid, geteuid());
	CHECK_EQUAL(cred.gid, getegid());
}

/* Answers each number with the next one. */
static void serve(int s)
{
	uint32_t number;

	while (recv(s, &number, sizeof(number), 0) == sizeof(number)) {
		number++;
		CHECK_EQUAL(send(s, &number, sizeof(number), 0), sizeof(number));
	}
	_exit(0);
}

int main(void)
{
	int both[2], shut[2], half[2], seq[2], dgram[2], lone[2], child[2], small[2];
	uint32_t number = 41;
	const int size = 4608;
	int sndbuf, status;
	char buf[8];

	pair(SOCK_STREAM, both);
	send_bytes(both[0], 1, MUCH);
	send_bytes(both[1], 7, 3);
	CHECK(!fcntl(both[0], F_SETFL, O_NONBLOCK));

	pair(SOCK_STREAM, shut);
	send_bytes(shut[0], 2, 10);
	CHECK(!shutdown(shut[0], SHUT_WR));

	pair(SOCK_STREAM, half);
	send_bytes(half[1], 3, 20);
	close(half[1]);

	pair(SOCK_SEQPACKET, seq);
	pair(SOCK_DGRAM, dgram);
	pair(SOCK_DGRAM, lone);
	close(lone[1]);

	/* Nearly as full as its size allows, in small pieces. */
	pair(SOCK_STREAM, small);
	CHECK(!setsockopt(small[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)));
	sndbuf = option(small[0], SO_SNDBUF);
	CHECK(!fcntl(small[0], F_SETFL, O_NONBLOCK));
	for (number = 0; send(small[0], "x", 1, 0) == 1; number++)
		;
	CHECK(number > 1);
	CHECK(!fcntl(small[0], F_SETFL, 0));

	pair(SOCK_STREAM, child);
	pid_t pid = fork();
	CHECK(pid >= 0);
	if (!pid) {
		close(child[0]);
		serve(child[1]);
	}
	close(child[1]);

	target_ready();
	CHECK_EQUAL(fcntl(both[0], F_GETFL), O_RDWR | O_NONBLOCK);
	CHECK_EQUAL(fcntl(both[1], F_GETFL), O_RDWR);
	receive_bytes(both[1], 1, MUCH);
	receive_bytes(both[0], 7, 3);
	check_empty(both[0]);
	check_empty(both[1]);
	check_talks(both[0], both[1]);
	check_peer(both[0], getpid());
	check_peer(both[1], getpid());
	check_peer(child[0], getpid());

	receive_bytes(shut[1], 2, 10);
	check_end(shut[1]);
	CHECK(send(shut[0], "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE);
	CHECK_EQUAL(send(shut[1], "x", 1, 0), 1);
	CHECK_EQUAL(recv(shut[0], buf, sizeof(buf), MSG_DONTWAIT), 1);

	receive_bytes(half[0], 3, 20);
	check_end(half[0]);
	struct pollfd p = { .fd = half[0], .events = POLLIN };
	CHECK_EQUAL(poll(&p, 1, 0), 1);
	CHECK_EQUAL(p.revents, POLLIN | POLLHUP);
	CHECK(send(half[0], "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE);
	check_peer(half[0], getpid());

	check_talks(seq[0], seq[1]);
	check_talks(dgram[0], dgram[1]);
	CHECK_EQUAL(option(seq[0], SO_TYPE), SOCK_SEQPACKET);
	check_empty(lone[0]);
	CHECK(send(lone[0], "x", 1, MSG_NOSIGNAL) < 0 && errno == ECONNREFUSED);

	CHECK_EQUAL(option(small[0], SO_SNDBUF), sndbuf);
	for (uint32_t i = 0; i < number; i++)
		CHECK(recv(small[1], buf, 1, MSG_DONTWAIT) == 1 && buf[0] == 'x');
	check_empty(small[1]);

	number = 41;
	CHECK_EQUAL(send(child[0], &number, sizeof(number), 0), sizeof(number));
	CHECK_EQUAL(recv(child[0], &number, sizeof(number), 0), sizeof(number));
	CHECK_EQUAL(number, 42);
	close(child[0]);
	CHECK_EQUAL(waitpid(pid, &status, 0), pid);
	CHECK_EQUAL(status, 0);
	return target_pass();
}
