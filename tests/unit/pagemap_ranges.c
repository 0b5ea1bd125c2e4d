/* pagemap_walk(): written pages are found, holes and zero pages told apart, across more than one kernel answer. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sys/pagemap.h"

enum { PAGE = 4096, PAGES = 20000 };

struct seen {
	uint64_t pages, next;
	bool order_broken;
};

static int count(void *arg, const struct page_range *r)
{
	struct seen *s = arg;

	if (r->start < s->next || r->end <= r->start)
		s->order_broken = true;
	s->next = r->end;
	if (!(r->categories & PAGE_CAT_PFNZERO))
		s->pages += (r->end - r->start) / PAGE;
	return 0;
}

static int stop_at_once(void *arg, const struct page_range *r)
{
	(void)arg;
	(void)r;
	return 42;
}

int main(void)
{
	struct pagemap *pm;
	struct seen s = { 0 };
	char *area = mmap(NULL, (size_t)PAGES * PAGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (area == MAP_FAILED || pagemap_open(getpid(), &pm)) {
		perror("set up");
		return 1;
	}
	madvise(area, (size_t)PAGES * PAGE, MADV_NOHUGEPAGE);
	/* Every second page: as many ranges as pages, far more than fit one answer. */
	for (int i = 0; i < PAGES; i += 2)
		area[(size_t)i * PAGE] = 1;
	if (pagemap_can_scan(pm)) {
		volatile char zero = area[PAGE]; /* maps the zero page */
		(void)zero;
	}
	int err = pagemap_walk(pm, (uintptr_t)area, (uintptr_t)area + (uint64_t)PAGES * PAGE, count, &s);
	if (err || s.pages != PAGES / 2 || s.order_broken) {
		printf("walk: error %d, %llu pages (want %d), order %s\n", err,
		       (unsigned long long)s.pages, PAGES / 2, s.order_broken ? "broken" : "kept");
		return 1;
	}
	err = pagemap_walk(pm, (uintptr_t)area, (uintptr_t)area + PAGE, stop_at_once, NULL);
	if (err != 42) {
		printf("the callback's answer was not passed on: %d\n", err);
		return 1;
	}
	pagemap_close(pm);
	return 0;
}
