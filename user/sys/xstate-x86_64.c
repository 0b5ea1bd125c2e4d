/* Extended processor state: layout by CPUID leaf 0xd, and compacted → standard. */
#include "sys/xstate-x86_64.h"

#include <cpuid.h>
#include <errno.h>
#include <string.h>

enum {
	LEGACY_BYTES = 512,
	HEADER_BYTES = 64,
	MXCSR_AT = 24, /* MXCSR and its mask, 8 bytes */
	XMM_AT = 160,
	SOFTWARE_AT = 464, /* the kernel notes here which components it knows */
	FEATURE_FP = 0,
	FEATURE_SSE = 1,
	FEATURE_YMM = 2,
	FEATURE_PKRU = 9,
	FCW_INIT = 0x37f,
	MXCSR_INIT = 0x1f80,
	MXCSR_MASK_DEFAULT = 0xffbf, /* of processors that do not say */
};

static const uint64_t compacted_bit = 1ULL << 63;

static uint64_t read_xcr0(void)
{
	uint32_t lo, hi;

	__asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	return (uint64_t)hi << 32 | lo;
}

static uint32_t read_mxcsr_mask(void)
{
	uint8_t area[LEGACY_BYTES] __attribute__((aligned(16))) = {};
	uint32_t mask;

	__asm__ volatile("fxsave64 %0" : "=m"(area));
	memcpy(&mask, area + MXCSR_AT + 4, sizeof(mask));
	return mask ? mask : MXCSR_MASK_DEFAULT;
}

int xstate_layout_read(struct xstate_layout *ret)
{
	uint32_t a, b, c, d;

	memset(ret, 0, sizeof(*ret));
	ret->mxcsr_mask = read_mxcsr_mask();
	ret->user_mask = 1 << FEATURE_FP | 1 << FEATURE_SSE;
	ret->user_bytes = LEGACY_BYTES + HEADER_BYTES;
	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE) || !__get_cpuid_count(0xd, 0, &a, &b, &c, &d))
		return -ENODEV;
	ret->user_mask = read_xcr0();
	ret->user_bytes = b;
	ret->kernel_bytes = b;
	for (int i = 2; i < XSTATE_NR_COMPONENTS; i++) {
		if (!__get_cpuid_count(0xd, i, &a, &b, &c, &d) || !a)
			continue;
		ret->component[i].bytes = a;
		ret->component[i].offset = b;
		ret->component[i].aligned = c & 2;
		/* Supervisor components come on top, each at most aligned. */
		if (c & 1)
			ret->kernel_bytes += a + 64;
	}
	/* Alignment can make the compacted format the longer one. */
	ret->kernel_bytes += XSTATE_NR_COMPONENTS * 64;
	return 0;
}

/* Offset of component `i` in an area that holds the components of `mask`. */
static uint32_t compacted_offset(const struct xstate_layout *layout, uint64_t mask, int i)
{
	uint32_t at = LEGACY_BYTES + HEADER_BYTES;

	for (int n = 2; n <= i; n++) {
		if (!(mask >> n & 1))
			continue;
		if (layout->component[n].aligned)
			at = (at + 63) & ~63u;
		if (n < i)
			at += layout->component[n].bytes;
	}
	return at;
}

static void copy_legacy(uint64_t present, uint32_t mxcsr_mask, const uint8_t *area, uint8_t *ret)
{
	static const uint16_t fcw = FCW_INIT;

	if (present >> FEATURE_FP & 1) {
		memcpy(ret, area, MXCSR_AT);
		memcpy(ret + MXCSR_AT + 8, area + MXCSR_AT + 8, XMM_AT - MXCSR_AT - 8);
	} else {
		memcpy(ret, &fcw, sizeof(fcw));
	}
	/* MXCSR belongs to SSE and AVX; where neither is in use the kernel shows what a new program has. */
	if (present & (1 << FEATURE_SSE | 1 << FEATURE_YMM))
		memcpy(ret + MXCSR_AT, area + MXCSR_AT, 8);
	else
		memcpy(ret + MXCSR_AT, (const uint32_t[]){ MXCSR_INIT, mxcsr_mask }, 8);
	if (present >> FEATURE_SSE & 1)
		memcpy(ret + XMM_AT, area + XMM_AT, SOFTWARE_AT - 48 - XMM_AT);
}

int xstate_to_standard(const struct xstate_layout *layout, const uint8_t *area, size_t area_bytes, uint32_t pkru,
		       uint8_t *ret)
{
	uint64_t present, xcomp;

	if (area_bytes < LEGACY_BYTES + HEADER_BYTES)
		return -EPROTO;
	memcpy(&present, area + LEGACY_BYTES, 8);
	memcpy(&xcomp, area + LEGACY_BYTES + 8, 8);
	bool compacted = xcomp & compacted_bit;
	uint64_t mask = compacted ? xcomp & ~compacted_bit : layout->user_mask;

	present &= layout->user_mask;
	memset(ret, 0, layout->user_bytes);
	copy_legacy(present, layout->mxcsr_mask, area, ret);
	memcpy(ret + SOFTWARE_AT, &layout->user_mask, 8);
	for (int i = 2; i < XSTATE_NR_COMPONENTS; i++) {
		uint32_t bytes = layout->component[i].bytes, to = layout->component[i].offset;

		if (!(layout->user_mask >> i & 1) || !bytes)
			continue;
		if ((size_t)to + bytes > layout->user_bytes)
			return -EPROTO;
		if (i == FEATURE_PKRU) {
			memcpy(ret + to, &pkru, sizeof(pkru));
			present |= pkru ? 1ULL << i : 0;
			continue;
		}
		if (!(present >> i & 1))
			continue;
		uint32_t from = compacted ? compacted_offset(layout, mask, i) : to;
		if (!(mask >> i & 1) || (size_t)from + bytes > area_bytes)
			return -EPROTO;
		memcpy(ret + to, area + from, bytes);
	}
	memcpy(ret + LEGACY_BYTES, &present, 8);
	return 0;
}
