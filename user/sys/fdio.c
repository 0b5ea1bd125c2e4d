/* Descriptors: exact reads and writes, duplicates of another process's descriptors, further openings of one. */
#include "sys/fdio.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "sys/proc.h"
#include "sys/uapi.h"

int write_exact(int fd, const void *buf, size_t len_bytes)
{
	const char *at = buf;

	while (len_bytes) {
		ssize_t n = write(fd, at, len_bytes);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		at += n;
		len_bytes -= n;
	}
	return 0;
}

int read_exact(int fd, void *buf, size_t len_bytes)
{
	char *at = buf;

	while (len_bytes) {
		ssize_t n = read(fd, at, len_bytes);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			return -ENODATA;
		at += n;
		len_bytes -= n;
	}
	return 0;
}

int pidfd_of_living(pid_t pid, pid_t living, int *ret)
{
	*ret = syscall(SYS_pidfd_open, living, living == pid ? 0 : BCR_PIDFD_THREAD);
	if (*ret >= 0)
		return 0;
	if (errno != EINVAL || living == pid)
		return -errno;
	return unsupported("pid %d: its main thread has exited, and before Linux 6.9 descriptors of such a process cannot be taken", pid);
}

static int fd_of_task(pid_t pid, pid_t living, int fd, int *ret)
{
	_cleanup_close_ int pidfd = -1;
	int err = pidfd_of_living(pid, living, &pidfd);

	if (err)
		return err;
	*ret = syscall(SYS_pidfd_getfd, pidfd, fd, 0);
	return *ret < 0 ? -errno : 0;
}

int fd_of_process(pid_t pid, int fd, int *ret)
{
	int err = fd_of_task(pid, pid, fd, ret);
	pid_t living = err ? proc_living(pid) : pid;

	/* A main thread that has exited has no descriptors any more; others can be named since Linux 6.9. */
	return living == pid ? err : fd_of_task(pid, living, fd, ret);
}

int fd_reopen(int fd, int flags, int *ret)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	*ret = open(path, flags | O_CLOEXEC);
	return *ret < 0 ? -errno : 0;
}

int pipe_set_size(int fd, unsigned size_bytes)
{
	int now = fcntl(fd, F_GETPIPE_SZ);

	if (now < 0)
		return -errno;
	if ((unsigned)now == size_bytes)
		return 0;
	return fcntl(fd, F_SETPIPE_SZ, size_bytes) < 0 ? -errno : 0;
}
