/*
 * A main thread that a signal has ended while others live on, as only a seccomp filter can do it (SECCOMP_RET_KILL_THREAD): it cannot be
 * made again.
 */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "state.h"
#include "target.h"

static void *work(void *arg)
{
	char words[96];

	(void)arg;
	while (state_of(getpid()) != 'Z')
		usleep(1000);
	snprintf(words, sizeof(words), "pid %d: its main thread was ended by signal %d while others live on", getpid(), SIGSYS);
	target_expect_refusal(words);
	target_ready();
	target_pass();
	exit(0);
}

int main(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_THREAD),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const struct sock_fprog program = { sizeof(code) / sizeof(code[0]), code };
	pthread_t thread;

	CHECK(!pthread_create(&thread, NULL, work, NULL));
	CHECK(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) && !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
	syscall(SYS_getppid);
	return 1;
}
