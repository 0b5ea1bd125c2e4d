/* Every resource limit, soft and hard, each with values of its own where they can be lowered; the unlimited stay so. */
#include <sys/resource.h>

#include "target.h"

int main(void)
{
	struct rlimit want[RLIM_NLIMITS], now;

	for (int i = 0; i < RLIM_NLIMITS; i++) {
		CHECK(!getrlimit(i, &want[i]));
		/* Half of them: soft and hard below what bcr has. The others: as they are, but a soft limit of their own. */
		rlim_t hard = want[i].rlim_max == RLIM_INFINITY ? 1ULL << 40 : want[i].rlim_max;
		if (i % 2 && hard > 100)
			want[i].rlim_max = hard - i - 1;
		if (i != RLIMIT_STACK && i != RLIMIT_CPU)
			want[i].rlim_cur = hard > 100 ? hard - 50 - i : 0;
		if (i == RLIMIT_CPU)
			want[i] = (struct rlimit){ 86401, RLIM_INFINITY };
		CHECK(!setrlimit(i, &want[i]));
	}
	target_ready();
	for (int i = 0; i < RLIM_NLIMITS; i++) {
		CHECK(!getrlimit(i, &now));
		if (now.rlim_cur != want[i].rlim_cur || now.rlim_max != want[i].rlim_max)
			TARGET_FAIL("limit %d is %#lx %#lx, was %#lx %#lx", i, now.rlim_cur, now.rlim_max, want[i].rlim_cur,
				    want[i].rlim_max);
	}
	return target_pass();
}
