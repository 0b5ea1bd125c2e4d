/*
 * Processes with different credentials, limits and other attributes. Each writes down what it sees of itself before it
 * waits, writes it down again after it was told to go, and compares the lines.
 */
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sched.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "self.h"

enum { MAX_TEXT = 16384 };

struct text {
	char buf[MAX_TEXT];
	size_t len;
};

__attribute__((format(printf, 2, 3)))
static void add(struct text *t, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	t->len += vsnprintf(t->buf + t->len, sizeof(t->buf) - t->len, format, args);
	va_end(args);
	CHECK(t->len < sizeof(t->buf), "too much text");
}

static void add_file(struct text *t, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t len = fd < 0 ? -1 : read(fd, t->buf + t->len, sizeof(t->buf) - t->len - 1);

	/* A process that is not dumpable may not open some of its own files. */
	if (len >= 0) {
		t->len += len;
		t->buf[t->len] = 0;
	} else {
		add(t, "%s: %s\n", path, strerror(errno));
	}
	if (fd >= 0)
		close(fd);
}

static void describe(struct text *t)
{
	static const char *const wanted[] = { "Name:", "Umask:", "Uid:", "Gid:", "Groups:", "NoNewPrivs:", "Cap", "Seccomp:",
					      "Cpus_allowed:", NULL };
	struct { struct __user_cap_header_struct head; struct __user_cap_data_struct data[2]; } cap = {
		.head.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct sched_param param;
	uid_t r, e, s;
	char line[256], cwd[PATH_MAX];
	int value = 0;

	t->len = 0;
	FILE *f = fopen("/proc/self/status", "re");
	while (f && fgets(line, sizeof(line), f)) {
		for (int i = 0; wanted[i]; i++) {
			if (!strncmp(line, wanted[i], strlen(wanted[i])))
				add(t, "%s", line);
		}
	}
	if (f)
		fclose(f);
	NEED(getresuid(&r, &e, &s) == 0);
	add(t, "resuid %u %u %u\n", r, e, s);
	NEED(getresgid(&r, &e, &s) == 0);
	add(t, "resgid %u %u %u\n", r, e, s);
	NEED(syscall(SYS_capget, &cap.head, cap.data) == 0);
	for (int i = 0; i < 2; i++)
		add(t, "capabilities %#x %#x %#x\n", cap.data[i].effective, cap.data[i].permitted, cap.data[i].inheritable);
	for (int i = 0; i < 41; i++)
		add(t, "%d%d", prctl(PR_CAPBSET_READ, i, 0, 0, 0), prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, i, 0, 0));
	add(t, "\nsecurebits %#x\n", prctl(PR_GET_SECUREBITS, 0, 0, 0, 0));
	add(t, "no_new_privs %d\n", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
	add(t, "dumpable %d\n", prctl(PR_GET_DUMPABLE, 0, 0, 0, 0));
	add(t, "timerslack %d\n", prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0));
	prctl(PR_GET_PDEATHSIG, &value, 0, 0, 0);
	add(t, "pdeathsig %d\n", value);
	prctl(PR_GET_CHILD_SUBREAPER, &value, 0, 0, 0);
	add(t, "subreaper %d\n", value);
	add(t, "thp %d\n", prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0));
	add(t, "personality %#x\n", personality(0xffffffff));
	for (int i = 0; i < RLIM_NLIMITS; i++) {
		struct rlimit limit;

		NEED(getrlimit(i, &limit) == 0);
		add(t, "limit %d: %lu %lu\n", i, limit.rlim_cur, limit.rlim_max);
	}
	add(t, "nice %d\n", getpriority(PRIO_PROCESS, 0));
	NEED(sched_getparam(0, &param) == 0);
	add(t, "policy %#x priority %d\n", sched_getscheduler(0), param.sched_priority);
	NEED(getcwd(cwd, sizeof(cwd)));
	add(t, "cwd %s\n", cwd);
	add_file(t, "/proc/self/oom_score_adj");
	add_file(t, "/proc/self/comm");
	add_file(t, "/proc/self/limits");
	add_file(t, "/proc/self/cgroup");
	add_file(t, "/proc/self/loginuid");
}

static void compare(const char *who, const char *before, const char *after)
{
	while (*before || *after) {
		int a = strcspn(before, "\n"), b = strcspn(after, "\n");

		CHECK(a == b && !memcmp(before, after, a), "%s: '%.*s' was '%.*s'", who, b, after, a, before);
		before += a + (before[a] != 0);
		after += b + (after[b] != 0);
	}
}

