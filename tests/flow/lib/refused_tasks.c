/* Tasks and trees that dump refuses. */
#include "refused.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>

/* --- threads --- */

static pthread_t thread;
static pid_t thread_tid;
static int thread_go;
static void (*thread_build)(void);

static void *thread_main(void *arg)
{
	thread_build();
	__atomic_store_n(&thread_tid, gettid(), __ATOMIC_RELEASE);
	while (!__atomic_load_n(&thread_go, __ATOMIC_ACQUIRE))
		self_nap(2000000);
	return arg;
}

static void start_thread(void (*build)(void))
{
	thread_build = build;
	NEED(pthread_create(&thread, NULL, thread_main, NULL) == 0);
	while (!__atomic_load_n(&thread_tid, __ATOMIC_ACQUIRE))
		self_nap(1000000);
}

static void join_thread(void)
{
	__atomic_store_n(&thread_go, 1, __ATOMIC_RELEASE);
	NEED(pthread_join(thread, NULL) == 0);
}

static void unshare_files(void)
{
	NEED(unshare(CLONE_FILES) == 0);
}

static void build_files_thread(void)
{
	start_thread(unshare_files);
	EXPECT("pid %d: its thread %d has descriptors of its own", getpid(), thread_tid);
}

static void unshare_fs(void)
{
	NEED(unshare(CLONE_FS) == 0);
}

static void build_fs_thread(void)
{
	start_thread(unshare_fs);
	EXPECT("pid %d: its thread %d has .*working directory.* of its own", getpid(), thread_tid);
}

static void unshare_uts(void)
{
	NEED(unshare(CLONE_NEWUTS) == 0);
}

static void build_uts_thread(void)
{
	start_thread(unshare_uts);
	EXPECT("pid %d: its thread %d is in other namespaces than its process", getpid(), thread_tid);
}

/* --- other processes --- */

static void trace_parent(void)
{
	NEED(ptrace(PTRACE_SEIZE, getppid(), NULL, NULL) == 0);
}

static void build_traced(void)
{
	EXPECT("pid %d: is traced by a debugger", getpid());
	start_child(trace_parent, NULL);
}

static char stack[65536] __attribute__((aligned(16)));
static int shared_go, shared_pid, shared_ends[2];
static char below_stack[sizeof(stack)];

/* It shares the root's memory, with all that the C library keeps in it. */
static int wait_shared(void *arg)
{
	struct timespec ts = { .tv_nsec = 2000000 };

	__atomic_store_n(&shared_pid, syscall(SYS_getpid), __ATOMIC_RELEASE);
	while (!__atomic_load_n(&shared_go, __ATOMIC_ACQUIRE))
		syscall(SYS_nanosleep, &ts, NULL);
	syscall(SYS_exit_group, 0);
	return arg == NULL;
}

/* Between the two, and, when the one below has said who it is, another program, which ends with the pipe. */
static int start_below(void *arg)
{
	struct timespec ts = { .tv_nsec = 1000000 };

	if (clone(wait_shared, below_stack + sizeof(below_stack), CLONE_VM | SIGCHLD, NULL) > 0 && dup2(shared_ends[0], 0) == 0) {
		while (!__atomic_load_n(&shared_pid, __ATOMIC_ACQUIRE))
			syscall(SYS_nanosleep, &ts, NULL);
		execl("/bin/cat", "cat", NULL);
	}
	_exit(arg == NULL);
}

