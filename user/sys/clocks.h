/* Which clocks these are: dates of one boot mean nothing in another. */
#ifndef BCR_SYS_CLOCKS_H
#define BCR_SYS_CLOCKS_H

#include <stdint.h>

enum { CLOCKS_NAME_BYTES = 128 };

/*
 * A name for CLOCK_MONOTONIC and CLOCK_BOOTTIME as this process sees them: the boot, and what its time namespace adds. Equal names, equal
 * dates. "" when the kernel does not tell.
 */
void clocks_name(char ret[CLOCKS_NAME_BYTES]);

/* What the time namespace of this process adds to the clock, ns; 0 for clocks that it leaves alone. */
int64_t clocks_offset_ns(int32_t clockid);

/* What the clock shows, ns. 0 when there is no such clock. */
int64_t clocks_now_ns(int32_t clockid);

#endif
