/*
 * A dump runs in a worker process.
 *
 * Theory of operation. While the target is stopped, its threads may hold registers that are not their own, or sit in a frozen
 * cgroup, and only bcr can put that right. The process the user sees (and may kill) therefore only waits; the work is done by a
 * child in a session of its own. When bcr dies, by whatever signal, the kernel sends the child SIGTERM (PR_SET_PDEATHSIG,
 * prctl(2)); it then stops at the next check, undoes its stages, and the target runs on as if nothing had been. A worker that is killed
 * itself leaves the target to the kernel, which detaches a dead tracer.
 */
#include "flow/worker.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"

/* There in builds with the address sanitizer, which looks for leaks at exit(3) only otherwise. */
void __lsan_do_leak_check(void) __attribute__((weak));

static volatile sig_atomic_t stop_asked;
static volatile sig_atomic_t worker_pid;

static const int stop_signals[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT };
enum { NR_STOP_SIGNALS = sizeof(stop_signals) / sizeof(stop_signals[0]) };

static void ask_stop(int sig)
{
	(void)sig;
	stop_asked = 1;
}

static void pass_on(int sig)
{
	ask_stop(sig);
	if (worker_pid > 0)
		kill(worker_pid, SIGTERM);
}

static void handle_stop_signals(void (*handler)(int), struct sigaction *old)
{
	struct sigaction sa = { .sa_handler = handler };

	for (int i = 0; i < NR_STOP_SIGNALS; i++)
		sigaction(stop_signals[i], &sa, old ? &old[i] : NULL);
}

bool worker_should_stop(void)
{
	return stop_asked;
}

static int worker_main(pid_t front, int (*run)(void *arg), void *arg)
{
	handle_stop_signals(ask_stop, NULL);
	/* Lines for a reader that went away must not end the worker. */
	signal(SIGPIPE, SIG_IGN);
	setsid();
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != front)
		stop_asked = 1; /* bcr died before the request was in place */
	return run(arg);
}

int worker_run(int (*run)(void *arg), void *arg)
{
	struct sigaction old[NR_STOP_SIGNALS];
	sigset_t block, before;
	pid_t front = getpid();
	int status;

	stop_asked = 0;
	/* A signal between the fork and the handlers would end one side only. */
	sigemptyset(&block);
	for (int i = 0; i < NR_STOP_SIGNALS; i++)
		sigaddset(&block, stop_signals[i]);
	sigprocmask(SIG_BLOCK, &block, &before);
	handle_stop_signals(pass_on, old);
	pid_t pid = fork();
	if (pid < 0) {
		int err = -errno;

		sigprocmask(SIG_SETMASK, &before, NULL);
		return fail(err, "fork the worker process");
	}
	if (!pid) {
		sigprocmask(SIG_SETMASK, &before, NULL);
		int err = worker_main(front, run, arg);
		/* It stops this process by a tracer of its own, and does not bear signals meanwhile. */
		if (__lsan_do_leak_check) {
			prctl(PR_SET_PDEATHSIG, 0);
			sigprocmask(SIG_BLOCK, &block, NULL);
			__lsan_do_leak_check();
		}
		_exit(-err & 0xff);
	}
	worker_pid = pid;
	sigprocmask(SIG_SETMASK, &before, NULL);
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			return fail(-errno, "wait for the worker process %d", pid);
	}
	worker_pid = 0;
	for (int i = 0; i < NR_STOP_SIGNALS; i++)
		sigaction(stop_signals[i], &old[i], NULL);
	if (WIFSIGNALED(status))
		return fail(-EIO, "the worker process %d was killed by signal %d; the kernel has let the "
			    "target go",
			    pid, WTERMSIG(status));
	return -WEXITSTATUS(status);
}
