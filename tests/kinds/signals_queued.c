/*
 * Some 250 pending signals, of the process and of two threads: every origin there is (kill, tgkill, sigqueue, message queues, asynchronous I/O,
 * forged kernel causes), five real-time signals interleaved, each entry with all of its siginfo, in the order in which they were sent.
 * Afterwards the limit of pending signals is lowered below their number: what is queued already stays.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "target.h"

enum { INFO_BYTES = 48, NR_SIGNALS = 5, PER_SIGNAL = 40, NR_PRIVATE = 25, LIMIT = 30 };

struct raw {
	unsigned char bytes[128];
};

static struct raw sent[NR_SIGNALS][PER_SIGNAL];
static int to_threads[2], from_threads[2];

/* What the kernel keeps of a siginfo, byte for byte: codes of every kind, values in all bytes. */
static void make(struct raw *raw, int sig, int code, unsigned nr)
{
	siginfo_t info;

	memset(&info, 0, sizeof(info));
	info.si_signo = sig;
	info.si_code = code;
	info.si_errno = nr;
	info.si_pid = getpid() + nr;
	info.si_uid = 1000 + nr;
	info.si_value.sival_ptr = (void *)(0x1111111111111111 * (nr % 15) + nr);
	memcpy(raw->bytes, &info, sizeof(raw->bytes));
}

static void receive(int sig, struct raw *got)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, sig);
	memset(got, 0xee, sizeof(*got));
	/* Not by the C library, which makes SI_TKILL SI_USER. */
	CHECK_EQUAL(syscall(SYS_rt_sigtimedwait, &set, got, &(struct timespec){ 0 }, 8), sig);
}

static void receive_same(int sig, const struct raw *wanted, int nr)
{
	struct raw got;

	receive(sig, &got);
	for (int i = 0; i < INFO_BYTES; i++)
		if (got.bytes[i] != wanted->bytes[i])
			TARGET_FAIL("signal %d number %d: byte %d is %#x, expected %#x", sig, nr, i, got.bytes[i], wanted->bytes[i]);
}

static void queue_for_process(void)
{
	/* From the message queue, asynchronous I/O, SIGIO, a name look-up, and as if from the kernel itself (own process only). */
	static const int codes[] = { SI_QUEUE, SI_MESGQ, SI_ASYNCIO, SI_SIGIO, SI_ASYNCNL, SI_KERNEL, SI_USER, SI_TKILL, POLL_IN, SI_TIMER };

	for (unsigned k = 0; k < PER_SIGNAL; k++) {
		for (unsigned s = 0; s < NR_SIGNALS; s++) {
			make(&sent[s][k], SIGRTMIN + 2 * s, codes[(k + s) % 10], 100 * s + k);
			CHECK(!syscall(SYS_rt_sigqueueinfo, getpid(), SIGRTMIN + 2 * s, &sent[s][k]));
		}
	}
}

static void receive_for_process(void)
{
	for (unsigned k = 0; k < PER_SIGNAL; k++)
		for (unsigned s = 0; s < NR_SIGNALS; s++)
			receive_same(SIGRTMIN + 2 * s, &sent[s][k], k);
}

/* Private ones; the same signals are pending for the process, too, and come second. */
static void *thread(void *arg)
{
	struct raw mine[NR_PRIVATE], got;
	char byte;

	for (int i = 0; i < NR_PRIVATE; i++) {
		make(&mine[i], SIGRTMIN, i & 1 ? SI_QUEUE : SI_KERNEL, 7000 + i + (long)arg);
		CHECK(!syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), SIGRTMIN, &mine[i]));
	}
	CHECK(!syscall(SYS_tgkill, getpid(), gettid(), SIGUSR1));
	CHECK_EQUAL(write(from_threads[1], "", 1), 1);
	CHECK_EQUAL(read(to_threads[0], &byte, 1), 1);
	for (int i = 0; i < NR_PRIVATE; i++)
		receive_same(SIGRTMIN, &mine[i], i);
	receive(SIGUSR1, &got);
	CHECK_EQUAL(((siginfo_t *)&got)->si_code, SI_TKILL);
	CHECK_EQUAL(((siginfo_t *)&got)->si_pid, getpid());
	CHECK_EQUAL(write(from_threads[1], "", 1), 1);
	return NULL;
}

int main(void)
{
	pthread_t threads[2];
	struct rlimit limit, now;
	struct raw got;
	sigset_t all, left;
	char byte;

	sigfillset(&all);
	CHECK(!sigprocmask(SIG_SETMASK, &all, NULL));
	CHECK(!pipe(to_threads) && !pipe(from_threads));
	queue_for_process();
	/* Standard signals: only the first of a number counts. */
	CHECK(!sigqueue(getpid(), SIGUSR2, (union sigval){ .sival_int = 1 }));
	CHECK(!sigqueue(getpid(), SIGUSR2, (union sigval){ .sival_int = 2 }));
	CHECK(!kill(getpid(), SIGTERM));
	for (long i = 0; i < 2; i++) {
		CHECK(!pthread_create(&threads[i], NULL, thread, (void *)(i * 100)));
		CHECK_EQUAL(read(from_threads[0], &byte, 1), 1);
	}
	CHECK(!getrlimit(RLIMIT_SIGPENDING, &limit));
	limit.rlim_cur = limit.rlim_max = LIMIT;
	CHECK(!setrlimit(RLIMIT_SIGPENDING, &limit));
	/* Above the limit only the bit is kept, and what the signal carries is lost. */
	CHECK(!sigqueue(getpid(), SIGHUP, (union sigval){ .sival_int = 3 }));
	target_ready();

	CHECK(!getrlimit(RLIMIT_SIGPENDING, &now));
	CHECK_EQUAL(now.rlim_cur, LIMIT);
	CHECK_EQUAL(now.rlim_max, LIMIT);
	for (int i = 0; i < 2; i++) {
		CHECK_EQUAL(write(to_threads[1], "", 1), 1);
		CHECK_EQUAL(read(from_threads[0], &byte, 1), 1);
	}
	receive_for_process();
	receive(SIGUSR2, &got);
	CHECK_EQUAL(((siginfo_t *)&got)->si_value.sival_int, 1);
	CHECK_EQUAL(((siginfo_t *)&got)->si_code, SI_QUEUE);
	receive(SIGTERM, &got);
	CHECK_EQUAL(((siginfo_t *)&got)->si_code, SI_USER);
	receive(SIGHUP, &got);
	CHECK_EQUAL(((siginfo_t *)&got)->si_code, SI_USER);
	CHECK_EQUAL(((siginfo_t *)&got)->si_pid, 0);
	CHECK(!sigpending(&left));
	for (int sig = 1; sig <= 64; sig++)
		CHECK_EQUAL(sigismember(&left, sig) == 1 ? sig : 0, 0);
	for (int i = 0; i < 2; i++)
		CHECK(!pthread_join(threads[i], NULL));
	return target_pass();
}
