/* A socket option that is not carried. */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "target.h"

int main(void)
{
	const int seconds = 5;
	int s = socket(AF_INET, SOCK_STREAM, 0);

	CHECK(!setsockopt(s, IPPROTO_TCP, TCP_DEFER_ACCEPT, &seconds, sizeof(seconds)) && !listen(s, 1));
	target_expect_refusal("TCP_DEFER_ACCEPT");
	target_ready();
	return target_pass();
}
