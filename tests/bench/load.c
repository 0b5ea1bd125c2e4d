/*
 * The target of the benchmark: load DIR READY_FD [NAME=NUMBER...]
 *
 *   mib=N        anonymous memory, in 4 KiB pages
 *   shared=1     which is shared and not private
 *   threads=N    threads in all; those without another task sleep
 *   processes=N  processes in all; the children sleep
 *   chain=1      each of them is the child of the one before
 *   mappings=N   that many mappings of a page each
 *   files=N      that many descriptors
 *   pending=N    that many signals wait for the first thread
 *   write=N      MB/s that writer threads dirty, at random pages; 100000 and more: as fast as they can
 *   writers=N    how many threads share that (default 1)
 *   new-files=N, new-mappings=N   that many times a second a descriptor or a mapping comes and goes
 *   sample=N     1 (default): the first thread samples the clock; 0: it sleeps
 *
 * Builds its load, closes READY_FD to say so, and samples the clock. What it sees goes to DIR/figures, apart for each epoch; the
 * driver sets the epoch. The largest gap between two samples is the time the thread did not run. When the kernel says that the thread gave up
 * its processor meanwhile, somebody *stopped* it, for it never sleeps by itself. What remains of that without the time that it waited for
 * a processor, which others had, is *net*.
 *
 * On SIGTERM it looks whether all of its memory is what it was (writers write what is there already), says so in DIR/figures, and ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum {
	PAGE = 4096,
	NR_EPOCHS = 64,
	VERDICT_GOOD = 1,
	VERDICT_BAD = 2,
	NR_LOGGED = 96,
	NOTICED_NS = 2000,     /* shorter gaps are not asked about: the questions take time, too */
	LOGGED_NS = 100000,
	PACE_NS = 1000000,     /* writers work in portions of this */
	MAX_BEHIND_NS = 10000000,
	WRITE_ALL_MB = 100000,
};

/* The driver reads this: tests/bench/run. */
struct figures {
	volatile uint64_t epoch;
	volatile uint64_t verdict;
	volatile uint64_t pages_written;
	volatile uint64_t nr_logged;
	volatile uint64_t epoch_seen; /* the first thread counts for this one */
	volatile uint64_t longest_ns; /* that a mapping took to come and go, since the driver set this to 0 */
	struct {
		volatile uint64_t gap_ns, stopped_ns, net_ns;
	} of[NR_EPOCHS];
	struct {
		volatile uint64_t end_ns, gap_ns, net_ns; /* net_ns 0: nobody stopped it */
	} log[NR_LOGGED]; /* the last long ones: number n is at n % NR_LOGGED */
};

static struct {
	size_t mib, shared, threads, processes, mappings, files, write, writers, new_files, new_mappings, sample, chain, pending;
} want = { .mib = 64, .threads = 1, .processes = 1, .writers = 1, .sample = 1 };

static const struct {
	const char *name;
	size_t *value;
} settings[] = {
	{ "mib", &want.mib },		  { "threads", &want.threads },	  { "processes", &want.processes },
	{ "mappings", &want.mappings },	  { "files", &want.files },	  { "write", &want.write },
	{ "writers", &want.writers },	  { "new-files", &want.new_files }, { "new-mappings", &want.new_mappings },
	{ "sample", &want.sample },	  { "chain", &want.chain },	  { "pending", &want.pending },
	{ "shared", &want.shared },
};
enum { NR_SETTINGS = sizeof(settings) / sizeof(settings[0]) };

static volatile sig_atomic_t end;
static struct figures *figures;
static char *memory;
static size_t nr_pages;

static void on_term(int sig)
{
	(void)sig;
	end = 1;
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

static void sleep_until(uint64_t ns)
{
	struct timespec ts = { .tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000 };

	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL);
}

/* --- memory --- */

static uint64_t page_word(size_t i)
{
	return (i + 1) * 0x9E3779B97F4A7C15ULL;
}

static uint64_t *page_at(size_t i)
{
	return (uint64_t *)(memory + i * PAGE);
}

