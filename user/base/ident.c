/* Identity → small id: open addressing, a power of two of slots, at most half of them used. */
#include "base/ident.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

uint64_t ident_mix(uint64_t hash, uint64_t word)
{
	hash = (hash ^ word) * 0x9E3779B97F4A7C15ULL;
	hash ^= hash >> 29;
	return hash ? hash : 1;
}

uint64_t ident_mix_string(uint64_t hash, const char *s)
{
	for (; s && *s; s++)
		hash = ident_mix(hash, (unsigned char)*s);
	return ident_mix(hash, 0x100);
}

/* The slot of `ident`, or the free one where it belongs. */
static struct ident_slot *slot_of(const struct ident_map *map, uint64_t ident)
{
	size_t at = ident_mix(0, ident) & (map->cap - 1);

	while (map->slots[at].ident && map->slots[at].ident != ident)
		at = (at + 1) & (map->cap - 1);
	return &map->slots[at];
}

static int ident_map_grow(struct ident_map *map)
{
	struct ident_map grown = { .cap = map->cap ? map->cap * 2 : 64, .nr = map->nr };

	grown.slots = calloc(grown.cap, sizeof(*grown.slots));
	if (!grown.slots)
		return -ENOMEM;
	for (size_t i = 0; i < map->cap; i++)
		if (map->slots[i].ident)
			*slot_of(&grown, map->slots[i].ident) = map->slots[i];
	free(map->slots);
	*map = grown;
	return 0;
}

int ident_map_add(struct ident_map *map, uint64_t ident, uint32_t value)
{
	if (map->nr * 2 >= map->cap) {
		int err = ident_map_grow(map);
		if (err)
			return err;
	}
	struct ident_slot *slot = slot_of(map, ident);
	map->nr += !slot->ident;
	*slot = (struct ident_slot){ .ident = ident, .value = value };
	return 0;
}

uint32_t ident_map_find(const struct ident_map *map, uint64_t ident)
{
	return map->cap && ident ? slot_of(map, ident)->value : 0;
}

void ident_map_deinit(struct ident_map *map)
{
	free(map->slots);
	memset(map, 0, sizeof(*map));
}
