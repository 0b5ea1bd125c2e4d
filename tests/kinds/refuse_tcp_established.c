/* An established TCP connection. */
#include <netinet/in.h>
#include <sys/socket.h>

#include "target.h"

int main(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	int s = socket(AF_INET, SOCK_STREAM, 0), c = socket(AF_INET, SOCK_STREAM, 0);

	CHECK(!bind(s, (void *)&a, sizeof(a)) && !listen(s, 1) && !getsockname(s, (void *)&a, &len));
	CHECK(!connect(c, (void *)&a, sizeof(a)) && accept(s, NULL, NULL) >= 0);
	target_expect_refusal("tcp-established");
	target_ready();
	return target_pass();
}
