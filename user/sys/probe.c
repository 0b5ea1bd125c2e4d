/* Probes: each tries the thing itself, on this process or on a child made for it; versions are never compared. */
#include "sys/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <linux/prctl.h>
#include <linux/ptrace.h>
#include <linux/sched.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "sys/uapi.h"

#define PTRACE(request, pid, addr, data) syscall(SYS_ptrace, request, pid, addr, data)

static int result(long ret)
{
	return ret < 0 ? -errno : 0;
}

static void reap(const pid_t *pid)
{
	if (*pid > 0) {
		kill(*pid, SIGKILL);
		while (waitpid(*pid, NULL, __WALL) < 0 && errno == EINTR)
			;
	}
}

#define _cleanup_reap_ __attribute__((cleanup(reap)))

/* A child that waits; it dies with bcr. */
static pid_t waiting_child(void)
{
	pid_t parent = getpid();
	pid_t pid = fork();

	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		while (getppid() == parent)
			pause();
		_exit(0);
	}
	return pid < 0 ? -errno : pid;
}

static int probe_ptrace(void)
{
	_cleanup_reap_ pid_t pid = waiting_child();
	int status;

	if (pid < 0)
		return pid;
	if (PTRACE(PTRACE_SEIZE, pid, 0, 0) || PTRACE(PTRACE_INTERRUPT, pid, 0, 0))
		return -errno;
	if (waitpid(pid, &status, __WALL) != pid)
		return -errno;
	if (!WIFSTOPPED(status) || status >> 16 != PTRACE_EVENT_STOP)
		return -EPROTO;
	return result(PTRACE(PTRACE_DETACH, pid, 0, 0));
}

static int probe_rseq_conf(void)
{
	_cleanup_reap_ pid_t pid = waiting_child();
	struct ptrace_rseq_configuration conf;
	int status;

	if (pid < 0)
		return pid;
	if (PTRACE(PTRACE_SEIZE, pid, 0, 0) || PTRACE(PTRACE_INTERRUPT, pid, 0, 0))
		return -errno;
	if (waitpid(pid, &status, __WALL) != pid)
		return -errno;
	return result(PTRACE(PTRACE_GET_RSEQ_CONFIGURATION, pid, sizeof(conf), &conf));
}

static int probe_process_vm(void)
{
	static const char secret[] = "readable";
	_cleanup_reap_ pid_t pid = waiting_child();
	char buf[sizeof(secret)];

	if (pid < 0)
		return pid;
	struct iovec to = { buf, sizeof(buf) };
	struct iovec from = { (void *)secret, sizeof(secret) };
	ssize_t n = process_vm_readv(pid, &to, 1, &from, 1, 0);
	if (n < 0)
		return -errno;
	return n == sizeof(secret) && !memcmp(buf, secret, n) ? 0 : -EIO;
}

static int probe_pidfd_getfd(void)
{
	_cleanup_close_ int inherited = open("/", O_PATH | O_CLOEXEC);
	_cleanup_reap_ pid_t pid = waiting_child();

	if (pid < 0)
		return pid;
	_cleanup_close_ int pidfd = syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0)
		return -errno;
	_cleanup_close_ int fd = syscall(SYS_pidfd_getfd, pidfd, inherited, 0);
	return result(fd);
}

static int probe_kcmp(void)
{
	pid_t pid = getpid();
	_cleanup_close_ int fd = open("/", O_PATH | O_CLOEXEC);

	return fd < 0 ? -errno : result(syscall(SYS_kcmp, pid, pid, KCMP_FILE, fd, fd));
}

static int probe_kcmp_epoll(void)
{
	_cleanup_close_ int ep = epoll_create1(EPOLL_CLOEXEC);
	_cleanup_close_ int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	struct epoll_event ev = { .events = EPOLLIN };
	pid_t pid = getpid();

	if (ep < 0 || timer < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, timer, &ev))
		return -errno;
	struct kcmp_epoll_slot slot = { .efd = ep, .tfd = timer };
	return result(syscall(SYS_kcmp, pid, pid, KCMP_EPOLL_TFD, timer, &slot));
}

/* A pid that was free a moment ago; taken again by somebody meanwhile it is EEXIST, and tried once more. */
static int probe_set_tid(void)
{
	int err = 0;

	for (int tries = 0; tries < 5; tries++) {
		pid_t wanted = waiting_child();
		if (wanted < 0)
			return wanted;
		reap(&wanted);
		pid_t parent = getpid();
		struct clone_args args = {
			.exit_signal = SIGCHLD,
			.set_tid = (uintptr_t)&wanted,
			.set_tid_size = 1,
		};
		_cleanup_reap_ pid_t pid = syscall(SYS_clone3, &args, sizeof(args));
		if (!pid) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			while (syscall(SYS_getppid) == parent)
				pause();
			_exit(0);
		}
		err = pid < 0 ? -errno : pid == wanted ? 0 : -EPROTO;
		if (err != -EEXIST)
			return err;
	}
	return err;
}

