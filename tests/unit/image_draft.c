/*
 * Drafts of pages: whatever is put, again, in any order, dropped, with a parent set or without, the file in the
 * end holds the last contents of each page that was kept, in order and nothing else; what was kept and never
 * put is told.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "image/image.h"

enum { PAGE_BYTES = 4096, NR = 200, BASE = 0x100000, PID = 7, ROUNDS = 100 };

static int failures;

#define CHECK(cond, ...)                                                                           \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			printf("line %d: %s: ", __LINE__, #cond);                                  \
			printf(__VA_ARGS__);                                                       \
			printf("\n");                                                              \
			failures++;                                                                \
		}                                                                                  \
	} while (0)

/* What the image has to hold: the version of each page, 0: nothing. */
static uint32_t versions[NR];
static uint64_t random_state = 0x9e3779b97f4a7c15;

static uint32_t random_below(uint32_t n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (random_state >> 20) % n;
}

static void make_page(uint8_t *to, size_t i, uint32_t version)
{
	uint32_t *words = (uint32_t *)to;

	for (size_t k = 0; k < PAGE_BYTES / 4; k++)
		words[k] = version * 1000003 + i * 7919 + k;
}

static void put(struct pages_draft *d, size_t first, size_t nr, uint32_t version)
{
	static uint8_t buf[NR * PAGE_BYTES];

	for (size_t i = 0; i < nr; i++) {
		make_page(buf + i * PAGE_BYTES, first + i, version);
		versions[first + i] = version;
	}
	int err = pages_draft_put(d, BASE + first * PAGE_BYTES, buf, nr);
	CHECK(!err, "put %zu pages at %zu: %d", nr, first, err);
}

static void keep_those_put(page_runs *keep)
{
	for (size_t i = 0; i < NR; i++)
		if (versions[i])
			CHECK(!VEC_PUSH(keep, ((struct page_run){ .start = BASE + i * PAGE_BYTES, .nr_pages = 1 })), "memory");
}

static void check_runs(int dirfd, uint32_t pages_id, const page_runs *runs)
{
	struct pages_reader reader = { .dirfd = dirfd, .pages_id = pages_id };
	uint8_t want[PAGE_BYTES], got[PAGE_BYTES];
	uint64_t bytes = 0;
	size_t at = 0;
	struct stat st;
	char name[64];

	VEC_FOREACH(run, runs) {
		size_t first = (run->start - BASE) / PAGE_BYTES;

		for (; at < first && at < NR; at++)
			CHECK(!versions[at], "page %zu is missing", at);
		for (size_t i = 0; i < run->nr_pages && at < NR; i++, at++) {
			make_page(want, at, versions[at]);
			CHECK(!pages_reader_read(&reader, run, i * PAGE_BYTES, got, PAGE_BYTES), "read page %zu", at);
			CHECK(versions[at] && !memcmp(want, got, PAGE_BYTES), "page %zu, version %u", at, versions[at]);
		}
		if (run->flags & PAGES_PRESENT) {
			CHECK(run->offset_bytes == bytes, "run at page %zu: offset %llu", first,
			      (unsigned long long)run->offset_bytes);
			bytes += run->nr_pages * PAGE_BYTES;
		}
	}
	for (; at < NR; at++)
		CHECK(!versions[at], "page %zu is missing", at);
	snprintf(name, sizeof(name), "pages-%u.img", pages_id);
	CHECK(!fstatat(dirfd, name, &st, 0) && (uint64_t)st.st_size == bytes, "%s has %lld bytes, %llu are listed", name,
	      (long long)st.st_size, (unsigned long long)bytes);
	pages_reader_close(&reader);
}

static void put_at_random(struct pages_draft *d, uint32_t version)
{
	for (int n = random_below(8); n >= 0; n--) {
		size_t first = random_below(NR), nr = 1 + random_below(NR - first < 40 ? NR - first : 40);

		/* Now and then with what the page held before, which a parent may have. */
		put(d, first, nr, random_below(3) ? version : 1 + random_below(version));
	}
	if (!random_below(3))
		CHECK(!pages_draft_settle(d, NULL, NULL), "settle in between");
}

