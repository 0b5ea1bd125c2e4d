/* The kernel's types: a choice of its BTF, for each BPF object. */
#include "sys/kernel_types.h"

#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "base/vec.h"

enum { NR_HEADS = 1 << 16 };

/* Read once; objects are loaded one after the other, and others may follow. It goes with the process. */
static struct kernel_types {
	int fd;
	char path[32];
	struct btf *btf;
	uint32_t nr;             /* types, with the one that is number 0 */
	uint32_t heads[NR_HEADS]; /* by hash of the name: the first of a chain, 0: none */
	uint32_t *next;
} kernel = { .fd = -1 };

/* A part of the kernel's BTF under way: ids of the kernel's in the order of their new ids, which begin at 1. */
struct choice {
	uint32_t *new_ids; /* by the kernel's; 0: not chosen */
	VEC(uint32_t) ids;
	struct btf *btf;
};

static bool has_layout(const struct btf_type *t)
{
	return btf_is_composite(t) || btf_is_any_enum(t) || btf_is_typedef(t);
}

static bool is_indexed(const struct btf_type *t)
{
	return t->name_off && (has_layout(t) || btf_is_func(t));
}

/* Of variants that programs name struct___variant for the same struct, libbpf compares what is in front of that. */
static size_t essential_len(const char *name)
{
	const char *variant = strstr(name, "___");

	return variant && variant != name ? (size_t)(variant - name) : strlen(name);
}

static uint32_t hash(const char *name, size_t len)
{
	uint32_t h = 2166136261;

	for (size_t i = 0; i < len; i++)
		h = (h ^ (uint8_t)name[i]) * 16777619;
	return (h ^ h >> 16) % NR_HEADS;
}

static int read_kernel(void)
{
	if (kernel.btf)
		return 0;
	kernel.btf = btf__load_vmlinux_btf();
	if (!kernel.btf)
		return fail(-errno, "read the kernel's types (BTF)");
	kernel.nr = btf__type_cnt(kernel.btf);
	kernel.next = calloc(kernel.nr, sizeof(*kernel.next));
	if (!kernel.next) {
		btf__free(kernel.btf);
		kernel.btf = NULL;
		return fail(-ENOMEM, "read the kernel's types (BTF)");
	}
	for (uint32_t id = 1; id < kernel.nr; id++) {
		const struct btf_type *t = btf__type_by_id(kernel.btf, id);

		if (!is_indexed(t))
			continue;
		const char *name = btf__name_by_offset(kernel.btf, t->name_off);
		uint32_t *head = &kernel.heads[hash(name, essential_len(name))];
		kernel.next[id] = *head;
		*head = id;
	}
	return 0;
}

static int choose(struct choice *c, uint32_t id)
{
	if (!id || c->new_ids[id])
		return 0;
	if (VEC_PUSH(&c->ids, id))
		return -ENOMEM;
	c->new_ids[id] = (uint32_t)c->ids.nr;
	return 0;
}

static int choose_named(struct choice *c, const char *name)
{
	size_t len = essential_len(name);
	int err = 0;

	for (uint32_t id = kernel.heads[hash(name, len)]; id && !err; id = kernel.next[id]) {
		const struct btf_type *t = btf__type_by_id(kernel.btf, id);
		const char *its = btf__name_by_offset(kernel.btf, t->name_off);

		if (has_layout(t) && essential_len(its) == len && !memcmp(its, name, len))
			err = choose(c, id);
	}
	return err;
}

/* Where `t` has the number of the i-th type that it is made of; NULL: there are no more. */
static uint32_t *part(struct btf_type *t, uint32_t i)
{
	if (btf_is_composite(t))
		return i < btf_vlen(t) ? &btf_members(t)[i].type : NULL;
	if (btf_is_array(t))
		return i == 0 ? &btf_array(t)->type : i == 1 ? &btf_array(t)->index_type : NULL;
	if (btf_is_mod(t) || btf_is_typedef(t) || btf_is_ptr(t))
		return i == 0 ? &t->type : NULL;
	return NULL;
}