static void build_share_above(void)
{
	NEED(pipe2(shared_ends, O_CLOEXEC) == 0);
	refused_child = clone(start_below, stack + sizeof(stack), CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
	NEED(refused_child > 0 && shared_pid > 0);
	EXPECT("pid %d: shares its memory .CLONE_VM. with pid %d, but not so with its parent", shared_pid, getpid());
}

static void check_sharing(void)
{
	__atomic_store_n(&shared_go, 1, __ATOMIC_RELEASE);
	close(shared_ends[1]);
	self_join(refused_child);
}

static int vfork_child(void *arg)
{
	char pid[16];

	snprintf(pid, sizeof(pid), "%d\n", getppid());
	self_write_file("ready", pid);
	self_wait();
	_exit(0);
	return arg == NULL;
}

static void build_vfork(void)
{
	EXPECT("pid %d: waits for its vfork child", getpid());
	/* Goes on when the child has ended. */
	pid_t pid = clone(vfork_child, stack + sizeof(stack), CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
	NEED(pid > 0);
	self_join(pid);
	self_pass();
}

static int inside_child(void *arg)
{
	char pid[16];

	NEED(setsid() > 0);
	EXPECT("pid %d: shares its memory .CLONE_VM. with pid %d, which is outside the tree", getpid(), getppid());
	EXPECT("pid %d: shares its descriptors .CLONE_FILES. with pid %d, which is outside the tree", getpid(), getppid());
	EXPECT("pid %d: shares its working directory .CLONE_FS. with pid %d, which is outside the tree", getpid(), getppid());
	snprintf(pid, sizeof(pid), "%d\n", getpid());
	self_write_file("ready", pid);
	self_wait();
	_exit(0);
	return arg == NULL;
}

/* The root of the dumped tree is a child of ours that has everything in common with us. */
static void build_outside(void)
{
	pid_t pid = clone(inside_child, stack + sizeof(stack), CLONE_VM | CLONE_FILES | CLONE_FS | SIGCHLD, NULL);

	NEED(pid > 0);
	self_join(pid);
	self_pass();
}

/* The root of the dumped tree is a child of ours that has ended. */
static void build_zombie(void)
{
	siginfo_t info;
	char text[16];
	pid_t pid = fork();

	NEED(pid >= 0);
	if (!pid)
		_exit(0);
	NEED(waitid(P_PID, pid, &info, WEXITED | WNOWAIT) == 0);
	EXPECT("pid %d: has ended", pid);
	snprintf(text, sizeof(text), "%d\n", pid);
	self_write_file("ready", text);
	self_wait();
	NEED(write(STDOUT_FILENO, "PASS\n", 5) == 5);
	self_join(pid);
	exit(0);
}

/* --- namespaces --- */

static void enter(int flag, const char *name)
{
	if (unshare(flag))
		unavailable(name);
	EXPECT("pid %d: is in another %s namespace", getpid(), name);
}

static void build_ns_uts(void)
{
	enter(CLONE_NEWUTS, "uts");
}

static void build_ns_mnt(void)
{
	enter(CLONE_NEWNS, "mnt");
}

static void build_ns_net(void)
{
	enter(CLONE_NEWNET, "net");
}

static void build_ns_ipc(void)
{
	enter(CLONE_NEWIPC, "ipc");
}

static void build_ns_user(void)
{
	enter(CLONE_NEWUSER, "user");
}

static void build_ns_cgroup(void)
{
	enter(CLONE_NEWCGROUP, "cgroup");
}

static void expect_children(const char *name)
{
	EXPECT("pid %d: its children will be in another %s namespace", getpid(), name);
}

static void build_children_pid(void)
{
	NEED(unshare(CLONE_NEWPID) == 0);
	expect_children("pid");
}

static void build_children_time(void)
{
	if (unshare(CLONE_NEWTIME))
		unavailable("time namespaces");
	expect_children("time");
}

static void nothing(void)
{
}

static void build_ns_pid(void)
{
	build_children_pid();
	start_child(nothing, NULL);
	EXPECT("pid %d: is in another pid namespace", refused_child);
}

static void build_ns_time(void)
{
	build_children_time();
	start_child(nothing, NULL);
	EXPECT("pid %d: is in another time namespace", refused_child);
}

int main(int argc, char **argv)
{
	static const struct mode modes[] = {
		{ "thread-files", build_files_thread, join_thread },
		{ "thread-fs", build_fs_thread, join_thread },
		{ "thread-uts", build_uts_thread, join_thread },
		{ "traced", build_traced, join_child },
		{ "share-above", build_share_above, check_sharing },
		{ "vfork", build_vfork, NULL },
		{ "outside", build_outside, NULL },
		{ "zombie", build_zombie, NULL },
		{ "ns-uts", build_ns_uts, NULL },
		{ "ns-mnt", build_ns_mnt, NULL },
		{ "ns-net", build_ns_net, NULL },
		{ "ns-ipc", build_ns_ipc, NULL },
		{ "ns-user", build_ns_user, NULL },
		{ "ns-cgroup", build_ns_cgroup, NULL },
		{ "ns-pid", build_ns_pid, join_child },
		{ "ns-time", build_ns_time, join_child },
		{ "children-pid", build_children_pid, NULL },
		{ "children-time", build_children_time, NULL },
		{},
	};

	return refused_main(argc, argv, modes);
}
