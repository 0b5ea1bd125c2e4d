/* A file in memory. */
#include <sys/mman.h>

#include "target.h"

int main(void)
{
	CHECK(memfd_create("m", 0) >= 0);
	target_expect_refusal("memory files");
	target_ready();
	return target_pass();
}
