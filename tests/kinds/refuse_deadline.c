/* Deadline scheduling: a promise of the kernel to this thread, which a restore could not get. */
#include <sched.h>
#include <stdint.h>
#include <sys/syscall.h>

#include "target.h"

struct deadline {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime_ns, deadline_ns, period_ns;
};

int main(void)
{
	struct deadline attr = { sizeof(attr), SCHED_DEADLINE, 0, 0, 0, 1000000, 10000000, 10000000 };

	CHECK(!syscall(SYS_sched_setattr, 0, &attr, 0));
	target_expect_refusal("is scheduled by deadline (SCHED_DEADLINE), which is not supported");
	target_ready();
	CHECK_EQUAL(sched_getscheduler(0), SCHED_DEADLINE);
	return target_pass();
}
