/* A raw socket. */
#include <netinet/in.h>
#include <sys/socket.h>

#include "target.h"

int main(void)
{
	CHECK(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP) >= 0);
	target_expect_refusal("protocol");
	target_ready();
	return target_pass();
}
