/* Counting per processor in restartable sequences (rseq(2)): no atomics, so that any section not aborted in time shows. */
#ifndef RSEQ_COUNTERS_H
#define RSEQ_COUNTERS_H

#include <stddef.h>
#include <stdint.h>

enum { RSEQ_MAX_CPUS = 1024 };

/* struct rseq of <linux/rseq.h>, as far as it is needed. */
struct rseq_words {
	uint32_t cpu_id_start, cpu_id;
	uint64_t rseq_cs;
};

struct rseq_counting {
	struct {
		unsigned long n;
		char pad[56];
	} cpu[RSEQ_MAX_CPUS];
	unsigned long commits, aborts; /* of all threads, counted atomically */
	unsigned long spin;            /* loops inside a section, between its load and its store */
	int stop;
};

extern const ptrdiff_t __rseq_offset;
extern const unsigned int __rseq_size;

static inline volatile struct rseq_words *rseq_area(void)
{
	return __rseq_size ? (void *)((char *)__builtin_thread_pointer() + __rseq_offset) : NULL;
}

/*
 * Adds one to the counter of the processor. False: the section was aborted, by preemption, migration or a signal. r12 holds
 * what was loaded; the store is the last instruction.
 */
static inline int rseq_try(volatile struct rseq_words *area, struct rseq_counting *c)
{
	uint32_t cpu = area->cpu_id_start;

	__asm__ goto(
		".pushsection __rseq_cs, \"aw\"\n\t"
		".balign 32\n"
		"3:\n\t"
		".long 0, 0\n\t"
		".quad 1f, (2f - 1f), 4f\n\t"
		".popsection\n\t"
		"leaq 3b(%%rip), %%rax\n\t"
		"movq %%rax, 8(%[area])\n"
		"1:\n\t"
		"cmpl %[cpu], 4(%[area])\n\t"
		"jnz 4f\n\t"
		"movq (%[counter]), %%r12\n\t"
		"movq %[spin], %%rcx\n"
		"5:\n\t"
		"pause\n\t"
		"decq %%rcx\n\t"
		"jnz 5b\n\t"
		"incq %%r12\n\t"
		"movq %%r12, (%[counter])\n"
		"2:\n\t"
		".pushsection __rseq_failure, \"ax\"\n\t"
		/* The signature in front of it, as an instruction that traps. */
		".byte 0x0f, 0xb9, 0x3d\n\t"
		".long 0x53053053\n"
		"4:\n\t"
		"jmp %l[aborted]\n\t"
		".popsection\n\t"
		: /* asm goto has no outputs */
		: [area] "r"(area), [cpu] "r"(cpu), [counter] "r"(&c->cpu[cpu].n), [spin] "r"(c->spin)
		: "memory", "cc", "rax", "rcx", "r12"
		: aborted);
	return 1;
aborted:
	return 0;
}

static inline void rseq_count(struct rseq_counting *c)
{
	volatile struct rseq_words *area = rseq_area();

	if (rseq_try(area, c))
		__atomic_add_fetch(&c->commits, 1, __ATOMIC_RELAXED);
	else
		__atomic_add_fetch(&c->aborts, 1, __ATOMIC_RELAXED);
}

/* A thread that counts until it is told to stop. */
static inline void *rseq_count_forever(void *arg)
{
	struct rseq_counting *c = arg;

	while (!__atomic_load_n(&c->stop, __ATOMIC_RELAXED))
		rseq_count(c);
	return NULL;
}

static inline unsigned long rseq_sum(const struct rseq_counting *c)
{
	unsigned long sum = 0;

	for (int i = 0; i < RSEQ_MAX_CPUS; i++)
		sum += c->cpu[i].n;
	return sum;
}

#endif
