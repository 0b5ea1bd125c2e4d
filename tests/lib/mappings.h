/* For targets that look at their own mappings: what /proc/self/smaps says of the one at an address. */
#ifndef MAPPINGS_H
#define MAPPINGS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>

#include "target.h"

enum { PAGE = 4096 };

struct mapping {
	unsigned long start, end, offset;
	long rss_kib, anon_kib;
	char perms[5];
	char flags[160]; /* VmFlags: two letters each */
	char name[160];
};

/*
 * Reads without the C library's streams, which would make the heap part of what changes. False: nothing is mapped
 * there.
 */
static inline bool mapping_at(const void *addr, struct mapping *ret)
{
	static char text[1 << 16];
	size_t have = 0;
	bool inside = false;
	int fd = open("/proc/self/smaps", O_RDONLY | O_CLOEXEC);
	ssize_t got;

	CHECK(fd >= 0);
	while ((got = read(fd, text + have, sizeof(text) - 1 - have)) > 0) {
		char *line = text, *end;

		have += got;
		text[have] = 0;
		for (; (end = strchr(line, '\n')); line = end + 1) {
			struct mapping m = { .name = "" };

			*end = 0;
			if (sscanf(line, "%lx-%lx %4s %lx %*s %*s %159s", &m.start, &m.end, m.perms, &m.offset, m.name) >= 4) {
				inside = m.start <= (uintptr_t)addr && (uintptr_t)addr < m.end;
				if (inside)
					*ret = m;
			}
			if (!inside)
				continue;
			sscanf(line, "Rss: %ld", &ret->rss_kib);
			sscanf(line, "Anonymous: %ld", &ret->anon_kib);
			if (sscanf(line, "VmFlags: %159[a-z0-9 ?]", ret->flags) == 1) {
				close(fd);
				return true;
			}
		}
		have -= line - text;
		memmove(text, line, have);
	}
	close(fd);
	return false;
}

static inline struct mapping mapping_of(const void *addr)
{
	struct mapping m;

	if (!mapping_at(addr, &m))
		TARGET_FAIL("nothing is mapped at %p", addr);
	return m;
}

static inline bool mapping_has(const struct mapping *m, const char *flag)
{
	return strstr(m->flags, flag);
}

/* The same bounds, permissions, place in its file, and flags. */
static inline void mapping_check_same(const char *what, const struct mapping *was)
{
	struct mapping is = mapping_of((void *)was->start);

	if (is.start != was->start || is.end != was->end || strcmp(is.perms, was->perms) || strcmp(is.flags, was->flags) ||
	    (strcmp(is.name, "") && is.offset != was->offset))
		TARGET_FAIL("%s: was %lx-%lx %s %lx [%s], is %lx-%lx %s %lx [%s]", what, was->start, was->end, was->perms,
			    was->offset, was->flags, is.start, is.end, is.perms, is.offset, is.flags);
}

static inline void *map_pages(void *at, size_t pages, int prot, int flags)
{
	void *p = mmap(at, pages * PAGE, prot, flags | MAP_ANONYMOUS | (at ? MAP_FIXED_NOREPLACE : 0), -1, 0);

	if (p == MAP_FAILED)
		TARGET_FAIL("map %zu pages at %p: %s", pages, at, strerror(errno));
	return p;
}

/* Each page holds words of its own. */
static inline void pages_fill(void *at, size_t pages, uint64_t salt)
{
	uint64_t *words = at;

	for (size_t i = 0; i < pages * PAGE / 8; i++)
		words[i] = salt * 1000003 + i;
}

static inline void pages_check(const char *what, const void *at, size_t pages, uint64_t salt)
{
	const uint64_t *words = at;

	for (size_t i = 0; i < pages * PAGE / 8; i++) {
		if (words[i] != salt * 1000003 + i)
			TARGET_FAIL("%s: word %zu is %#llx", what, i, (unsigned long long)words[i]);
	}
}

/* Is there memory or swap behind the page? */
static inline bool page_present(const void *at)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry;

	CHECK(fd >= 0);
	CHECK_EQUAL(pread(fd, &entry, 8, (uintptr_t)at / PAGE * 8), 8);
	close(fd);
	return entry >> 62;
}

#endif
