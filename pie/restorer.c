/*
 * The restorer: turns the process it runs in into another one, by a list of system calls.
 *
 * It decides nothing. user/restore/ makes the list (printable: `bcr show --plan`); here each op is issued and its result
 * checked. When its ops are done a thread says so, waits for the coordinator and leaves by rt_sigreturn.
 */
#include "pie/restorer.h"

#include <linux/futex.h>
#include <linux/sched.h>
#include <linux/types.h>
#include <asm/unistd_64.h>

#include "pie/syscall-x86_64.h"

enum { CLONE_TRIES = 200 };

void blob_start(struct restorer_args *args);
void thread_run(struct restorer_thread *th) __attribute__((noreturn));

static void control_wake(__u32 *word)
{
	pie_syscall3(__NR_futex, word, FUTEX_WAKE, 0x7fffffff);
}

static long raise_word(__u32 *word)
{
	__atomic_add_fetch(word, 1, __ATOMIC_RELEASE);
	control_wake(word);
	return 0;
}

static long wait_until(__u32 *word, __u32 wanted)
{
	__u32 now;

	while ((now = __atomic_load_n(word, __ATOMIC_ACQUIRE)) < wanted)
		pie_syscall4(__NR_futex, word, FUTEX_WAIT, now, 0);
	return 0;
}

static struct restorer_control *control_of(const struct restorer_thread *th)
{
	return (struct restorer_control *)((struct restorer_args *)th->args)->control;
}

static void arrive(struct restorer_control *c)
{
	raise_word(&c->arrived);
}

static void wait_for_phase(struct restorer_control *c, __u32 wanted)
{
	wait_until(&c->phase, wanted);
}

static void report(struct restorer_thread *th, enum restorer_status status, long error, __u64 op)
{
	struct restorer_control *c = control_of(th);
	struct restorer_slot *slot = &c->slots[th->slot];

	slot->error = error;
	slot->op = op;
	__atomic_store_n(&slot->status, status, __ATOMIC_RELEASE);
	if (status == RESTORER_FAILED)
		__atomic_store_n(&c->failed, 1, __ATOMIC_RELEASE);
	arrive(c);
}

/* The coordinator ends everything that has failed: nothing sensible is left to do here. */
static void wait_for_end(void)
{
	for (;;)
		pie_syscall0(__NR_pause);
}

/*
 * clone3 and the first steps of the new thread, which has an empty stack: its struct is in r12, which
 * survives the system call on both sides.
 */
static long clone_thread(struct clone_args *ca, struct restorer_thread *th)
{
	long ret;

	__asm__ volatile("mov %[th], %%r12\n\t"
			 "syscall\n\t"
			 "test %%rax, %%rax\n\t"
			 "jnz 1f\n\t"
			 "xor %%ebp, %%ebp\n\t"
			 "mov %%r12, %%rdi\n\t"
			 "call thread_run\n\t"
			 "1:"
			 : "=a"(ret)
			 : "a"(__NR_clone3), "D"(ca), "S"(sizeof(*ca)), [th] "r"(th)
			 : "rcx", "r11", "r12", "memory");
	return ret;
}

static long make_thread(struct restorer_thread *self, __u64 index)
{
	struct restorer_args *args = (struct restorer_args *)self->args;
	struct restorer_thread *th = (struct restorer_thread *)args->threads + index;
	int tid = th->tid;
	struct clone_args ca = {
		.flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM,
		/* The kernel adds stack_size to stack. */
		.stack = th->stack_top - 16,
		.stack_size = 16,
		.set_tid = (__u64)&tid,
		.set_tid_size = 1,
	};
	long ret = clone_thread(&ca, th);

	/* The number of a thread that is gone for all to see may not be free yet (clone_with_pid() in restore/task.c). */
	for (int i = 0; ret == -17 && i < CLONE_TRIES; i++) {
		struct { long sec, nsec; } pause = { 0, 500000 };

		pie_syscall2(__NR_nanosleep, &pause, 0);
		ret = clone_thread(&ca, th);
	}
	return ret > 0 && ret != tid ? -17 /* EEXIST: cannot be with set_tid */ : ret;
}

