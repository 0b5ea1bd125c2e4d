/*
 * Threads that are in a signal handler on an alternate stack most of the time: the handler must be on that stack, find it
 * in use, and leave everything of the interrupted code as it was. Some of the stacks are given up while they are in use
 * (SS_AUTODISARM), and handlers interrupt each other.
 */
#include <pthread.h>
#include <sys/syscall.h>

#include "stress.h"

enum { NR_THREADS = 3, STACK_BYTES = 65536 };

#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1U << 31)
#endif

struct thread {
	pthread_t thread;
	int number;
	int nested;
	unsigned long rounds, handled;
	char stack[STACK_BYTES] __attribute__((aligned(64)));
};

static struct thread threads[NR_THREADS];
static __thread struct thread *self;
static int stop;

/* Numbers of the thread's own in general and vector registers for a while. */
static double busy(unsigned seed, int turns)
{
	double x[8];

	for (int i = 0; i < 8; i++)
		x[i] = seed + i;
	for (int k = 0; k < turns; k++)
		for (int i = 0; i < 8; i++)
			x[i] = x[i] * 0.999 + (i + 1) * 0.001;
	return x[0] + x[1] + x[2] + x[3] + x[4] + x[5] + x[6] + x[7];
}

static bool on_stack(const void *at)
{
	return (const char *)at >= self->stack && (const char *)at < self->stack + STACK_BYTES;
}

static void check_stack(bool used)
{
	stack_t ss;

	NEED(syscall(SYS_sigaltstack, NULL, &ss) == 0);
	if (self->number % 2 == 0)
		CHECK(ss.ss_sp == self->stack && ss.ss_size == STACK_BYTES && ss.ss_flags == (used ? SS_ONSTACK : 0),
		      "thread %d: its stack is %p, %zu bytes, flags %#x", self->number, ss.ss_sp, ss.ss_size, ss.ss_flags);
	else if (used)
		CHECK(ss.ss_flags == SS_DISABLE, "thread %d: its stack is not given up: flags %#x", self->number, ss.ss_flags);
	else
		CHECK(ss.ss_sp == self->stack && (unsigned)ss.ss_flags == SS_AUTODISARM, "thread %d: its stack is %p, flags %#x",
		      self->number, ss.ss_sp, ss.ss_flags);
}

static void handle(int sig, siginfo_t *info, void *ctx)
{
	int value = info->si_value.sival_int, here, saved = errno;
	double expected = busy(value, 200);

	(void)ctx;
	CHECK(on_stack(&here), "thread %d: signal %d is handled on another stack", self->number, sig);
	check_stack(true);
	self->nested++;
	if (self->nested == 1 && sig == SIGUSR1)
		NEED(syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), SIGUSR2,
			     &(siginfo_t){ .si_code = SI_QUEUE, .si_value.sival_int = value + 1 }) == 0);
	CHECK(busy(value, 200) == expected, "thread %d: it computes wrongly in the handler", self->number);
	self->nested--;
	self->handled++;
	errno = saved;
}

static void *run(void *arg)
{
	struct thread *t = self = arg;
	stack_t ss = { .ss_sp = t->stack, .ss_size = STACK_BYTES, .ss_flags = t->number % 2 ? SS_AUTODISARM : 0 };
	double expected = busy(t->number, 300);

	NEED(syscall(SYS_sigaltstack, &ss, NULL) == 0);
	for (int i = 0; !__atomic_load_n(&stop, __ATOMIC_RELAXED); i++) {
		siginfo_t info = { .si_code = SI_QUEUE, .si_value.sival_int = i };

		NEED(syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), SIGUSR1, &info) == 0);
		CHECK(busy(t->number, 300) == expected, "thread %d: it computes wrongly", t->number);
		check_stack(false);
		__atomic_add_fetch(&t->rounds, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	unsigned long rounds = 0;

	self_init(argc, argv);
	stress_begin();
	NEED(sigaction(SIGUSR1, &sa, NULL) == 0 && sigaction(SIGUSR2, &sa, NULL) == 0);
	for (int i = 0; i < NR_THREADS; i++) {
		threads[i].number = i;
		CHECK(pthread_create(&threads[i].thread, NULL, run, &threads[i]) == 0, "no thread");
	}
	stress_progress(0);
	self_ready();
	while (!stress_ends()) {
		rounds = 0;
		for (int i = 0; i < NR_THREADS; i++)
			rounds += __atomic_load_n(&threads[i].rounds, __ATOMIC_RELAXED);
		stress_progress(rounds);
		self_nap(2000000);
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < NR_THREADS; i++) {
		pthread_join(threads[i].thread, NULL);
		CHECK(threads[i].handled == 2 * threads[i].rounds, "thread %d: %lu rounds, and %lu signals handled", i,
		      threads[i].rounds, threads[i].handled);
	}
	self_pass();
}
