/* A seccomp filter by which another program decides on calls: refused, the decider is not in the images. */
#include "seccomp_filters.h"
#include "target.h"

int main(void)
{
	struct sock_filter allow[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getpgrp, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { sizeof(allow) / sizeof(allow[0]), allow };
	char words[128];

	int fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &prog);
	if (fd < 0)
		target_skip("this kernel has no user notification for seccomp");
	snprintf(words, sizeof(words), "pid %d thread %d: has a seccomp filter by which another program", getpid(), getpid());
	target_expect_refusal(words);
	target_ready();
	return target_pass();
}
