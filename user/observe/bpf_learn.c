/*
 * The BPF back end: what the kernel's BTF does not tell, because there it is a macro, or an offset that is decided at boot.
 *
 * It is learned by trying: bcr's own process, and children made for it, set what is looked for, and the words that BPF
 * reads of them are compared before and after. What cannot be set on this kernel cannot be set in the target either.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <linux/prctl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "observe/bpf.h"
#include "sys/uapi.h"

enum { SELF_TRIES = 100, CHILD_TRIES = 3 };

/* What is compared. */
struct words {
	uint64_t mm_flags, ti_flags, session_keyring;
	uint64_t lsm[OBSERVE_NR_LSM];
};

static int read_words(struct bpf_state *s, pid_t pid, struct words *ret)
{
	int err = -EAGAIN;

	/* Children of ours, which come along, may come and go. */
	for (int tries = 0; err == -EAGAIN && tries < SELF_TRIES; tries++)
		err = bpf_tasks_read(s, pid, false);
	if (err)
		return err == -EAGAIN ? fail(err, "observe bcr's own process") : err;
	const struct task_record *task = bpf_array_at(&s->tasks, 0);
	const struct thread_record *th = bpf_array_at(&s->threads, 0);
	ret->mm_flags = task->mm_flags;
	ret->ti_flags = th->ti_flags;
	ret->session_keyring = th->session_keyring;
	memcpy(ret->lsm, th->lsm, sizeof(ret->lsm));
	return 0;
}

static int learn_from_self(struct bpf_state *s)
{
	static const int modes[] = { 0, 1, 1 | BCR_PR_THP_DISABLE_EXCEPT_ADVISED };
	int was = prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0);
	struct words words[3] = {};
	int err = 0;

	for (int i = 0; i < 3 && !err; i++) {
		if (was >= 0 && prctl(PR_SET_THP_DISABLE, modes[i] & 1, modes[i] & ~1, 0, 0))
			break;
		err = read_words(s, getpid(), &words[i]);
	}
	if (was >= 0)
		prctl(PR_SET_THP_DISABLE, was & 1, was & ~1, 0, 0);
	s->learned.session_keyring = words[0].session_keyring;
	memcpy(s->learned.lsm, words[0].lsm, sizeof(s->learned.lsm));
	s->learned.thp = words[0].mm_flags ^ words[1].mm_flags;
	if (words[2].mm_flags)
		s->learned.thp_except = words[0].mm_flags ^ words[2].mm_flags;
	return err;
}

/* --- what cannot be undone is tried in a child --- */

static bool nothing(void)
{
	return true;
}

static bool merge_memory(void)
{
	return !prctl(BCR_PR_SET_MEMORY_MERGE, 1, 0, 0, 0);
}

static bool enter_sandbox(void)
{
	struct landlock_ruleset_attr attr = { .handled_access_fs = LANDLOCK_ACCESS_FS_MAKE_BLOCK };
	int fd = syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);

	return fd >= 0 && !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) && !syscall(SYS_landlock_restrict_self, fd, 0);
}

static bool renew_creds(void)
{
	return !prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0);
}

static bool forbid_exec_gain(void)
{
	return !prctl(BCR_PR_SET_MDWE, BCR_PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0);
}

static bool forbid_exec_gain_here(void)
{
	return !prctl(BCR_PR_SET_MDWE, BCR_PR_MDWE_REFUSE_EXEC_GAIN | BCR_PR_MDWE_NO_INHERIT, 0, 0, 0);
}

static bool forbid_time_stamps(void)
{
	return !prctl(PR_SET_TSC, PR_TSC_SIGSEGV, 0, 0, 0);
}

enum { PLAIN, MERGE, SANDBOX, NEW_CREDS, MDWE, NO_TSC, NR_STEPS };

/* One after the other; after the last one the clock cannot be read. */
static bool (*const steps[NR_STEPS])(void) = {
	[PLAIN] = nothing,	   [MERGE] = merge_memory,    [SANDBOX] = enter_sandbox,
	[NEW_CREDS] = renew_creds, [MDWE] = forbid_exec_gain, [NO_TSC] = forbid_time_stamps,
};
static bool (*const here_steps[])(void) = { nothing, forbid_exec_gain_here };

/* Does a step, says so, and waits until it has been looked at. Raw system calls only. */
static void child_main(int done, int go_on, bool (*const *todo)(void), size_t nr) __attribute__((noreturn));
static void child_main(int done, int go_on, bool (*const *todo)(void), size_t nr)
{
	for (size_t i = 0; i < nr; i++) {
		char byte = todo[i]();

		if (syscall(SYS_write, done, &byte, 1) != 1 || syscall(SYS_read, go_on, &byte, 1) != 1)
			break;
	}
	syscall(SYS_exit_group, 0);
	__builtin_unreachable();
}

