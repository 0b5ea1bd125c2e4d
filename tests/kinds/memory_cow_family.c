/*
 * A family of 50 children (and some grandchildren) that share most of their pages copy-on-write: with their parent, with each other
 * after the parent has written, and in a heap that grew in some of them. The memory of all together (the sum of PSS) is as
 * large after a restore as it was, and each sees what it saw.
 */
#include <sys/wait.h>

#include "mappings.h"

enum { CHILDREN = 50, PAGES = 2048, HEAP_PAGES = 256, OWN = 4 };

static char *area, *heap, *of_file;
static pid_t family[2 * CHILDREN];
static int nr_family, to_children[2], to_parent[2];

/* A word in each page tells whose it is. */
static void put(char *at, size_t page, unsigned who)
{
	*(unsigned *)(at + page * PAGE + 128) = who * 100000 + page;
}

static void check(const char *what, const char *at, size_t page, unsigned who)
{
	unsigned is = *(const unsigned *)(at + page * PAGE + 128);

	if (is != who * 100000 + page)
		TARGET_FAIL("%s page %zu holds %u, not %u", what, page, is, who * 100000 + (unsigned)page);
}

/*
 * Who wrote a page last, as child `n` (CHILDREN: the parent) sees it. Pages 0 to 511 are rewritten by the parent when all
 * are there, 512 to 767 when half of them are.
 */
static unsigned writer(unsigned n, size_t page)
{
	if (n < CHILDREN && page >= 1024 + n * OWN && page < 1024 + (n + 1) * OWN)
		return 1 + n;
	if (n == CHILDREN && page < 512)
		return 200;
	if (n >= CHILDREN / 2 && page >= 512 && page < 768)
		return 300;
	return 0;
}

static void check_all(unsigned n)
{
	for (size_t i = 0; i < PAGES; i++)
		check("area", area, i, writer(n, i));
	for (size_t i = 0; i < HEAP_PAGES; i++)
		check("heap", heap, i, 0);
	for (size_t i = 0; i < 64; i++)
		check("file", of_file, i, 7);
}

static void wait_and_check(unsigned n)
{
	char byte;

	CHECK(read(to_children[0], &byte, 1) == 1);
	check_all(n);
}

static void child(unsigned n)
{
	char byte = 0;

	for (size_t i = 0; i < OWN; i++)
		put(area, 1024 + n * OWN + i, 1 + n);
	if (n % 3 == 0)
		memset(sbrk(16 * PAGE), 1, 16 * PAGE);
	if (n % 10 == 0) {
		/* It has all of its parent's but one page that the parent changes afterwards. */
		pid_t pid = fork();

		CHECK(pid >= 0);
		if (!pid) {
			wait_and_check(n);
			exit(0);
		}
		CHECK(write(to_parent[1], &pid, sizeof(pid)) == sizeof(pid));
		wait_and_check(n);
		int status;
		CHECK(waitpid(pid, &status, 0) == pid && status == 0);
		exit(0);
	}
	CHECK(write(to_parent[1], &byte, 1) == 1);
	wait_and_check(n);
	exit(0);
}

static void make_child(unsigned n)
{
	pid_t pid = fork(), grandchild;
	char byte;

	CHECK(pid >= 0);
	if (!pid)
		child(n);
	family[nr_family++] = pid;
	/* It says when it is complete: by its child's number, when it has one. */
	if (n % 10 == 0) {
		CHECK(read(to_parent[0], &grandchild, sizeof(grandchild)) == sizeof(grandchild));
		family[nr_family++] = grandchild;
	} else {
		CHECK(read(to_parent[0], &byte, 1) == 1);
	}
}

/* Of the processes' own pages: which pages of the program's files are mapped right now is not state. */
static long pss_kib(pid_t pid)
{
	char path[64], text[2048] = "", *at;

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	CHECK(fd >= 0 && read(fd, text, sizeof(text) - 1) > 0 && !close(fd));
	at = strstr(text, "Pss_Anon:");
	CHECK(at);
	return atol(at + 9);
}

static long pss_of_all(void)
{
	long sum = pss_kib(getpid());

	for (int i = 0; i < nr_family; i++)
		sum += pss_kib(family[i]);
	return sum;
}

int main(void)
{
	int status;

	area = map_pages(NULL, PAGES, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	for (size_t i = 0; i < PAGES; i++)
		put(area, i, 0);
	heap = sbrk(HEAP_PAGES * PAGE);
	for (size_t i = 0; i < HEAP_PAGES; i++)
		put(heap, i, 0);
	int fd = open("file", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	CHECK(fd >= 0 && !ftruncate(fd, 64 * PAGE));
	of_file = mmap(NULL, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	CHECK(of_file != MAP_FAILED && !close(fd));
	for (size_t i = 0; i < 64; i++)
		put(of_file, i, 7);
	CHECK(!pipe(to_children) && !pipe(to_parent));

	for (unsigned n = 0; n < CHILDREN; n++) {
		make_child(n);
		for (size_t i = 512; n == CHILDREN / 2 - 1 && i < 768; i++)
			put(area, i, 300);
	}
	for (size_t i = 0; i < 512; i++)
		put(area, i, 200);
	long was = pss_of_all();

	target_ready();

	long is = pss_of_all();
	printf("PSS of all: %ld kB, was %ld kB\n", is, was);
	check_all(CHILDREN);
	if (is > was + was / 50 || is < was - was / 50)
		TARGET_FAIL("the memory of all is %ld kB, was %ld kB", is, was);
	for (int i = 0; i < nr_family; i++)
		CHECK(write(to_children[1], "", 1) == 1);
	for (int i = 0; i < CHILDREN; i++)
		CHECK(wait(&status) > 0 && status == 0);
	return target_pass();
}
