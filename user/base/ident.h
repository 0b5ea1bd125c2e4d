/* Identity → small id: a hash table. */
#ifndef BCR_BASE_IDENT_H
#define BCR_BASE_IDENT_H

#include <stddef.h>
#include <stdint.h>

struct ident_map {
	struct ident_slot {
		uint64_t ident; /* 0: free */
		uint32_t value;
	} *slots;
	size_t cap, nr;
};

/* Remembers `value` for `ident` (not 0), in place of an older one. Returns 0 or -ENOMEM. */
int ident_map_add(struct ident_map *map, uint64_t ident, uint32_t value);

/* The value of `ident`, or 0 when it is not known. */
uint32_t ident_map_find(const struct ident_map *map, uint64_t ident);

void ident_map_deinit(struct ident_map *map);

/* Mixes `word` into `hash`; never gives 0. */
uint64_t ident_mix(uint64_t hash, uint64_t word);

/* The same for a string; NULL counts as empty. */
uint64_t ident_mix_string(uint64_t hash, const char *s);

#endif