/* The words of the child after each step; those of one it could not do are those of the step before. */
static int watch_child(struct bpf_state *s, pid_t pid, int done, int go_on, struct words *ret, size_t nr)
{
	for (size_t i = 0; i < nr; i++) {
		char could = 0;

		if (read(done, &could, 1) != 1)
			return fail(-EPIPE, "a child made to learn about the kernel has ended");
		if (!could && i)
			ret[i] = ret[i - 1];
		int err = could ? read_words(s, pid, &ret[i]) : 0;
		if (err)
			return err;
		if (write(go_on, "", 1) != 1)
			return fail(-errno, "let a child go on");
	}
	return 0;
}

static int try_in_child(struct bpf_state *s, bool (*const *todo)(void), size_t nr, struct words *ret)
{
	int done[2] = { -1, -1 }, go_on[2] = { -1, -1 }, err = 0;

	if (pipe2(done, O_CLOEXEC) || pipe2(go_on, O_CLOEXEC))
		err = fail(-errno, "make a pipe");
	pid_t pid = err ? -1 : fork();
	if (!pid) {
		close(go_on[1]); /* so that it ends when bcr does */
		child_main(done[1], go_on[0], todo, nr);
	}
	if (!err && pid < 0)
		err = fail(-errno, "fork");
	close(done[1]);
	close(go_on[0]);
	if (!err)
		err = watch_child(s, pid, done[0], go_on[1], ret, nr);
	close(done[0]);
	close(go_on[1]);
	while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	return err;
}

/*
 * The word that is set in a sandbox, and the same in other credentials of that sandbox. There may be fewer words than are
 * read: what lies behind them may look like it, so it is the first.
 */
static int find_landlock(const struct words *w)
{
	for (int i = 0; i < OBSERVE_NR_LSM; i++)
		if (!w[PLAIN].lsm[i] && !w[MERGE].lsm[i] && w[SANDBOX].lsm[i] && w[SANDBOX].lsm[i] == w[NEW_CREDS].lsm[i])
			return i;
	return -1;
}

/* Flags of a thread change by themselves, too: only a single new one is known for what it is. */
static uint64_t single_bit(uint64_t bits)
{
	return bits & (bits - 1) ? 0 : bits;
}

static int learn_from_children(struct bpf_state *s)
{
	enum { MERGEABLE = 1 << 16 }; /* MMF_VM_MERGEABLE: some mapping is, for whatever reason */
	struct bpf_learned *l = &s->learned;
	struct words w[NR_STEPS] = {}, here[2] = {};
	uint64_t ti_before = 0;
	int err = try_in_child(s, steps, NR_STEPS, w);

	if (!err)
		err = try_in_child(s, here_steps, 2, here);
	for (int i = 0; i < NO_TSC; i++)
		ti_before |= w[i].ti_flags;
	l->memory_merge = single_bit((w[MERGE].mm_flags & ~w[PLAIN].mm_flags) & ~(uint64_t)MERGEABLE);
	l->mdwe = single_bit(w[MDWE].mm_flags & ~w[NEW_CREDS].mm_flags);
	l->mdwe_no_inherit = single_bit(here[1].mm_flags & ~here[0].mm_flags & ~l->mdwe);
	l->no_tsc = single_bit(w[NO_TSC].ti_flags & ~ti_before);
	l->landlock = find_landlock(w);
	return err;
}

int bpf_learn(struct bpf_state *s)
{
	int err = learn_from_self(s);

	/* What was read last is bcr itself still. */
	if (!err)
		err = bpf_vmas_learn(s);
	/* Every kernel has PR_SET_TSC: when its flag was not found another one had come with it, which is an accident. */
	for (int i = 0; i < CHILD_TRIES && !err && !s->learned.no_tsc; i++)
		err = learn_from_children(s);
	log_debug("learned: mm flags %#llx %#llx %#llx %#llx %#llx, thread flags %#llx, Landlock's word %d",
		  (unsigned long long)s->learned.thp, (unsigned long long)s->learned.thp_except,
		  (unsigned long long)s->learned.mdwe, (unsigned long long)s->learned.mdwe_no_inherit,
		  (unsigned long long)s->learned.memory_merge, (unsigned long long)s->learned.no_tsc, s->learned.landlock);
	return err;
}
