/* A set of image files as one block of memory, and a source that reads it: what the fuzzer feeds to the loader. */
#ifndef BCR_TESTS_IMAGE_PACK_H
#define BCR_TESTS_IMAGE_PACK_H

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "image/io.h"

/*
 * {u8 length of name, name, u32 length of data, data} each; of a file called pages-* only the length is there,
 * so that blocks stay small. What is cut off ends the set. A file called `parent` is the set that the link of
 * this name leads to.
 */
struct packed_set {
	const uint8_t *bytes;
	size_t len;
};

static inline bool packed_find(const struct packed_set *set, const char *name, const uint8_t **data, uint32_t *len)
{
	size_t at = 0;

	while (at < set->len) {
		uint8_t name_len = set->bytes[at++];

		if (set->len - at < name_len + 4u)
			return false;

		const char *here = (const char *)set->bytes + at;

		at += name_len;
		memcpy(len, set->bytes + at, 4);
		at += 4;

		bool pages = name_len > 6 && !memcmp(here, "pages-", 6);

		*data = set->bytes + at;
		if (!pages && *len > set->len - at)
			*len = set->len - at;
		if (!pages)
			at += *len;
		if (name_len == strlen(name) && !memcmp(here, name, name_len))
			return true;
	}
	return false;
}

static inline int packed_read(const struct image_source *src, const char *name, uint8_t **ret, size_t *ret_len)
{
	const uint8_t *data;
	uint32_t len;

	if (!strncmp(name, "pages-", 6) || !packed_find(src->arg, name, &data, &len))
		return -ENOENT;
	*ret = malloc(len + 1);
	if (!*ret)
		return -ENOMEM;
	memcpy(*ret, data, len);
	*ret_len = len;
	return 0;
}

static inline int packed_size(const struct image_source *src, const char *name, uint64_t *ret)
{
	const uint8_t *data;
	uint32_t len;

	if (!packed_find(src->arg, name, &data, &len))
		return -ENOENT;
	*ret = len;
	return 0;
}

static inline int packed_parent(const struct image_source *src, struct image_source *ret)
{
	struct packed_set *set = calloc(1, sizeof(*set));
	char *path = strdup("parent");
	uint32_t len;

	if (!set || !path || !packed_find(src->arg, "parent", &set->bytes, &len)) {
		free(set);
		free(path);
		return -ENOENT;
	}
	set->len = len;
	*ret = *src;
	ret->manifest = NULL;
	ret->path = path;
	ret->arg = set;
	return 0;
}

static inline struct image_source packed_source(struct packed_set *set)
{
	return (struct image_source){ .path = "set", .read = packed_read, .size = packed_size, .parent = packed_parent,
				      .dirfd = -1, .arg = set };
}

#endif
