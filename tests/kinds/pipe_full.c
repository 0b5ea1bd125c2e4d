/* A pipe that is full, with content that differs from byte to byte. */
#include "target.h"

enum { SIZE = 65536 };

int main(void)
{
	static unsigned char out[SIZE], in[SIZE];
	int p[2];

	for (unsigned i = 0; i < SIZE; i++)
		out[i] = i * 7 + i / 256;
	CHECK(!pipe2(p, O_NONBLOCK));
	CHECK_EQUAL(write(p[1], out, SIZE), SIZE);
	CHECK_EQUAL(write(p[1], out, 1), -1);
	target_ready();
	CHECK_EQUAL(write(p[1], out, 1), -1);
	CHECK_EQUAL(errno, EAGAIN);
	CHECK_EQUAL(read(p[0], in, SIZE), SIZE);
	CHECK(!memcmp(in, out, SIZE));
	return target_pass();
}
