/*
 * Processor state of a thread on x86-64 ↔ messages.
 *
 * The model holds an xsave area in the standard format, whose offsets are those of the processor bcr runs on: they differ
 * between processors (Intel and AMD place the protection keys differently), so images hold components, not the area.
 */
#include <string.h>

#include "base/log.h"
#include "image/cpu.h"

enum {
	CS_64 = 0x33, /* the kernel's __USER_CS */
	/* Offsets in the fxsave image. */
	FX_CWD = 0, FX_SWD = 2, FX_TWD = 4, FX_FOP = 6, FX_RIP = 8, FX_RDP = 16,
	FX_MXCSR = 24, FX_MXCSR_MASK = 28, FX_ST = 32, FX_XMM = 160, FX_PADDING = 416,
	NR_ST = 32, NR_XMM = 64, NR_PADDING = 24, /* words */
	AMX_TILES = 18,
	XSTATE_FIRST = 2, /* components 0 and 1 are in the fxsave image */
};

static const uint64_t USER_END = 0x7ffffffff000;

/* Components that have a list in user_x86_xsave_entry, and in which unit. */
struct component {
	unsigned bit;
	const char *name;
	unsigned word_bytes;
	size_t list, count; /* offsets in struct UserX86XsaveEntry */
};

#define COMPONENT(bit, name, word_bytes, field)                                                    \
	{ bit, name, word_bytes, offsetof(UserX86XsaveEntry, field),                               \
	  offsetof(UserX86XsaveEntry, n_##field) }

static const struct component components[] = {
	COMPONENT(2, "AVX", 4, ymmh_space),
	COMPONENT(3, "MPX bounds", 8, bndreg_state),
	COMPONENT(4, "MPX configuration", 8, bndcsr_state),
	COMPONENT(5, "AVX-512 masks", 8, opmask_reg),
	COMPONENT(6, "AVX-512 upper halves", 8, zmm_upper),
	COMPONENT(7, "AVX-512 zmm16 to zmm31", 8, hi16_zmm),
	COMPONENT(9, "protection keys", 4, pkru),
};

enum { NR_COMPONENTS = sizeof(components) / sizeof(components[0]) };

static const struct component *component_find(unsigned bit)
{
	for (unsigned i = 0; i < NR_COMPONENTS; i++) {
		if (components[i].bit == bit)
			return &components[i];
	}
	return NULL;
}

static const char *component_name(unsigned bit)
{
	const struct component *c = component_find(bit);

	if (c)
		return c->name;
	return bit == 17 || bit == 18 ? "AMX tiles" : "an extended state";
}

static uint64_t get_le(const uint8_t *p, unsigned bytes)
{
	uint64_t value = 0;

	memcpy(&value, p, bytes);
	return value;
}

/* --- model → message --- */

static uint32_t *put_words(struct arena *a, const uint8_t *from, size_t nr)
{
	uint32_t *words = arena_alloc(a, nr * 4);

	if (words)
		memcpy(words, from, nr * 4);
	return words;
}

static int save_component(struct arena *a, const struct component *c, const uint8_t *from,
			  uint32_t size_bytes, UserX86XsaveEntry *xs)
{
	void *list = arena_alloc(a, size_bytes);

	if (!list)
		return -ENOMEM;
	memcpy(list, from, size_bytes);
	*(void **)((uint8_t *)xs + c->list) = list;
	*(size_t *)((uint8_t *)xs + c->count) = size_bytes / c->word_bytes;
	return 0;
}

static int save_extra(struct arena *a, unsigned bit, const uint8_t *from, uint32_t size_bytes,
		      BcrThreadEntry *extra)
{
	BcrXstateEntry *e = arena_alloc(a, sizeof(*e));

	if (!extra->xstate)
		extra->xstate = arena_alloc(a, 64 * sizeof(*extra->xstate));
	if (!e || !extra->xstate)
		return -ENOMEM;
	bcr_xstate_entry__init(e);
	e->component = bit;
	e->data.len = size_bytes;
	e->data.data = (uint8_t *)from;
	extra->xstate[extra->n_xstate++] = e;
	return 0;
}

static int save_xsave(struct arena *a, const struct xstate_layout *l, const struct thread *th,
		      UserX86FpregsEntry *fp, BcrThreadEntry *extra)
{
	const struct cpu_fpu *fpu = &th->cpu.fpu;
	uint64_t bv = get_le(fpu->xsave + CPU_XSAVE_LEGACY, 8) & l->user_mask;
	UserX86XsaveEntry *xs = arena_alloc(a, sizeof(*xs));

	if (!xs)
		return -ENOMEM;
	user_x86_xsave_entry__init(xs);
	xs->xstate_bv = bv;
	fp->xsave = xs;
	for (unsigned i = XSTATE_FIRST; i < XSTATE_NR_COMPONENTS; i++) {
		uint32_t at = l->component[i].offset, size = xstate_user_bytes(l, i);
		const struct component *c = component_find(i);
		int err = 0;

		if (!size)
			continue;
		if (i == AMX_TILES && bv & 1ULL << i)
			return unsupported("thread %d: its AMX tiles hold data, which a restore cannot load; dump it when it is done with them "
					   "(tilerelease)",
					   th->tid);
		if ((uint64_t)at + size > fpu->len_bytes) {
			if (!(bv & 1ULL << i))
				continue;
			return fail(0, "thread %d: its processor state of %u bytes ends before %s", th->tid,
				    fpu->len_bytes, component_name(i));
		}
		if (c)
			err = save_component(a, c, fpu->xsave + at, size, xs);
		else if (bv & 1ULL << i)
			err = save_extra(a, i, fpu->xsave + at, size, extra);
		if (err)
			return err;
	}
	return 0;
}

static int save_fpu(struct arena *a, const struct xstate_layout *l, const struct thread *th,
		    UserX86FpregsEntry *fp, BcrThreadEntry *extra)
{
	const uint8_t *fx = th->cpu.fpu.xsave;

	if (!fx || th->cpu.fpu.len_bytes < CPU_XSAVE_LEGACY)
		return fail(0, "thread %d: its processor state has not been read", th->tid);
	fp->cwd = get_le(fx + FX_CWD, 2);
	fp->swd = get_le(fx + FX_SWD, 2);
	fp->twd = get_le(fx + FX_TWD, 2);
	fp->fop = get_le(fx + FX_FOP, 2);
	fp->rip = get_le(fx + FX_RIP, 8);
	fp->rdp = get_le(fx + FX_RDP, 8);
	fp->mxcsr = get_le(fx + FX_MXCSR, 4);
	fp->mxcsr_mask = get_le(fx + FX_MXCSR_MASK, 4);
	fp->n_st_space = NR_ST;
	fp->st_space = put_words(a, fx + FX_ST, NR_ST);
	fp->n_xmm_space = NR_XMM;
	fp->xmm_space = put_words(a, fx + FX_XMM, NR_XMM);
	/* What follows is the kernel's own, and not part of the state. */
	fp->n_padding = NR_PADDING;
	fp->padding = arena_alloc(a, NR_PADDING * 4);
	if (!fp->st_space || !fp->xmm_space || !fp->padding)
		return -ENOMEM;
	if (th->cpu.fpu.len_bytes < CPU_XSAVE_LEGACY + CPU_XSAVE_HEADER)
		return 0;
	return save_xsave(a, l, th, fp, extra);
}

#define EACH_REG(X)                                                                                \
	X(r15) X(r14) X(r13) X(r12) X(bp) X(bx) X(r11) X(r10) X(r9) X(r8) X(ax) X(cx) X(dx) X(si)  \
	X(di) X(orig_ax) X(ip) X(cs) X(flags) X(sp) X(ss) X(fs_base) X(gs_base) X(ds) X(es) X(fs)  \
	X(gs)

int cpu_save(struct arena *a, const struct xstate_layout *l, const struct thread *th,
	     CoreEntry *core, BcrThreadEntry *extra)
{
	ThreadInfoX86 *ti = arena_alloc(a, sizeof(*ti));
	UserX86RegsEntry *regs = arena_alloc(a, sizeof(*regs));
	UserX86FpregsEntry *fp = arena_alloc(a, sizeof(*fp));

	if (!ti || !regs || !fp)
		return -ENOMEM;
	thread_info_x86__init(ti);
	user_x86_regs_entry__init(regs);
	user_x86_fpregs_entry__init(fp);
#define SAVE(reg) regs->reg = th->cpu.regs.reg;
	EACH_REG(SAVE)
#undef SAVE
	regs->has_mode = true;
	regs->mode = USER_X86_REGS_MODE__NATIVE;
	ti->clear_tid_addr = th->clear_tid;
	ti->gpregs = regs;
	ti->fpregs = fp;
	core->mtype = CORE_ENTRY__MARCH__X86_64;
	core->thread_info = ti;
	return save_fpu(a, l, th, fp, extra);
}

/* --- message → model --- */

int cpu_check_march(const struct image_reader *r, const CoreEntry *core)
{
	if (core->mtype == CORE_ENTRY__MARCH__X86_64)
		return 0;

	const ProtobufCEnumValue *v =
		protobuf_c_enum_descriptor_get_value(&core_entry__march__descriptor, core->mtype);

	return bad_image(r, "the process ran on another architecture (%s), this is x86-64",
			 v ? v->name : "unknown");
}

static int load_regs(const struct image_reader *r, const UserX86RegsEntry *regs, struct cpu_regs *to)
{
	if ((regs->has_mode && regs->mode != USER_X86_REGS_MODE__NATIVE) || regs->cs != CS_64)
		return bad_image(r, "the thread ran 32-bit code (cs 0x%llx), which is not supported",
				 (unsigned long long)regs->cs);
	if (regs->fs_base >= USER_END || regs->gs_base >= USER_END)
		return bad_image(r, "fs_base or gs_base is not an address of a program");
	if ((regs->ss | regs->ds | regs->es | regs->fs | regs->gs) > 0xffff)
		return bad_image(r, "a segment register has more than 16 bits");
#define LOAD(reg) to->reg = regs->reg;
	EACH_REG(LOAD)
#undef LOAD
	return 0;
}

/* Only descriptors that describe nothing: 64-bit programs have no use for others. */
static int check_tls(const struct image_reader *r, const ThreadInfoX86 *ti)
{
	for (size_t i = 0; i < ti->n_tls; i++) {
		const UserDescT *d = ti->tls[i];

		if (d->base_addr || d->limit || !d->seg_not_present)
			return bad_image(r, "the thread has a segment of set_thread_area(2), which is not supported");
	}
	return 0;
}

static int load_fxsave(const struct image_reader *r, const struct xstate_layout *l,
		       const UserX86FpregsEntry *fp, uint8_t *fx)
{
	if ((fp->cwd | fp->swd | fp->twd | fp->fop) > 0xffff)
		return bad_image(r, "an x87 control register has more than 16 bits");
	if (fp->n_st_space != NR_ST || fp->n_xmm_space != NR_XMM || fp->n_padding > NR_PADDING)
		return bad_image(r, "%zu words of x87 and %zu of SSE registers, not %d and %d",
				 fp->n_st_space, fp->n_xmm_space, NR_ST, NR_XMM);
	if (fp->mxcsr & ~l->mxcsr_mask)
		return bad_image(r, "mxcsr 0x%x has bits that this processor does not have", fp->mxcsr);
	memcpy(fx + FX_CWD, &fp->cwd, 2);
	memcpy(fx + FX_SWD, &fp->swd, 2);
	memcpy(fx + FX_TWD, &fp->twd, 2);
	memcpy(fx + FX_FOP, &fp->fop, 2);
	memcpy(fx + FX_RIP, &fp->rip, 8);
	memcpy(fx + FX_RDP, &fp->rdp, 8);
	memcpy(fx + FX_MXCSR, &fp->mxcsr, 4);
	memcpy(fx + FX_MXCSR_MASK, &l->mxcsr_mask, 4);
	memcpy(fx + FX_ST, fp->st_space, NR_ST * 4);
	memcpy(fx + FX_XMM, fp->xmm_space, NR_XMM * 4);
	return 0;
}

static const BcrXstateEntry *find_extra(const BcrThreadEntry *extra, unsigned bit)
{
	for (size_t i = 0; extra && i < extra->n_xstate; i++) {
		if (extra->xstate[i]->component == bit)
			return extra->xstate[i];
	}
	return NULL;
}

/* Copies component `bit`, which is in use, to its place. */
static int load_component(const struct image_reader *r, const struct xstate_layout *l,
			  const UserX86XsaveEntry *xs, const BcrThreadEntry *extra, unsigned bit,
			  uint8_t *area)
{
	const struct component *c = component_find(bit);
	const BcrXstateEntry *e = c ? NULL : find_extra(extra, bit);
	const void *from = NULL;
	size_t len = 0;

	if (c) {
		from = *(void *const *)((const uint8_t *)xs + c->list);
		len = *(const size_t *)((const uint8_t *)xs + c->count) * c->word_bytes;
	} else if (e) {
		from = e->data.data;
		len = e->data.len;
	}
	if (!xstate_user_bytes(l, bit))
		return bad_image(r, "the thread uses processor state that this machine does not have: %s (component %u)",
				 component_name(bit), bit);
	/* The end of a component is padding, which a writer may leave out. */
	if (!len || len > l->component[bit].bytes)
		return bad_image(r, "%zu bytes of %s (component %u), which has %u", len,
				 component_name(bit), bit, l->component[bit].bytes);
	memcpy(area + l->component[bit].offset, from, len);
	return 0;
}

static int load_xsave(const struct image_reader *r, const struct xstate_layout *l,
		      const UserX86XsaveEntry *xs, const BcrThreadEntry *extra, uint8_t *area)
{
	if (xs->cet && (xs->cet->cet || xs->cet->ssp))
		return bad_image(r, "the thread uses a shadow stack, which is not supported");
	for (unsigned i = XSTATE_FIRST; i < 64; i++) {
		int err = xs->xstate_bv & 1ULL << i ? load_component(r, l, xs, extra, i, area) : 0;

		if (err)
			return err;
	}
	memcpy(area + CPU_XSAVE_LEGACY, &xs->xstate_bv, 8);
	return 0;
}

static int load_fpu(const struct image_reader *r, const struct xstate_layout *l,
		    const UserX86FpregsEntry *fp, const BcrThreadEntry *extra, struct cpu_fpu *to)
{
	static const uint64_t legacy_bv = 3;

	to->xsave = calloc(1, l->user_bytes);
	if (!to->xsave)
		return fail(-ENOMEM, "%s/%s: read", r->path, r->name);
	to->len_bytes = l->user_bytes;

	int err = load_fxsave(r, l, fp, to->xsave);

	if (err)
		return err;
	if (fp->xsave)
		return load_xsave(r, l, fp->xsave, extra, to->xsave);
	memcpy(to->xsave + CPU_XSAVE_LEGACY, &legacy_bv, 8);
	return 0;
}

int cpu_load(const struct image_reader *r, const struct xstate_layout *l, const CoreEntry *core,
	     const BcrThreadEntry *extra, struct thread *th)
{
	const ThreadInfoX86 *ti = core->thread_info;

	if (!ti)
		return bad_image(r, "thread_info is missing");

	int err = load_regs(r, ti->gpregs, &th->cpu.regs);

	if (!err)
		err = check_tls(r, ti);
	if (err)
		return err;
	th->clear_tid = ti->clear_tid_addr;
	return load_fpu(r, l, ti->fpregs, extra, &th->cpu.fpu);
}
