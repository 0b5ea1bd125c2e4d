/* The cgroup freezer: used only for a tree with a cgroup of its own, hides its stop, and a killed freezer thaws. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "freeze/freeze.h"
#include "state.h"

enum { NR_FREEZES = 50 };

static struct shared {
	atomic_int ready, stop, failures;
	atomic_long count[2];
	pid_t child;
} *shared;

static int pipe_fds[2], failures;
static char dir[512];

static void check(bool ok, const char *what)
{
	if (ok)
		return;
	printf("wrong: %s (%s)\n", what, strerror(errno));
	failures++;
}

static void *waiter(void *arg)
{
	struct epoll_event ev = { .events = EPOLLIN };
	int ep = epoll_create1(0);

	epoll_ctl(ep, EPOLL_CTL_ADD, pipe_fds[0], &ev);
	shared->ready++;
	if (epoll_wait(ep, &ev, 1, -1) != 1) {
		printf("epoll_wait: %s\n", strerror(errno));
		fflush(stdout);
		shared->failures++;
	}
	return NULL;
}

static void count(int slot)
{
	shared->ready++;
	while (!shared->stop) {
		shared->count[slot]++;
		sched_yield();
	}
}

static int target(void)
{
	pthread_t t;

	pthread_create(&t, NULL, waiter, NULL);
	pid_t child = fork();
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		count(1);
		_exit(0);
	}
	shared->child = child;
	count(0);
	pthread_join(t, NULL);
	waitpid(shared->child, NULL, 0);
	return shared->failures != 0;
}

static bool write_file(const char *name, const char *text)
{
	char path[600];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	int fd = open(path, O_WRONLY);
	bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return ok;
}

static bool join_cgroup(pid_t pid)
{
	char text[32];

	snprintf(text, sizeof(text), "%d", pid);
	return write_file("cgroup.procs", text);
}

/* Makes a cgroup below the first writable cgroup2 mount. */
static bool make_cgroup(void)
{
	FILE *in = fopen("/proc/mounts", "r");
	char line[1024], point[256], type[64];
	bool made = false;

	while (!made && in && fgets(line, sizeof(line), in))
		if (sscanf(line, "%*s %255s %63s", point, type) == 2 && strcmp(type, "cgroup2") == 0) {
			snprintf(dir, sizeof(dir), "%s/bcr-test-freeze-%d", point, getpid());
			made = mkdir(dir, 0755) == 0;
		}
	if (in)
		fclose(in);
	return made;
}

/* Does the target stand still? Its own counters tell. */
static bool stands_still(void)
{
	long before[2] = { shared->count[0], shared->count[1] };

	nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
	return before[0] == shared->count[0] && before[1] == shared->count[1];
}

