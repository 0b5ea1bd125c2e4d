/*
 * Sets of signals, flags, a description shared over dup and fork, a set that was changed after the fact, and an epoll set that
 * watches one; signals that are pending are read from it afterwards, with what they carry.
 */
#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "target.h"

/* The set as the kernel says it, over all 64 signals. */
static unsigned long long mask_of(int fd)
{
	char path[64], line[128];
	unsigned long long mask = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	CHECK((f = fopen(path, "re")));
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "sigmask: %llx", &mask) == 1)
			break;
	fclose(f);
	return mask;
}

static void read_value(int fd, int sig, int code, int value)
{
	struct signalfd_siginfo info;

	CHECK_EQUAL(read(fd, &info, sizeof(info)), sizeof(info));
	CHECK_EQUAL(info.ssi_signo, sig);
	CHECK_EQUAL(info.ssi_code, code);
	CHECK_EQUAL(info.ssi_pid, getpid());
	CHECK_EQUAL(info.ssi_int, value);
}

int main(void)
{
	sigset_t all, queued, one;
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = 33 }, got;
	struct signalfd_siginfo info;
	unsigned long long everything = ~0ULL;

	sigfillset(&all);
	CHECK(!sigprocmask(SIG_SETMASK, &all, NULL));
	sigemptyset(&queued);
	sigaddset(&queued, SIGUSR1);
	sigaddset(&queued, SIGRTMIN + 7);
	sigaddset(&queued, SIGRTMAX);
	sigemptyset(&one);
	sigaddset(&one, SIGUSR2);

	int fd = signalfd(-1, &queued, SFD_NONBLOCK | SFD_CLOEXEC);
	int shared = dup(fd), later = signalfd(-1, &queued, SFD_NONBLOCK), ep = epoll_create1(0);
	int full = syscall(SYS_signalfd4, -1, &everything, sizeof(everything), 0);
	CHECK(fd >= 0 && shared >= 0 && later >= 0 && full >= 0 && ep >= 0);
	CHECK_EQUAL(signalfd(later, &one, 0), later);
	CHECK(!epoll_ctl(ep, EPOLL_CTL_ADD, later, &ev));
	for (int i = 0; i < 20; i++)
		CHECK(!sigqueue(getpid(), SIGRTMIN + 7, (union sigval){ .sival_int = i }));
	CHECK(!kill(getpid(), SIGUSR1));
	target_ready();

	unsigned long long wanted = 1ULL << (SIGUSR1 - 1) | 1ULL << (SIGRTMIN + 6) | 1ULL << 63;
	CHECK_EQUAL(mask_of(fd), wanted);
	CHECK_EQUAL(mask_of(shared), wanted);
	CHECK_EQUAL(mask_of(later), 1ULL << (SIGUSR2 - 1));
	CHECK_EQUAL(mask_of(full), ~(1ULL << (SIGKILL - 1) | 1ULL << (SIGSTOP - 1)));
	CHECK_EQUAL(fcntl(fd, F_GETFL), O_RDWR | O_NONBLOCK);
	CHECK_EQUAL(fcntl(full, F_GETFL), O_RDWR);
	CHECK_EQUAL(fcntl(fd, F_GETFD), FD_CLOEXEC);
	CHECK_EQUAL(fcntl(shared, F_GETFD), 0);

	read_value(fd, SIGUSR1, SI_USER, 0);
	for (int i = 0; i < 20; i++)
		read_value(i & 1 ? fd : shared, SIGRTMIN + 7, SI_QUEUE, i);
	CHECK_EQUAL(read(fd, &info, sizeof(info)), -1);
	CHECK_EQUAL(errno, EAGAIN);

	/* One description: a set given to the one is seen by the other. */
	CHECK_EQUAL(signalfd(fd, &one, 0), fd);
	CHECK_EQUAL(mask_of(shared), 1ULL << (SIGUSR2 - 1));

	CHECK_EQUAL(epoll_wait(ep, &got, 1, 0), 0);
	CHECK(!kill(getpid(), SIGUSR2));
	CHECK_EQUAL(epoll_wait(ep, &got, 1, -1), 1);
	CHECK_EQUAL(got.data.u64, 33);
	read_value(later, SIGUSR2, SI_USER, 0);
	return target_pass();
}
