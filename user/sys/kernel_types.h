/*
 * The kernel's types, as libbpf needs them to fit a BPF program to the kernel it is loaded into (CO-RE).
 *
 * libbpf looks through all of the kernel's BTF, more than a hundred thousand types, for each type that a program names. That
 * is most of the time that loading takes. So it gets BTF that has the types an object names, and what is inside of them,
 * instead: bpf_object_open_opts.btf_custom_path (libbpf's documentation of bpf_object_open_opts).
 */
#ifndef BCR_SYS_KERNEL_TYPES_H
#define BCR_SYS_KERNEL_TYPES_H

#include <stdint.h>

struct bpf_object;

/*
 * Path for bpf_object_open_opts.btf_custom_path: a file without a name, the same one for all objects of this process. libbpf
 * reads it when the object is loaded. NULL when there is no such file: libbpf then looks for itself.
 */
const char *kernel_types_path(void);

/*
 * Between opening an object and loading it: puts into that file what the object names. Types of modules are not among it,
 * and numbers of types are others there (bpf_core_type_id_kernel() does not work).
 * Returns 0 or a negative errno, reported; does nothing when there is no path.
 */
int kernel_types_for(const struct bpf_object *obj);

/*
 * The number of a type in the kernel's BTF, 0: there is none. `kind` is BTF_KIND_STRUCT, or BTF_KIND_FUNC for what programs may
 * call, or that of another type with a layout (Documentation/bpf/btf.rst). Returns 0 or a negative errno, reported.
 */
int kernel_types_find(const char *name, unsigned kind, uint32_t *ret);

#endif
