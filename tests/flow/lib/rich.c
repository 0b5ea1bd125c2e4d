/*
 * A program with some of everything that /proc/PID shows: descriptors of each kind, shared and duplicated, threads,
 * mappings with advice, a child, limits. It changes nothing while it waits; same_proc_files.sh looks at it from outside.
 */
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/timerfd.h>

#include "self.h"

static void *wait_thread(void *arg)
{
	int *pipefd = arg;
	char byte;

	prctl(PR_SET_NAME, "rich thread");
	NEED(read(pipefd[0], &byte, 1) == 1);
	return NULL;
}

static int open_file(const char *name, int flags, off_t pos)
{
	int fd = open(name, flags, 0640);

	NEED(fd >= 0);
	if (flags & O_CREAT)
		NEED(ftruncate(fd, 100000) == 0);
	NEED(lseek(fd, pos, SEEK_SET) == pos);
	return fd;
}

static int descriptors[64], nr_descriptors;

static int keep(int fd)
{
	NEED(fd >= 0);
	descriptors[nr_descriptors++] = fd;
	return fd;
}

static void open_descriptors(void)
{
	static const struct itimerspec soon = { { 0, 0 }, { 10000, 0 } };
	int pipefd[2];

	int fd = keep(open_file("data", O_RDWR | O_CREAT, 12345));
	keep(dup(fd));
	NEED(dup3(fd, 200, O_CLOEXEC) == 200);
	keep(open_file("data", O_RDONLY | O_NOATIME | O_CLOEXEC, 77));
	keep(open("log2", O_WRONLY | O_CREAT | O_APPEND, 0600));
	keep(open("/", O_RDONLY | O_DIRECTORY));
	NEED(mkdir("dir", 0755) == 0 || errno == EEXIST);
	keep(open("dir", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	keep(open("/dev/null", O_RDWR));
	keep(open("/dev/zero", O_RDONLY));
	keep(open("/dev/urandom", O_RDONLY | O_NONBLOCK));

	NEED(pipe2(pipefd, O_NONBLOCK) == 0);
	keep(pipefd[0]);
	keep(pipefd[1]);
	NEED(write(pipefd[1], "some data", 9) == 9);
	NEED(pipe(pipefd) == 0);
	keep(pipefd[0]);
	keep(pipefd[1]);
	NEED(fcntl(pipefd[1], F_SETPIPE_SZ, 1 << 16) >= 0);

	int event = keep(eventfd(17, EFD_NONBLOCK));
	keep(eventfd(3, EFD_SEMAPHORE | EFD_CLOEXEC));
	int timer = keep(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
	NEED(timerfd_settime(timer, 0, &soon, NULL) == 0);
	keep(timerfd_create(CLOCK_REALTIME, 0));
	int epoll = keep(epoll_create1(EPOLL_CLOEXEC));
	NEED(epoll_ctl(epoll, EPOLL_CTL_ADD, event, &(struct epoll_event){ EPOLLIN | EPOLLET, { .u64 = 1 } }) == 0);
	NEED(epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &(struct epoll_event){ EPOLLIN, { .u64 = 0x123456789abcdef } }) == 0);
	NEED(epoll_ctl(epoll, EPOLL_CTL_ADD, pipefd[0], &(struct epoll_event){ EPOLLOUT, { .u64 = 3 } }) == 0);
}

static void map_memory(void)
{
	enum { SIZE = 1 << 20 };
	static const int advice[] = { MADV_DONTFORK, MADV_DONTDUMP, MADV_WIPEONFORK, MADV_SEQUENTIAL, MADV_RANDOM,
				      MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_NORMAL };

	for (size_t i = 0; i < sizeof(advice) / sizeof(advice[0]); i++) {
		char *p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		NEED(p != MAP_FAILED);
		p[i * 4096] = 1;
		/* A kernel may be built without one of them. */
		NEED(madvise(p, SIZE, advice[i]) == 0 || errno == EINVAL);
		/* Nothing to merge with. */
		NEED(mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
	}
	int fd = open("data", O_RDWR);
	NEED(mmap(NULL, 65536, PROT_READ, MAP_PRIVATE, fd, 4096) != MAP_FAILED);
	NEED(mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) != MAP_FAILED);
	NEED(mmap(NULL, 65536, PROT_READ, MAP_SHARED, fd, 0) != MAP_FAILED);
	close(fd);
	char *shared = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	NEED(shared != MAP_FAILED);
	shared[5000] = 1;
	NEED(mmap(NULL, 1UL << 32, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) != MAP_FAILED);
	char *down = mmap(NULL, 16 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN, -1, 0);
	NEED(down != MAP_FAILED);
	down[15 * 4096] = 1;
	char *locked = mmap(NULL, 8 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	NEED(locked != MAP_FAILED && mlock(locked, 4 * 4096) == 0);
}

int main(int argc, char **argv)
{
	pthread_t threads[3];
	int quiet[2];

	self_init(argc, argv);
	NEED(pipe(quiet) == 0);
	open_descriptors();
	map_memory();
	umask(026);
	NEED(setpriority(PRIO_PROCESS, 0, 3) == 0);
	NEED(setrlimit(RLIMIT_CORE, &(struct rlimit){ 4096, 8192 }) == 0);
	signal(SIGPIPE, SIG_IGN);

	pid_t child = fork();
	NEED(child >= 0);
	if (!child) {
		char byte;

		close(descriptors[0]);
		NEED(read(quiet[0], &byte, 1) == 1);
		_exit(0);
	}
	for (int i = 0; i < 3; i++)
		CHECK(pthread_create(&threads[i], NULL, wait_thread, quiet) == 0, "no thread");
	self_ready();
	self_wait();
	NEED(write(quiet[1], "1234", 4) == 4);
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	self_join(child);
	self_pass();
}
