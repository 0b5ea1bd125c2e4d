/*
 * Between a look at a running target and its stop something happens. What changes by itself has to be in the model that is brought
 * up to date, which must equal a whole observation of the same stop; anything else has to be noticed.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "freeze/freeze.h"
#include "observe/observe.h"

enum { PAGE = 4096, SLACK_MS = 50 };

/* --- the target --- */

struct shared {
	atomic_uint command, done; /* futexes */
	int result;
};

static struct shared *shared;
static char dir[] = "/tmp/observe_again.XXXXXX";
static int file_fd, event_fd, timer_fd, epoll_fd, pipe_fds[2];
static char *area;

static void wait_until(atomic_uint *word, unsigned not)
{
	while (*word == not)
		syscall(SYS_futex, word, FUTEX_WAIT, not, NULL, NULL, 0);
}

static void set(atomic_uint *word, unsigned value)
{
	*word = value;
	syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static const char *path(const char *name)
{
	static char text[2][128];
	static int turn;

	turn ^= 1;
	snprintf(text[turn], sizeof(text[turn]), "%s/%s", dir, name);
	return text[turn];
}

static int act_nothing(void) { return 0; }
static int act_seek(void) { return lseek(file_fd, 777, SEEK_SET) == 777 ? 0 : -1; }
static int act_grow(void) { return ftruncate(file_fd, 12345); }
static int act_flags(void) { return fcntl(file_fd, F_SETFL, O_APPEND); }
static int act_chmod(void) { return fchmod(file_fd, 0640); }
static int act_cloexec(void) { return fcntl(event_fd, F_SETFD, FD_CLOEXEC); }
static int act_owner(void) { return fcntl(file_fd, F_SETOWN, getpid()); }
static int act_eventfd(void) { return eventfd_write(event_fd, 41); }
static int act_pipe_size(void) { return fcntl(pipe_fds[1], F_SETPIPE_SZ, 16 * PAGE) > 0 ? 0 : -1; }
static int act_umask(void) { umask(027); return 0; }
static int act_name(void) { return prctl(PR_SET_NAME, "renamed"); }
static int act_thread_pending(void) { return raise(SIGRTMIN + 3); }

static int act_timerfd(void)
{
	struct itimerspec t = { .it_value.tv_sec = 1000, .it_interval.tv_sec = 7 };

	return timerfd_settime(timer_fd, 0, &t, NULL);
}

static int act_epoll_add(void)
{
	struct epoll_event e = { .events = EPOLLIN, .data.u64 = 4711 };

	return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer_fd, &e);
}

static int act_epoll_modify(void)
{
	struct epoll_event e = { .events = EPOLLOUT, .data.u64 = 4712 };

	return epoll_ctl(epoll_fd, EPOLL_CTL_MOD, event_fd, &e);
}

static int act_itimer(void)
{
	struct itimerval t = { .it_value.tv_sec = 500 };

	return setitimer(ITIMER_REAL, &t, NULL);
}

static int act_rlimit(void)
{
	struct rlimit l;

	getrlimit(RLIMIT_CORE, &l);
	l.rlim_cur = 0;
	return setrlimit(RLIMIT_CORE, &l);
}

static int act_signal(void)
{
	struct sigaction sa = { .sa_handler = SIG_IGN, .sa_flags = SA_NODEFER };

	return sigaction(SIGUSR2, &sa, NULL);
}

static void *thread_main(void *arg)
{
	for (;;)
		pause();
	return arg;
}

static int act_write_page(void) { area[3 * PAGE] = 1; return 0; }