/* Some go away, and one is wanted that nobody has put. */
static void settle(struct pages_draft *d, uint32_t version)
{
	page_runs keep = {}, missing = {};
	size_t late = NR;

	for (size_t i = 0; i < NR; i++) {
		if (!versions[i])
			late = i;
		else if (!random_below(10))
			versions[i] = 0;
	}
	if (late < NR)
		versions[late] = version;
	keep_those_put(&keep);
	CHECK(!pages_draft_settle(d, &keep, &missing), "settle");
	if (late < NR) {
		CHECK(missing.nr == 1 && missing.v[0].start == BASE + late * PAGE_BYTES && missing.v[0].nr_pages == 1,
		      "page %zu is missing, not %zu others", late, missing.nr);
		put(d, late, 1, version);
		missing.nr = 0;
		CHECK(!pages_draft_settle(d, &keep, &missing), "settle again");
	}
	CHECK(!missing.nr, "%zu runs are missing", missing.nr);
	VEC_FREE(&keep);
	VEC_FREE(&missing);
}

/* A set with a page map and pages, and no more: what a later one can be compared with. */
static void make_set(const char *name, uint32_t round, bool in_order)
{
	struct model *m = model_create();
	struct mm *mm = model_add_mm(m, 0);
	struct task *t = VEC_ADD(&m->tasks);
	struct image_set *set = NULL;
	struct pages_draft *d = NULL;

	mkdir(name, 0755);
	_cleanup_close_ int dirfd = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	t->pid = mm->pid = PID;
	t->mm_id = mm->id;
	mm->pages_id = 5;
	CHECK(!image_set_create(dirfd, name, NULL, &set), "create");
	CHECK(!pages_draft_open(set, 5, PID, &d), "open");
	memset(versions, 0, sizeof(versions));
	if (in_order)
		put(d, 3, NR - 10, 1);
	else
		put_at_random(d, 1 + round);
	for (int i = random_below(5); i > 0; i--)
		put_at_random(d, 2 + round + i);
	settle(d, 50);
	CHECK(!pages_draft_finish(d, &mm->pages), "finish");
	page_runs runs = {};
	VEC_FOREACH(run, &mm->pages)
		CHECK(!VEC_PUSH(&runs, *run), "memory");
	CHECK(!image_set_save_memory(set, m), "save");
	CHECK(!image_set_commit(set), "commit");
	image_set_close(set);
	check_runs(dirfd, 5, &runs);
	VEC_FREE(&runs);
	model_destroy(m);
}

/* Begins with all the pages of the parent, `before`; some are put again then. */
static void put_child(struct pages_draft *d, const uint32_t *before, uint32_t round)
{
	for (size_t i = 0; i < NR; i++)
		if (before[i])
			put(d, i, 1, before[i]);
	for (int i = 0; i < 4; i++)
		put_at_random(d, 60 + round + i);
	settle(d, 99);
}

/* What is said to be in the parent is there, the rest is in the file; returns how many are in the parent. */
static uint64_t check_child(int dirfd, const page_runs *runs, const uint32_t *before)
{
	uint64_t in_parent = 0;
	page_runs own = {};

	VEC_FOREACH(run, runs) {
		if (run->flags & PAGES_PRESENT)
			CHECK(!VEC_PUSH(&own, *run), "memory");
		for (size_t i = 0; run->flags & PAGES_PARENT && i < run->nr_pages; i++) {
			size_t page = (run->start - BASE) / PAGE_BYTES + i;

			CHECK(before[page] && before[page] == versions[page], "page %zu is not that of the parent", page);
			versions[page] = 0;
			in_parent++;
		}
	}
	check_runs(dirfd, 6, &own);
	VEC_FREE(&own);
	return in_parent;
}

static void make_child(const char *name, const char *prev, uint32_t round)
{
	struct image_set *set = NULL;
	struct pages_draft *d = NULL;
	uint32_t before[NR];
	page_runs runs = {};

	memcpy(before, versions, sizeof(before));
	mkdir(name, 0755);
	_cleanup_close_ int dirfd = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CHECK(!image_set_create(dirfd, name, prev, &set), "create");
	CHECK(!pages_draft_open(set, 6, PID, &d), "open");
	put_child(d, before, round);
	CHECK(!pages_draft_finish(d, &runs), "finish");
	_cleanup_close_ int fd = openat(dirfd, ".bcr-writing", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CHECK(check_child(fd, &runs, before) || round % 2, "no page was found in the parent");
	VEC_FREE(&runs);
	image_set_abort(set);
}

int main(void)
{
	log_set_level(LOG_ERROR);
	for (uint32_t round = 0; round < ROUNDS && !failures; round++) {
		make_set("base", round, round % 2 == 0);
		make_child("child", "../base", round);
	}
	if (!failures)
		printf("%d rounds\n", ROUNDS);
	return failures != 0;
}