/* Waits until both processes count again; the deadline is the test's failure. */
static bool goes_on(void)
{
	long before[2] = { shared->count[0], shared->count[1] };

	for (int i = 0; i < 5000; i++) {
		if (shared->count[0] > before[0] && shared->count[1] > before[1])
			return true;
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
	return false;
}

static void check_choice(pid_t pid)
{
	struct freeze *f;
	pid_t stranger = fork();

	if (stranger == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		pause();
		_exit(0);
	}
	check(join_cgroup(stranger), "a stranger joins the cgroup");
	check(freeze_create("cgroup", pid, 10, &f) != 0, "the cgroup of a stranger is refused");
	check(!freeze_create(NULL, pid, 10, &f) && !strcmp(freeze_backend(f), "ptrace"), "ptrace is chosen then");
	freeze_destroy(f);
	kill(stranger, SIGKILL);
	waitpid(stranger, NULL, 0);
}

static void check_often(pid_t pid)
{
	struct freeze *f;

	check(!freeze_create(NULL, pid, 10, &f) && !strcmp(freeze_backend(f), "cgroup"), "the cgroup freezer is chosen");
	for (int i = 0; i < NR_FREEZES && !failures; i++) {
		const pid_t *pids;

		check(!freeze_stop(f), "freeze");
		check(!strcmp(freeze_backend(f), "cgroup"), "it is still the cgroup freezer");
		check(freeze_pids(f, &pids) == 2, "two processes are held");
		if (i < 3)
			check(stands_still(), "everything stands still");
		check(!freeze_thaw(f, THAW_RUN, NULL), "thaw");
		if (i < 3)
			check(goes_on(), "everything goes on");
	}
	freeze_destroy(f);
}

/* Registers are read by ptrace: the frozen threads are seized, and stay stopped without the cgroup. */
static void check_need_ptrace(pid_t pid)
{
	struct model *m = model_create();
	struct task *task = VEC_ADD(&m->tasks);
	struct freeze *f;

	task->pid = pid;
	task->state = TASK_ALIVE;
	VEC_ADD(&task->threads)->tid = pid;
	check(!freeze_create("cgroup", pid, 10, &f) && !freeze_stop(f), "freeze");
	check(!freeze_read_cpu(f, m), "registers");
	check(task->threads.v[0].cpu.regs.ip != 0, "there is an instruction pointer");
	check(stands_still(), "everything stands still by ptrace");
	check(!freeze_thaw(f, THAW_RUN, m), "thaw");
	check(goes_on(), "everything goes on after ptrace");
	freeze_destroy(f);
	model_destroy(m);
}

static void check_killed_freezer(pid_t pid)
{
	pid_t freezer = fork();

	if (freezer == 0) {
		struct freeze *f;

		if (freeze_create("cgroup", pid, 10, &f) || freeze_stop(f) || !stands_still())
			_exit(1);
		kill(getpid(), SIGKILL);
	}
	int status;
	waitpid(freezer, &status, 0);
	check(WIFSIGNALED(status), "the freezer froze and was killed");
	check(goes_on(), "everything goes on after the freezer was killed");
}

static void check_stop_and_kill(pid_t pid)
{
	struct freeze *f;

	check(!freeze_create("cgroup", pid, 10, &f) && !freeze_stop(f) && !freeze_thaw(f, THAW_STOP, NULL), "thaw stopped");
check(state_of(pid) == 'T' && state_of(shared->child) == 'T', "both are stopped");
	freeze_destroy(f);

	check(!freeze_create("cgroup", pid, 10, &f) && !freeze_stop(f) && freeze_was_stopped(f, pid), "was stopped before");
	freeze_destroy(f);
	check(state_of(pid) == 'T' && state_of(shared->child) == 'T', "both are still stopped");
	kill(pid, SIGCONT);
	kill(shared->child, SIGCONT);
	check(goes_on(), "both go on after SIGCONT");

	shared->stop = 1;
	check(write(pipe_fds[1], "x", 1) == 1, "wake");
	int status;
	waitpid(pid, &status, 0);
	check(status == 0, "the target saw nothing");
}

static void check_kill(void)
{
	struct freeze *f;
	pid_t pid = fork();

	if (pid == 0) {
		pause();
		_exit(0);
	}
	check(join_cgroup(pid), "join");
	check(!freeze_create("cgroup", pid, 10, &f) && !freeze_stop(f) && !freeze_thaw(f, THAW_KILL, NULL), "thaw by killing");
	freeze_destroy(f);
	check(kill(pid, 0) != 0 && errno == ESRCH, "it is gone");
}

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED || pipe(pipe_fds))
		return 1;
	if (!make_cgroup()) {
		puts("SKIP: no cgroup v2 hierarchy in which a cgroup can be made");
		return 77;
	}

	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (!join_cgroup(getpid()))
			_exit(2);
		_exit(target());
	}
	while (shared->ready < 3 && waitpid(pid, NULL, WNOHANG) == 0)
		sched_yield();

	check_choice(pid);
	check_often(pid);
	check_need_ptrace(pid);
	check_killed_freezer(pid);
	check_stop_and_kill(pid);
	check_kill();
	check(rmdir(dir) == 0, "remove the cgroup");
	puts(failures ? "FAIL" : "PASS");
	return failures != 0;
}
