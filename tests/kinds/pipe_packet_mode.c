/* An empty pipe in packet mode stays in packet mode. */
#include "target.h"

int main(void)
{
	char buf[16];
	int p[2];

	CHECK(!pipe2(p, O_DIRECT));
	target_ready();
	CHECK_EQUAL(write(p[1], "ab", 2), 2);
	CHECK_EQUAL(write(p[1], "cde", 3), 3);
	CHECK_EQUAL(read(p[0], buf, sizeof(buf)), 2);
	CHECK_EQUAL(read(p[0], buf, sizeof(buf)), 3);
	return target_pass();
}
