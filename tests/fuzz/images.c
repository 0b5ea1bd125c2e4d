/* Fuzzes images_load_from(): whatever is in the files of a set, loading refuses it or gives a model, and never more. */
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>

#include "../unit/image_pack.h"
#include "base/log.h"
#include "image/parts.h"
#include "kinds/kinds.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);

	/* Refusals are what is expected: only the sanitizers may speak. */
	log_set_fd(fd);
	log_set_err_fd(-1);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct packed_set set = { data, size };
	struct image_source src = packed_source(&set);
	struct model *m;

	if (!images_load_from(&src, &m)) {
		FILE *out = fopen("/dev/null", "w");

		/* What a person is shown of a loaded set must hold as well. */
		VEC_FOREACH(f, &m->files) {
			const struct kind *kind = kind_of_type((*f)->type);

			if (kind && kind->show && out)
				kind->show(m, *f, out);
		}
		if (out)
			fclose(out);
		model_destroy(m);
	}
	return 0;
}
