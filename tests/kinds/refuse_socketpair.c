/* A pair of sockets. */
#include <sys/socket.h>

#include "target.h"

int main(void)
{
	int s[2];

	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	target_expect_refusal("is connected");
	target_ready();
	return target_pass();
}
