/* A pipe without a writer gives its data and then end of file; one without a reader gives EPIPE. */
#include <signal.h>

#include "target.h"

int main(void)
{
	char buf[8];
	int r[2], w[2];

	signal(SIGPIPE, SIG_IGN);
	CHECK(!pipe(r) && !pipe(w));
	CHECK_EQUAL(write(r[1], "abc", 3), 3);
	CHECK(!close(r[1]) && !close(w[0]));
	target_ready();
	CHECK_EQUAL(read(r[0], buf, sizeof(buf)), 3);
	CHECK_EQUAL(read(r[0], buf, sizeof(buf)), 0);
	CHECK_EQUAL(write(w[1], "x", 1), -1);
	CHECK_EQUAL(errno, EPIPE);
	return target_pass();
}
