/* A directory that has been read half. */
#include <dirent.h>
#include <sys/stat.h>

#include "target.h"

enum { NR = 40 };

int main(void)
{
	char name[32], seen[NR] = {};
	struct dirent *e;
	int i;

	CHECK(!mkdir("many", 0700));
	for (i = 0; i < NR; i++) {
		snprintf(name, sizeof(name), "many/%d", i);
		CHECK(!mkdir(name, 0700));
	}
	DIR *d = opendir("many");
	CHECK(d);
	for (i = 0; i < NR / 2 && (e = readdir(d));) {
		if (e->d_name[0] == '.')
			continue;
		seen[atoi(e->d_name)]++;
		i++;
	}
	/* Nothing buffered: the position of the descriptor is what counts. */
	seekdir(d, telldir(d));
	target_ready();
	while ((e = readdir(d))) {
		if (e->d_name[0] != '.')
			seen[atoi(e->d_name)]++;
	}
	for (i = 0; i < NR; i++)
		CHECK_EQUAL(seen[i], 1);
	return target_pass();
}
