/*
 * As many descriptors as can be restored (which takes twice as many for a moment), up to 20,000: regular files with a
 * position each, and among them pipes with a number in each, eventfds, socket pairs and duplicates.
 */
#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "target.h"

enum { NR_MAX = 20000, ROUND = 10 };

static int nr;

/* The next number, and that of the one behind it: nothing is closed, so they come in order. */
static void build(const char *path)
{
	while (nr + ROUND <= NR_MAX) {
		int ends[2], fd;
		uint64_t value = nr;

		for (int i = 0; i < 4; i++) {
			fd = open(path, O_RDWR);
			if (fd < 0)
				return;
			CHECK_EQUAL(lseek(fd, fd, SEEK_SET), fd);
		}
		if (fcntl(fd, F_DUPFD, 0) < 0 || pipe(ends))
			return;
		CHECK_EQUAL(write(ends[1], &value, sizeof(value)), sizeof(value));
		if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends))
			return;
		CHECK_EQUAL(write(ends[0], &value, sizeof(value)), sizeof(value));
		if (eventfd(nr + 1, EFD_NONBLOCK) < 0)
			return;
		nr += ROUND;
	}
}

int main(void)
{
	struct rlimit limit;

	CHECK(!getrlimit(RLIMIT_NOFILE, &limit));
	limit.rlim_cur = limit.rlim_max / 2 - 200 < NR_MAX + 100 ? limit.rlim_max / 2 - 200 : NR_MAX + 100;
	CHECK(!setrlimit(RLIMIT_NOFILE, &limit));
	int fd = open("file", O_RDWR | O_CREAT, 0600);
	CHECK(fd >= 0);
	int first = fd + 1;
	build("file");
	int end = first + nr, last;
	for (last = end; fcntl(last, F_GETFD) >= 0; last++)
		;
	/* Those of a round that came to the limit, and room for what target_ready() opens. */
	for (int i = end; i < last; i++)
		close(i);
	while (nr && fcntl(open("/dev/null", O_RDONLY), F_GETFD) < 0)
		nr -= ROUND;
	CHECK(nr >= 100);
	printf("%d descriptors\n", nr);
	target_ready();
	for (int at = first; at < first + nr; at += ROUND) {
		uint64_t value;

		for (int i = 0; i < 4; i++)
			CHECK_EQUAL(lseek(at + i, 0, SEEK_CUR), at + i);
		CHECK_EQUAL(lseek(at + 4, 1, SEEK_CUR), at + 4);
		CHECK_EQUAL(lseek(at + 3, 0, SEEK_CUR), at + 4);
		CHECK_EQUAL(read(at + 5, &value, sizeof(value)), sizeof(value));
		CHECK_EQUAL(value, at - first);
		CHECK_EQUAL(read(at + 8, &value, sizeof(value)), sizeof(value));
		CHECK_EQUAL(value, at - first);
		CHECK_EQUAL(read(at + 9, &value, sizeof(value)), sizeof(value));
		CHECK_EQUAL(value, at - first + 1);
	}
	return target_pass();
}
