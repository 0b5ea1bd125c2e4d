/* What an epoll set watches: nested, edge-triggered, one-shot, a number that is closed while a duplicate lives. */
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "target.h"

static void add(int set, int fd, uint32_t events, uint64_t data)
{
	struct epoll_event ev = { .events = events, .data.u64 = data };

	CHECK(!epoll_ctl(set, EPOLL_CTL_ADD, fd, &ev));
}

static void signal_once(int fd)
{
	uint64_t one = 1;

	CHECK_EQUAL(write(fd, &one, 8), 8);
}

static void expect_one(int set, uint64_t data)
{
	struct epoll_event ev[4];

	CHECK_EQUAL(epoll_wait(set, ev, 4, 0), 1);
	CHECK_EQUAL(ev[0].data.u64, data);
	CHECK_EQUAL(ev[0].events, EPOLLIN);
}

int main(void)
{
	struct epoll_event ev;
	uint64_t value;
	int set = epoll_create1(0), outer = epoll_create1(EPOLL_CLOEXEC);
	int level = eventfd(0, 0), edge = eventfd(0, 0), once = eventfd(0, 0), gone = eventfd(0, 0);
	int alive = dup(gone);

	add(set, level, EPOLLIN, 0x1111222233334444);
	add(set, edge, EPOLLIN | EPOLLET, 2);
	add(set, once, EPOLLIN | EPOLLONESHOT, 3);
	add(set, gone, EPOLLIN, 4);
	add(outer, set, EPOLLIN, 5);
	CHECK(!close(gone));
	target_ready();
	CHECK_EQUAL(epoll_wait(outer, &ev, 1, 0), 0);

	signal_once(level);
	expect_one(outer, 5);
	expect_one(set, 0x1111222233334444);
	expect_one(set, 0x1111222233334444);
	CHECK_EQUAL(read(level, &value, 8), 8);

	signal_once(edge);
	expect_one(set, 2);
	CHECK_EQUAL(epoll_wait(set, &ev, 1, 0), 0);

	signal_once(once);
	expect_one(set, 3);
	CHECK_EQUAL(epoll_wait(set, &ev, 1, 0), 0);
	ev = (struct epoll_event){ .events = EPOLLIN | EPOLLONESHOT, .data.u64 = 33 };
	CHECK(!epoll_ctl(set, EPOLL_CTL_MOD, once, &ev));
	expect_one(set, 33);

	signal_once(alive);
	expect_one(set, 4);
	/* Under its old number and no other. */
	CHECK_EQUAL(epoll_ctl(set, EPOLL_CTL_DEL, alive, NULL), -1);
	CHECK_EQUAL(errno, ENOENT);
	CHECK_EQUAL(dup2(alive, gone), gone);
	CHECK(!epoll_ctl(set, EPOLL_CTL_DEL, gone, NULL));
	CHECK_EQUAL(epoll_wait(set, &ev, 1, 0), 0);
	return target_pass();
}
