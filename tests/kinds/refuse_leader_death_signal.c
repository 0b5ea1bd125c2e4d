/* A child that gets a signal when its parent ends, of which the main thread has exited: a restore could not make it without that signal. */
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "state.h"
#include "target.h"

static void *work(void *arg)
{
	char words[96];
	int up[2];
	pid_t child;

	(void)arg;
	while (state_of(getpid()) != 'Z')
		usleep(1000);
	CHECK(!pipe2(up, O_CLOEXEC));
	child = fork();
	CHECK(child >= 0);
	if (!child) {
		CHECK(!prctl(PR_SET_PDEATHSIG, SIGUSR1) && write(up[1], "", 1) == 1);
		for (;;)
			pause();
	}
	CHECK_EQUAL(read(up[0], words, 1), 1);
	CHECK(!close(up[0]) && !close(up[1]));
	snprintf(words, sizeof(words), "pid %d: it gets a signal when its parent ends, and the main thread of that, pid %d,", child, getpid());
	target_expect_refusal(words);
	target_ready();
	CHECK(waitpid(child, NULL, WNOHANG) == 0 && !kill(child, SIGKILL) && waitpid(child, NULL, 0) == child);
	target_pass();
	exit(0);
}

int main(void)
{
	pthread_t thread;

	CHECK(!pthread_create(&thread, NULL, work, NULL));
	syscall(SYS_exit, 0);
	return 1;
}
