/* A key that only this process has. */
#include <linux/keyctl.h>
#include <sys/syscall.h>

#include "target.h"

int main(void)
{
	CHECK(syscall(SYS_add_key, "user", "bcr", "secret", 6, KEY_SPEC_PROCESS_KEYRING) > 0);
	target_expect_refusal("has a keyring of its own");
	target_ready();
	CHECK(syscall(SYS_keyctl, KEYCTL_SEARCH, KEY_SPEC_PROCESS_KEYRING, "user", "bcr", 0) > 0);
	return target_pass();
}
