/*
 * Processes that share memory (CLONE_VM), with and without signal handlers, descriptors and directories, in all combinations: with
 * their parent, with a grandparent, with a sister made by CLONE_PARENT, with a sister but not with their parent. One of
 * them has a child with a copy of the memory, one a session, user and pending signals of its own, one a second thread.
 *
 * They have the C library's data in common, too: one of them acts at a time, and the others wait without touching any.
 */
#include <sys/stat.h>

#include "../lib/family.h"

enum {
	WITH_SIGHAND = 1, WITH_FILES = 2, WITH_FS = 4, /* members 1 to 8: 1 + these */
	BELOW = 9,  /* child of member 8, which shares everything */
	COPY,       /* child of member 1, with a copy of the memory */
	BESIDE,     /* made by member 2 with CLONE_PARENT */
	ALONE,      /* has a session of its own, another user, and signals */
	THREADS,    /* has a thread */
	SISTER_A, SISTER_B, /* share with each other, not with the root */
	LAST,
	STACK_BYTES = 64 << 10,
	FD = 700,   /* + who: opened by the root */
	FD_OWN = 800, /* + who: opened by the member */
	USER = 1234,
};

struct member_args {
	int who;
	bool vm, sighand, files, fs;
	pid_t (*children)(void);
};

static struct member_args all[LAST];

/* Shared with those that have a copy of the memory, too. */
static struct {
	int step, done; /* whose step it is, and who is done with it */
	int thread_tid;
} *stage;

/* In private memory, which is not private. */
static int board[LAST], *pages[LAST], thread_seen, sisters;
static volatile int handled;

static long raw_futex(int *word, int op, int value)
{
	register long r10 __asm__("r10") = 0;
	long ret;

	__asm__ volatile("syscall" : "=a"(ret) : "a"(SYS_futex), "D"(word), "S"(op), "d"(value), "r"(r10) : "rcx", "r11", "memory");
	return ret;
}

static void await_word(int *word, int value)
{
	for (int now; (now = __atomic_load_n(word, __ATOMIC_ACQUIRE)) != value;)
		raw_futex(word, FUTEX_WAIT, now);
}

static void set_word(int *word, int value)
{
	__atomic_store_n(word, value, __ATOMIC_RELEASE);
	raw_futex(word, FUTEX_WAKE, FAMILY_MAX);
}

static void on_signal(int sig)
{
	handled += sig;
}

static void other_handler(int sig)
{
	handled -= sig;
}

static void set_handler(int sig, void (*handler)(int))
{
	struct sigaction sa = { .sa_handler = handler };

	CHECK(!sigaction(sig, &sa, NULL));
}

static bool has_handler(int sig, void (*handler)(int))
{
	struct sigaction sa;

	CHECK(!sigaction(sig, NULL, &sa));
	return sa.sa_handler == handler;
}

static bool is_in(const char *end)
{
	char cwd[4096];

	CHECK(getcwd(cwd, sizeof(cwd)));
	return !strcmp(strrchr(cwd, '/') + 1, end);
}

static void pass_on(int who)
{
	CHECK_EQUAL(stage->step, who);
	set_word(&stage->done, who);
}

/* What a member sees of what the root has done, and lets the root see. */
static void act(const struct member_args *m)
{
	family_check(m->who);
	CHECK_EQUAL(board[m->who], m->vm ? 100 + m->who : -m->who);
	board[m->who] = 1000 + m->who;
	pages[m->who] = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(pages[m->who] != MAP_FAILED);
	*pages[m->who] = m->who;
	CHECK(has_handler(SIGUSR2, m->sighand ? on_signal : other_handler));
	set_handler(SIGRTMIN + m->who, on_signal);
	CHECK((fcntl(FD + m->who, F_GETFD) >= 0) == m->files);
	CHECK_EQUAL(dup2(STDOUT_FILENO, FD_OWN + m->who), FD_OWN + m->who);
	CHECK(is_in(m->fs ? "elsewhere" : "target"));
}

