/* 1,000 threads, each with a name, a signal mask, an alternate stack and a robust list of its own, all of them waiting. */
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "target.h"

enum { NR_THREADS = 1000, STACK_BYTES = 32768 };

struct thread {
	pthread_t thread;
	pid_t tid;
	uint8_t altstack[4096];
};

static struct thread threads[NR_THREADS];
static pthread_barrier_t ready;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static int go, ended;
static __thread int number;

static void make_mask(int n, sigset_t *ret)
{
	sigemptyset(ret);
	for (int bit = 0; bit < 10; bit++)
		if (n >> bit & 1)
			sigaddset(ret, SIGRTMIN + bit);
}

static void *run(void *arg)
{
	struct thread *t = arg;
	int n = t - threads;
	stack_t stack = { .ss_sp = t->altstack, .ss_size = sizeof(t->altstack) }, now;
	char name[16], name_now[16];
	void *robust, *robust_now;
	sigset_t mask, mask_now;
	size_t len;

	number = n;
	t->tid = gettid();
	make_mask(n, &mask);
	CHECK(!pthread_sigmask(SIG_SETMASK, &mask, NULL));
	snprintf(name, sizeof(name), "thread-%d", n);
	CHECK(!prctl(PR_SET_NAME, name));
	CHECK(!sigaltstack(&stack, NULL));
	CHECK(!syscall(SYS_get_robust_list, 0, &robust, &len));
	pthread_barrier_wait(&ready);

	pthread_mutex_lock(&mutex);
	while (!go)
		pthread_cond_wait(&cond, &mutex);
	ended++;
	pthread_mutex_unlock(&mutex);

	CHECK_EQUAL(number, n);
	CHECK_EQUAL(gettid(), t->tid);
	CHECK(!pthread_sigmask(SIG_SETMASK, NULL, &mask_now));
	for (int sig = SIGRTMIN; sig <= SIGRTMAX; sig++)
		CHECK_EQUAL(sigismember(&mask_now, sig), sigismember(&mask, sig));
	CHECK(!prctl(PR_GET_NAME, name_now) && !strcmp(name, name_now));
	CHECK(!sigaltstack(NULL, &now) && now.ss_sp == stack.ss_sp && now.ss_size == stack.ss_size);
	CHECK(!syscall(SYS_get_robust_list, 0, &robust_now, &len) && robust == robust_now);
	return NULL;
}

int main(void)
{
	pthread_attr_t attr;

	pthread_barrier_init(&ready, NULL, NR_THREADS + 1);
	pthread_attr_init(&attr);
	CHECK(!pthread_attr_setstacksize(&attr, STACK_BYTES));
	for (int i = 0; i < NR_THREADS; i++)
		CHECK(!pthread_create(&threads[i].thread, &attr, run, &threads[i]));
	pthread_barrier_wait(&ready);
	target_ready();
	pthread_mutex_lock(&mutex);
	go = 1;
	pthread_cond_broadcast(&cond);
	pthread_mutex_unlock(&mutex);
	/* Joined: the kernel has cleared each thread's number (clear_child_tid) and woken us. */
	for (int i = 0; i < NR_THREADS; i++)
		CHECK(!pthread_join(threads[i].thread, NULL));
	CHECK_EQUAL(ended, NR_THREADS);
	return target_pass();
}
