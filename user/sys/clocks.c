/* Which clocks these are: the boot, and the offsets of the time namespace. */
#include "sys/clocks.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"

static const int64_t second_ns = 1000000000;

/* Lines "monotonic  SEC  NSEC" and "boottime  SEC  NSEC"; a kernel without time namespaces has no such file, and no offsets. */
static int64_t read_offset(const char *clock)
{
	_cleanup_fclose_ FILE *f = fopen("/proc/self/timens_offsets", "re");
	char name[16];
	long long sec, nsec;

	while (f && fscanf(f, "%15s %lld %lld", name, &sec, &nsec) == 3) {
		if (!strcmp(name, clock))
			return sec * second_ns + nsec;
	}
	return 0;
}

int64_t clocks_offset_ns(int32_t clockid)
{
	switch (clockid) {
	case CLOCK_MONOTONIC:
		return read_offset("monotonic");
	case CLOCK_BOOTTIME:
	case CLOCK_BOOTTIME_ALARM:
		return read_offset("boottime");
	default:
		return 0;
	}
}

int64_t clocks_now_ns(int32_t clockid)
{
	struct timespec now;

	/* The same time. Alarm clocks themselves do not tell it on a machine without a clock that can wake it. */
	if (clockid == CLOCK_REALTIME_ALARM)
		clockid = CLOCK_REALTIME;
	else if (clockid == CLOCK_BOOTTIME_ALARM)
		clockid = CLOCK_BOOTTIME;
	return clock_gettime(clockid, &now) ? 0 : now.tv_sec * second_ns + now.tv_nsec;
}

void clocks_name(char ret[CLOCKS_NAME_BYTES])
{
	_cleanup_fclose_ FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
	char boot[40];

	ret[0] = 0;
	if (f && fscanf(f, "%39s", boot) == 1)
		snprintf(ret, CLOCKS_NAME_BYTES, "%s %lld %lld", boot, (long long)read_offset("monotonic"),
			 (long long)read_offset("boottime"));
}
