/* A core scheduling cookie: which processes may run side by side on one core. */
#include <sys/prctl.h>

#include "target.h"

enum { SCHED_CORE = 62, CORE_CREATE = 1, SCOPE_THREAD = 0 }; /* PR_SCHED_CORE, since Linux 5.14 */

int main(void)
{
	if (prctl(SCHED_CORE, CORE_CREATE, 0, SCOPE_THREAD, 0))
		target_skip("this kernel or processor has no core scheduling (CONFIG_SCHED_CORE, hyper-threading)");
	target_expect_refusal("is in a core scheduling group (prctl(PR_SCHED_CORE)), which is not supported");
	target_ready();
	return target_pass();
}
