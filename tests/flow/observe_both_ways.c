/*
 * Fifty tasks that differ in everything the model knows of are stopped, observed by BPF and by /proc + ptrace, and
 * both models compared field by field. Kernel structures move: this test sees it first.
 */
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/futex.h>
#include <linux/ioprio.h>
#include <linux/membarrier.h>
#include <linux/sched.h>
#include <linux/securebits.h>
#include <netinet/in.h>
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
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "capture/capture.h"
#include "freeze/freeze.h"
#include "observe/observe.h"
#include "sys/uapi.h"

enum { WANTED_TASKS = 50, SLACK_MS = 50, PAGE = 4096 };

/* --- what is not compared, and why --- */

static const struct {
	const char *pattern; /* fnmatch(3) on the path of the field */
	const char *reason;
} excluded[] = {
	{ "* restart.*", "the kernel keeps restart blocks to itself; ptrace does not show them" },
	{ "* mm brk", "/proc shows the page where the heap ends, not the byte" },
	{ "* mapping * has_anon", "/proc does not show whether a mapping has an anon_vma; check_anon() looks at its pages" },
	{ "* timer * late_ns", "no call tells when a timer fired whose signal is still pending" },
	{ "* timer * date_ns", "no call tells whether a timer was set to a date" },
	{ "* stop_signal", "ptrace tells it only to a tracer that saw the stop begin" },
};

/* Of a dead process nothing is restored but its number, relations, name and status. */
static const char *const zombie_fields[] = {
	"* ppid", "* pgid", "* sid", "* state", "* exit_code", "* exit_signal", "* comm", "* uid",
};

struct comparison {
	const struct model *m;
	size_t excluded, zombie, failures;
};

static bool is_zombie_detail(const struct model *m, const char *what)
{
	pid_t pid;

	if (sscanf(what, "pid %d ", &pid) != 1)
		return false;
	const struct task *t = model_find_task(m, pid);
	if (!t || t->state != TASK_ZOMBIE)
		return false;
	for (size_t i = 0; i < sizeof(zombie_fields) / sizeof(zombie_fields[0]); i++)
		if (!fnmatch(zombie_fields[i], what, 0))
			return false;
	return true;
}

static void differ(void *arg, const char *what, const char *a, const char *b)
{
	struct comparison *c = arg;

	if (is_zombie_detail(c->m, what)) {
		c->zombie++;
		return;
	}
	for (size_t i = 0; i < sizeof(excluded) / sizeof(excluded[0]); i++) {
		if (!fnmatch(excluded[i].pattern, what, 0)) {
			c->excluded++;
			return;
		}
	}
	printf("%s: bpf %s, proc %s\n", what, a, b);
	c->failures++;
}

/* --- the target: tools of its tasks --- */

static int ready_fd; /* write end: one byte for each task that has made its state */
static char shared_file[] = "/tmp/observe_both_ways.XXXXXX"; /* made and removed by the test */

static void die(const char *what)
{
	dprintf(ready_fd, "!%s: %s\n", what, strerror(errno));
	_exit(1);
}

/* For calls that must work for the test to mean something. */
#define MUST(call)                                                                                 \
	({                                                                                         \
		long got_ = (long)(call);                                                          \
		if (got_ < 0)                                                                      \
			die(#call);                                                                \
		got_;                                                                              \
	})

static void ready(void)
{
	if (write(ready_fd, "r", 1) != 1)
		_exit(1);
}

static void hold(void)
{
	ready();
	for (;;)
		pause();
}

static void *map(size_t pages, int prot, int flags, int fd, off_t off)
{
	void *p = mmap(NULL, pages * PAGE, prot, flags, fd, off);

	if (p == MAP_FAILED)
		die("mmap");
	return p;
}

/* --- the target: calls to be stopped in --- */

static void in_nanosleep(void)
{
	struct timespec ts = { .tv_sec = 1000 };

	ready();
	nanosleep(&ts, NULL);
}

static void in_clock_nanosleep_absolute(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	ts.tv_sec += 1000;
	ready();
	clock_nanosleep(CLOCK_BOOTTIME, TIMER_ABSTIME, &ts, NULL);
}

static void in_futex(void)
{
	struct timespec ts = { .tv_sec = 1000 };
	static int word;

	ready();
	syscall(SYS_futex, &word, FUTEX_WAIT, 0, &ts, NULL, 0);
}

static void in_poll(void)
{
	ready();
	poll(NULL, 0, 1000000);
}

static void in_select(void)
{
	struct timeval tv = { .tv_sec = 1000 };

	ready();
	select(0, NULL, NULL, NULL, &tv);
}

static void in_read(void)
{
	int p[2];
	char c;

	MUST(pipe(p));
	ready();
	if (read(p[0], &c, 1) < 0)
		pause();
}

static void in_epoll_wait(void)
{
	int p[2], ep = MUST(epoll_create1(0)), outer = MUST(epoll_create1(EPOLL_CLOEXEC));
	struct epoll_event ev = { .events = EPOLLIN | EPOLLET, .data.u64 = 0x1122334455667788 };

	MUST(pipe(p));
	MUST(epoll_ctl(ep, EPOLL_CTL_ADD, p[0], &ev));
	ev.events = EPOLLIN | EPOLLONESHOT;
	MUST(epoll_ctl(ep, EPOLL_CTL_ADD, MUST(eventfd(0, 0)), &ev));
	MUST(epoll_ctl(ep, EPOLL_CTL_ADD, MUST(dup(p[0])), &ev));
	MUST(epoll_ctl(outer, EPOLL_CTL_ADD, ep, &ev));
	ready();
	epoll_wait(outer, &ev, 1, -1);
}

static void in_sigsuspend(void)
{
	sigset_t blocked, empty;

	sigemptyset(&empty);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGUSR1);
	sigaddset(&blocked, SIGRTMIN + 5);
	MUST(sigprocmask(SIG_BLOCK, &blocked, NULL));
	ready();
	sigsuspend(&empty);
}

