/* The workload of bcr bench: a process that holds memory, writes to it, and watches the clock. */
#include "cmd/bench_load.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "sys/cgroup2.h"

enum {
	PAGE_BYTES = 4096,
	READY_FD = 3,
	THREAD_STACK_BYTES = 64 << 10,
	PORTION_NS = 1000000, /* the writer works in portions of this */
	MAX_BEHIND_NS = 10000000,
};

/* In a file that both sides map. */
struct shared {
	_Atomic uint64_t gap_ns;
};

struct bench_load {
	pid_t pid;
	struct shared *shared;
	char cgroup[CGROUP_PATH_BYTES + 64]; /* "": none of its own */
};

/* --- in the workload --- */

struct work {
	struct bench_load_spec spec;
	struct shared *shared;
	char *memory;
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

static void sleep_until(uint64_t ns)
{
	struct timespec ts = { .tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000 };

	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL);
}

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static void *writer(void *arg)
{
	struct work *w = arg;
	uint64_t nr_pages = w->spec.mib << 8, random = 88172645463325252ULL, owed_bytes = 0, next = now_ns();

	for (;;) {
		/* MB/s are bytes per microsecond. */
		for (owed_bytes += w->spec.write_mb * (PORTION_NS / 1000); owed_bytes >= PAGE_BYTES; owed_bytes -= PAGE_BYTES)
			++*(volatile uint64_t *)(w->memory + next_random(&random) % nr_pages * PAGE_BYTES);
		next += PORTION_NS;
		if (next + MAX_BEHIND_NS < now_ns())
			next = now_ns(); /* what a longer delay kept it from is lost */
		sleep_until(next);
	}
	return NULL;
}

static void *sleeper(void *arg)
{
	for (;;)
		pause();
	return arg;
}

static int start_thread(void *(*run)(void *arg), struct work *w)
{
	pthread_attr_t attr;
	pthread_t thread;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, THREAD_STACK_BYTES);
	return pthread_create(&thread, &attr, run, w);
}

static int build(struct work *w)
{
	size_t len_bytes = w->spec.mib << 20;

	w->memory = mmap(NULL, len_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (w->memory == MAP_FAILED)
		return errno;
	/* EINVAL: the kernel has no huge pages. */
	if (madvise(w->memory, len_bytes, MADV_NOHUGEPAGE) && errno != EINVAL)
		return errno;
	for (size_t at = 0; at < len_bytes; at += PAGE_BYTES)
		*(uint64_t *)(w->memory + at) = at + 1;
	for (uint64_t i = 1; i < w->spec.threads; i++) {
		int err = start_thread(i == 1 && w->spec.write_mb ? writer : sleeper, w);

		if (err)
			return err;
	}
	return 0;
}

static _Noreturn void watch_clock(struct shared *shared)
{
	for (uint64_t last = now_ns();;) {
		uint64_t now = now_ns();

		if (now - last > atomic_load_explicit(&shared->gap_ns, memory_order_relaxed))
			atomic_store_explicit(&shared->gap_ns, now - last, memory_order_relaxed);
		last = now;
	}
}

/* Lets go of everything of bcr's: descriptors, session, signal handlers, working directory. */
static int leave_bcr(pid_t parent, int ready_fd)
{
	static const int handled[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE };

	if (dup2(ready_fd, READY_FD) < 0 || syscall(SYS_close_range, READY_FD + 1, ~0u, 0))
		return errno;
	int null = open("/dev/null", O_RDWR);
	if (null < 0)
		return errno;
	for (int fd = 0; fd < READY_FD; fd++)
		if (dup2(null, fd) < 0)
			return errno;
	if (null > READY_FD)
		close(null);
	for (size_t i = 0; i < sizeof(handled) / sizeof(handled[0]); i++)
		signal(handled[i], SIG_DFL);
	setsid();
	if (chdir("/") || prctl(PR_SET_PDEATHSIG, SIGKILL))
		return errno;
	return getppid() == parent ? 0 : ESRCH;
}

/* Tells bcr 0 or an errno by one word and, if all is well, closes the pipe and never returns. */
static _Noreturn void work(struct work *w, pid_t parent, int ready_fd)
{
	int err = leave_bcr(parent, ready_fd);

	if (!err)
		err = build(w);
	if (write(READY_FD, &err, sizeof(err)) != sizeof(err) || err)
		_exit(1);
	close(READY_FD);
	watch_clock(w->shared);
}

/* --- in bcr --- */

static int map_shared(const char *dir, struct shared **ret)
{
	char path[4096 + 16];

	snprintf(path, sizeof(path), "%s/workload", dir);
	_cleanup_close_ int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, PAGE_BYTES))
		return fail(-errno, "%s: create", path);
	void *p = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return fail(-errno, "%s: map", path);
	*ret = p;
	return 0;
}

