/* An unlinked file that is not carried: it is too large. */
#include "target.h"

enum { PIECE = 1 << 20 };

int main(void)
{
	static char bytes[PIECE];
	int large = open("large", O_RDWR | O_CREAT, 0600);

	memset(bytes, 'x', sizeof(bytes));
	for (int i = 0; i < 2; i++)
		CHECK_EQUAL(write(large, bytes, PIECE), PIECE);
	CHECK(!unlink("large"));
	target_expect_refusal("raise --ghost-limit (now 1048576)");
	target_ready();
	return target_pass();
}