static void in_sigtimedwait(void)
{
	struct timespec ts = { .tv_sec = 1000 };
	sigset_t set;

	sigfillset(&set);
	MUST(sigprocmask(SIG_BLOCK, &set, NULL));
	ready();
	sigtimedwait(&set, NULL, &ts);
}

/* Registers that no C code would leave so. */
static void in_user_mode(void)
{
	ready();
	__asm__ volatile("mov $0x1111111111111111, %%rbx\n\t"
			 "mov $0x2222222222222222, %%r12\n\t"
			 "mov $0xf0f0f0f0f0f0f0f0, %%r15\n\t"
			 "movq %%rbx, %%xmm0\n\t"
			 "movq %%r15, %%xmm9\n\t"
			 "fldpi\n\t"
			 "1: pause\n\t"
			 "jmp 1b"
			 :
			 :
			 : "rbx", "r12", "r15", "xmm0", "xmm9", "memory");
}

/* Sleeps with all extended state but protection keys as it is in a new thread; then, perhaps, x87 in use. */
static void in_initial_state(bool x87)
{
	static uint8_t area[4096] __attribute__((aligned(64)));

	memcpy(area + 24, (const uint32_t[]){ 0x1f80 }, 4); /* MXCSR is loaded in any case */
	ready();
	__asm__ volatile("xrstor %[area]\n\t"
			 "test %[x87], %[x87]\n\t"
			 "jz 1f\n\t"
			 "fldpi\n\t"
			 "1: mov %[nr], %%eax\n\t"
			 "syscall\n\t"
			 "jmp 1b"
			 :
			 : [area] "m"(area), [x87] "r"((int)x87), [nr] "i"(SYS_pause), "a"(~(1u << 9)), "d"(~0u)
			 : "rcx", "r11", "memory");
}

static void with_no_extended_state(void)
{
	in_initial_state(false);
}

static void with_x87_alone(void)
{
	in_initial_state(true);
}

/* --- the target: threads --- */

static void *thread_main(void *arg)
{
	long n = (long)arg;
	char name[16];
	stack_t ss = { .ss_size = 32768 + n * PAGE };
	sigset_t set;

	snprintf(name, sizeof(name), "worker (%ld) x", n);
	prctl(PR_SET_NAME, name);
	prctl(PR_SET_TIMERSLACK, 1000 * (n + 1));
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + n);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	ss.ss_sp = map(16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	sigaltstack(&ss, NULL);
	setpriority(PRIO_PROCESS, gettid(), n);
	syscall(SYS_tgkill, getpid(), gettid(), SIGRTMIN + n);
	hold();
	return NULL;
}

static void with_threads(void)
{
	pthread_t t;

	for (long i = 1; i <= 5; i++)
		if (pthread_create(&t, NULL, thread_main, (void *)i))
			die("pthread_create");
	hold();
}

/* --- the target: signals --- */

static void handler(int sig)
{
	(void)sig;
}

