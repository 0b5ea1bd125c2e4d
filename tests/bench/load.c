/*
 * The target of the benchmark: load DIR READY_FD MIB THREADS MAPPINGS FILES [PROCESSES]
 *
 * Builds its load (PROCESSES counts itself: the others are children that sleep), closes READY_FD to say so, and samples the
 * clock: the largest gap between two samples is the time it stood still. Gaps go to DIR/gaps, one per epoch; the driver
 * sets the epoch. On SIGTERM it looks whether all of its memory is what it was, says so in DIR/gaps, and ends.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, NR_EPOCHS = 64, VERDICT_GOOD = 1, VERDICT_BAD = 2 };

struct shared {
	volatile uint64_t epoch;
	volatile uint64_t verdict;
	volatile uint64_t gaps_ns[NR_EPOCHS];
};

static volatile sig_atomic_t end;

static void on_term(int sig)
{
	(void)sig;
	end = 1;
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void *sleeper(void *arg)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	for (;;)
		pause();
	return arg;
}

static uint64_t page_word(size_t i)
{
	return (i + 1) * 0x9E3779B97F4A7C15ULL;
}

static char *make_memory(size_t nr_pages)
{
	char *area = mmap(NULL, nr_pages * PAGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (area == MAP_FAILED)
		die("memory");
	for (size_t i = 0; i < nr_pages; i++) {
		uint64_t *words = (uint64_t *)(area + i * PAGE);

		for (size_t k = 0; k < PAGE / sizeof(*words); k++)
			words[k] = page_word(i) + k;
	}
	return area;
}

static int memory_is_good(const char *area, size_t nr_pages)
{
	for (size_t i = 0; i < nr_pages; i++) {
		const uint64_t *words = (const uint64_t *)(area + i * PAGE);

		for (size_t k = 0; k < PAGE / sizeof(*words); k++)
			if (words[k] != page_word(i) + k)
				return 0;
	}
	return 1;
}

/* Every second page has another protection, so that each is a mapping of its own. */
static void make_mappings(size_t nr)
{
	char *area;

	if (!nr)
		return;
	area = mmap(NULL, nr * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (area == MAP_FAILED)
		die("mappings");
	for (size_t i = 0; i < nr; i++) {
		area[i * PAGE] = 1;
		if (i % 2 && mprotect(area + i * PAGE, PAGE, PROT_READ))
			die("mappings");
	}
}

static void open_files(const char *dir, size_t nr)
{
	struct rlimit limit;
	char path[4096];

	if (getrlimit(RLIMIT_NOFILE, &limit))
		die("limit of descriptors");
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit))
		die("limit of descriptors");
	snprintf(path, sizeof(path), "%s/file", dir);
	for (size_t i = 0; i < nr; i++)
		if (open(path, O_RDWR | O_CREAT, 0600) < 0)
			die(path);
}

static void make_processes(size_t nr, int ready_fd)
{
	pid_t parent = getpid();

	for (size_t i = 1; i < nr; i++) {
		pid_t pid = fork();

		if (pid < 0)
			die("processes");
		if (pid)
			continue;
		close(ready_fd);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		while (getppid() == parent)
			pause();
		_exit(0);
	}
}

static struct shared *map_shared(const char *dir)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/gaps", dir);
	int fd = open(path, O_RDWR | O_CREAT, 0600);
	if (fd < 0 || ftruncate(fd, PAGE))
		die(path);
	struct shared *shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (shared == MAP_FAILED)
		die(path);
	close(fd);
	return shared;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

static void sample(struct shared *shared)
{
	uint64_t last = now_ns();

	while (!end) {
		uint64_t now = now_ns();
		volatile uint64_t *gap = &shared->gaps_ns[shared->epoch % NR_EPOCHS];

		if (now - last > *gap)
			*gap = now - last;
		last = now;
	}
}

int main(int argc, char **argv)
{
	if (argc != 7 && argc != 8)
		return 2;

	size_t nr_pages = strtoul(argv[3], NULL, 10) << 8;
	size_t nr_threads = strtoul(argv[4], NULL, 10);
	struct shared *shared = map_shared(argv[1]);

	signal(SIGTERM, on_term);
	/* First: children have none of the memory, threads and descriptors that follow. */
	make_processes(argc == 8 ? strtoul(argv[7], NULL, 10) : 0, atoi(argv[2]));
	char *memory = make_memory(nr_pages);
	make_mappings(strtoul(argv[5], NULL, 10));
	open_files(argv[1], strtoul(argv[6], NULL, 10));
	for (size_t i = 1; i < nr_threads; i++) {
		pthread_t thread;
		pthread_attr_t attr;

		pthread_attr_init(&attr);
		pthread_attr_setstacksize(&attr, 64 << 10);
		if (pthread_create(&thread, &attr, sleeper, NULL))
			die("threads");
	}
	close(atoi(argv[2]));
	sample(shared);
	shared->verdict = memory_is_good(memory, nr_pages) ? VERDICT_GOOD : VERDICT_BAD;
	return 0;
}
