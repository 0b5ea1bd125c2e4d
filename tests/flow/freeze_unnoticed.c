/*
 * Threads blocked in system calls are frozen a hundred times: none sees EINTR, no sleep gets longer or shorter.
 * alone: it measures
 */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "freeze/freeze.h"
#include "noise.h"

enum { NR_FREEZES = 100, SLEEP_MS = 1500, SLACK_MS = 400 };

/* Shared by the test and its target. */
static struct shared {
	atomic_int ready, wake_word, failures;
	atomic_long longest_ms; /* of the waits that end by themselves */
	char why[2048];
} *shared;

static int event_fd, pipe_fds[2], pipe2_fds[2], socks[2], sem_id;

static void complain(const char *what, long got, int err)
{
	char line[160];

	snprintf(line, sizeof(line), "%s: returned %ld (%s)\n", what, got, got < 0 ? strerror(err) : "no error");
	strncat(shared->why, line, sizeof(shared->why) - strlen(shared->why) - 1);
	shared->failures++;
}

static void expect(const char *what, long got, long want)
{
	if (got != want)
		complain(what, got, errno);
}

static long now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void expect_took(const char *what, long begin_ms)
{
	long took_ms = now_ms() - begin_ms;

	if (took_ms < SLEEP_MS)
		complain(what, took_ms, 0);
	for (long seen = shared->longest_ms; seen < took_ms && !atomic_compare_exchange_weak(&shared->longest_ms, &seen, took_ms);)
		;
}

static void do_epoll(void)
{
	struct epoll_event ev = { .events = EPOLLIN };
	int ep = epoll_create1(0);

	epoll_ctl(ep, EPOLL_CTL_ADD, event_fd, &ev);
	shared->ready++;
	expect("epoll_wait", epoll_wait(ep, &ev, 1, -1), 1);
}

static void do_poll(void)
{
	struct pollfd p = { .fd = event_fd, .events = POLLIN };

	shared->ready++;
	expect("poll", poll(&p, 1, -1), 1);
}

static void do_poll_timeout(void)
{
	struct pollfd p = { .fd = pipe2_fds[0], .events = POLLIN };
	long begin_ms = now_ms();

	shared->ready++;
	expect("poll with timeout", poll(&p, 1, SLEEP_MS), 0);
	expect_took("poll with timeout took", begin_ms);
}

static void do_nanosleep(void)
{
	struct timespec t = { SLEEP_MS / 1000, SLEEP_MS % 1000 * 1000000 };
	long begin_ms = now_ms();

	shared->ready++;
	expect("nanosleep", nanosleep(&t, NULL), 0);
	expect_took("nanosleep took", begin_ms);
}

static void do_futex(void)
{
	shared->ready++;
	while (!shared->wake_word)
		if (syscall(SYS_futex, &shared->wake_word, FUTEX_WAIT, 0, NULL, NULL, 0) != 0 && errno != EAGAIN)
			return complain("futex", -1, errno);
}

static void do_read(void)
{
	char c;

	shared->ready++;
	expect("read", read(pipe_fds[0], &c, 1), 1);
}

static void do_sigwait(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	shared->ready++;
	expect("sigwaitinfo", sigwaitinfo(&set, NULL), SIGUSR1);
}

static void do_semop(void)
{
	struct sembuf op = { 0, -1, 0 };

	shared->ready++;
	expect("semop", semop(sem_id, &op, 1), 0);
}

static void do_recv(void)
{
	struct timeval limit = { .tv_sec = 60 };
	char c;

	setsockopt(socks[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	shared->ready++;
	expect("recv with timeout", recv(socks[0], &c, 1, 0), 1);
}

static void (*const jobs[])(void) = {
	do_epoll, do_poll, do_poll_timeout, do_nanosleep, do_futex, do_read, do_sigwait, do_semop, do_recv,
};
enum { NR_JOBS = sizeof(jobs) / sizeof(jobs[0]) };

static void *run_job(void *job)
{
	((void (*)(void))job)();
	return NULL;
}

static int target(void)
{
	pthread_t threads[NR_JOBS];

	for (int i = 0; i < NR_JOBS; i++)
		pthread_create(&threads[i], NULL, run_job, (void *)jobs[i]);
	for (int i = 0; i < NR_JOBS; i++)
		pthread_join(threads[i], NULL);
	return shared->failures != 0;
}

static bool all_sleep(pid_t pid)
{
	char path[64], line[512];
	bool all = true;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	DIR *dir = opendir(path);
	for (struct dirent *e; dir && (e = readdir(dir));) {
		snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", pid, atoi(e->d_name));
		FILE *in = fopen(path, "r");
		if (in && fgets(line, sizeof(line), in))
			all = all && strstr(line, ") S ");
		if (in)
			fclose(in);
	}
	if (dir)
		closedir(dir);
	return all;
}

static int freeze_often(pid_t pid)
{
	struct freeze *f;

	if (freeze_create("ptrace", pid, 10, &f))
		return 1;
	for (int i = 0; i < NR_FREEZES; i++) {
		if (freeze_stop(f) || freeze_thaw(f, THAW_RUN, NULL))
			return 1;
		/* Until they are all in their calls again. */
		while (!all_sleep(pid))
			sched_yield();
	}
	freeze_destroy(f);
	return 0;
}

int main(void)
{
	struct noise noise;
	sigset_t usr1;

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	event_fd = eventfd(0, 0);
	sem_id = semget(IPC_PRIVATE, 1, 0600);
	if (shared == MAP_FAILED || event_fd < 0 || sem_id < 0 || pipe(pipe_fds) || pipe(pipe2_fds) ||
	    socketpair(AF_UNIX, SOCK_STREAM, 0, socks)) {
		perror("setup");
		return 1;
	}
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	sigprocmask(SIG_BLOCK, &usr1, NULL);

	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(target());
	}
	if (!noise_start(&noise)) {
		perror("thread");
		return 1;
	}
	while (shared->ready < NR_JOBS)
		sched_yield();

	int err = freeze_often(pid);

	/* Now let everything finish. */
	uint64_t one = 1;
	if (write(event_fd, &one, sizeof(one)) < 0 || write(pipe_fds[1], "x", 1) < 0 || write(socks[1], "x", 1) < 0)
		perror("wake");
	shared->wake_word = 1;
	syscall(SYS_futex, &shared->wake_word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
	kill(pid, SIGUSR1);
	semop(sem_id, &(struct sembuf){ 0, 1, 0 }, 1);

	int status;
	waitpid(pid, &status, 0);
	long late_ms = noise_end(&noise) / 1000000;
	semctl(sem_id, 0, IPC_RMID);
	if (err || status) {
		printf("FAIL: target ended with status %#x after %d freezes\n%s", status, NR_FREEZES, shared->why);
		return 1;
	}
	if (shared->longest_ms > SLEEP_MS + SLACK_MS + late_ms) {
		printf("FAIL: a wait of %d ms took %ld ms, and the machine was late by %ld ms at most\n", SLEEP_MS, shared->longest_ms,
		       late_ms);
		return 1;
	}
	puts("PASS");
	return 0;
}
