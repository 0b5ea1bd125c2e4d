/* A file of /proc that belongs to a process. */

#include "target.h"

int main(void)
{
	CHECK(open("/proc/self/status", O_RDONLY) >= 0);
	target_expect_refusal("belongs to a process");
	target_ready();
	return target_pass();
}
