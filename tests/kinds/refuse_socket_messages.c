/* A pair of seqpacket sockets with a message in it. */
#include <sys/socket.h>

#include "target.h"

int main(void)
{
	int s[2];

	CHECK(!socketpair(AF_UNIX, SOCK_SEQPACKET, 0, s));
	CHECK_EQUAL(send(s[0], "hello", 5, 0), 5);
	target_expect_refusal("messages wait to be read, the first of 5 bytes");
	target_ready();
	return target_pass();
}