static void limit(int resource, rlim_t soft, rlim_t hard)
{
	NEED(setrlimit(resource, &(struct rlimit){ soft, hard }) == 0);
}

static void as_user(void)
{
	gid_t groups[] = { 7, 1000, 70000, 12 };

	NEED(setgroups(4, groups) == 0);
	NEED(setresgid(1001, 1002, 1003) == 0);
	NEED(setresuid(2001, 2002, 2003) == 0);
}

static void as_user_with_capabilities(void)
{
	struct { struct __user_cap_header_struct head; struct __user_cap_data_struct data[2]; } cap = {
		.head.version = _LINUX_CAPABILITY_VERSION_3,
	};

	NEED(prctl(PR_CAPBSET_DROP, CAP_SYS_BOOT, 0, 0, 0) == 0);
	NEED(prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP | SECBIT_KEEP_CAPS_LOCKED, 0, 0, 0) == 0);
	NEED(setgroups(0, NULL) == 0);
	NEED(setresgid(1001, 1001, 1001) == 0);
	NEED(setresuid(2001, 2001, 2001) == 0);
	cap.data[0].effective = 1u << CAP_NET_BIND_SERVICE;
	cap.data[0].permitted = 1u << CAP_NET_BIND_SERVICE | 1u << CAP_KILL;
	cap.data[0].inheritable = 1u << CAP_NET_BIND_SERVICE;
	NEED(syscall(SYS_capset, &cap.head, cap.data) == 0);
	NEED(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_BIND_SERVICE, 0, 0) == 0);
	/* Changing credentials made us undumpable. */
	NEED(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0);
}

static void with_attributes(void)
{
	cpu_set_t first;

	NEED(mkdir("sub dir", 0755) == 0 || errno == EEXIST);
	NEED(chdir("sub dir") == 0);
	umask(027);
	NEED(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	NEED(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0);
	NEED(prctl(PR_SET_NAME, "odd) (S 1 name") == 0);
	NEED(prctl(PR_SET_TIMERSLACK, 123456, 0, 0, 0) == 0);
	NEED(prctl(PR_SET_PDEATHSIG, SIGWINCH, 0, 0, 0) == 0);
	NEED(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0);
	NEED(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0);
	NEED(personality(ADDR_NO_RANDOMIZE) >= 0);
	NEED(setpriority(PRIO_PROCESS, 0, 5) == 0);
	NEED(sched_setscheduler(0, SCHED_BATCH, &(struct sched_param){ 0 }) == 0);
	CPU_ZERO(&first);
	CPU_SET(0, &first);
	NEED(sched_setaffinity(0, sizeof(first), &first) == 0);
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	NEED(fd >= 0 && write(fd, "300", 3) == 3);
	close(fd);
	limit(RLIMIT_CORE, 0, 12345);
	limit(RLIMIT_STACK, 3 << 20, 64 << 20);
	limit(RLIMIT_NOFILE, 100, 200);
	limit(RLIMIT_MEMLOCK, 8192, 16384);
	limit(RLIMIT_FSIZE, 1 << 30, RLIM_INFINITY);
}

static void unchanged(void)
{
}

static const struct {
	const char *name;
	void (*prepare)(void);
} kinds[] = {
	{ "plain", unchanged },
	{ "user", as_user },
	{ "user with capabilities", as_user_with_capabilities },
	{ "attributes", with_attributes },
};

enum { NR_KINDS = sizeof(kinds) / sizeof(kinds[0]) };

/* Where "go" is does not depend on the working directory. */
static void wait_for_go(void)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/go", self_dir);
	while (access(path, F_OK))
		self_nap(2000000);
}

static void run(int kind, int ready)
{
	static struct text before, after;

	kinds[kind].prepare();
	describe(&before);
	describe(&after);
	compare("nothing happened, and yet", before.buf, after.buf);
	NEED(write(ready, "", 1) == 1);
	wait_for_go();
	describe(&after);
	compare(kinds[kind].name, before.buf, after.buf);
	_exit(0);
}

int main(int argc, char **argv)
{
	pid_t children[NR_KINDS];
	int ready[2];
	char byte;

	self_init(argc, argv);
	NEED(pipe(ready) == 0);
	for (int i = 0; i < NR_KINDS; i++) {
		children[i] = fork();
		NEED(children[i] >= 0);
		if (!children[i])
			run(i, ready[1]);
	}
	for (int i = 0; i < NR_KINDS; i++)
		NEED(read(ready[0], &byte, 1) == 1);
	self_ready();
	self_wait();
	for (int i = 0; i < NR_KINDS; i++)
		self_join(children[i]);
	self_pass();
}
