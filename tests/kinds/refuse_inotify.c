/* An inotify queue. */
#include <sys/inotify.h>

#include "target.h"

int main(void)
{
	CHECK(inotify_init() >= 0);
	target_expect_refusal("inotify");
	target_ready();
	return target_pass();
}
