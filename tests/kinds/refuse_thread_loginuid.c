/* Threads with different login uids: images have one for a process. */
#include <pthread.h>

#include "target.h"

static pthread_barrier_t built;

static void *thread_main(void *arg)
{
	int fd = open("/proc/thread-self/loginuid", O_WRONLY | O_CLOEXEC);

	CHECK(fd >= 0 && write(fd, "4711", 4) == 4 && !close(fd));
	pthread_barrier_wait(&built);
	for (;;)
		pause();
	return arg;
}

int main(void)
{
	pthread_t thread;

	if (access("/proc/self/loginuid", W_OK))
		target_skip("this kernel has no login uids (CONFIG_AUDITSYSCALL)");
	CHECK(!pthread_barrier_init(&built, NULL, 2));
	CHECK(!pthread_create(&thread, NULL, thread_main, NULL));
	pthread_barrier_wait(&built);
	target_expect_refusal("has a login uid of its own, which is not supported");
	target_ready();
	return target_pass();
}
