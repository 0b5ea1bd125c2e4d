/* A file without a name. */

#include "target.h"

int main(void)
{
	int fd = open("file", O_RDWR | O_CREAT, 0600);

	CHECK(fd >= 0 && !unlink("file"));
	target_expect_refusal("unlinked");
	target_ready();
	return target_pass();
}
