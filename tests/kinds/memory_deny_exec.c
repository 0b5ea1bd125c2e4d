/* Memory that may not become executable (PR_SET_MDWE), and huge pages where madvise(2) asks for them only. */
#include <sys/mman.h>
#include <sys/prctl.h>

#include "target.h"

enum { SET_MDWE = 65, GET_MDWE = 66, REFUSE_EXEC_GAIN = 1, NO_INHERIT = 2, EXCEPT_ADVISED = 2 };

int main(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int mdwe = REFUSE_EXEC_GAIN | NO_INHERIT, thp = 1 | EXCEPT_ADVISED;

	CHECK(p != MAP_FAILED);
	/* Linux 6.18, 6.6, 6.3: what is not known yet cannot be lost. */
	if (prctl(PR_SET_THP_DISABLE, 1, EXCEPT_ADVISED, 0, 0))
		thp = 0;
	if (prctl(SET_MDWE, mdwe, 0, 0, 0))
		mdwe = prctl(SET_MDWE, REFUSE_EXEC_GAIN, 0, 0, 0) ? 0 : REFUSE_EXEC_GAIN;
	target_ready();
	CHECK_EQUAL(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), thp);
	if (mdwe) {
		CHECK_EQUAL(prctl(GET_MDWE, 0, 0, 0, 0), mdwe);
		CHECK_EQUAL(mprotect(p, 4096, PROT_READ | PROT_EXEC), -1);
	}
	return target_pass();
}
