/* Is a pid something that can be dumped? */
#include "sys/pid_check.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"

struct pid_facts {
	pid_t tgid, ppid;
	char state;
	bool kernel_thread;
};

/* Of /proc/PID/status; "Kthread:" is there since Linux 6.9, before it a task without "VmSize:" is one (or a zombie). */
static int read_facts(pid_t pid, struct pid_facts *ret)
{
	char path[40], line[256];

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	_cleanup_fclose_ FILE *f = fopen(path, "re");
	if (!f)
		return -errno;

	struct pid_facts facts = { 0 };
	bool has_mm = false;
	int kthread = -1, threads = 1;
	while (fgets(line, sizeof(line), f)) {
		sscanf(line, "State: %c", &facts.state);
		sscanf(line, "Tgid: %d", &facts.tgid);
		sscanf(line, "PPid: %d", &facts.ppid);
		sscanf(line, "Kthread: %d", &kthread);
		sscanf(line, "Threads: %d", &threads);
		has_mm = has_mm || !strncmp(line, "VmSize:", 7);
	}
	if (ferror(f) || !facts.tgid)
		return -ESRCH; /* it ended meanwhile */
	facts.kernel_thread = kthread >= 0 ? kthread : !has_mm && facts.state != 'Z';
	/* A dead leader with other threads: the process lives. A thread that calls execve takes the leader's place. */
	if (facts.state == 'Z' && threads > 1)
		facts.state = 'S';
	*ret = facts;
	return 0;
}

/* Whether `pid` is bcr or above it. The chain ends at 0: a parent outside this pid namespace. */
static bool is_ancestor(pid_t pid, bool *self)
{
	pid_t p = getpid();

	*self = pid == p;
	while (p > 0) {
		struct pid_facts facts;

		if (p == pid)
			return true;
		if (read_facts(p, &facts))
			return false;
		p = facts.ppid;
	}
	return false;
}

int pid_check_target(pid_t pid)
{
	struct pid_facts facts;
	bool self;

	if (pid <= 0)
		return fail(0, "pid %d: a pid is a number greater than 0", pid);
	if (kill(pid, 0) && errno == ESRCH)
		return fail(0, "pid %d: there is no such process", pid);

	int err = read_facts(pid, &facts);
	if (err == -ENOENT || err == -ESRCH)
		return fail(0, "pid %d: there is no such process", pid);
	if (err)
		return fail(err, "pid %d: read /proc/%d/status", pid, pid);
	if (facts.tgid != pid)
		return fail(0, "pid %d: is a thread of process %d; dump that process with --tree %d",
			    pid, facts.tgid, facts.tgid);
	if (facts.kernel_thread)
		return fail(0, "pid %d: is a kernel thread, which cannot be dumped", pid);
	if (facts.state == 'Z' || facts.state == 'X')
		return fail(0, "pid %d: has ended and waits for its parent %d to collect its status", pid,
			    facts.ppid);
	if (is_ancestor(pid, &self))
		return self ? fail(0, "pid %d: is bcr itself", pid) :
			      fail(0,
				   "pid %d: is an ancestor of bcr, which would stop itself; start bcr outside the tree",
				   pid);
	return 0;
}
