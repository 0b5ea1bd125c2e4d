/* Pages kept in memory on their way into the image. */
#include "track/store.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

enum {
	BLOCK_SLOTS = 1 << 12, /* as store_bytes() has it */
	BLOCK_BYTES = BLOCK_SLOTS * STORE_PAGE_BYTES,
	MIN_ENTRIES = 1 << 16,
	PAGE_SHIFT = 12,
};

static uint64_t key_of(uint32_t mm, uint64_t addr)
{
	return addr >> PAGE_SHIFT << PAGE_SHIFT | mm;
}

static struct store_entry *probe(struct store_entry *entries, size_t nr, uint64_t key)
{
	size_t i = (key * 0x9e3779b97f4a7c15u) >> 20;

	for (;; i++) {
		struct store_entry *e = &entries[i & (nr - 1)];

		if (!e->key || e->key == key)
			return e;
	}
}

static int grow_entries(struct store *s, size_t nr)
{
	struct store_entry *entries = calloc(nr, sizeof(*entries));

	if (!entries)
		return -ENOMEM;
	for (size_t i = 0; i < s->nr_entries; i++)
		if (s->entries[i].key)
			*probe(entries, nr, s->entries[i].key) = s->entries[i];
	free(s->entries);
	s->entries = entries;
	s->nr_entries = nr;
	return 0;
}

static int add_block(struct store *s)
{
	uint8_t *block = mmap(NULL, BLOCK_BYTES, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (block == MAP_FAILED)
		return -ENOMEM;
	if (VEC_PUSH(&s->blocks, block)) {
		munmap(block, BLOCK_BYTES);
		return -ENOMEM;
	}
	return 0;
}

int store_init(struct store *s, size_t nr_pages)
{
	size_t nr = MIN_ENTRIES;

	memset(s, 0, sizeof(*s));
	while (nr < nr_pages * 2)
		nr *= 2;
	int err = grow_entries(s, nr);
	/* Touched, so that no fault of ours falls into the stop. */
	if (!err)
		memset(s->entries, 0, nr * sizeof(*s->entries));
	while (!err && s->blocks.nr * BLOCK_SLOTS < nr_pages)
		err = add_block(s);
	return err;
}

int store_reserve(struct store *s, size_t nr_pages)
{
	int err = 0;

	while (!err && s->blocks.nr * BLOCK_SLOTS - s->next_slot < nr_pages)
		err = add_block(s);
	return err;
}

void store_deinit(struct store *s)
{
	free(s->entries);
	VEC_FOREACH(b, &s->blocks)
		munmap(*b, BLOCK_BYTES);
	VEC_FREE(&s->blocks);
	VEC_FREE(&s->free_slots);
	memset(s, 0, sizeof(*s));
}

void store_clear(struct store *s)
{
	if (s->used)
		memset(s->entries, 0, s->nr_entries * sizeof(*s->entries));
	s->used = 0;
	s->next_slot = 0;
	s->free_slots.nr = 0;
}

static int new_slot(struct store *s, uint32_t *ret)
{
	if (s->free_slots.nr) {
		*ret = s->free_slots.v[--s->free_slots.nr];
		return 0;
	}
	if (s->next_slot == s->blocks.nr * BLOCK_SLOTS && add_block(s))
		return -ENOMEM;
	*ret = s->next_slot++;
	return 0;
}

/* The entry of the key, a new one (seq UINT64_MAX, without contents) if there is none; NULL: out of memory. */
static struct store_entry *entry_for(struct store *s, uint64_t key)
{
	if (s->used * 2 >= s->nr_entries && grow_entries(s, s->nr_entries * 2))
		return NULL;

	struct store_entry *e = probe(s->entries, s->nr_entries, key);
	if (!e->key) {
		*e = (struct store_entry){ .key = key, .seq = UINT64_MAX, .unread = true };
		s->used++;
	}
	return e;
}

int store_put(struct store *s, uint32_t mm, uint64_t addr, uint64_t seq, const void *bytes)
{
	struct store_entry *e = entry_for(s, key_of(mm, addr));

	if (!e)
		return -ENOMEM;
	if (e->taken || e->seq <= seq)
		return 0;
	if (bytes && e->unread && new_slot(s, &e->slot))
		return -ENOMEM;
	if (!bytes && !e->unread && VEC_PUSH(&s->free_slots, e->slot))
		return -ENOMEM;
	e->seq = seq;
	e->unread = !bytes;
	if (bytes)
		memcpy(store_bytes(s, e), bytes, STORE_PAGE_BYTES);
	return 0;
}

uint8_t *store_room(struct store *s, size_t nr_pages, uint32_t *ret_slot)
{
	size_t left = s->blocks.nr * BLOCK_SLOTS - s->next_slot;
	size_t in_block = left % BLOCK_SLOTS ? left % BLOCK_SLOTS : (left ? BLOCK_SLOTS : 0);

	/* A row does not cross blocks: what is left of this one is used page by page. */
	if (in_block < nr_pages) {
		for (; in_block; in_block--)
			if (VEC_PUSH(&s->free_slots, (uint32_t)s->next_slot++))
				return NULL;
		if (s->next_slot == s->blocks.nr * BLOCK_SLOTS && add_block(s))
			return NULL;
	}
	*ret_slot = s->next_slot;
	s->next_slot += nr_pages;
	return s->blocks.v[*ret_slot / BLOCK_SLOTS] + (size_t)(*ret_slot % BLOCK_SLOTS) * STORE_PAGE_BYTES;
}

int store_set(struct store *s, uint32_t mm, uint64_t addr, uint64_t seq, uint32_t slot)
{
	struct store_entry *e = entry_for(s, key_of(mm, addr));

	if (!e)
		return -ENOMEM;
	if (!e->unread && !e->taken && VEC_PUSH(&s->free_slots, e->slot))
		return -ENOMEM;
	*e = (struct store_entry){ .key = e->key, .seq = seq, .slot = slot };
	return 0;
}

struct store_entry *store_find(const struct store *s, uint32_t mm, uint64_t addr)
{
	struct store_entry *e = probe(s->entries, s->nr_entries, key_of(mm, addr));

	return e->key ? e : NULL;
}

void store_take(struct store *s, struct store_entry *e)
{
	/* Out of memory here only costs the slot. */
	if (!e->unread && !e->taken)
		(void)VEC_PUSH(&s->free_slots, e->slot);
	e->taken = true;
}
