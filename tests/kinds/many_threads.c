/* 1,000 threads: each knows its number, its stack and its thread-local storage, and wakes in its turn. */
#include <linux/futex.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/syscall.h>

#include "target.h"

enum { NR = 999, BYTES = 1024 };

static uint32_t turn[NR], done;
static pid_t tids[NR];
static __thread uint64_t mine;

static void futex_wait(uint32_t *word, uint32_t value)
{
	while (__atomic_load_n(word, __ATOMIC_ACQUIRE) == value)
		syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_set(uint32_t *word, uint32_t value)
{
	__atomic_store_n(word, value, __ATOMIC_RELEASE);
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

static void *run(void *arg)
{
	uint32_t i = (uintptr_t)arg;
	volatile uint8_t stack[BYTES];

	mine = i * 0x9e3779b97f4a7c15u;
	for (uint32_t k = 0; k < BYTES; k++)
		stack[k] = i * 7 + k;
	tids[i] = syscall(SYS_gettid);
	for (uint32_t round = 0; round < 2; round++) {
		futex_wait(&turn[i], round);
		CHECK_EQUAL(syscall(SYS_gettid), tids[i]);
		CHECK(mine == i * 0x9e3779b97f4a7c15u);
		for (uint32_t k = 0; k < BYTES; k++)
			CHECK_EQUAL(stack[k], (uint8_t)(i * 7 + k));
		futex_set(&done, __atomic_load_n(&done, __ATOMIC_ACQUIRE) + 1);
	}
	return NULL;
}

/* One after the other. */
static void round_of_all(uint32_t round)
{
	for (uint32_t i = 0; i < NR; i++) {
		uint32_t before = __atomic_load_n(&done, __ATOMIC_ACQUIRE);

		futex_set(&turn[i], round + 1);
		futex_wait(&done, before);
	}
}

int main(void)
{
	pthread_t threads[NR];
	pthread_attr_t attr;

	CHECK(!pthread_attr_init(&attr) && !pthread_attr_setstacksize(&attr, 64 << 10));
	for (uintptr_t i = 0; i < NR; i++)
		CHECK(!pthread_create(&threads[i], &attr, run, (void *)i));
	round_of_all(0);
	target_ready();
	round_of_all(1);
	for (uint32_t i = 0; i < NR; i++)
		CHECK(!pthread_join(threads[i], NULL));
	CHECK_EQUAL(done, 2 * NR);
	return target_pass();
}