static int probe_mm_map(void)
{
	unsigned size = 0;

	return result(prctl(PR_SET_MM, PR_SET_MM_MAP_SIZE, &size, 0, 0));
}

static int probe_timer_ids(void)
{
	return result(prctl(BCR_PR_TIMER_CREATE_RESTORE_IDS,
			    BCR_PR_TIMER_CREATE_RESTORE_IDS_GET, 0, 0, 0));
}

static int probe_timerfd(void)
{
	_cleanup_close_ int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	uint64_t ticks = 1;

	return fd < 0 ? -errno : result(ioctl(fd, BCR_TFD_IOC_SET_TICKS, &ticks));
}

static int probe_mnt_id(void)
{
	_cleanup_close_ int fd = open("/", O_PATH | O_CLOEXEC);
	char path[64], line[256];

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	_cleanup_fclose_ FILE *f = fopen(path, "re");
	if (!f)
		return -errno;
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, "mnt_id:", 7))
			return 0;
	return -ENODATA;
}

/* The categories of one page of this process, or a negative errno. */
static int scan_page(void *page, uint64_t mask)
{
	_cleanup_close_ int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	struct bcr_pm_page_region region = { 0 };
	struct bcr_pm_scan_arg arg = {
		.size = sizeof(arg),
		.start = (uintptr_t)page,
		.end = (uintptr_t)page + getpagesize(),
		.vec = (uintptr_t)&region,
		.vec_len = 1,
		.category_anyof_mask = mask,
		.return_mask = mask,
	};

	if (fd < 0)
		return -errno;
	int n = ioctl(fd, BCR_PAGEMAP_SCAN, &arg);
	return n < 0 ? -errno : (int)region.categories;
}

