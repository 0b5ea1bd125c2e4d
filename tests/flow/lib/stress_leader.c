/*
 * A process whose main thread has exited: those left make threads and wait for them, fork and collect children, and write
 * to each other through a pipe. Processes like that come and go as well.
 */
#include <pthread.h>
#include <sys/syscall.h>

#include "state.h"
#include "stress.h"

enum { NR_WORKERS = 2, EXIT_CODE = 3 };

static pid_t process;
static unsigned long rounds;
static int pipes[2];
static int stop;

static void *twice(void *arg)
{
	return (void *)((uintptr_t)arg * 2);
}

/* A child whose main thread exits before the other one does; that one's status counts, as it ends all. */
static void *end_later(void *arg)
{
	self_nap(200000);
	_exit((uintptr_t)arg);
	return NULL;
}

static void leaderless_child(unsigned code)
{
	pid_t pid = fork();
	pthread_t thread;
	int status;

	NEED(pid >= 0);
	if (!pid) {
		CHECK(pthread_create(&thread, NULL, end_later, (void *)(uintptr_t)code) == 0, "no thread");
		syscall(SYS_exit, EXIT_CODE);
	}
	NEED(waitpid(pid, &status, 0) == pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == (int)code, "child %d: status %#x, expected %u", pid, status, code);
}

static void *work(void *arg)
{
	uintptr_t n = (uintptr_t)arg;
	pthread_t thread;
	void *result;
	char byte;

	for (unsigned i = 1; !__atomic_load_n(&stop, __ATOMIC_RELAXED); i++) {
		CHECK(pthread_create(&thread, NULL, twice, (void *)(n * i)) == 0, "no thread");
		CHECK(pthread_join(thread, &result) == 0 && (uintptr_t)result == 2 * n * i, "a thread computes wrongly");
		CHECK(getpid() == process, "the process is %d, was %d", getpid(), process);
		if (i % 8 == n)
			leaderless_child(i % 100);
		NEED(write(pipes[1], "x", 1) == 1);
		NEED(read(pipes[0], &byte, 1) == 1);
		__atomic_add_fetch(&rounds, 1, __ATOMIC_RELAXED);
		/* Numbers of threads are not to come round while they are waited for by a restore. */
		self_nap(1000000);
	}
	return NULL;
}

static void *lead(void *arg)
{
	pthread_t workers[NR_WORKERS];

	/* Before it may be dumped: a file of /proc cannot be open then. */
	while (state_of(process) != 'Z')
		self_nap(100000);
	for (int i = 0; i < NR_WORKERS; i++)
		CHECK(pthread_create(&workers[i], NULL, work, (void *)(uintptr_t)(i + 1)) == 0, "no thread");
	stress_progress(0);
	self_ready();
	while (!stress_ends()) {
		stress_progress(__atomic_load_n(&rounds, __ATOMIC_RELAXED));
		self_nap(2000000);
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < NR_WORKERS; i++)
		pthread_join(workers[i], NULL);
	printf("%lu rounds\n", rounds);
	CHECK(state_of(process) == 'Z', "the main thread is in state %c", state_of(process));
	self_pass();
	return arg;
}

int main(int argc, char **argv)
{
	pthread_t thread;

	self_init(argc, argv);
	stress_begin();
	process = getpid();
	NEED(pipe(pipes) == 0);
	CHECK(pthread_create(&thread, NULL, lead, NULL) == 0, "no thread");
	syscall(SYS_exit, EXIT_CODE);
	return 1;
}