static void make_memory(void)
{
	nr_pages = want.mib << 8;
	if (!nr_pages)
		return;
	memory = mmap(NULL, nr_pages * PAGE, PROT_READ | PROT_WRITE, (want.shared ? MAP_SHARED : MAP_PRIVATE) | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		die("memory");
	/* Not every kernel has huge pages. */
	if (madvise(memory, nr_pages * PAGE, MADV_NOHUGEPAGE) && errno != EINVAL)
		die("memory");
	for (size_t i = 0; i < nr_pages; i++)
		for (size_t k = 0; k < PAGE / sizeof(uint64_t); k++)
			page_at(i)[k] = page_word(i) + k;
}

static int memory_is_good(void)
{
	for (size_t i = 0; i < nr_pages; i++)
		for (size_t k = 0; k < PAGE / sizeof(uint64_t); k++)
			if (page_at(i)[k] != page_word(i) + k)
				return 0;
	return 1;
}

/* Every second page has another protection, so that each is a mapping of its own. */
static void make_mappings(size_t nr)
{
	char *area;

	if (!nr)
		return;
	area = mmap(NULL, nr * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (area == MAP_FAILED)
		die("mappings");
	for (size_t i = 0; i < nr; i++) {
		area[i * PAGE] = 1;
		if (i % 2 && mprotect(area + i * PAGE, PAGE, PROT_READ))
			die("mappings");
	}
}

static void open_files(const char *dir, size_t nr)
{
	struct rlimit limit;
	char path[4096];

	if (getrlimit(RLIMIT_NOFILE, &limit))
		die("limit of descriptors");
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit))
		die("limit of descriptors");
	snprintf(path, sizeof(path), "%s/file", dir);
	for (size_t i = 0; i < nr; i++)
		if (open(path, O_RDWR | O_CREAT, 0600) < 0)
			die(path);
}

static void map_figures(const char *dir)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/figures", dir);
	int fd = open(path, O_RDWR | O_CREAT, 0600);
	if (fd < 0 || ftruncate(fd, sizeof(*figures)))
		die(path);
	figures = mmap(NULL, sizeof(*figures), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (figures == MAP_FAILED)
		die(path);
	close(fd);
}

/* --- threads and processes --- */

static void *sleeper(void *arg)
{
	for (;;)
		pause();
	return arg;
}

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* Writes what is there: the page becomes dirty, and memory stays as it was. */
static void dirty_pages(uint64_t *random, size_t nr)
{
	for (size_t n = 0; n < nr; n++) {
		size_t i = next_random(random) % nr_pages;

		*(volatile uint64_t *)page_at(i) = page_word(i);
	}
	__atomic_fetch_add(&figures->pages_written, nr, __ATOMIC_RELAXED);
}

/* A share of want.write. What a longer delay kept it from writing is lost, not made up for. */
static void *writer(void *arg)
{
	uint64_t random = 88172645463325252ULL + (uintptr_t)arg * 7919, next = now_ns();
	size_t pages_per_s = want.write * 1000000 / PAGE / want.writers;

	for (uint64_t left = 0;;) {
		if (want.write >= WRITE_ALL_MB) {
			dirty_pages(&random, 256);
			continue;
		}
		left += pages_per_s * (PACE_NS / 1000);
		dirty_pages(&random, left / 1000000);
		left %= 1000000;
		next += PACE_NS;
		if (next + MAX_BEHIND_NS < now_ns())
			next = now_ns();
		sleep_until(next);
	}
	return arg;
}

static void *file_maker(void *arg)
{
	for (uint64_t next = now_ns();; sleep_until(next)) {
		int fd = dup(STDIN_FILENO);

		if (fd >= 0)
			close(fd);
		next += 1000000000 / want.new_files;
	}
	return arg;
}

static void keep_largest(volatile uint64_t *largest, uint64_t ns)
{
	if (ns > *largest)
		*largest = ns;
}

static void *mapping_maker(void *arg)
{
	for (uint64_t next = now_ns();; sleep_until(next)) {
		uint64_t begin_ns = now_ns();
		char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (page != MAP_FAILED) {
			*page = 1;
			munmap(page, PAGE);
		}
		keep_largest(&figures->longest_ns, now_ns() - begin_ns);
		next += 1000000000 / want.new_mappings;
	}
	return arg;
}

static void start_thread(void *(*run)(void *arg), size_t nr)
{
	pthread_attr_t attr;
	pthread_t thread;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 64 << 10);
	errno = pthread_create(&thread, &attr, run, (void *)nr);
	if (errno)
		die("threads");
	pthread_attr_destroy(&attr);
}

