/* Programs of seccomp(2) ↔ seccomp.img. */
#include <linux/filter.h>
#include <string.h>

#include "base/log.h"
#include "image/magic.h"
#include "image/parts.h"
#include "images/seccomp.pb-c.h"

enum { NR_FILTERS_MAX = 65536, FLAGS_KNOWN = 1 << 1 | 1 << 2 /* SECCOMP_FILTER_FLAG_LOG, _SPEC_ALLOW */ };

int save_seccomp(struct save *s)
{
	SeccompEntry msg = SECCOMP_ENTRY__INIT;
	struct arena a = {};
	size_t nr = s->m->seccomp_filters.nr;
	SeccompFilter *all = arena_alloc(&a, (nr + 1) * sizeof(*all));
	int err = 0;

	if (!nr)
		goto out;
	msg.seccomp_filters = arena_alloc(&a, nr * sizeof(*msg.seccomp_filters));
	if (!all || !msg.seccomp_filters) {
		err = fail(-ENOMEM, "seccomp.img: write");
		goto out;
	}
	for (size_t i = 0; i < nr; i++) {
		const struct seccomp_filter *f = &s->m->seccomp_filters.v[i];

		seccomp_filter__init(&all[i]);
		all[i].filter.data = f->insns;
		all[i].filter.len = f->len_bytes;
		all[i].has_prev = f->prev;
		all[i].prev = f->prev ? f->prev - 1 : 0;
		all[i].has_flags = true;
		all[i].flags = f->flags;
		msg.seccomp_filters[msg.n_seccomp_filters++] = &all[i];
	}
	err = image_put(s->set, MAGIC_COMMON, MAGIC_SECCOMP, &msg.base, "seccomp.img");
out:
	arena_free(&a);
	return err;
}

static int load_filter(const struct image_reader *r, const SeccompFilter *e, size_t at, struct seccomp_filter *f)
{
	if (!f)
		return fail(-ENOMEM, "%s/%s: read", r->path, r->name);
	if (!e->filter.len || e->filter.len % sizeof(struct sock_filter) ||
	    e->filter.len / sizeof(struct sock_filter) > BPF_MAXINSNS)
		return bad_image(r, "filter %zu has %zu bytes", at, e->filter.len);
	/* Older ones come first: so that none is among its own predecessors. */
	if (e->has_prev && e->prev >= at)
		return bad_image(r, "filter %zu comes after filter %u", at, e->prev);
	if (e->flags & ~(uint32_t)FLAGS_KNOWN)
		return bad_image(r, "filter %zu has flags %#x", at, e->flags);
	f->insns = malloc(e->filter.len);
	if (!f->insns)
		return fail(-ENOMEM, "%s/%s: read", r->path, r->name);
	memcpy(f->insns, e->filter.data, e->filter.len);
	f->len_bytes = e->filter.len;
	f->prev = e->has_prev ? e->prev + 1 : 0;
	f->flags = e->flags;
	return 0;
}

int load_seccomp(struct load *l)
{
	_cleanup_reader_ struct image_reader r = {};
	_cleanup_message_ SeccompEntry *msg = NULL;
	int err = reader_open(&r, l->src, MAGIC_COMMON, MAGIC_SECCOMP, "seccomp.img");

	/* Written when there are any. */
	if (err == -ENOENT)
		return 0;
	if (!err)
		err = reader_single(&r, &seccomp_entry__descriptor, &msg);
	if (err)
		return err;
	if (msg->n_seccomp_filters > NR_FILTERS_MAX)
		return bad_image(&r, "%zu filters, more than %d", msg->n_seccomp_filters, NR_FILTERS_MAX);
	for (size_t i = 0; !err && i < msg->n_seccomp_filters; i++)
		err = load_filter(&r, msg->seccomp_filters[i], i, VEC_ADD(&l->m->seccomp_filters));
	return err;
}
