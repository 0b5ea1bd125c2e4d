/* AMX tiles that hold data: rt_sigreturn does not load them into a process that has not asked for them. */
#include <stdint.h>
#include <sys/syscall.h>

#include "target.h"

enum { REQ_XCOMP_PERM = 0x1023, TILE_DATA = 18 }; /* ARCH_REQ_XCOMP_PERM, since Linux 5.16 */

/* As LDTILECFG reads it: palette 1, tile 0 of one row of 64 bytes. */
static const struct {
	uint8_t palette, start_row, reserved[14];
	uint16_t row_bytes[16];
	uint8_t rows[16];
} config = { .palette = 1, .row_bytes = { 64 }, .rows = { 1 } };

static uint8_t row[64] = "in the tile";

/* Written as bytes, for assemblers that do not know them. */
static void load(void)
{
	__asm__ volatile(".byte 0xc4, 0xe2, 0x78, 0x49, 0x00" ::"a"(&config) : "memory"); /* ldtilecfg (%rax) */
	__asm__ volatile(".byte 0xc4, 0xe2, 0x7b, 0x4b, 0x04, 0x08" ::"a"(row), "c"(64L) : "memory"); /* tileloadd (%rax,%rcx), %tmm0 */
}

static void store(uint8_t to[64])
{
	__asm__ volatile(".byte 0xc4, 0xe2, 0x7a, 0x4b, 0x04, 0x08" ::"a"(to), "c"(64L) : "memory"); /* tilestored %tmm0, (%rax,%rcx) */
	__asm__ volatile(".byte 0xc4, 0xe2, 0x78, 0x49, 0xc0"); /* tilerelease */
}

int main(void)
{
	uint8_t after[64] = "";

	if (syscall(SYS_arch_prctl, REQ_XCOMP_PERM, TILE_DATA))
		target_skip("this processor or kernel has no AMX tiles");
	load();
	target_expect_refusal("its AMX tiles hold data, which a restore cannot load");
	target_ready();
	store(after);
	CHECK(!memcmp(row, after, sizeof(row)));
	return target_pass();
}
