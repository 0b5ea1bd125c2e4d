/* suid_dumpable DIR user|root: changes its ids under fs.suid_dumpable=2, or changes them and back, and is dumpable by root only. */
#include <sys/prctl.h>
#include <sys/stat.h>

#include "self.h"

int main(int argc, char **argv)
{
	self_init(argc, argv);
	NEED(argc == 3 && !chmod(".", 0777));
	if (!strcmp(argv[2], "user"))
		NEED(!setresgid(1001, 1001, 1001) && !setresuid(1001, 1001, 1001));
	else
		NEED(!seteuid(1001) && !seteuid(0));
	CHECK(prctl(PR_GET_DUMPABLE) == 2, "%d", prctl(PR_GET_DUMPABLE));
	self_ready();
	self_wait();
	CHECK(prctl(PR_GET_DUMPABLE) == 2, "%d", prctl(PR_GET_DUMPABLE));
	self_pass();
}
