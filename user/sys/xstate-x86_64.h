/* Extended processor state (xsave): from the compacted format of the kernel's own memory to the standard one. */
#ifndef BCR_SYS_XSTATE_X86_64_H
#define BCR_SYS_XSTATE_X86_64_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { XSTATE_NR_COMPONENTS = 63 };

/* Layout of the xsave area of this machine's processors. */
struct xstate_layout {
	uint64_t user_mask;    /* components that user space can have */
	uint32_t user_bytes;   /* of the standard format: what NT_X86_XSTATE has */
	uint32_t kernel_bytes; /* at most, of the kernel's own format */
	uint32_t mxcsr_mask;   /* bits that MXCSR may have */
	struct {
		uint32_t bytes, offset; /* offset: standard format */
		bool aligned;           /* to 64 bytes in the compacted format */
	} component[XSTATE_NR_COMPONENTS]; /* of user space and of the kernel alike; bytes 0: there is none */
};

/* Size of a component that user space can have, or 0. */
static inline uint32_t xstate_user_bytes(const struct xstate_layout *l, unsigned i)
{
	return i < XSTATE_NR_COMPONENTS && l->user_mask >> i & 1 ? l->component[i].bytes : 0;
}

/* Asks the processor. Returns 0, or -ENODEV when it has no xsave (nothing is reported): the layout is that of x87 and SSE then. */
int xstate_layout_read(struct xstate_layout *ret);

/*
 * Writes what PTRACE_GETREGSET NT_X86_XSTATE would give, layout->user_bytes, from `area` as it lies in the kernel.
 * `pkru` is kept outside of the area by the kernel. -EPROTO when the area cannot be what the layout says.
 */
int xstate_to_standard(const struct xstate_layout *layout, const uint8_t *area, size_t area_bytes, uint32_t pkru,
		       uint8_t *ret);

#endif
