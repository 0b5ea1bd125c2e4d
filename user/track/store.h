/*
 * Pages kept in memory on their way into the image: by address space and address, the one with the lowest number
 * stays.
 */
#ifndef BCR_TRACK_STORE_H
#define BCR_TRACK_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/vec.h"

enum { STORE_PAGE_BYTES = 4096, STORE_RUN_PAGES = 512 };

struct store_entry {
	uint64_t key; /* 0: free */
	uint64_t seq;
	uint32_t slot;
	bool unread; /* holds no contents: they could not be read */
	bool taken;  /* its contents have been given away */
};

struct store {
	struct store_entry *entries; /* open addressing, a power of two */
	size_t nr_entries, used;
	VEC(uint8_t *) blocks;
	size_t next_slot; /* never used so far */
	VEC(uint32_t) free_slots;
};

/* Prepares for `nr_pages` without having to ask for memory. 0 or -ENOMEM. */
int store_init(struct store *s, size_t nr_pages);
void store_deinit(struct store *s);

/* Forgets all pages; memory is kept. */
void store_clear(struct store *s);

/*
 * Keeps a page, or (bytes NULL) that it could not be read, unless it has an entry with a lower number. 0 or -ENOMEM.
 */
int store_put(struct store *s, uint32_t mm, uint64_t addr, uint64_t seq, const void *bytes);

/* Has memory ready for so many pages more. 0 or -ENOMEM. */
int store_reserve(struct store *s, size_t nr_pages);

/* Room for up to STORE_RUN_PAGES pages in a row, to be read into; *ret_slot goes to store_set(). NULL: out of memory. */
uint8_t *store_room(struct store *s, size_t nr_pages, uint32_t *ret_slot);

/* Says that the slot holds this page; replaces an older entry. 0 or -ENOMEM. */
int store_set(struct store *s, uint32_t mm, uint64_t addr, uint64_t seq, uint32_t slot);

/* NULL: there is none. */
struct store_entry *store_find(const struct store *s, uint32_t mm, uint64_t addr);

static inline uint8_t *store_bytes(const struct store *s, const struct store_entry *e)
{
	return s->blocks.v[e->slot / (1 << 12)] + (size_t)(e->slot % (1 << 12)) * STORE_PAGE_BYTES;
}

/* The contents are not needed any more; the entry stays, as one that is `taken`. */
void store_take(struct store *s, struct store_entry *e);

#endif
