/*
 * Makes children that end in all ways, leaves them as zombies for a while, and reaps them, all the time. Whatever it is
 * told about a child is compared with what the child was made for: each is found by its number, once, with its status; and
 * a SIGCHLD or the queued signal that some send instead is there for whoever ends.
 */
#include <sys/syscall.h>

#include "self.h"

enum { SLOTS = 24, QUEUED = 40 };

static struct kid {
	pid_t pid;
	int status;  /* what it has been made for */
	bool queued; /* tells its parent by a signal that is queued, not by SIGCHLD */
	bool ended;  /* it has been seen dead, not collected */
} kids[SLOTS];

static unsigned seed = 1;

static unsigned pick(unsigned below)
{
	seed = seed * 1103515245 + 12345;
	return (seed >> 16) % below;
}

static void end_by(int status)
{
	if (!(status & 0x7f))
		_exit(status >> 8);
	kill(getpid(), status);
	_exit(99);
}

static void make(struct kid *k)
{
	/* A core file would be in the status. */
	static const int signals[] = { SIGKILL, SIGTERM, SIGUSR1 };

	*k = (struct kid){ .status = pick(3) ? (int)pick(256) << 8 : signals[pick(3)], .queued = pick(4) == 0 };
	long pid = syscall(SYS_clone, k->queued ? QUEUED : SIGCHLD, 0, 0, 0, 0);
	NEED(pid >= 0);
	if (!pid) {
		/* Some go on for a moment, some have a child of their own, whom nobody waits for. */
		if (pick(3) == 0)
			self_nap(1 + pick(1000000));
		if (pick(8) == 0) {
			pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
			if (!pid)
				_exit(5);
			NEED(pid > 0 && waitpid(pid, NULL, 0) == pid);
		}
		end_by(k->status);
	}
	k->pid = pid;
}

static void check_told(const struct kid *k, const siginfo_t *info)
{
	int code = k->status & 0x7f ? CLD_KILLED : CLD_EXITED;
	int status = k->status & 0x7f ? k->status : k->status >> 8;

	CHECK(info->si_pid == k->pid && info->si_code == code && info->si_status == status,
	      "pid %d, made for %#x: it is told of pid %d, code %d, status %d", k->pid, k->status, info->si_pid, info->si_code,
	      info->si_status);
}

/* The signals that are queued come each once. */
static void take_queued(struct kid *k)
{
	struct timespec soon = { .tv_sec = 20 };
	siginfo_t info;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, QUEUED);
	/* In the order in which they ended: those of others are put aside by looking who it was. */
	for (;;) {
		CHECK(sigtimedwait(&set, &info, &soon) == QUEUED, "pid %d has ended, and nobody has said so: %s", k->pid,
		      strerror(errno));
		for (int i = 0; i < SLOTS; i++) {
			if (kids[i].pid != info.si_pid)
				continue;
			CHECK(kids[i].queued && !kids[i].ended, "pid %d tells of its end twice, or should not", kids[i].pid);
			check_told(&kids[i], &info);
			kids[i].ended = true;
		}
		if (k->ended)
			return;
	}
}

static void reap(struct kid *k)
{
	siginfo_t info = { 0 };
	int status;

	CHECK(!waitid(P_PID, k->pid, &info, WEXITED | WNOWAIT | __WALL), "pid %d is not there: %s", k->pid, strerror(errno));
	check_told(k, &info);
	if (k->queued && !k->ended)
		take_queued(k);
	CHECK(waitpid(k->pid, &status, __WALL) == k->pid, "pid %d is not there any more: %s", k->pid, strerror(errno));
	CHECK(status == k->status, "pid %d: status %#x, made for %#x", k->pid, status, k->status);
	CHECK(waitpid(k->pid, &status, WNOHANG | __WALL) < 0 && errno == ECHILD, "pid %d is collected twice", k->pid);
	k->pid = 0;
}

/* With all others collected, one SIGCHLD is there for whoever ends, and then none. */
static void check_sigchld(void)
{
	struct timespec now = { 0 };
	siginfo_t info;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	while (sigtimedwait(&set, &info, &now) > 0)
		;
	struct kid k = { .status = 21 << 8 };
	long pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	NEED(pid >= 0);
	if (!pid)
		_exit(21);
	k.pid = pid;
	NEED(waitid(P_PID, pid, &info, WEXITED | WNOWAIT) == 0);
	/* Here a dump finds a zombie and its signal. */
	self_nap(1000000);
	CHECK(sigtimedwait(&set, &info, &now) == SIGCHLD, "no SIGCHLD of pid %d is pending", k.pid);
	check_told(&k, &info);
	CHECK(sigtimedwait(&set, &info, &now) < 0, "a SIGCHLD of pid %d is pending that nobody has sent", info.si_pid);
	NEED(waitpid(pid, &k.status, 0) == pid);
	CHECK(k.status == 21 << 8, "status %#x", k.status);
}

int main(int argc, char **argv)
{
	sigset_t told;

	self_init(argc, argv);
	sigemptyset(&told);
	sigaddset(&told, SIGCHLD);
	sigaddset(&told, QUEUED);
	NEED(sigprocmask(SIG_BLOCK, &told, NULL) == 0);
	for (int i = 0; i < SLOTS; i++)
		make(&kids[i]);
	self_ready();
	while (access("go", F_OK)) {
		for (int n = 0; n < 8; n++) {
			struct kid *k = &kids[pick(SLOTS)];

			reap(k);
			make(k);
			if (pick(4) == 0)
				self_nap(pick(2000000));
		}
		for (int i = 0; i < SLOTS; i++)
			reap(&kids[i]);
		check_sigchld();
		for (int i = 0; i < SLOTS; i++)
			make(&kids[i]);
		self_nap(1000000);
	}
	for (int i = 0; i < SLOTS; i++)
		reap(&kids[i]);
	int status;
	CHECK(waitpid(-1, &status, __WALL) < 0 && errno == ECHILD, "there are children that nobody has made");
	self_pass();
}