static int act_open(void) { return open(path("other"), O_RDWR | O_CREAT, 0600) < 0; }
static int act_close(void) { return close(epoll_fd); }
static int act_dup(void) { return dup(event_fd) < 0; }
/* The kernel likes to give the same memory to the new struct file. */
static int act_reopen(void)
{
	close(file_fd);
	int fd = open(path("twin"), O_RDWR | O_CREAT, 0600);

	return fd == file_fd ? 0 : dup2(fd, file_fd) < 0;
}
static int act_replace_pipe(void)
{
	int ends[2];

	close(pipe_fds[0]);
	close(pipe_fds[1]);
	return pipe(ends);
}
static int act_rename(void) { return rename(path("file"), path("renamed")); }
static int act_unlink(void) { return unlink(path("renamed")); }
static int act_link(void) { return link(path("file"), path("second")); }
static int act_lock(void) { return flock(file_fd, LOCK_EX); }
static int act_map(void) { return mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED; }
static int act_protect(void) { return mprotect(area, PAGE, PROT_READ); }
static int act_unmap(void) { return munmap(area + PAGE, PAGE); }
static int act_remap_same(void)
{
	return mmap(area, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED;
}
static char *shared_area, *file_area;
static int act_shared_new(void)
{
	shared_area = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return shared_area == MAP_FAILED;
}
static int act_shared_move(void)
{
	void *to = mmap(NULL, 4 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	shared_area = mremap(shared_area, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to);
	return shared_area == MAP_FAILED;
}
static int act_shared_unmap(void) { return munmap(shared_area, 4 * PAGE); }
static int act_file_map(void)
{
	int fd = open(path("other"), O_RDWR | O_CREAT, 0600);

	if (fd < 0 || ftruncate(fd, 2 * PAGE))
		return 1;
	file_area = mmap(NULL, 2 * PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
	return file_area == MAP_FAILED || close(fd);
}
static int act_file_unmap(void) { return munmap(file_area, 2 * PAGE); }
static int act_advise(void) { return madvise(area, PAGE, MADV_DONTFORK); }
static int act_brk(void) { return sbrk(64 * PAGE) == (void *)-1; }
static int act_chdir(void) { return chdir("/tmp"); }
static int act_fork(void)
{
	pid_t pid = fork();

	if (!pid)
		for (;;)
			pause();
	return pid < 0;
}
static int act_child_ends(void)
{
	pid_t pid = fork();

	if (!pid)
		_exit(3);
	siginfo_t info;
	return pid < 0 || waitid(P_PID, pid, &info, WEXITED | WNOWAIT);
}
static int act_thread(void)
{
	pthread_t t;

	return pthread_create(&t, NULL, thread_main, NULL);
}

static const struct action {
	const char *name;
	int (*run)(void);
	bool same; /* false: only a whole observation can tell */
	bool last; /* what it leaves cannot be carried */
} actions[] = {
	{ "nothing", act_nothing, .same = true },
	{ "lseek", act_seek, .same = true },
	{ "ftruncate", act_grow, .same = true },
	{ "F_SETFL", act_flags, .same = true },
	{ "fchmod", act_chmod, .same = true },
	{ "FD_CLOEXEC", act_cloexec, .same = true },
	{ "F_SETOWN", act_owner, .same = true },
	{ "eventfd", act_eventfd, .same = true },
	{ "timerfd", act_timerfd, .same = true },
	{ "epoll, one more", act_epoll_add, .same = true },
	{ "epoll, other events", act_epoll_modify, .same = true },
	{ "F_SETPIPE_SZ", act_pipe_size, .same = true },
	{ "umask", act_umask, .same = true },
	{ "name", act_name, .same = true },
	{ "itimer", act_itimer, .same = true },
	{ "rlimit", act_rlimit, .same = true },
	{ "sigaction", act_signal, .same = true },
	{ "pending signal", act_thread_pending, .same = true },
	{ "a written page", act_write_page, .same = true },
	{ "open", act_open, .same = true },
	{ "dup", act_dup, .same = true },
	{ "another pipe", act_replace_pipe, .same = true },
	{ "link", act_link, .same = true },
	{ "rename", act_rename, .same = true },
	{ "mmap", act_map, .same = true },
	{ "mprotect", act_protect, .same = true },
	{ "munmap", act_unmap, .same = true },
	{ "mmap over it", act_remap_same, .same = true },
	{ "madvise", act_advise, .same = true },
	{ "new shared memory", act_shared_new, .same = true },
	{ "shared memory moves", act_shared_move, .same = true },
	{ "shared memory ends", act_shared_unmap, .same = true },
	{ "a file is mapped", act_file_map, .same = true },
	{ "a file is unmapped", act_file_unmap, .same = true },
	{ "brk", act_brk, .same = true },
	{ "chdir", act_chdir, .same = false },
	{ "fork", act_fork, .same = false },
	{ "a child ends", act_child_ends, .same = false },
	{ "a thread", act_thread, .same = true }, /* its stack is a mapping */
	{ "close", act_close, .same = true },
	{ "close, open", act_reopen, .same = true },
	{ "flock", act_lock, .last = true },
	{ "rename", act_rename, .same = true },
	{ "unlink", act_unlink, .same = true, .last = true },
};
enum { NR_ACTIONS = sizeof(actions) / sizeof(actions[0]) };

static int target(void)
{
	struct epoll_event e = { .events = EPOLLIN };
	sigset_t blocked;

	sigemptyset(&blocked);
	sigaddset(&blocked, SIGRTMIN + 3);
	sigprocmask(SIG_BLOCK, &blocked, NULL);
	area = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	file_fd = open(path("file"), O_RDWR | O_CREAT, 0600);
	event_fd = eventfd(5, EFD_NONBLOCK);
	timer_fd = timerfd_create(CLOCK_MONOTONIC, 0);
	epoll_fd = epoll_create1(0);
	if (area == MAP_FAILED || file_fd < 0 || event_fd < 0 || timer_fd < 0 || epoll_fd < 0 || pipe(pipe_fds) ||
	    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, event_fd, &e))
		return 1;
	set(&shared->done, 1);
	for (unsigned command = 0;;) {
		wait_until(&shared->command, command);
		command = shared->command;
		shared->result = actions[command - 1].run();
		set(&shared->done, command + 1);
	}
}

/* --- the test --- */

static void differ(void *arg, const char *what, const char *a, const char *b)
{
	if (!strcmp(what, "uptime"))
		return;
	printf("  %s: brought up to date %s, whole %s\n", what, a, b);
	++*(int *)arg;
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static int observe(struct observer *o, bool stopped, struct model **ret)
{
	refusals_begin();
	int err = observer_run(o, stopped, ret);
	if (refusals_end())
		puts("  refused what it should carry");
	return err;
}

/* The same stop, seen both ways. `again` has made the look. */
static int compare(const struct action *a, struct observer *again, bool listed, struct observer *whole, struct model *m)
{
	struct model *all = NULL;
	uint64_t begin_ns = now_ns();
	bool same = !a->same;
	int differences = 0;
	int err = observer_read(again, m, listed, &same);

	/* That it cannot tell is an answer, too. */
	if (err == -EOPNOTSUPP)
		err = same = 0;
	if (err || same != a->same) {
		printf("%s: %s\n", a->name, err ? strerror(-err) : same ? "was not noticed" : "the target is taken for another one");
		return 1;
	}
	if (!same)
		return 0;
	err = observe(whole, true, &all);
	if (!err)
		err = observer_refresh(again, m);
	if (!err)
		model_compare(m, all, now_ns() - begin_ns + SLACK_MS * 1000000ull, differ, &differences);
	model_destroy(all);
	if (err || differences)
		printf("%s: %s, %d differences\n", a->name, err ? strerror(-err) : "seen", differences);
	return err || differences;
}

/* One action between a look and a stop. */
static int run(const struct action *a, bool listed, pid_t pid, struct observer *again, struct observer *whole)
{
	const struct freeze_lister lister = { again, observer_list };
	struct model *m = NULL;
	struct freeze *f = NULL;
	unsigned before = shared->done;
	int err = observe(again, false, &m);

	if (!err) {
		set(&shared->command, a - actions + 1);
		wait_until(&shared->done, before);
		if (shared->result) {
			printf("%s: the target could not do it\n", a->name);
			err = -EIO;
		}
	}
	if (!err)
		err = freeze_create("ptrace", pid, 10, &f);
	if (!err && listed)
		freeze_set_lister(f, &lister);
	if (!err)
		err = freeze_stop(f);
	if (!err && freeze_was_listed(f) != listed) {
		printf("%s: the stopped tree was %slisted\n", a->name, listed ? "not " : "");
		err = -EPROTO;
	}
	if (!err)
		err = compare(a, again, listed, whole, m);
	freeze_destroy(f);
	model_destroy(m);
	return err;
}

static void clean_directory(void)
{
	static const char *const names[] = { "file", "other", "twin", "renamed", "second" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		unlink(path(names[i]));
}

/* Actions from *at on, until one that the target cannot go on after. Returns how many failed. `listed`: the tree is read by listing it. */
static int test(size_t *at, bool listed)
{
	const struct observe_options opts = { .backend = "bpf", .any_tree = true };
	struct observer *again = NULL, *whole = NULL;
	int failures = 0;
	bool last = false;

	memset(shared, 0, sizeof(*shared));
	pid_t pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		setsid();
		int null = open("/dev/null", O_RDWR);
		for (int fd = 0; fd < 3; fd++)
			dup2(null, fd);
		syscall(SYS_close_range, 3, ~0u, 0);
		_exit(target());
	}
	wait_until(&shared->done, 0);
	if (observer_open(pid, &opts, &again) || observer_open(pid, &opts, &whole))
		return 1;
	for (; *at < NR_ACTIONS && !last; ++*at) {
		failures += run(&actions[*at], listed, pid, again, whole) != 0;
		last = actions[*at].last;
	}
	observer_close(again);
	observer_close(whole);
	kill(-pid, SIGKILL);
	while (waitpid(-1, NULL, 0) > 0)
		;
	clean_directory();
	return failures;
}

int main(void)
{
	const char *why = NULL;
	int failures = 0;

	if (geteuid() || observe_bpf_ops.probe(&why)) {
		printf("skip: %s\n", why ? why : "needs root");
		return 77;
	}
	if (!mkdtemp(dir))
		return 1;
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return 1;
	for (int listed = 0; listed <= 1; listed++)
		for (size_t at = 0; at < NR_ACTIONS;)
			failures += test(&at, listed);
	rmdir(dir);
	printf("%d of %d changes were not seen as they are\n", failures, 2 * NR_ACTIONS);
	return failures ? 1 : 0;
}
