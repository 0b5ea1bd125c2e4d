/* keyring own|common: waits, with a session keyring of its own or that of whoever started it. */
#include <fcntl.h>
#include <linux/keyctl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc != 2 || (!strcmp(argv[1], "own") && syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0)) {
		perror("session keyring");
		return 1;
	}
	int fd = open("ready", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0 || write(fd, "\n", 1) != 1 || close(fd))
		return 1;
	for (;;)
		pause();
}
