/* The plan: what threads are confined by (seccomp(2)). Pure. */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "restore/plan_builder.h"

/* How many filters come up to this one, and the one that has `depth` up to it. */
static uint32_t filter_depth(const struct model *m, uint32_t filter)
{
	uint32_t depth = 0;

	for (; filter; filter = m->seccomp_filters.v[filter - 1].prev)
		depth++;
	return depth;
}

static uint32_t filter_at(const struct model *m, uint32_t filter, uint32_t depth)
{
	for (uint32_t now = filter_depth(m, filter); now > depth; now--)
		filter = m->seccomp_filters.v[filter - 1].prev;
	return filter;
}

/* The newest filter that all threads have, by the same installation: one may install for all later (TSYNC) only if so. */
static uint32_t common_filter(const struct model *m, const struct task *t)
{
	uint32_t common = task_living(t)->seccomp_filter;

	VEC_FOREACH(th, &t->threads) {
		uint32_t other = th->exited ? common : th->seccomp_filter;
		uint32_t depth = filter_depth(m, common), other_depth = filter_depth(m, other);

		depth = depth < other_depth ? depth : other_depth;
		common = filter_at(m, common, depth);
		other = filter_at(m, other, depth);
		while (common != other) {
			common = m->seccomp_filters.v[common - 1].prev;
			other = m->seccomp_filters.v[other - 1].prev;
		}
	}
	return common;
}

/* From the one behind `from` on up to `to`, oldest first. */
static void plan_filters(struct builder *b, const char *what, uint32_t from, uint32_t to, uint32_t flags)
{
	const struct model *m = b->p->m;
	uint32_t first = filter_depth(m, from) + 1, last = filter_depth(m, to);

	for (uint32_t depth = first; depth <= last; depth++) {
		const struct seccomp_filter *f = &m->seccomp_filters.v[filter_at(m, to, depth) - 1];
		struct sock_fprog prog = {
			.len = f->len_bytes / sizeof(struct sock_filter),
			.filter = (void *)(uintptr_t)put(b, f->insns, f->len_bytes, 8),
		};

		/* The result is 0, or the number of a thread that cannot follow. */
		CALL_AT(b, what, SYS_seccomp, 5, SECCOMP_SET_MODE_FILTER, f->flags | flags, put(b, &prog, sizeof(prog), 8));
	}
}

uint64_t plan_seccomp_bytes(const struct model *m)
{
	uint64_t most = 0;

	VEC_FOREACH(t, &m->tasks) {
		uint64_t bytes = 0;

		VEC_FOREACH(th, &t->threads)
			for (uint32_t at = th->seccomp_filter; at; at = m->seccomp_filters.v[at - 1].prev)
				bytes += m->seccomp_filters.v[at - 1].len_bytes + 256;
		most = bytes > most ? bytes : most;
	}
	return most;
}

/*
 * Two meetings of all threads of the tree: at the first one the coordinator comes to trace them all, for their calls are not to be
 * judged from here on; before the second one each process installs what all of its threads have.
 */
void plan_seccomp(struct builder *b, const struct thread *th, bool leader)
{
	uint32_t common;

	if (!b->p->has_seccomp)
		return;
	common = common_filter(b->p->m, b->tp->task);
	add(b, "wait until all threads are traced", (struct restorer_op){ .code = RESTORER_MEET, .args = { PHASE_TRACED } });
	if (leader)
		plan_filters(b, "seccomp filter of all threads", 0, common,
			     b->tp->threads.nr > 1 ? SECCOMP_FILTER_FLAG_TSYNC : 0);
	add(b, "wait for the filters of others", (struct restorer_op){ .code = RESTORER_MEET, .args = { PHASE_FILTERS } });
	if (!th->exited)
		plan_filters(b, "seccomp filter", common, th->seccomp_filter, 0);
	if (th->seccomp_mode == SECCOMP_MODE_STRICT)
		CALL(b, "strict seccomp", SYS_prctl, PR_SET_SECCOMP, SECCOMP_MODE_STRICT);
}
