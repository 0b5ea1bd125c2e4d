/*
 * Huge pages of 2 MiB: private and shared mappings, a memory file, a System V segment; and a private one that a child has
 * from its parent, with one page changed.
 */
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/wait.h>

#include "target.h"

#ifndef MAP_HUGE_2MB
#define MAP_HUGE_2MB (21 << 26)
#endif
#ifndef SHM_HUGETLB
#define SHM_HUGETLB 04000
#endif

enum { HUGE = 2 << 20 };

/* "KernelPageSize" of the mapping at this address, in KiB. */
static long page_kilobytes(const void *at)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	char line[512];
	unsigned long start, end;
	long kb, found = 0;
	int in = 0;

	CHECK(f);
	while (!found && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			in = start <= (unsigned long)at && (unsigned long)at < end;
		else if (in && sscanf(line, "KernelPageSize: %ld kB", &kb) == 1)
			found = kb;
	}
	fclose(f);
	return found;
}

static char *map(size_t bytes, int flags, int fd)
{
	char *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);

	CHECK(at != MAP_FAILED);
	return at;
}

static void mark(char *at, int c)
{
	at[0] = c;
	at[HUGE - 1] = c + 1;
}

static int marked(const char *at, int c)
{
	return at[0] == c && at[HUGE - 1] == c + 1 && !at[1] && !at[4096];
}

int main(void)
{
	int huge = MAP_HUGETLB | MAP_HUGE_2MB, anon = MAP_ANONYMOUS | huge, fd, id, status;

	fd = memfd_create("huge", MFD_HUGETLB | MFD_HUGE_2MB | MFD_ALLOW_SEALING);
	id = shmget(IPC_PRIVATE, 2 * HUGE, IPC_CREAT | 0600 | SHM_HUGETLB);
	CHECK(fd >= 0 && !ftruncate(fd, 2 * HUGE) && id >= 0);
	char *private = map(3 * HUGE, MAP_PRIVATE | anon, -1), *shared = map(2 * HUGE, MAP_SHARED | anon, -1);
	char *file = map(2 * HUGE, MAP_SHARED, fd), *copied = map(2 * HUGE, MAP_PRIVATE, fd), *sysv = shmat(id, NULL, 0);
	CHECK(sysv != (void *)-1 && !shmctl(id, IPC_RMID, NULL));
	mark(private, 'a');
	mark(private + 2 * HUGE, 'c');
	CHECK(!mprotect(private + 2 * HUGE, HUGE, PROT_READ));
	mark(shared + HUGE, 's');
	mark(file, 'f');
	mark(file + HUGE, 'g');
	mark(copied, 'p');
	mark(sysv + HUGE, 'v');
	pid_t pid = fork();
	if (!pid) {
		mark(private, 'A');
		while (!shared[1])
			usleep(10 * 1000);
		_exit(!marked(private, 'A') || !marked(private + 2 * HUGE, 'c') || !marked(sysv + HUGE, 'v'));
	}
	CHECK(pid > 0);

	target_ready();
	CHECK(marked(private, 'a') && marked(private + 2 * HUGE, 'c'));
	CHECK(marked(shared + HUGE, 's') && !shared[0]);
	CHECK(marked(file, 'f') && marked(file + HUGE, 'g') && marked(copied, 'p') && marked(copied + HUGE, 'g'));
	CHECK(marked(sysv + HUGE, 'v') && !sysv[0]);
	CHECK_EQUAL(page_kilobytes(private), HUGE / 1024);
	CHECK_EQUAL(page_kilobytes(private + 2 * HUGE), HUGE / 1024);
	CHECK_EQUAL(page_kilobytes(shared), HUGE / 1024);
	CHECK_EQUAL(page_kilobytes(file), HUGE / 1024);
	CHECK_EQUAL(page_kilobytes(copied), HUGE / 1024);
	CHECK_EQUAL(page_kilobytes(sysv), HUGE / 1024);
	CHECK_EQUAL(fcntl(fd, F_GET_SEALS), 0);
	shared[1] = 1;
	CHECK(waitpid(pid, &status, 0) == pid && !status);
	shared[1] = 0;
	mark(file, 'F');
	CHECK(marked(copied, 'p'));
	mark(file, 'f');
	CHECK(!shmdt(sysv));
	return target_pass();
}