/* Its main thread has exited; the other one has what is a process's besides. */
static void *leaderless_main(void *arg)
{
	char path[48], state = 0;

	(void)arg;
	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", getpid());
	while (state != 'Z') {
		FILE *f = fopen(path, "re");

		if (!f || fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
			die("stat of the main thread");
		fclose(f);
	}
	umask(0123);
	signal(SIGUSR1, SIG_IGN);
	MUST(prctl(PR_SET_NAME, "leaderless"));
	MUST(prctl(PR_SET_CHILD_SUBREAPER, 1));
	MUST(open("/etc/passwd", O_RDONLY));
	hold();
	return NULL;
}

static void without_leader(void)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, leaderless_main, NULL))
		die("pthread_create");
	syscall(SYS_exit, 9);
}

static void with_handlers(void)
{
	struct sigaction sa = { .sa_handler = handler };

	for (int sig = 1; sig <= 64; sig++) {
		if (sig == SIGKILL || sig == SIGSTOP || sig == 32 || sig == 33)
			continue;
		sa.sa_flags = (sig & 1 ? SA_RESTART : 0) | (sig & 2 ? SA_ONSTACK : 0) | (sig & 4 ? SA_NODEFER : 0) |
			      (sig & 8 ? SA_SIGINFO : 0) | (sig & 16 ? SA_RESETHAND : 0);
		sigemptyset(&sa.sa_mask);
		sigaddset(&sa.sa_mask, 1 + sig % 31);
		sa.sa_handler = sig % 7 ? handler : SIG_IGN;
		MUST(sigaction(sig, &sa, NULL));
	}
	hold();
}

static void with_pending_signals(void)
{
	sigset_t set;

	sigfillset(&set);
	sigdelset(&set, SIGCONT);
	MUST(sigprocmask(SIG_SETMASK, &set, NULL));
	MUST(kill(getpid(), SIGUSR1));
	for (int i = 0; i < 5; i++)
		MUST(sigqueue(getpid(), SIGRTMIN + 3, (union sigval){ .sival_int = 100 + i }));
	MUST(syscall(SYS_tgkill, getpid(), gettid(), SIGUSR2));
	MUST(syscall(SYS_tgkill, getpid(), gettid(), SIGRTMIN + 1));
	hold();
}

/* --- the target: timers --- */

static void with_itimers(void)
{
	struct itimerval it = { { 500, 250000 }, { 1000, 0 } };

	MUST(setitimer(ITIMER_REAL, &it, NULL));
	MUST(setitimer(ITIMER_PROF, &it, NULL));
	it.it_interval = (struct timeval){};
	MUST(setitimer(ITIMER_VIRTUAL, &it, NULL));
	hold();
}

static void with_posix_timers(void)
{
	const struct itimerspec its = { { 7, 500 }, { 1000, 0 } };
	struct sigevent ev = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 2,
			       .sigev_value.sival_ptr = (void *)0x123456789abc };
	timer_t id, gap;

	MUST(timer_create(CLOCK_MONOTONIC, &ev, &id));
	MUST(timer_settime(id, 0, &its, NULL));
	MUST(timer_create(CLOCK_REALTIME, NULL, &gap));
	ev.sigev_notify = SIGEV_NONE;
	MUST(timer_create(CLOCK_BOOTTIME, &ev, &id));
	MUST(timer_settime(id, 0, &its, NULL));
	ev.sigev_notify = SIGEV_THREAD_ID;
	ev._sigev_un._tid = gettid();
	MUST(timer_create(CLOCK_REALTIME, &ev, &id));
	MUST(timer_delete(gap));
	hold();
}

/* --- the target: descriptors --- */

static void with_pipes(void)
{
	int p[2], q[2];

	MUST(pipe2(p, O_NONBLOCK | O_CLOEXEC));
	MUST(write(p[1], "unread", 6));
	MUST(pipe(q));
	MUST(fcntl(q[1], F_SETPIPE_SZ, 16 * PAGE * 2));
	MUST(dup2(p[0], 100));
	hold();
}

static void with_eventfds(void)
{
	MUST(eventfd(7, 0));
	MUST(eventfd(3, EFD_SEMAPHORE | EFD_NONBLOCK));
	hold();
}

static void with_timerfds(void)
{
	const struct itimerspec its = { { 3, 250 }, { 1000, 0 } };
	struct itimerspec absolute = {};

	MUST(timerfd_create(CLOCK_MONOTONIC, 0));
	MUST(timerfd_settime(MUST(timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK)), 0, &its, NULL));
	clock_gettime(CLOCK_REALTIME, &absolute.it_value);
	absolute.it_value.tv_sec += 2000;
	MUST(timerfd_settime(MUST(timerfd_create(CLOCK_REALTIME, 0)), TFD_TIMER_ABSTIME, &absolute, NULL));
	hold();
}