static int await_ready(int fd, const struct bench_load_spec *spec)
{
	int answer = ESRCH;
	ssize_t n;

	do
		n = read(fd, &answer, sizeof(answer));
	while (n < 0 && errno == EINTR);
	if (n == sizeof(answer) && !answer)
		return 0;
	return fail(-answer, "the workload could not be built: %llu MiB, %llu threads", (unsigned long long)spec->mib,
		    (unsigned long long)spec->threads);
}

int bench_load_start(const struct bench_load_spec *spec, const char *dir, struct bench_load **ret)
{
	struct bench_load *l = calloc(1, sizeof(*l));
	struct work w = { .spec = *spec };
	pid_t parent = getpid();
	int ends[2], err;

	if (!l)
		return fail(-ENOMEM, "start the workload");
	err = map_shared(dir, &l->shared);
	if (!err && pipe2(ends, O_CLOEXEC))
		err = fail(-errno, "start the workload");
	if (err) {
		bench_load_end(l);
		return err;
	}
	w.shared = l->shared;
	l->pid = fork();
	if (!l->pid)
		work(&w, parent, ends[1]);
	close(ends[1]);
	err = l->pid < 0 ? fail(-errno, "fork the workload") : await_ready(ends[0], spec);
	close(ends[0]);
	if (err) {
		bench_load_end(l);
		return err;
	}
	*ret = l;
	return 0;
}

pid_t bench_load_pid(const struct bench_load *l)
{
	return l->pid;
}

static bool move_into(const char *dir, pid_t pid)
{
	char path[CGROUP_PATH_BYTES + 96];

	snprintf(path, sizeof(path), "%s/cgroup.procs", dir);
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);
	return fd >= 0 && dprintf(fd, "%d", pid) > 0;
}

const char *bench_load_own_cgroup(struct bench_load *l)
{
	char name[CGROUP_PATH_BYTES], dir[CGROUP_PATH_BYTES];

	if (!cgroup2_name(l->pid, name, sizeof(name)) || !cgroup2_dir(name, dir, sizeof(dir)))
		return "no cgroup v2 directory is mounted here";
	snprintf(l->cgroup, sizeof(l->cgroup), "%s/bcr-bench.%d", dir, l->pid);
	if (mkdir(l->cgroup, 0755)) {
		l->cgroup[0] = 0;
		return "no cgroup can be made for the workload";
	}
	return move_into(l->cgroup, l->pid) ? NULL : "the workload cannot be moved into a cgroup of its own";
}

uint64_t bench_load_take_gap(struct bench_load *l)
{
	return atomic_exchange(&l->shared->gap_ns, 0);
}

void bench_load_end(struct bench_load *l)
{
	if (!l)
		return;
	if (l->pid > 0) {
		kill(l->pid, SIGKILL);
		while (waitpid(l->pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	if (l->cgroup[0] && rmdir(l->cgroup))
		log_warn("cgroup %s: cannot be removed: %s", l->cgroup, strerror(errno));
	if (l->shared)
		munmap(l->shared, PAGE_BYTES);
	free(l);
}
