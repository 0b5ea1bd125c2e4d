/* Inheritable, permitted, effective, bounding and ambient capabilities, all different, with securebits, keepcaps and no_new_privs. */
#include <grp.h>
#include <linux/securebits.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "creds.h"

#define CAP(name) (1ULL << CAP_##name)

/* In a child: keeps what a process with these securebits keeps when it changes its user. */
static void check_keepcaps(void)
{
	pid_t pid = fork();
	int status;

	CHECK(pid >= 0);
	if (!pid) {
		CHECK(!setresuid(3001, 3001, 3001));
		CHECK_EQUAL(prctl(PR_CAPBSET_READ, CAP_KILL), 1);
		CHECK_EQUAL(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_SETUID, 0, 0), 1);
		_exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid && !status);
}

int main(void)
{
	static struct creds_text before, after;
	const int bits = SECBIT_KEEP_CAPS | SECBIT_NO_SETUID_FIXUP | SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_NOROOT_LOCKED;

	creds_open_directory();
	CHECK(!prctl(PR_CAPBSET_DROP, CAP_SYS_BOOT));
	CHECK(!prctl(PR_CAPBSET_DROP, CAP_CHECKPOINT_RESTORE));
	CHECK(!prctl(PR_CAPBSET_DROP, CAP_CHOWN));
	CHECK(!prctl(PR_SET_SECUREBITS, bits));
	CHECK(!setgroups(0, NULL));
	CHECK(!setresgid(1001, 1001, 1001));
	CHECK(!setresuid(2001, 2001, 2001));
	/* CHOWN is permitted still, though not in the bounding set any more; BLOCK_SUSPEND is beyond the first word. */
	creds_capset(CAP(NET_BIND_SERVICE) | CAP(SETUID), CAP(NET_BIND_SERVICE) | CAP(SETUID) | CAP(KILL) | CAP(CHOWN) | CAP(BLOCK_SUSPEND),
		     CAP(SETUID) | CAP(NET_RAW) | CAP(BLOCK_SUSPEND));
	CHECK(!prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_SETUID, 0, 0));
	CHECK(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	creds_read(&before);
	CHECK(strstr(before.text, "CapInh:\t0000001000002080") && strstr(before.text, "CapAmb:\t0000000000000080"));
	CHECK_EQUAL(prctl(PR_GET_KEEPCAPS), 1);
	target_ready();
	creds_read(&after);
	creds_compare("capabilities", &before, &after);
	CHECK_EQUAL(prctl(PR_GET_SECUREBITS), bits);
	CHECK_EQUAL(prctl(PR_GET_KEEPCAPS), 1);
	CHECK_EQUAL(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
	CHECK_EQUAL(prctl(PR_SET_SECUREBITS, bits & ~SECBIT_NO_SETUID_FIXUP), -1);
	check_keepcaps();
	return target_pass();
}