static void with_signalfds(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGRTMAX);
	MUST(signalfd(-1, &set, SFD_NONBLOCK));
	sigfillset(&set);
	MUST(signalfd(-1, &set, SFD_CLOEXEC));
	hold();
}

static void with_files(void)
{
	int fd = MUST(open("/etc/passwd", O_RDONLY | O_CLOEXEC));

	MUST(lseek(fd, 17, SEEK_SET));
	MUST(dup(fd));
	MUST(dup2(fd, 500));
	MUST(open("/etc", O_RDONLY | O_DIRECTORY));
	MUST(open("/dev/zero", O_RDWR));
	MUST(open("/dev/null", O_WRONLY | O_APPEND | O_NONBLOCK));
	MUST(open("/etc/passwd", O_RDONLY));
	int p[2];
	MUST(pipe(p));
	MUST(fcntl(p[0], F_SETOWN, getpid()));
	MUST(fcntl(p[0], F_SETSIG, SIGRTMIN));
	hold();
}

static void with_listeners(void)
{
	const struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int tcp = MUST(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
	int stream = MUST(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0));

	MUST(bind(tcp, (const struct sockaddr *)&in, sizeof(in)));
	MUST(listen(tcp, 17));
	/* An abstract name: nothing is left behind in a file system. */
	snprintf(un.sun_path + 1, sizeof(un.sun_path) - 1, "observe_both_ways %d", getpid());
	MUST(bind(stream, (const struct sockaddr *)&un, sizeof(un)));
	MUST(listen(stream, 5));
	hold();
}

/* --- the target: credentials, limits, scheduling --- */

static void with_user(void)
{
	const gid_t groups[] = { 7, 12, 70000 };

	MUST(prctl(PR_SET_KEEPCAPS, 0));
	MUST(setgroups(3, groups));
	MUST(setresgid(5, 6, 7));
	MUST(setresuid(1000, 1001, 1002));
	hold();
}

static void with_less_power(void)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = {};

	MUST(prctl(PR_CAPBSET_DROP, CAP_SYS_MODULE));
	MUST(prctl(PR_SET_SECUREBITS, SECBIT_NOROOT));
	data[0].permitted = 1 << CAP_CHOWN | 1 << CAP_KILL;
	data[0].effective = 1 << CAP_KILL;
	data[0].inheritable = 1 << CAP_CHOWN;
	MUST(syscall(SYS_capset, &head, data));
	MUST(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_CHOWN, 0, 0));
	MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	hold();
}

static void with_many_groups(void)
{
	static gid_t groups[1000];

	for (int i = 0; i < 1000; i++)
		groups[i] = 2 * i + 10;
	MUST(setgroups(1000, groups));
	hold();
}

static void with_rare_attributes(void)
{
	int fd = MUST(open("/proc/self/coredump_filter", O_WRONLY));

	MUST(write(fd, "0x1f", 4));
	close(fd);
	MUST(syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_CLASS_BE << IOPRIO_CLASS_SHIFT | 2));
	MUST(prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0));
	MUST(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
	MUST(syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0));
	prctl(BCR_PR_SET_MEMORY_MERGE, 1, 0, 0, 0); /* since Linux 6.4 */
	MUST(prctl(PR_SET_TSC, PR_TSC_SIGSEGV));
	hold();
}

/* And the other value of each that has three. */
static void with_other_attributes(void)
{
	MUST(prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_LATE, 0, 0));
	if (prctl(PR_SET_THP_DISABLE, 1, BCR_PR_THP_DISABLE_EXCEPT_ADVISED, 0, 0)) /* since Linux 6.18 */
		MUST(prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0));
	MUST(syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0));
	MUST(syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_CLASS_IDLE << IOPRIO_CLASS_SHIFT));
	hold();
}

static void with_limits(void)
{
	const struct rlimit small = { 1234, 5678 }, stack = { 4 << 20, 64 << 20 };

	MUST(setrlimit(RLIMIT_NOFILE, &small));
	MUST(setrlimit(RLIMIT_STACK, &stack));
	MUST(setrlimit(RLIMIT_SIGPENDING, &small));
	hold();
}

static void with_nice(void)
{
	MUST(setpriority(PRIO_PROCESS, 0, 11));
	hold();
}

static void with_policy(int policy, int priority)
{
	const struct sched_param param = { .sched_priority = priority };

	/* A control group may have no time for real-time threads. */
	if (sched_setscheduler(0, policy, &param)) {
		if (errno != EPERM)
			die("sched_setscheduler");
		printf("not compared: policy %d, which is not allowed here, or not in this control group\n", policy);
		fflush(stdout);
	}
	hold();
}

