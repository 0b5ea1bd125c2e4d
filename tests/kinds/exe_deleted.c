/* A program whose file is deleted while it runs: it runs a small copy of itself and unlinks that. */
#include <sys/stat.h>

#include "target.h"

static void copy_self(const char *to)
{
	static char bytes[1 << 20];
	int in = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
	ssize_t len = read(in, bytes, sizeof(bytes));

	CHECK(in >= 0 && out >= 0 && len > 0 && len < (ssize_t)sizeof(bytes) && write(out, bytes, len) == len);
	CHECK(!close(in) && !close(out));
}

int main(int argc, char **argv)
{
	static const char end[] = "/copy (deleted)";
	char link[512];
	struct stat st;

	(void)argc;
	if (strcmp(argv[0], "copy")) {
		copy_self("copy");
		execl("./copy", "copy", argv[1], NULL);
		TARGET_FAIL("exec: errno %d", errno);
	}
	CHECK(!unlink("copy"));
	target_ready();
	ssize_t len = readlink("/proc/self/exe", link, sizeof(link) - 1);
	CHECK(len > (ssize_t)sizeof(end));
	link[len] = 0;
	CHECK(!strcmp(link + len - strlen(end), end));
	CHECK(!stat("/proc/self/exe", &st) && st.st_nlink == 0 && (st.st_mode & 07777) == 0755 && access("copy", F_OK));
	return target_pass();
}
