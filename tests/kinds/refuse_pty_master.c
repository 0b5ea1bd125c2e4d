/* The master side of a terminal. */
#include <stdlib.h>

#include "target.h"

int main(void)
{
	CHECK(posix_openpt(O_RDWR | O_NOCTTY) >= 0);
	target_expect_refusal("master side");
	target_ready();
	return target_pass();
}