/* `arrived` is read before the status, and raised after it: a change in between ends the sleep. */
static long await_others(struct restorer_thread *self)
{
	const struct restorer_args *args = (const struct restorer_args *)self->args;
	const struct restorer_thread *all = (const struct restorer_thread *)args->threads;
	struct restorer_control *c = control_of(self);

	for (__u64 i = 0; i < args->nr_threads; i++) {
		for (;;) {
			__u32 arrived = __atomic_load_n(&c->arrived, __ATOMIC_ACQUIRE);

			if (&all[i] == self || __atomic_load_n(&c->slots[all[i].slot].status, __ATOMIC_ACQUIRE) != RESTORER_RUNNING)
				break;
			pie_syscall4(__NR_futex, &c->arrived, FUTEX_WAIT, arrived, 0);
		}
	}
	return 0;
}

static long make_date(__u64 clock, __s64 from_now_ns, __s64 *timespec)
{
	const __s64 second = 1000000000;
	__s64 now[2], date;
	long ret = pie_syscall2(__NR_clock_gettime, clock, now);

	if (ret < 0)
		return ret;
	if (__builtin_add_overflow(now[0] * second + now[1], from_now_ns, &date))
		return -75; /* EOVERFLOW */
	if (date < 1)
		date = 1; /* 0 would disarm it */
	timespec[0] = date / second;
	timespec[1] = date % second;
	return 0;
}

static long run_op(struct restorer_thread *th, const struct restorer_op *op)
{
	long ret;

	if (op->code == RESTORER_CLONE)
		return make_thread(th, op->args[0]);
	if (op->code == RESTORER_AWAIT)
		return await_others(th);
	if (op->code == RESTORER_RAISE)
		return raise_word((__u32 *)op->args[0]);
	if (op->code == RESTORER_UNTIL)
		return wait_until((__u32 *)op->args[0], op->args[1]);
	if (op->code == RESTORER_DATE)
		return make_date(op->args[0], op->args[1], (__s64 *)op->args[2]);
	if (op->code == RESTORER_MEET) {
		arrive(control_of(th));
		wait_for_phase(control_of(th), op->args[0]);
		return 0;
	}
	ret = pie_syscall6(op->nr, op->args[0], op->args[1], op->args[2], op->args[3], op->args[4], op->args[5]);
	if (op->expect == RESTORER_ANY)
		return 0;
	/* Results of mmap and mremap are addresses: errors are the last page of numbers. */
	if ((unsigned long)ret > -4096UL)
		return ret;
	if (op->expect == RESTORER_SAME && (__u64)ret != op->args[op->expect_arg])
		return -17; /* EEXIST */
	return 0;
}

__attribute__((noreturn)) static void leave(__u64 frame_sp)
{
	__asm__ volatile("mov %[sp], %%rsp\n\t"
			 "mov %[nr], %%eax\n\t"
			 "syscall\n\t"
			 "ud2"
			 :
			 : [sp] "r"(frame_sp), [nr] "i"(__NR_rt_sigreturn)
			 : "rax", "rcx", "r11", "memory");
	__builtin_unreachable();
}

void thread_run(struct restorer_thread *th)
{
	const struct restorer_op *ops = (const struct restorer_op *)th->ops;

	for (__u64 i = 0; i < th->nr_ops; i++) {
		long ret = run_op(th, &ops[i]);

		if (ret < 0) {
			report(th, RESTORER_FAILED, ret, i);
			wait_for_end();
		}
	}
	report(th, RESTORER_READY, 0, 0);
	wait_for_phase(control_of(th), PHASE_RESUME);
	leave(th->frame_sp);
}

__attribute__((section(".text.start"))) void blob_start(struct restorer_args *args)
{
	thread_run((struct restorer_thread *)args->threads);
}
