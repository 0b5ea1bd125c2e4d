/* Later looks at single pages are put into the list of pages seen first: the last look at a page counts. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "track/inner.h"

enum { NR = 400 };

/* Against a plain array of what each page is. */
static void random_patches(unsigned seed)
{
	struct track_mm tm = { .pid = 1 };
	uint64_t want[NR] = {}, got[NR] = {};

	srand(seed);
	for (int i = 0; i < NR; i++) {
		want[i] = rand() % 3 ? PAGE_CAT_PRESENT : rand() % 2 ? PAGE_CAT_SWAPPED : 0;
		if (want[i])
			assert(!spans_add(&tm.seen, i * 4096ull, (i + 1) * 4096ull, want[i]));
	}
	for (int n = rand() % 300; n; n--) {
		int i = rand() % NR;

		want[i] = rand() % 2 ? PAGE_CAT_PRESENT : rand() % 2 ? PAGE_CAT_PFNZERO | PAGE_CAT_PRESENT : 0;
		assert(!VEC_PUSH(&tm.patches, ((struct patch){ i * 4096ull, want[i] })));
	}
	assert(!pages_apply_patches(&tm));
	assert(!tm.patches.nr);
	uint64_t last = 0;
	VEC_FOREACH(s, &tm.seen) {
		assert(s->start >= last && s->start < s->end);
		last = s->end;
		for (uint64_t at = s->start; at < s->end; at += 4096)
			got[at / 4096] = s->categories;
	}
	assert(!memcmp(want, got, sizeof(want)));
	VEC_FREE(&tm.seen);
	VEC_FREE(&tm.patches);
}

static void wanted(void)
{
	struct vma anon = { .status = VMA_REGULAR | VMA_ANON_PRIVATE }, file = { .status = VMA_REGULAR | VMA_FILE_PRIVATE };

	assert(page_is_wanted(&anon, PAGE_CAT_PRESENT));
	assert(page_is_wanted(&anon, PAGE_CAT_SWAPPED));
	assert(!page_is_wanted(&anon, PAGE_CAT_PRESENT | PAGE_CAT_PFNZERO));
	assert(!page_is_wanted(&anon, 0));
	assert(page_is_wanted(&file, PAGE_CAT_PRESENT));
	assert(!page_is_wanted(&file, PAGE_CAT_PRESENT | PAGE_CAT_FILE));
}

int main(void)
{
	for (unsigned seed = 1; seed <= 300; seed++)
		random_patches(seed);
	wanted();
	puts("PASS");
	return 0;
}
