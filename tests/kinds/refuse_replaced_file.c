/* A file whose name leads to another one by now. */

#include "target.h"

int main(void)
{
	int fd = open("file", O_RDWR | O_CREAT, 0600), other = open("new", O_RDWR | O_CREAT, 0600);

	CHECK(fd >= 0 && other >= 0 && !close(other) && !link("file", "kept") && !unlink("file") && !rename("new", "file"));
	target_expect_refusal("unlinked or replaced");
	target_ready();
	return target_pass();
}
