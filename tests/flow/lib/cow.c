/*
 * Pages shared copy-on-write by three generations. DIR/area says where: "START PAGES PARENT CHILD GRANDCHILD". Pages 0-7 are
 * rewritten by the child, 8-15 by the parent, 16-23 by the grandchild, after the forks; the rest is one page for all.
 */
#include <sys/mman.h>

#include "self.h"

enum { NR_PAGES = 64, PAGE = 4096, PARENT = 1, CHILD, GRANDCHILD };

static unsigned char *area;

/* Which generation wrote this page last, as generation `who` sees it. Page 0 also shows a page written before forking. */
static unsigned char expected(int page, int who)
{
	if (page < 8 && who != PARENT)
		return who == CHILD || who == GRANDCHILD ? CHILD : PARENT;
	if (page >= 8 && page < 16 && who == PARENT)
		return 10 + PARENT;
	if (page >= 16 && page < 24 && who == GRANDCHILD)
		return GRANDCHILD;
	return 0;
}

static void put(int page, unsigned char who)
{
	memset(area + page * PAGE, who + page, PAGE);
}

static void check(int who)
{
	for (int i = 0; i < NR_PAGES * PAGE; i++) {
		unsigned char want = expected(i / PAGE, who) + i / PAGE;

		CHECK(area[i] == want, "generation %d: page %d offset %d holds %d, not %d", who, i / PAGE,
		      i % PAGE, area[i], want);
	}
}

/* After the restore each writes to a page that all share: nobody else may see it. */
static void write_apart(int who)
{
	int page = 40 + who;

	memset(area + page * PAGE, 100 + who, PAGE);
	self_nap(50000000);
	for (int other = PARENT; other <= GRANDCHILD; other++) {
		int p = 40 + other;
		unsigned char want = other == who ? 100 + who : p;

		for (int i = 0; i < PAGE; i++)
			CHECK(area[p * PAGE + i] == want, "generation %d sees what %d wrote", who, other);
	}
}

static void verify(int who)
{
	self_wait();
	check(who);
	write_apart(who);
}

int main(int argc, char **argv)
{
	int pipefd[2];

	self_init(argc, argv);
	area = mmap(NULL, NR_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	NEED(area != MAP_FAILED);
	for (int i = 0; i < NR_PAGES; i++)
		put(i, 0);
	NEED(pipe(pipefd) == 0);

	pid_t child = fork();
	NEED(child >= 0);
	if (!child) {
		for (int i = 0; i < 8; i++)
			put(i, CHILD);
		pid_t grandchild = fork();
		NEED(grandchild >= 0);
		if (!grandchild) {
			for (int i = 16; i < 24; i++)
				put(i, GRANDCHILD);
			pid_t pid = getpid();
			NEED(write(pipefd[1], &pid, sizeof(pid)) == sizeof(pid));
			verify(GRANDCHILD);
			_exit(0);
		}
		verify(CHILD);
		self_join(grandchild);
		_exit(0);
	}
	for (int i = 8; i < 16; i++)
		put(i, 10 + PARENT);

	pid_t grandchild;
	char text[128];
	NEED(read(pipefd[0], &grandchild, sizeof(grandchild)) == sizeof(grandchild));
	snprintf(text, sizeof(text), "%lu %d %d %d %d\n", (unsigned long)area, NR_PAGES, getpid(), child, grandchild);
	self_write_file("area", text);
	self_ready();
	verify(PARENT);
	self_join(child);
	self_pass();
}