/* One after the other. */
static void act_sister(int who)
{
	if (who == SISTER_A)
		set_handler(SIGURG, on_signal);
	else
		CHECK(sisters == SISTER_A && has_handler(SIGURG, on_signal));
	sisters = who;
}

static void check_alone(void)
{
	const struct timespec now = { 0 };
	sigset_t pending, set;
	siginfo_t info;

	CHECK(getuid() == USER && geteuid() == USER && getsid(0) == getpid());
	CHECK(!sigpending(&pending) && sigismember(&pending, SIGUSR1) && sigismember(&pending, SIGRTMAX));
	sigemptyset(&set);
	sigaddset(&set, SIGRTMAX);
	CHECK_EQUAL(sigtimedwait(&set, &info, &now), SIGRTMAX);
	CHECK(info.si_pid == getpid() && info.si_value.sival_int == 4711);
}

static int member_main(void *arg)
{
	const struct member_args *m = arg;
	pid_t child = m->children ? m->children() : 0;

	family_note(m->who);
	if (!m->sighand)
		set_handler(SIGUSR2, other_handler);
	pass_on(m->who);
	/* When the state is built. */
	await_word(&stage->step, LAST + m->who);
	act(m);
	if (m->who == SISTER_A || m->who == SISTER_B)
		act_sister(m->who);
	if (m->who == ALONE)
		check_alone();
	if (m->who == THREADS) {
		set_word(&thread_seen, 1);
		await_word(&thread_seen, 2);
	}
	if (m->who == 8) {
		/* The handler is in memory that all have, but only some would run it. */
		int before = handled;
		CHECK(!kill(getpid(), SIGUSR2));
		CHECK_EQUAL(handled, before + SIGUSR2);
	}
	pass_on(LAST + m->who);
	await_word(&stage->step, 2 * LAST + m->who);
	if (child)
		family_join(child);
	set_word(&stage->done, 2 * LAST + m->who);
	_exit(0);
	return 0;
}

/* Makes a member, and waits until it has noted itself: nobody else acts meanwhile. */
static pid_t make(int who, int flags, int exit_signal)
{
	int step_before = stage->step;
	pid_t pid;

	all[who] = (struct member_args){
		.who = who, .vm = flags & CLONE_VM, .sighand = flags & CLONE_SIGHAND, .files = flags & CLONE_FILES,
		.fs = flags & CLONE_FS, .children = all[who].children,
	};
	set_word(&stage->step, who);
	fflush(stdout);
	if (flags & CLONE_VM) {
		char *stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		CHECK(stack != MAP_FAILED);
		pid = clone(member_main, stack + STACK_BYTES, flags | exit_signal, &all[who]);
	} else {
		pid = family_fork(flags, exit_signal);
		if (!pid)
			member_main(&all[who]);
	}
	CHECK(pid > 0);
	await_word(&stage->done, who);
	set_word(&stage->step, step_before);
	return pid;
}

static pid_t make_copy(void)
{
	board[COPY] = -COPY;
	return make(COPY, 0, SIGCHLD);
}

static pid_t make_below(void)
{
	return make(BELOW, CLONE_VM | CLONE_SIGHAND | CLONE_FILES | CLONE_FS, SIGCHLD);
}

static pid_t make_beside(void)
{
	make(BESIDE, CLONE_VM | CLONE_PARENT, 0);
	return 0;
}

static pid_t make_sister(void)
{
	make(SISTER_B, CLONE_VM | CLONE_SIGHAND | CLONE_PARENT, 0);
	/* Not with the root. */
	all[SISTER_B].vm = all[SISTER_B].sighand = false;
	return 0;
}

