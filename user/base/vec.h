/* Growable arrays. Zero-initialised is empty; elements are `v[0..nr)`. */
#ifndef BCR_BASE_VEC_H
#define BCR_BASE_VEC_H

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define VEC(type)                                                                                  \
	struct {                                                                                   \
		type *v;                                                                           \
		size_t nr;                                                                         \
		size_t cap;                                                                        \
	}

/* Makes room for at least `want` elements. Returns 0 or -ENOMEM. */
static inline int vec_reserve(void **v, size_t *cap, size_t want, size_t elem_bytes)
{
	if (want <= *cap)
		return 0;
	size_t cap_new = *cap ? *cap * 2 : 16;
	if (cap_new < want)
		cap_new = want;
	void *p = reallocarray(*v, cap_new, elem_bytes);
	if (!p)
		return -ENOMEM;
	*v = p;
	*cap = cap_new;
	return 0;
}

#define VEC_RESERVE(vec, want)                                                                     \
	vec_reserve((void **)&(vec)->v, &(vec)->cap, (want), sizeof(*(vec)->v))

/* Appends a copy of `elem`. Evaluates to 0 or -ENOMEM. */
#define VEC_PUSH(vec, elem)                                                                        \
	({                                                                                         \
		int err_ = VEC_RESERVE(vec, (vec)->nr + 1);                                        \
		if (!err_)                                                                         \
			(vec)->v[(vec)->nr++] = (elem);                                            \
		err_;                                                                              \
	})

/* Appends a zeroed element. Evaluates to its address, or NULL when out of memory. */
#define VEC_ADD(vec)                                                                               \
	({                                                                                         \
		__typeof__(*(vec)->v) *added_ = NULL;                                                 \
		if (!VEC_RESERVE(vec, (vec)->nr + 1)) {                                            \
			added_ = &(vec)->v[(vec)->nr++];                                           \
			memset(added_, 0, sizeof(*added_));                                        \
		}                                                                                  \
		added_;                                                                            \
	})

#define VEC_FREE(vec)                                                                              \
	do {                                                                                       \
		free((vec)->v);                                                                    \
		memset((vec), 0, sizeof(*(vec)));                                                  \
	} while (0)

#define VEC_FOREACH(it, vec)                                                                       \
	for (__typeof__(*(vec)->v) *it = (vec)->v; it && it < (vec)->v + (vec)->nr; it++)

#endif
