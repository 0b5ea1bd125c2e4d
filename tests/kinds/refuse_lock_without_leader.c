/* A file lock of a process whose main thread has exited: what /proc says of that thread knows neither descriptors nor locks. */
#include <pthread.h>
#include <sys/file.h>
#include <sys/syscall.h>

#include "target.h"

static void *work(void *arg)
{
	char state = 0, path[64];
	int fd = open("file", O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", getpid());
	while (state != 'Z') {
		FILE *f = fopen(path, "re");

		CHECK(f && fscanf(f, "%*d (%*[^)]) %c", &state) == 1 && !fclose(f));
	}
	CHECK(fd >= 0 && !flock(fd, LOCK_EX));
	target_expect_refusal("holds a file lock (FLOCK)");
	target_ready();
	target_pass();
	exit(0);
	return arg;
}

int main(void)
{
	pthread_t thread;

	CHECK(!pthread_create(&thread, NULL, work, NULL));
	syscall(SYS_exit, 0);
	return 1;
}