static void *test_page(void)
{
	void *page = mmap(NULL, getpagesize(), PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return page == MAP_FAILED ? NULL : page;
}

static int probe_pagemap_scan(void)
{
	char *page = test_page();

	if (!page)
		return -errno;
	*(volatile char *)page = 1;
	int seen = scan_page(page, BCR_PAGE_IS_PRESENT);
	munmap(page, getpagesize());
	return seen < 0 ? seen : seen ? 0 : -ENODATA;
}

static int probe_guard_pages(void)
{
	char *page = test_page();

	if (!page)
		return -errno;
	int err = result(madvise(page, getpagesize(), BCR_MADV_GUARD_INSTALL));
	munmap(page, getpagesize());
	return err;
}

static int probe_scan_guard(void)
{
	char *page = test_page();

	if (!page)
		return -errno;
	int seen = result(madvise(page, getpagesize(), BCR_MADV_GUARD_INSTALL));
	if (!seen)
		seen = scan_page(page, BCR_PAGE_IS_GUARD);
	munmap(page, getpagesize());
	return seen < 0 ? seen : seen ? 0 : -ENODATA;
}

static int probe_wp_async(void)
{
	_cleanup_close_ int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	struct uffdio_api api = { .api = UFFD_API, .features = BCR_UFFD_FEATURE_WP_ASYNC };

	return fd < 0 ? -errno : result(ioctl(fd, UFFDIO_API, &api));
}

/* Can groups of the v2 hierarchy mounted here be frozen? The root has no such file: a group of our own tells. */
static int freezer_at(const char *mount)
{
	_cleanup_close_ int dir = open(mount, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char name[40], path[64];

	if (dir < 0)
		return -errno;
	snprintf(name, sizeof(name), "bcr-check-%d", getpid());
	snprintf(path, sizeof(path), "%s/cgroup.freeze", name);
	if (mkdirat(dir, name, 0700))
		return -errno;
	int err = result(faccessat(dir, path, W_OK, AT_EACCESS));
	if (unlinkat(dir, name, AT_REMOVEDIR))
		return -errno;
	return err;
}

static int probe_cgroup_freezer(void)
{
	_cleanup_fclose_ FILE *f = fopen("/proc/self/mountinfo", "re");
	char line[4096], mount[1024];
	int err = -ENODEV;

	if (!f)
		return -errno;
	while (err && fgets(line, sizeof(line), f)) {
		if (strstr(line, " - cgroup2 ") && sscanf(line, "%*d %*d %*s %*s %1023s", mount) == 1)
			err = freezer_at(mount);
	}
	return err;
}

static int has_cap(cap_value_t cap)
{
	cap_t caps = cap_get_proc();
	cap_flag_value_t value = CAP_CLEAR;

	if (!caps)
		return -errno;
	int err = cap_get_flag(caps, cap, CAP_EFFECTIVE, &value) ? -errno : 0;
	cap_free(caps);
	return err ? err : value == CAP_SET ? 0 : -EPERM;
}

static int either_cap(cap_value_t narrow)
{
	return has_cap(narrow) && has_cap(CAP_SYS_ADMIN) ? -EPERM : 0;
}

static int probe_cap_ptrace(void)
{
	return has_cap(CAP_SYS_PTRACE);
}

static int probe_cap_checkpoint(void)
{
	return either_cap(CAP_CHECKPOINT_RESTORE);
}

static int probe_cap_bpf(void)
{
	return either_cap(CAP_BPF) || either_cap(CAP_PERFMON) ? -EPERM : 0;
}

static int probe_cap_resource(void)
{
	return has_cap(CAP_SYS_RESOURCE);
}

static int probe_cap_ids(void)
{
	return has_cap(CAP_SETUID) || has_cap(CAP_SETGID) ? -EPERM : 0;
}

static int probe_cap_nice(void)
{
	return has_cap(CAP_SYS_NICE);
}

static const struct probe probes[] = {
	{ "ptrace", "PTRACE_SEIZE and PTRACE_INTERRUPT", "nothing can be stopped or restored",
	  PROBE_NEEDED, probe_ptrace },
	{ "process_vm", "process_vm_readv(2)", "memory cannot be read", PROBE_NEEDED,
	  probe_process_vm },
	{ "clone3_set_tid", "clone3(2) with set_tid", "restore cannot give tasks their pids",
	  PROBE_NEEDED, probe_set_tid },
	{ "mm_map", "PR_SET_MM_MAP", "restore cannot set the memory layout", PROBE_NEEDED,
	  probe_mm_map },
	{ "pidfd_getfd", "pidfd_getfd(2)", "descriptors cannot be looked into", PROBE_NEEDED,
	  probe_pidfd_getfd },
	{ "mnt_id", "mnt_id in /proc/PID/fdinfo", "--observe=proc cannot tell mounts apart",
	  PROBE_FALLBACK, probe_mnt_id },
	{ "kcmp", "kcmp(2)", "--observe=proc cannot see what is shared", PROBE_FALLBACK,
	  probe_kcmp },
	{ "pagemap_scan", "PAGEMAP_SCAN", "/proc/PID/pagemap is read instead, which is slower",
	  PROBE_FALLBACK, probe_pagemap_scan },
	{ "cgroup_freezer", "a cgroup v2 hierarchy with groups that can be frozen",
	  "every target is stopped by ptrace", PROBE_FALLBACK, probe_cgroup_freezer },
	{ "cap_sys_ptrace", "CAP_SYS_PTRACE", "only your own processes can be dumped",
	  PROBE_FALLBACK, probe_cap_ptrace },
	{ "cap_checkpoint_restore", "CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN",
	  "restore cannot give tasks their pids", PROBE_NEEDED, probe_cap_checkpoint },
	{ "cap_bpf", "CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN",
	  "state is gathered from /proc and by ptrace, which is slower", PROBE_FALLBACK,
	  probe_cap_bpf },
	{ "cap_setids", "CAP_SETUID and CAP_SETGID",
	  "restore cannot give tasks other users' credentials", PROBE_EXTRA, probe_cap_ids },
	{ "cap_sys_nice", "CAP_SYS_NICE", "restore cannot set realtime policies or raise priorities",
	  PROBE_EXTRA, probe_cap_nice },
	{ "cap_sys_resource", "CAP_SYS_RESOURCE",
	  "restore cannot raise hard limits, lower oom_score_adj or exceed pipe size limits",
	  PROBE_EXTRA, probe_cap_resource },
	{ "kcmp_epoll", "KCMP_EPOLL_TFD",
	  "--observe=proc cannot tell which file an epoll item watches", PROBE_EXTRA,
	  probe_kcmp_epoll },
	{ "get_rseq_conf", "PTRACE_GET_RSEQ_CONFIGURATION",
	  "--observe=proc cannot see restartable sequences", PROBE_EXTRA, probe_rseq_conf },
	{ "timerfd", "TFD_IOC_SET_TICKS", "expirations of a timerfd that were not read are lost",
	  PROBE_EXTRA, probe_timerfd },
	{ "timer_cr_ids", "PR_TIMER_CREATE_RESTORE_IDS",
	  "POSIX timers get their numbers the slow way", PROBE_EXTRA, probe_timer_ids },
	{ "guard_pages", "MADV_GUARD_INSTALL", "targets cannot have guard regions either",
	  PROBE_EXTRA, probe_guard_pages },
	{ "pagemap_scan_guard_pages", "guard regions in PAGEMAP_SCAN",
	  "guard regions cannot be seen", PROBE_EXTRA, probe_scan_guard },
	{ "uffd_wp_async", "asynchronous write protection (userfaultfd)",
	  "nothing today: bcr does not track writes yet", PROBE_UNUSED, probe_wp_async },
};

const struct probe *probe_at(size_t i)
{
	return i < sizeof(probes) / sizeof(probes[0]) ? &probes[i] : NULL;
}
