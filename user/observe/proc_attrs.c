/* The /proc back end: attributes that few programs have, those that can be seen from outside. */
#include <errno.h>
#include <linux/ioprio.h>
#include <linux/prctl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "observe/proc.h"
#include "sys/task_flags.h"

/* "thread force mitigated", "conditional force disabled"; "thread mitigated", "conditional disabled". */
static uint8_t speculation(const char *text)
{
	size_t len = text ? strcspn(text, "\n") : 0;
	char line[64];

	snprintf(line, sizeof(line), "%.*s", len < sizeof(line) ? (int)len : (int)sizeof(line) - 1, text ? text : "");
	if (strstr(line, "force"))
		return PR_SPEC_FORCE_DISABLE;
	return strstr(line, "thread mitigated") || strstr(line, "conditional disabled") ? PR_SPEC_DISABLE : 0;
}

int proc_thread_attrs(struct thread *th, uint64_t flags, const char *status)
{
	long ioprio = syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS, th->tid);

	if (ioprio < 0)
		return -errno;
	th->ioprio = ioprio;
	th->mce_kill = task_flags_mce_kill(flags);
	th->io_flusher = task_flags_io_flusher(flags);
	th->spec_store_bypass = speculation(proc_field(status, "Speculation_Store_Bypass"));
	th->spec_indirect_branch = speculation(proc_field(status, "SpeculationIndirectBranch"));
	return 0;
}

/* "/autogroup-123 nice 5"; nothing on kernels without. */
static int fill_autogroup(struct task *t, int dir)
{
	_cleanup_free_ char *text = NULL;
	int err = proc_read(dir, "autogroup", &text, NULL);
	const char *nice = err ? NULL : strstr(text, " nice ");

	if (nice)
		t->autogroup_nice = atoi(nice + strlen(" nice "));
	return err == -ENOENT ? 0 : err;
}

int proc_process_attrs(struct task *t, struct task_idents *id, int dir)
{
	uint64_t filter = MM_DUMP_FILTER_UNKNOWN;
	unsigned long cookie = 0;
	int err = proc_read_u64(dir, "coredump_filter", 16, &filter);

	if (err == -ENOENT) /* a kernel that dumps no core */
		err = 0;
	id->layout.coredump_filter = filter;
	/* A kernel without core scheduling says EINVAL. */
	if (!prctl(PR_SCHED_CORE, PR_SCHED_CORE_GET, t->pid, PR_SCHED_CORE_SCOPE_THREAD, &cookie) && cookie &&
	    !id->refusal[0])
		snprintf(id->refusal, sizeof(id->refusal),
			 "is in a core scheduling group (prctl(PR_SCHED_CORE)), which is not supported");
	return err ? err : fill_autogroup(t, dir);
}
