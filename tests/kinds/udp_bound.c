/* A bound UDP socket receives afterwards. */
#include <netinet/in.h>
#include <sys/socket.h>

#include "target.h"

int main(void)
{
	/* An address for this process alone: nobody takes the port while it is gone. */
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000000 | (getpid() & 0xfffffe) | 2) };
	socklen_t len = sizeof(a);
	char buf[8];
	int s = socket(AF_INET, SOCK_DGRAM, 0), fresh = socket(AF_INET, SOCK_DGRAM, 0);

	CHECK(!bind(s, (void *)&a, sizeof(a)) && !getsockname(s, (void *)&a, &len));
	target_ready();
	CHECK_EQUAL(sendto(fresh, "hello", 5, 0, (void *)&a, sizeof(a)), 5);
	CHECK_EQUAL(recv(s, buf, sizeof(buf), 0), 5);
	return target_pass();
}