static pid_t become_alone(void)
{
	union sigval value = { .sival_int = 4711 };
	sigset_t set;

	CHECK(setsid() == getpid());
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGRTMAX);
	CHECK(!sigprocmask(SIG_BLOCK, &set, NULL));
	CHECK(!kill(getpid(), SIGUSR1) && !sigqueue(getpid(), SIGRTMAX, value));
	/* Without the library, which would ask all threads that it knows of. */
	CHECK(!syscall(SYS_setresuid, USER, USER, USER));
	return 0;
}

static int thread_main(void *arg)
{
	await_word(&thread_seen, 1);
	CHECK_EQUAL(syscall(SYS_gettid), stage->thread_tid);
	CHECK(getpid() == family->members[THREADS].pid && getpid() != stage->thread_tid);
	set_word(&thread_seen, 2);
	await_word(&thread_seen, 3);
	return arg != NULL;
}

static pid_t make_thread(void)
{
	char *stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(stack != MAP_FAILED);
	stage->thread_tid = clone(thread_main, stack + STACK_BYTES,
				  CLONE_VM | CLONE_SIGHAND | CLONE_THREAD | CLONE_FILES | CLONE_FS, NULL);
	CHECK(stage->thread_tid > 0);
	return 0;
}

static void build(void)
{
	all[1].children = make_copy;
	all[2].children = make_beside;
	all[8].children = make_below;
	all[ALONE].children = become_alone;
	all[THREADS].children = make_thread;
	all[SISTER_A].children = make_sister;
	for (int what = 0; what < 8; what++)
		make(1 + what, CLONE_VM | (what & WITH_SIGHAND ? CLONE_SIGHAND : 0) | (what & WITH_FILES ? CLONE_FILES : 0) |
				       (what & WITH_FS ? CLONE_FS : 0), SIGCHLD);
	make(ALONE, CLONE_VM, SIGCHLD);
	make(THREADS, CLONE_VM | CLONE_SIGHAND, SIGCHLD);
	board[SISTER_A] = -SISTER_A;
	board[SISTER_B] = -SISTER_B;
	make(SISTER_A, 0, SIGCHLD);
}

static void check_member(const struct member_args *m)
{
	int who = m->who;

	CHECK_EQUAL(board[who], m->vm ? 1000 + who : -who);
	/* What one maps is there for all. */
	CHECK(m->vm ? pages[who] && *pages[who] == who : !pages[who]);
	if (m->vm)
		CHECK(!munmap(pages[who], 4096));
	CHECK(has_handler(SIGRTMIN + who, m->sighand ? on_signal : SIG_DFL));
	CHECK((fcntl(FD_OWN + who, F_GETFD) >= 0) == m->files);
}

int main(void)
{
	int nr_joined = 0;

	family_init();
	stage = mmap(NULL, sizeof(*stage), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(stage != MAP_FAILED && !mkdir("elsewhere", 0777));
	set_handler(SIGUSR2, SIG_DFL);
	build();
	/* Of which we have no note: it shares with a sister, and not with us. */
	all[SISTER_B].who = SISTER_B;

	target_ready();

	/* What is shared shows everywhere, what is not does not. */
	set_handler(SIGUSR2, on_signal);
	for (int i = 1; i < LAST; i++) {
		board[i] = all[i].vm ? 100 + i : -i;
		CHECK_EQUAL(dup2(STDOUT_FILENO, FD + i), FD + i);
	}
	CHECK(!chdir("elsewhere"));
	for (int i = 1; i < LAST; i++) {
		set_word(&stage->step, LAST + i);
		await_word(&stage->done, LAST + i);
		check_member(&all[i]);
	}
	CHECK(handled == SIGUSR2 && !sisters && has_handler(SIGURG, SIG_DFL));
	/* Children before parents. */
	for (int i = LAST - 1; i > 0; i--) {
		set_word(&stage->step, 2 * LAST + i);
		await_word(&stage->done, 2 * LAST + i);
		nr_joined += family->members[i].ppid == getpid();
	}
	while (nr_joined--)
		family_join(-1);
	CHECK(waitpid(-1, NULL, __WALL) < 0 && errno == ECHILD);
	return target_pass();
}
