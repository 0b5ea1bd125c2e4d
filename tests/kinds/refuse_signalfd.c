/* A signalfd. */
#include <signal.h>
#include <sys/signalfd.h>

#include "target.h"

int main(void)
{
	sigset_t set;

	sigemptyset(&set);
	CHECK(signalfd(-1, &set, 0) >= 0);
	target_expect_refusal("signalfd");
	target_ready();
	return target_pass();
}
