/* Signal frames on x86-64. */
#include "sys/sigframe-x86_64.h"

#include <cpuid.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <ucontext.h>

#include "model/cpu-x86_64.h"

/* arch/x86/include/uapi/asm/sigcontext.h and ucontext.h. */
enum {
	UC_HAS_XSTATE = 1,
	UC_HAS_SS = 2,
	UC_STRICT_SS = 4,
	FP_MAGIC1 = 0x46505853,
	FP_MAGIC2 = 0x46505845,
	FP_SW_OFFSET = 464, /* sw_reserved in the fxsave image */
};

struct fp_sw {
	uint32_t magic1, extended_size;
	uint64_t xfeatures;
	uint32_t xstate_size, pad[7];
};

/* What the kernel calls struct rt_sigframe, without the siginfo that rt_sigreturn does not look at. */
struct frame {
	uint64_t pretcode;
	struct {
		uint64_t flags, link;
		stack_t stack;
		mcontext_t mcontext;
		uint64_t sigmask;
	} uc;
};

static const uint64_t amx_tiles = 1ULL << 18; /* component of the extended state */

static void put_regs(mcontext_t *mc, const struct cpu_regs *r)
{
	const uint64_t gregs[] = {
		[REG_R8] = r->r8,   [REG_R9] = r->r9,   [REG_R10] = r->r10, [REG_R11] = r->r11, [REG_R12] = r->r12,
		[REG_R13] = r->r13, [REG_R14] = r->r14, [REG_R15] = r->r15, [REG_RDI] = r->di,  [REG_RSI] = r->si,
		[REG_RBP] = r->bp,  [REG_RBX] = r->bx,  [REG_RDX] = r->dx,  [REG_RAX] = r->ax,  [REG_RCX] = r->cx,
		[REG_RSP] = r->sp,  [REG_RIP] = r->ip,  [REG_EFL] = r->flags,
		/* cs, gs, fs, ss: 16 bits each; bases stay what they are */
		[REG_CSGSFS] = (r->cs & 0xffff) | (r->gs & 0xffff) << 16 | (r->fs & 0xffff) << 32 | (r->ss & 0xffff) << 48,
	};

	memcpy(mc->gregs, gregs, sizeof(gregs));
}

static uint64_t align_up(uint64_t n)
{
	return (n + SIGFRAME_ALIGN - 1) & ~(uint64_t)(SIGFRAME_ALIGN - 1);
}

/*
 * XCR0: which components rt_sigreturn is to load. Those that the area has no data of are set to their initial state;
 * components left out here would keep what the thread had before.
 */
static uint64_t enabled_features(void)
{
	uint32_t low, high;

	__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	/* No thread has them without having asked, and threads that have are refused. */
	return (low | (uint64_t)high << 32) & ~amx_tiles;
}

/*
 * How much of the area goes into the frame. The kernel loads none but SSE when a frame is larger than what the thread may
 * have, and the AMX tiles, the last 8 KiB where the processor has them, it may have when it has asked for them only.
 */
static size_t frame_bytes(const struct cpu_fpu *fpu)
{
	static size_t end; /* of a processor it is always the same, and asking is slow in a virtual machine */
	uint64_t features = end ? 0 : enabled_features();
	size_t last = CPU_XSAVE_LEGACY + CPU_XSAVE_HEADER;
	unsigned a, b, c, d;

	for (unsigned i = 2; i < 63; i++) {
		if (features >> i & 1 && __get_cpuid_count(0xd, i, &a, &b, &c, &d) && b + a > last)
			last = b + a;
	}
	end = end ? end : last;
	return end < fpu->len_bytes ? end : fpu->len_bytes;
}

int sigframe_build(const struct cpu *cpu, uint64_t sigmask, uint64_t at, void *buf, uint64_t *ret_sp,
		   uint64_t *ret_altstack)
{
	size_t fp_offset = align_up(sizeof(struct frame)), fp_bytes = frame_bytes(&cpu->fpu);
	size_t len_bytes = fp_offset + fp_bytes + sizeof(uint32_t);
	struct frame *frame = buf;

	if (len_bytes > SIGFRAME_MAX_BYTES || (fp_bytes && fp_bytes < CPU_XSAVE_LEGACY + CPU_XSAVE_HEADER))
		return -E2BIG;
	memset(buf, 0, len_bytes);
	put_regs(&frame->uc.mcontext, &cpu->regs);
	frame->uc.flags = UC_HAS_SS | UC_STRICT_SS;
	frame->uc.stack.ss_flags = SS_DISABLE;
	frame->uc.sigmask = sigmask;

	if (fp_bytes) {
		unsigned char *fp = (unsigned char *)buf + fp_offset;
		struct fp_sw sw = { .magic1 = FP_MAGIC1,
				    .extended_size = (uint32_t)(fp_bytes + sizeof(uint32_t)),
				    .xfeatures = enabled_features(),
				    .xstate_size = (uint32_t)fp_bytes };
		uint32_t magic2 = FP_MAGIC2;

		memcpy(fp, cpu->fpu.xsave, fp_bytes);
		memcpy(fp + FP_SW_OFFSET, &sw, sizeof(sw));
		memcpy(fp + fp_bytes, &magic2, sizeof(magic2));
		frame->uc.flags |= UC_HAS_XSTATE;
		frame->uc.mcontext.fpregs = (fpregset_t)(uintptr_t)(at + fp_offset);
	}
	*ret_sp = at + offsetof(struct frame, uc);
	if (ret_altstack)
		*ret_altstack = at + offsetof(struct frame, uc.stack);
	return (int)len_bytes;
}