static void start_threads(void)
{
	size_t nr = 1;
	sigset_t all, before;

	/* Signals are the first thread's. */
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	for (size_t i = 0; want.write && nr_pages && i < want.writers; i++, nr++)
		start_thread(writer, i);
	if (want.new_files)
		start_thread(file_maker, nr++);
	if (want.new_mappings)
		start_thread(mapping_maker, nr++);
	for (; nr < want.threads; nr++)
		start_thread(sleeper, nr);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* Children that do nothing, and end with their parent: by themselves when it dies first. */
static void start_processes(int ready_fd)
{
	pid_t first = getpid();

	for (size_t i = 1; i < want.processes; i++) {
		pid_t pid = fork();

		if (pid < 0)
			die("processes");
		if (!pid)
			prctl(PR_SET_PDEATHSIG, SIGKILL);
		/* Of a chain, the new one goes on. */
		if (!want.chain == !pid)
			break;
	}
	if (getpid() == first)
		return;
	close(ready_fd);
	sleeper(NULL);
}

static void send_signals(void)
{
	union sigval value = {};
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	if (pthread_sigmask(SIG_BLOCK, &set, NULL))
		die("pending signals");
	for (size_t i = 0; i < want.pending; i++)
		if (pthread_sigqueue(pthread_self(), SIGRTMIN, value))
			die("pending signals");
}

/* What this thread knows of itself. */
struct sampler {
	long given_up, taken;   /* how often it gave up its processor, and how often that was taken from it */
	uint64_t wait_ns;       /* how long it had waited for a processor when it last asked */
	uint64_t preempted_ns;  /* gaps since then in which its processor was taken */
	uint64_t epoch;
};

/*
 * Asked only after a stop and before a dump begins: bcr refuses a target that has a file of /proc open. What the thread waited in
 * between is known from its gaps.
 */
static uint64_t waited_ns(struct sampler *s)
{
	uint64_t now = 0, since = 0;
	char text[128] = "";
	int fd = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);

	if (fd >= 0 && read(fd, text, sizeof(text) - 1) > 0)
		sscanf(text, "%*u %" SCNu64, &now);
	close(fd);
	if (now > s->wait_ns + s->preempted_ns)
		since = now - s->wait_ns - s->preempted_ns;
	s->wait_ns = now;
	s->preempted_ns = 0;
	return since;
}

static void note_gap(struct sampler *s, uint64_t end_ns, uint64_t gap_ns)
{
	struct rusage usage;
	uint64_t net_ns = 0;

	if (getrusage(RUSAGE_THREAD, &usage))
		return;
	if (usage.ru_nvcsw != s->given_up) {
		uint64_t wait_ns = waited_ns(s);

		net_ns = wait_ns < gap_ns ? gap_ns - wait_ns : 1;
		keep_largest(&figures->of[s->epoch % NR_EPOCHS].stopped_ns, gap_ns);
		keep_largest(&figures->of[s->epoch % NR_EPOCHS].net_ns, net_ns);
		getrusage(RUSAGE_THREAD, &usage);
	} else if (usage.ru_nivcsw != s->taken) {
		s->preempted_ns += gap_ns;
	}
	s->given_up = usage.ru_nvcsw;
	s->taken = usage.ru_nivcsw;
	if (gap_ns < LOGGED_NS)
		return;
	size_t i = figures->nr_logged % NR_LOGGED;

	figures->log[i].end_ns = end_ns;
	figures->log[i].gap_ns = gap_ns;
	figures->log[i].net_ns = net_ns;
	figures->nr_logged++;
}

static void sample(void)
{
	struct sampler s = { .epoch = ~0ull };
	uint64_t last = now_ns();

	while (!end) {
		uint64_t now = now_ns(), gap = now - last;

		if (figures->epoch != s.epoch) {
			s.epoch = figures->epoch;
			waited_ns(&s);
			figures->epoch_seen = s.epoch;
			last = now_ns();
			continue;
		}
		keep_largest(&figures->of[s.epoch % NR_EPOCHS].gap_ns, gap);
		last = now;
		if (gap < NOTICED_NS)
			continue;
		note_gap(&s, now, gap);
		last = now_ns();
	}
}

static int read_setting(const char *text)
{
	const char *equals = strchr(text, '=');

	for (size_t i = 0; equals && i < NR_SETTINGS; i++) {
		size_t len = strlen(settings[i].name);

		if (len == (size_t)(equals - text) && !strncmp(settings[i].name, text, len)) {
			*settings[i].value = strtoul(equals + 1, NULL, 10);
			return 0;
		}
	}
	fprintf(stderr, "load: '%s' is no setting\n", text);
	return -1;
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	for (int i = 3; i < argc; i++)
		if (read_setting(argv[i]))
			return 2;
	sigset_t term, before;

	send_signals();
	/* Comes when it is waited for, or while the clock is sampled. */
	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	sigprocmask(SIG_BLOCK, &term, &before);
	signal(SIGTERM, on_term);
	map_figures(argv[1]);
	open_files(argv[1], want.files);
	make_mappings(want.mappings);
	int ready_fd = atoi(argv[2]);
	start_processes(ready_fd);
	make_memory();
	start_threads();
	close(ready_fd);
	if (!want.sample)
		sigsuspend(&before);
	sigprocmask(SIG_SETMASK, &before, NULL);
	sample();
	figures->verdict = memory_is_good() ? VERDICT_GOOD : VERDICT_BAD;
	return 0;
}