static void with_fifo(void)
{
	with_policy(SCHED_FIFO, 3);
}

static void with_round_robin_reset(void)
{
	with_policy(SCHED_RR | SCHED_RESET_ON_FORK, 9);
}

static void with_batch(void)
{
	with_policy(SCHED_BATCH, 0);
}

static void with_idle(void)
{
	with_policy(SCHED_IDLE, 0);
}

static void with_affinity(void)
{
	cpu_set_t set;

	MUST(sched_getaffinity(0, sizeof(set), &set));
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (CPU_ISSET(cpu, &set)) {
			CPU_ZERO(&set);
			CPU_SET(cpu, &set);
			break;
		}
	}
	MUST(sched_setaffinity(0, sizeof(set), &set));
	hold();
}

static void with_names(void)
{
	MUST(prctl(PR_SET_NAME, "a) (b\tc"));
	MUST(prctl(PR_SET_PDEATHSIG, SIGUSR2));
	MUST(prctl(PR_SET_CHILD_SUBREAPER, 1));
	MUST(prctl(PR_SET_TIMERSLACK, 123456));
	MUST(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
	MUST(personality(ADDR_NO_RANDOMIZE));
	int fd = MUST(open("/proc/self/oom_score_adj", O_WRONLY));
	MUST(write(fd, "300", 3));
	close(fd);
	hold();
}

static void not_dumpable(void)
{
	MUST(prctl(PR_SET_DUMPABLE, 0));
	hold();
}

static void with_umask_and_cwd(void)
{
	umask(0137);
	MUST(chdir("/usr/bin"));
	hold();
}

/* --- the target: memory --- */

static void with_mappings(void)
{
	enum { PRIVATE = MAP_PRIVATE | MAP_ANONYMOUS, RW = PROT_READ | PROT_WRITE };
	int fd = MUST(open("/etc/passwd", O_RDONLY)), zero = MUST(open("/dev/zero", O_RDWR));

	map(4, PROT_NONE, PRIVATE, -1, 0);
	map(4096, PROT_NONE, PRIVATE | MAP_NORESERVE, -1, 0);
	map(3, PROT_EXEC, PRIVATE, -1, 0);
	map(1, PROT_READ, MAP_PRIVATE, fd, 0);
	map(1, PROT_READ, MAP_SHARED, fd, 0);
	map(2, RW, MAP_PRIVATE, zero, 0);
	map(2, RW, MAP_SHARED, zero, 0);
	MUST(mlock(map(3, RW, PRIVATE, -1, 0), PAGE));
	map(16, RW, PRIVATE | MAP_GROWSDOWN, -1, 0);
	char *shared = map(8, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	MUST(munmap(shared + 2 * PAGE, PAGE));
	MUST(mprotect(shared + 4 * PAGE, PAGE, PROT_READ));
	char *advised = map(16, RW, PRIVATE, -1, 0);
	const int advice[] = { MADV_DONTFORK, MADV_WIPEONFORK, MADV_DONTDUMP, MADV_SEQUENTIAL, MADV_RANDOM };
	for (size_t i = 0; i < sizeof(advice) / sizeof(advice[0]); i++)
		MUST(madvise(advised + 2 * i * PAGE, PAGE, advice[i]));
	/* The kernel may have been built without these. */
	madvise(advised + 11 * PAGE, PAGE, MADV_NOHUGEPAGE);
	madvise(advised + 13 * PAGE, PAGE, MADV_HUGEPAGE);
	madvise(advised + 15 * PAGE, PAGE, MADV_MERGEABLE);
	if (sbrk(12345) == (void *)-1)
		die("sbrk");
	hold();
}

static void with_grown_stack(void)
{
	volatile char area[256 * PAGE];

	/* From the top down, as a stack is used. */
	for (size_t at = sizeof(area); at; at -= PAGE)
		area[at - 1] = 1;
	hold();
}

static void with_shared_file(void)
{
	int fd = MUST(open(shared_file, O_RDWR));

	map(4, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	map(2, PROT_READ, MAP_PRIVATE, fd, 2 * PAGE);
	hold();
}

/* --- the target: relations --- */

/* Starts a child in this task's own name. */
static pid_t start(void (*body)(void))
{
	pid_t pid = MUST(fork());

	if (!pid) {
		body();
		for (;;)
			pause();
	}
	return pid;
}

static void with_session(void)
{
	MUST(setsid());
	pid_t leader = start(hold), member = start(hold);

	MUST(setpgid(leader, leader));
	MUST(setpgid(member, leader));
	hold();
}

static void with_shared_memory_child(void)
{
	map(4, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	start(hold);
	hold();
}

/* Objects that have no name: files in memory and System V segments, open and mapped. */
static void with_memory_objects(void)
{
	int open_only = MUST(memfd_create("open/only", MFD_ALLOW_SEALING)), fd = MUST(memfd_create("mapped", 0));
	int id = MUST(shmget(IPC_PRIVATE, 3 * PAGE, IPC_CREAT | 0600));

	MUST(ftruncate(open_only, 12345));
	MUST(fcntl(open_only, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SEAL));
	MUST(fchmod(open_only, 0610));
	MUST(ftruncate(fd, 4 * PAGE));
	map(2, PROT_READ | PROT_WRITE, MAP_SHARED, fd, PAGE);
	map(1, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	close(fd);
	if (shmat(id, NULL, 0) == (void *)-1 || shmat(id, NULL, SHM_RDONLY) == (void *)-1)
		die("shmat");
	MUST(shmctl(id, IPC_RMID, NULL)); /* it goes with the process */
	/* Without pages behind it: not every machine has some. */
	mmap(NULL, 2 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_NORESERVE, -1, 0);
	hold();
}

/* A file without a name, open and mapped. */
static void with_unlinked_file(void)
{
	char name[] = "/tmp/bcr-unlinked.XXXXXX";
	int fd = MUST(mkstemp(name));

	MUST(pwrite(fd, "text", 4, PAGE));
	MUST(fchmod(fd, 0640));
	map(2, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	MUST(unlink(name));
	hold();
}

/* Inside a directory that has been removed, and so has the one above it; open as well. */
static void in_removed_directory(void)
{
	char outer[32];

	snprintf(outer, sizeof(outer), "outer-%d", getpid());
	MUST(mkdir(outer, 0750));
	MUST(chdir(outer));
	MUST(mkdir("inner", 0750));
	MUST(chdir("inner"));
	MUST(open(".", O_RDONLY | O_DIRECTORY));
	MUST(rmdir("../inner"));
	char above[48];
	snprintf(above, sizeof(above), "../../%s", outer);
	MUST(rmdir(above));
	hold();
}

/* It never returns, on a stack that the address sanitizer does not know. */
__attribute__((no_sanitize("address"))) static int clone_main(void *arg)
{
	(void)arg;
	hold();
	return 0;
}

static void start_clone(int flags)
{
	char *stack = map(16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	MUST(clone(clone_main, stack + 16 * PAGE, flags, NULL));
}

static void with_clones(void)
{
	start_clone(CLONE_FILES | SIGCHLD);
	start_clone(CLONE_FS | SIGUSR1);
	start_clone(CLONE_VM | SIGCHLD);
	start_clone(CLONE_VM | CLONE_SIGHAND | CLONE_FILES | CLONE_FS);
	hold();
}

static void exit_seven(void)
{
	_exit(7);
}

static void die_by_signal(void)
{
	kill(getpid(), SIGKILL);
}

static void with_zombies(void)
{
	siginfo_t info;

	MUST(waitid(P_PID, start(exit_seven), &info, WEXITED | WNOWAIT));
	MUST(waitid(P_PID, start(die_by_signal), &info, WEXITED | WNOWAIT));
	hold();
}

static void hold_silently(void)
{
	for (;;)
		pause();
}

static void with_stopped_child(void)
{
	siginfo_t info;
	/* It may be stopped before it could say that it is ready. */
	pid_t child = start(hold_silently);

	MUST(kill(child, SIGSTOP));
	MUST(waitid(P_PID, child, &info, WSTOPPED | WNOWAIT));
	hold();
}

/* Its parent has taken notice. */
static void with_reported_child(void)
{
	int status;
	pid_t child = start(hold_silently);

	MUST(kill(child, SIGSTOP));
	MUST(waitpid(child, &status, WUNTRACED));
	hold();
}

static void with_continued_child(void)
{
	siginfo_t info;
	pid_t pid = start(hold_silently);

	MUST(kill(pid, SIGSTOP));
	MUST(waitid(P_PID, pid, &info, WSTOPPED));
	MUST(kill(pid, SIGCONT));
	MUST(waitid(P_PID, pid, &info, WCONTINUED | WNOWAIT));
	hold();
}

static void in_wait(void)
{
	siginfo_t info;

	start(hold);
	ready();
	waitid(P_ALL, 0, &info, WEXITED);
}

/* --- the target: all of it --- */

static const struct {
	void (*body)(void);
	int readies; /* bytes it and its own tasks write */
} tasks[] = {
	{ hold, 1 },
	{ in_nanosleep, 1 },
	{ in_clock_nanosleep_absolute, 1 },
	{ in_futex, 1 },
	{ in_poll, 1 },
	{ in_select, 1 },
	{ in_read, 1 },
	{ in_epoll_wait, 1 },
	{ in_sigsuspend, 1 },
	{ in_sigtimedwait, 1 },
	{ in_user_mode, 1 },
	{ with_no_extended_state, 1 },
	{ with_x87_alone, 1 },
	{ in_wait, 2 },
	{ with_threads, 6 },
	{ without_leader, 1 },
	{ with_handlers, 1 },
	{ with_pending_signals, 1 },
	{ with_itimers, 1 },
	{ with_posix_timers, 1 },
	{ with_pipes, 1 },
	{ with_eventfds, 1 },
	{ with_timerfds, 1 },
	{ with_signalfds, 1 },
	{ with_files, 1 },
	{ with_listeners, 1 },
	{ with_user, 1 },
	{ with_less_power, 1 },
	{ with_many_groups, 1 },
	{ with_rare_attributes, 1 },
	{ with_other_attributes, 1 },
	{ with_limits, 1 },
	{ with_nice, 1 },
	{ with_fifo, 1 },
	{ with_round_robin_reset, 1 },
	{ with_batch, 1 },
	{ with_idle, 1 },
	{ with_affinity, 1 },
	{ with_names, 1 },
	{ not_dumpable, 1 },
	{ with_umask_and_cwd, 1 },
	{ with_mappings, 1 },
	{ with_grown_stack, 1 },
	{ with_shared_file, 1 },
	{ with_memory_objects, 1 },
	{ with_unlinked_file, 1 },
	{ in_removed_directory, 1 },
	{ with_session, 3 },
	{ with_shared_memory_child, 2 },
	{ with_clones, 5 },
	{ with_zombies, 1 },
	{ with_stopped_child, 1 },
	{ with_reported_child, 1 },
	{ with_continued_child, 1 },
};

/* Reads until `nr` tasks are ready; returns false and tells why when one of them could not. */
static bool wait_ready(int fd, int nr, int tell)
{
	char buf[256];

	while (nr > 0) {
		ssize_t len = read(fd, buf, 1);

		if (len != 1)
			return false;
		if (*buf == 'r') {
			nr--;
			continue;
		}
		len = read(fd, buf, sizeof(buf));
		if (len > 0)
			dprintf(tell, "!%.*s", (int)len, buf);
		return false;
	}
	return true;
}

/* The root of the tree. Nothing of its descriptors leads out of the tree once it has told. */
static void target(int tell)
{
	int p[2], nr = 0;

	/* Whatever the caller of the test left open would lead out of the tree. */
	if (tell != 3) {
		MUST(dup2(tell, 3));
		tell = 3;
	}
	ready_fd = tell;
	MUST(syscall(SYS_close_range, 4, ~0U, 0));
	MUST(setsid());
	int null = MUST(open("/dev/null", O_RDWR));
	for (int fd = 0; fd < 3; fd++)
		MUST(dup2(null, fd));
	if (null > 2)
		close(null);
	MUST(pipe(p));
	ready_fd = p[1];
	for (size_t i = 0; i < sizeof(tasks) / sizeof(tasks[0]); i++) {
		pid_t pid = MUST(fork());

		nr += tasks[i].readies;
		if (!pid) {
			close(tell);
			tasks[i].body();
			for (;;)
				pause();
		}
	}
	if (wait_ready(p[0], nr, tell))
		MUST(write(tell, "r", 1));
	close(tell);
	for (;;)
		pause();
}

static pid_t start_target(void)
{
	int p[2];
	char why[256] = "";

	if (pipe2(p, 0) < 0)
		return -1;
	pid_t pid = fork();
	if (!pid) {
		close(p[0]);
		target(p[1]);
	}
	close(p[1]);
	ssize_t len = pid > 0 ? read(p[0], why, sizeof(why) - 1) : -1;
	close(p[0]);
	if (len == 1 && *why == 'r')
		return pid;
	printf("the target did not come up: %s\n", why);
	return -1;
}

/* --- the test --- */

static int observe(const char *backend, pid_t root, struct model **ret)
{
	const struct observe_options opts = { .backend = backend, .any_tree = true, .ghost_limit_bytes = 1 << 20 };
	struct observer *o;
	int err = observer_open(root, &opts, &o);

	if (err)
		return err;
	refusals_begin();
	err = observer_run(o, true, ret);
	if (refusals_end())
		printf("%s refused what it should carry\n", backend);
	observer_close(o);
	return err;
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

/* Timers run on between the two observations, which took `took_ns` together, with what the stopped threads were asked for. */
static int compare(const struct model *bpf, const struct model *proc, uint64_t took_ns)
{
	struct comparison c = { .m = proc };

	model_compare(bpf, proc, took_ns + SLACK_MS * 1000000ull, differ, &c);
	printf("%zu processes, %zu threads, %zu files: %zu differences; not compared: %zu fields, %zu of dead processes\n",
	       proc->tasks.nr, model_nr_threads(proc), proc->files.nr, c.failures, c.excluded, c.zombie);
	if (proc->tasks.nr < WANTED_TASKS) {
		printf("only %zu processes, wanted %d\n", proc->tasks.nr, WANTED_TASKS);
		return 1;
	}
	return c.failures ? 1 : 0;
}

/* /proc shows a task that is traced as such: whether a signal had stopped it before, the freezer knows. */
static void note_stopped(const struct freeze *f, struct model *m)
{
	VEC_FOREACH(t, &m->tasks) {
		if (t->state == TASK_ALIVE && freeze_was_stopped(f, t->pid))
			t->state = TASK_STOPPED;
		if (t->state != TASK_STOPPED)
			t->stop_reported = false;
	}
}

static const struct vma *find_vma(const struct mm *mm, unsigned long start)
{
	VEC_FOREACH(vma, &mm->vmas) {
		if (vma->start == start)
			return vma;
	}
	return NULL;
}

/* A private mapping that BPF takes for one without private pages must have none: they would be lost. */
static int check_anon(const struct mm *mm)
{
	char path[32], line[512];
	unsigned long start, end, kib, size = 0;
	int failures = 0;

	snprintf(path, sizeof(path), "/proc/%d/smaps", mm->pid);
	FILE *f = fopen(path, "re");
	if (!f) {
		perror(path);
		return 1;
	}
	const struct vma *vma = NULL;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			vma = find_vma(mm, start);
		else if (sscanf(line, "Anonymous: %lu", &kib) == 1)
			size = kib;
		else if (sscanf(line, "Swap: %lu", &kib) == 1 && vma && !vma->has_anon && size + kib &&
			 !(vma->flags & MAP_SHARED)) {
			printf("pid %d mapping %lx: bpf has_anon 0, but %lu KiB are anonymous\n", mm->pid, start,
			       size + kib);
			failures++;
		}
	}
	fclose(f);
	return failures;
}

static int run(pid_t root)
{
	struct model *bpf = NULL, *proc = NULL;
	struct freeze *f = NULL;
	int err = freeze_create("ptrace", root, 10, &f);

	if (!err)
		err = freeze_stop(f);
	uint64_t begin_ns = now_ns();
	if (!err)
		err = observe("bpf", root, &bpf);
	if (!err)
		err = observe("proc", root, &proc);
	if (!err)
		err = freeze_read_cpu(f, proc);
	if (!err)
		err = capture_thread_state(f, proc);
	uint64_t took_ns = now_ns() - begin_ns;
	if (!err) {
		note_stopped(f, proc);
		err = compare(bpf, proc, took_ns);
		VEC_FOREACH(mm, &bpf->mms)
			err |= check_anon(*mm);
	}
	if (f && freeze_thaw(f, THAW_KILL, NULL))
		err = 1;
	freeze_destroy(f);
	model_destroy(bpf);
	model_destroy(proc);
	return err ? 1 : 0;
}

/* Ends whatever is left of the target: orphans become children of the test, which is their subreaper. */
static void end_children(void)
{
	pid_t pid;

	do {
		FILE *f = fopen("/proc/thread-self/children", "re");

		while (f && fscanf(f, "%d", &pid) == 1)
			kill(pid, SIGKILL);
		if (f)
			fclose(f);
	} while (waitpid(-1, NULL, 0) > 0 || errno == EINTR);
}

int main(void)
{
	const char *why = NULL;

	if (geteuid()) {
		puts("skip: needs root");
		return 77;
	}
	int fd = mkstemp(shared_file);
	if (fd < 0 || ftruncate(fd, 4 * PAGE) < 0) {
		perror(shared_file);
		return 1;
	}
	close(fd);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	pid_t root = start_target();
	/* Afterwards: it maps what it loads, and the target is a child of ours. */
	bool has_bpf = !observe_bpf_ops.probe(&why);
	int err = root < 0 ? 1 : has_bpf ? run(root) : 77;
	end_children();
	unlink(shared_file);
	if (!has_bpf)
		printf("skip: no BPF here: %s\n", why ? why : "no reason known");
	return err;
}
