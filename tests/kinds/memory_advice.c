/* Every advice that stays with a mapping, and what it means: to a fork, to a merge of equal pages, to mappings to come. */
#include <sys/prctl.h>
#include <sys/wait.h>

#include "mappings.h"

enum { GET_MEMORY_MERGE = 68, SET_MEMORY_MERGE = 67 };

static const struct {
	int advice;
	const char *flag;
} advices[] = {
	{ MADV_DONTFORK, "dc" },  { MADV_WIPEONFORK, "wf" }, { MADV_HUGEPAGE, "hg" }, { MADV_NOHUGEPAGE, "nh" },
	{ MADV_DONTDUMP, "dd" },  { MADV_RANDOM, "rr" },     { MADV_SEQUENTIAL, "sr" }, { MADV_MERGEABLE, "mg" },
};
enum { NR = sizeof(advices) / sizeof(advices[0]) };

int main(void)
{
	/* Holes between them, so that only one advice has to do with the bounds of each. */
	char *area = map_pages(NULL, NR * 8, PROT_NONE, MAP_PRIVATE);
	struct mapping was[NR];
	bool known[NR];
	int status;

	CHECK(!munmap(area, NR * 8 * PAGE));
	for (int i = 0; i < NR; i++) {
		char *at = map_pages(area + i * 8 * PAGE, 4, PROT_READ | PROT_WRITE, MAP_PRIVATE);

		pages_fill(at + PAGE, 2, i);
		known[i] = !madvise(at, 4 * PAGE, advices[i].advice);
		if (!known[i])
			printf("note: this kernel does not know advice %d\n", advices[i].advice);
		was[i] = mapping_of(at);
		CHECK(!known[i] || mapping_has(&was[i], advices[i].flag));
	}
	/* Two at once, with different neighbours in one mapping. */
	char *both = map_pages(NULL, 4, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	CHECK(!madvise(both + PAGE, PAGE, MADV_DONTDUMP) && !madvise(both + PAGE, PAGE, MADV_DONTFORK));
	struct mapping both_was = mapping_of(both + PAGE);
	bool merge = !prctl(SET_MEMORY_MERGE, 1, 0, 0, 0);
	if (merge) {
		both_was = mapping_of(both + PAGE);
		for (int i = 0; i < NR; i++)
			was[i] = mapping_of(area + i * 8 * PAGE);
	}

	target_ready();

	for (int i = 0; i < NR; i++) {
		mapping_check_same(advices[i].flag, &was[i]);
		pages_check(advices[i].flag, area + (i * 8 + 1) * PAGE, 2, i);
	}
	mapping_check_same("two of them", &both_was);
	CHECK_EQUAL(both_was.end - both_was.start, PAGE);
	pid_t pid = fork();
	CHECK(pid >= 0);
	if (!pid) {
		struct mapping m;

		CHECK(!mapping_at(area + PAGE, &m));
		CHECK_EQUAL(area[(8 + 1) * PAGE + 8], 0);
		exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	if (merge) {
		struct mapping m = mapping_of(map_pages(NULL, 16, PROT_READ | PROT_WRITE, MAP_PRIVATE));

		CHECK_EQUAL(prctl(GET_MEMORY_MERGE, 0, 0, 0, 0), 1);
		CHECK(mapping_has(&m, "mg"));
	}
	return target_pass();
}
