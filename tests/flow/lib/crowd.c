/*
 * A tree of 20 processes with 50 threads that never stops checking itself. A token runs round and round through all of
 * them over pipes; the one that has it verifies its memory, has its worker threads verify theirs (futexes), and
 * expects exactly one SIGUSR1 a round from its neighbour. DIR/rounds is the number of rounds: as long as it grows,
 * everything is right. What is not right goes to DIR/log, and the token stops.
 */
#include <linux/futex.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "self.h"

enum {
	NR_PROCESSES = 20,
	NR_THREADS = 50,
	NR_WORDS = 8192, /* 64 KiB of private memory each */
};

static const uint64_t LAST_ROUND = 1ULL << 63;

/* In memory shared by all. */
static struct {
	pid_t pids[NR_PROCESSES];
	uint64_t rounds[NR_PROCESSES];
} *shared;

static int me;                          /* 0: the root */
static uint64_t *words;                 /* word i is mix(i, generation) */
static uint64_t generation;
static volatile sig_atomic_t signals;   /* SIGUSR1 seen, modulo 2^16 */
static uint32_t started, finished;      /* futexes: rounds started, workers done in it */
static int nr_workers;

static uint64_t mix(uint64_t i, uint64_t g)
{
	uint64_t x = i * 0x9e3779b97f4a7c15 + g * 0xbf58476d1ce4e5b9 + me;

	return x ^ x >> 29;
}

static void futex_wait_while(uint32_t *word, uint32_t value)
{
	while (__atomic_load_n(word, __ATOMIC_ACQUIRE) == value) {
		int rc = syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);

		CHECK(rc == 0 || errno == EAGAIN, "futex wait: %s", strerror(errno));
	}
}

