/* A device with state. */

#include "target.h"

int main(void)
{
	CHECK(open("/dev/kmsg", O_WRONLY) >= 0);
	target_expect_refusal("is not supported");
	target_ready();
	return target_pass();
}
