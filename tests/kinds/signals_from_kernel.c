/*
 * Pending signals with causes of the kernel's own: children that ended (SIGCHLD with status and times), I/O on a pipe (SIGIO with band and
 * descriptor, and without a number of its own), a message that came (mq_notify), an alarm, a write into a broken pipe.
 */
#include <mqueue.h>
#include <signal.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "target.h"

static siginfo_t receive(int sig)
{
	siginfo_t info;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, sig);
	CHECK_EQUAL(sigtimedwait(&set, &info, &(struct timespec){ 0 }), sig);
	return info;
}

static void await_pending(int sig)
{
	sigset_t set;

	do {
		CHECK(!sigpending(&set));
	} while (!sigismember(&set, sig));
}

int main(void)
{
	int io[2], plain[2], broken[2];
	sigset_t all;
	siginfo_t info;

	sigfillset(&all);
	CHECK(!sigprocmask(SIG_SETMASK, &all, NULL));

	pid_t child = fork();
	if (!child)
		_exit(42);
	CHECK(!waitid(P_PID, child, &info, WEXITED | WNOWAIT)); /* it stays a zombie */

	CHECK(!pipe(io) && !pipe(plain) && !pipe(broken));
	CHECK(!fcntl(io[0], F_SETSIG, SIGRTMIN + 3) && !fcntl(io[0], F_SETOWN, getpid()));
	CHECK(!fcntl(io[0], F_SETFL, O_ASYNC));
	CHECK(!fcntl(plain[0], F_SETOWN, getpid()) && !fcntl(plain[0], F_SETFL, O_ASYNC));
	CHECK_EQUAL(write(io[1], "x", 1), 1);
	CHECK_EQUAL(write(plain[1], "x", 1), 1);
	CHECK(!close(broken[0]));
	CHECK_EQUAL(write(broken[1], "x", 1), -1);
	CHECK_EQUAL(errno, EPIPE);

	char name[32];
	snprintf(name, sizeof(name), "/bcr-signals-%d", getpid());
	mqd_t mq = mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0600, NULL);
	CHECK(mq != (mqd_t)-1 && !mq_unlink(name));
	struct sigevent ev = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 4, .sigev_value.sival_int = 4711 };
	CHECK(!mq_notify(mq, &ev) && !mq_send(mq, "x", 1, 0) && !mq_close(mq));

	CHECK(!setitimer(ITIMER_REAL, &(struct itimerval){ .it_value.tv_usec = 1 }, NULL));
	await_pending(SIGALRM);
	target_ready();

	info = receive(SIGCHLD);
	CHECK_EQUAL(info.si_code, CLD_EXITED);
	CHECK_EQUAL(info.si_pid, child);
	CHECK_EQUAL(info.si_status, 42);
	info = receive(SIGRTMIN + 3);
	CHECK_EQUAL(info.si_code, POLL_IN);
	CHECK_EQUAL(info.si_fd, io[0]);
	CHECK(info.si_band & 1);
	info = receive(SIGIO);
	CHECK_EQUAL(info.si_code, SI_KERNEL);
	CHECK_EQUAL(info.si_pid, 0);
	info = receive(SIGPIPE);
	CHECK_EQUAL(info.si_code, SI_USER);
	CHECK_EQUAL(info.si_pid, getpid());
	info = receive(SIGRTMIN + 4);
	CHECK_EQUAL(info.si_code, SI_MESGQ);
	CHECK_EQUAL(info.si_value.sival_int, 4711);
	CHECK_EQUAL(info.si_pid, getpid());
	info = receive(SIGALRM);
	CHECK_EQUAL(info.si_code, SI_KERNEL);

	/* The causes work as before. */
	CHECK_EQUAL(waitpid(child, NULL, 0), child);
	CHECK_EQUAL(write(io[1], "x", 1), 1);
	CHECK_EQUAL(receive(SIGRTMIN + 3).si_fd, io[0]);
	if (!(child = fork()))
		_exit(3);
	CHECK(!waitid(P_PID, child, &info, WEXITED));
	CHECK_EQUAL(receive(SIGCHLD).si_status, 3);
	return target_pass();
}