static void futex_add(uint32_t *word)
{
	__atomic_add_fetch(word, 1, __ATOMIC_RELEASE);
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* What only this thread knows: its stack, its thread-local storage, its floating-point registers. */
static __thread uint64_t tls_count;

static void *worker(void *arg)
{
	uint64_t number = (uintptr_t)arg, on_stack[64];
	double sum = 0;

	for (uint32_t round = 1;; round++) {
		futex_wait_while(&started, round - 1);
		if (round > 1) {
			for (int i = 0; i < 64; i++)
				CHECK(on_stack[i] == mix(i, round - 1 + number), "stack of worker %lu", number);
		}
		CHECK(tls_count == round - 1, "thread-local %lu in round %u", tls_count, round);
		CHECK(sum == (double)(round - 1) * number * 0.5, "sum %g in round %u", sum, round);
		for (int i = 0; i < 64; i++)
			on_stack[i] = mix(i, round + number);
		tls_count++;
		sum += number * 0.5;
		futex_add(&finished);
	}
	return NULL;
}

static void on_signal(int sig)
{
	signals++;
}

static void check_memory(void)
{
	for (uint64_t i = 0; i < NR_WORDS; i++)
		CHECK(words[i] == mix(i, generation), "word %lu is %#lx", i, words[i]);
	generation++;
	for (uint64_t i = 0; i < NR_WORDS; i++)
		words[i] = mix(i, generation);
}

static void start_workers(void)
{
	pthread_attr_t attr;
	sigset_t all, old;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 64 << 10);
	/* The main thread alone counts signals: it is the one that reads the token sent right behind them. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	for (int i = 0; i < nr_workers; i++) {
		pthread_t thread;

		CHECK(pthread_create(&thread, &attr, worker, (void *)(uintptr_t)(i + 1)) == 0, "no thread");
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

/* One round of this process. */
static void do_round(uint64_t round)
{
	CHECK((uint16_t)signals == (uint16_t)(me ? round : round - 1), "%d signals in round %lu", signals, round);
	CHECK(shared->rounds[me] == round - 1, "shared memory says %lu in round %lu", shared->rounds[me], round);
	check_memory();
	uint32_t before = finished;
	futex_add(&started);
	for (uint32_t done = before; done != before + nr_workers; done = __atomic_load_n(&finished, __ATOMIC_ACQUIRE))
		futex_wait_while(&finished, done);
	shared->rounds[me] = round;
}

static void pass_on(int out, uint64_t token)
{
	/* Nobody may be killed by a signal of a neighbour that has ended, in the last round. */
	if (!(token & LAST_ROUND))
		NEED(kill(shared->pids[(me + 1) % NR_PROCESSES], SIGUSR1) == 0);
	NEED(write(out, &token, sizeof(token)) == sizeof(token));
}

static uint64_t receive(int in)
{
	uint64_t token;
	ssize_t len = read(in, &token, sizeof(token));

	CHECK(len == sizeof(token), "read gives %zd: %s", len, strerror(errno));
	return token;
}

static void run_member(int in, int out)
{
	for (;;) {
		uint64_t token = receive(in);

		if (!(token & LAST_ROUND))
			do_round(token);
		pass_on(out, token);
		if (token & LAST_ROUND)
			return;
	}
}

static void run_root(int in, int out)
{
	int fd = open("rounds", O_RDWR | O_CREAT | O_CLOEXEC, 0644);

	NEED(fd >= 0);
	for (uint64_t round = 1;; round++) {
		char text[32];

		do_round(round);
		pass_on(out, round);
		uint64_t token = receive(in);
		CHECK(token == round, "the token of round %lu is %lu", round, token);
		snprintf(text, sizeof(text), "%019lu\n", round);
		NEED(pwrite(fd, text, 20, 0) == 20);
		if (round == 2)
			self_ready();
		if (!access("go", F_OK))
			break;
		self_nap(1000000);
	}
	pass_on(out, LAST_ROUND);
	CHECK(receive(in) == LAST_ROUND, "another token than the last");
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	int pipes[NR_PROCESSES][2];
	pid_t children[2];
	int nr_children = 0;

	self_init(argc, argv);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	NEED(shared != MAP_FAILED);
	sigaction(SIGUSR1, &action, NULL);
	for (int i = 0; i < NR_PROCESSES; i++)
		NEED(pipe(pipes[i]) == 0);

	/* A binary tree: number n has the children 2n+1 and 2n+2. */
	for (int side = 1; side <= 2 && 2 * me + side < NR_PROCESSES; side++) {
		int number = 2 * me + side;

		pid_t pid = fork();
		NEED(pid >= 0);
		if (!pid) {
			me = number;
			nr_children = 0;
			side = 0;
			continue;
		}
		children[nr_children++] = pid;
	}
	__atomic_store_n(&shared->pids[me], getpid(), __ATOMIC_RELEASE);
	for (int i = 0; i < NR_PROCESSES; i++) {
		while (!__atomic_load_n(&shared->pids[i], __ATOMIC_ACQUIRE))
			self_nap(100000);
	}

	int in = dup(pipes[me][0]), out = dup(pipes[(me + 1) % NR_PROCESSES][1]);
	NEED(in >= 0 && out >= 0);
	for (int i = 0; i < NR_PROCESSES; i++) {
		close(pipes[i][0]);
		close(pipes[i][1]);
	}
	words = mmap(NULL, NR_WORDS * 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	NEED(words != MAP_FAILED);
	for (uint64_t i = 0; i < NR_WORDS; i++)
		words[i] = mix(i, 0);
	/* 30 workers: one for each process, and one more for the first ten. */
	nr_workers = (NR_THREADS - NR_PROCESSES) / NR_PROCESSES + (me < (NR_THREADS - NR_PROCESSES) % NR_PROCESSES);
	start_workers();

	if (me)
		run_member(in, out);
	else
		run_root(in, out);
	for (int i = 0; i < nr_children; i++)
		self_join(children[i]);
	if (me)
		_exit(0);
	self_pass();
}