/* What is behind a pointer does not matter to the layout, and functions have none. */
static uint32_t chosen_part(const struct btf_type *t, uint32_t id)
{
	return btf_is_ptr(t) || btf_is_func_proto(btf__type_by_id(kernel.btf, id)) ? 0 : id;
}

static int choose_parts(struct choice *c, uint32_t id)
{
	struct btf_type *t = (struct btf_type *)btf__type_by_id(kernel.btf, id);
	const uint32_t *at;
	int err = 0;

	for (uint32_t i = 0; !err && (at = part(t, i)); i++)
		err = choose(c, chosen_part(t, *at));
	return err;
}

static int copy_type(const struct choice *c, uint32_t id)
{
	const struct btf_type *t = btf__type_by_id(kernel.btf, id);
	int new_id = btf__add_type(c->btf, kernel.btf, t);
	uint32_t *at;

	if (new_id < 0)
		return new_id;
	struct btf_type *copy = (struct btf_type *)btf__type_by_id(c->btf, (uint32_t)new_id);
	for (uint32_t i = 0; (at = part(copy, i)); i++)
		*at = c->new_ids[chosen_part(t, *at)];
	return 0;
}

static int choose_all(struct choice *c, const struct btf *local)
{
	int err = 0;

	for (uint32_t id = 1; !err && id < btf__type_cnt(local); id++) {
		const struct btf_type *t = btf__type_by_id(local, id);

		if (t->name_off && has_layout(t))
			err = choose_named(c, btf__name_by_offset(local, t->name_off));
	}
	/* The list grows meanwhile. */
	for (size_t i = 0; !err && i < c->ids.nr; i++)
		err = choose_parts(c, c->ids.v[i]);
	for (size_t i = 0; !err && i < c->ids.nr; i++)
		err = copy_type(c, c->ids.v[i]);
	return err;
}

static int write_file(const struct btf *btf)
{
	uint32_t bytes;
	const void *data = btf__raw_data(btf, &bytes);

	if (!data)
		return -ENOMEM;
	if (ftruncate(kernel.fd, 0))
		return -errno;
	ssize_t put = pwrite(kernel.fd, data, bytes, 0);
	return put < 0 ? -errno : put == (ssize_t)bytes ? 0 : -ENOSPC;
}

const char *kernel_types_path(void)
{
	if (kernel.fd < 0) {
		kernel.fd = memfd_create("bcr-kernel-types", MFD_CLOEXEC);
		snprintf(kernel.path, sizeof(kernel.path), "/proc/self/fd/%d", kernel.fd);
	}
	return kernel.fd < 0 ? NULL : kernel.path;
}

int kernel_types_for(const struct bpf_object *obj)
{
	struct choice c = {};

	if (kernel.fd < 0)
		return 0;
	int err = read_kernel();
	if (err)
		return err;
	c.new_ids = calloc(kernel.nr, sizeof(*c.new_ids));
	c.btf = btf__new_empty();
	err = c.new_ids && c.btf ? choose_all(&c, bpf_object__btf(obj)) : -ENOMEM;
	if (!err)
		err = write_file(c.btf);
	if (!err)
		log_debug("%zu of the kernel's %u types are for %s", c.ids.nr, kernel.nr - 1, bpf_object__name(obj));
	btf__free(c.btf);
	VEC_FREE(&c.ids);
	free(c.new_ids);
	return err ? fail(err, "choose the kernel's types for BPF object %s", bpf_object__name(obj)) : 0;
}

int kernel_types_find(const char *name, unsigned kind, uint32_t *ret)
{
	int err = read_kernel();

	*ret = 0;
	for (uint32_t id = err ? 0 : kernel.heads[hash(name, essential_len(name))]; id && !*ret; id = kernel.next[id]) {
		const struct btf_type *t = btf__type_by_id(kernel.btf, id);

		if (btf_kind(t) == kind && !strcmp(btf__name_by_offset(kernel.btf, t->name_off), name))
			*ret = id;
	}
	return err;
}
