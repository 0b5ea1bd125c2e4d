/*
 * The program and files it maps are on an overlay: the kernel maps the files below it, and only the overlay has a path. The file of
 * the lower layer is mapped, the one that is made here is in the upper layer.
 */
#include <sys/mman.h>
#include <sys/stat.h>

#include "target.h"

enum { PAGE = 4096 };

static char *map(int fd, int prot, int flags, off_t at)
{
	char *p = mmap(NULL, PAGE, prot, flags, fd, at);

	CHECK(p != MAP_FAILED);
	return p;
}

/* Which file is mapped there, as /proc shows it? */
static void check_path(const char *at, const char *name)
{
	char link[64], path[512], end[64];

	snprintf(link, sizeof(link), "/proc/self/map_files/%lx-%lx", (long)at, (long)at + PAGE);
	snprintf(end, sizeof(end), "/overlay/%s", name);
	ssize_t len = readlink(link, path, sizeof(path) - 1);
	CHECK(len > (ssize_t)strlen(end));
	path[len] = 0;
	CHECK(!strcmp(path + len - strlen(end), end));
}

int main(int argc, char **argv)
{
	(void)argc;
	if (strcmp(argv[0], "program")) {
		execl("../overlay/program", "program", argv[1], NULL);
		TARGET_FAIL("exec: errno %d", errno);
	}
	int lower = open("../overlay/file", O_RDONLY | O_CLOEXEC);
	int upper = open("../overlay/new", O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	CHECK(lower >= 0 && upper >= 0 && !ftruncate(upper, PAGE));
	char *read_only = map(lower, PROT_READ, MAP_PRIVATE, 0);
	char *written = map(lower, PROT_READ | PROT_WRITE, MAP_PRIVATE, (off_t)2 * PAGE);
	char *shared = map(upper, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	CHECK(!close(upper));
	written[1] = 'w';
	shared[1] = 's';
	target_ready();
	CHECK(read_only[0] == '1' && written[0] == '3' && written[1] == 'w' && shared[1] == 's');
	check_path(read_only, "file");
	check_path(written, "file");
	check_path(shared, "new");
	/* It is the file that is mapped, and not a copy of it. */
	char byte = 0;
	shared[2] = 't';
	upper = open("../overlay/new", O_RDONLY | O_CLOEXEC);
	CHECK(upper >= 0 && pread(upper, &byte, 1, 2) == 1 && byte == 't');
	shared[2] = 0;
	CHECK(!close(upper) && pread(lower, &byte, 1, PAGE) == 1 && byte == '2');
	return target_pass();
}
