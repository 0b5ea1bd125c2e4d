/* Real, effective, saved and file system ids, all different, and supplementary groups in the order the kernel keeps. */
#include <grp.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>

#include "creds.h"

int main(void)
{
	static struct creds_text before, after;
	const gid_t groups[] = { 70000, 7, 4294967294u - 1, 1000, 7 };
	gid_t now[8];
	uid_t r, e, s;

	creds_open_directory();
	umask(0137);
	CHECK(!setgroups(5, groups));
	CHECK(!setresgid(1001, 1002, 1003));
	setfsgid(1003);
	CHECK(!setresuid(2001, 2002, 2003));
	setfsuid(2001);
	CHECK_EQUAL(prctl(PR_GET_DUMPABLE), 0);
	creds_read(&before);
	/* Its own files are root's while it is not dumpable: in the log is what was read. */
	target_ready();
	creds_read(&after);
	creds_compare("ids", &before, &after);
	CHECK(!getresuid(&r, &e, &s) && r == 2001 && e == 2002 && s == 2003);
	CHECK(!getresgid(&r, &e, &s) && r == 1001 && e == 1002 && s == 1003);
	CHECK_EQUAL(setfsuid(-1), 2001);
	CHECK_EQUAL(setfsgid(-1), 1003);
	CHECK_EQUAL(getgroups(8, now), 5);
	CHECK(now[0] == 7 && now[1] == 7 && now[2] == 1000 && now[3] == 70000 && now[4] == 4294967293u);
	CHECK_EQUAL(prctl(PR_GET_DUMPABLE), 0);
	/* It may still become what its saved ids say, and nothing else. */
	CHECK(!seteuid(2003) && geteuid() == 2003);
	CHECK_EQUAL(seteuid(0), -1);
	return target_pass();
}
