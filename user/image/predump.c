/* What a pre-dump leaves → model: address spaces and shared memory with their pages, no processes. For people who want to look. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "image/manifest.h"
#include "image/names.h"
#include "image/parents.h"
#include "image/parts.h"
#include "image/set.h"

/* The number in "pagemap-12.img", of this beginning; 0: it is another file. */
static uint32_t number_in(const char *name, const char *front)
{
	char full[IMAGE_NAME_MAX];
	unsigned nr;

	if (strncmp(name, front, strlen(front)) || sscanf(name + strlen(front), "%u", &nr) != 1)
		return 0;
	snprintf(full, sizeof(full), "%s%u.img", front, nr);
	return strcmp(full, name) ? 0 : nr;
}

static int load_file(struct load *l, const char *name)
{
	uint32_t pid = number_in(name, "pagemap-"), id = number_in(name, "pagemap-shmem-");

	if (pid) {
		struct mm *mm = model_add_mm(l->m, 0);

		if (!mm)
			return fail(-ENOMEM, "%s/%s: read", l->src->path, name);
		mm->pid = pid;
		return load_pages(l, name, IMAGE_USER_END, &mm->pages_id, &mm->pages);
	}
	if (id) {
		struct shmem *shmem = model_add_shmem(l->m, 0);

		if (!shmem)
			return fail(-ENOMEM, "%s/%s: read", l->src->path, name);
		return load_pages(l, name, IMAGE_USER_END, &shmem->pages_id, &shmem->pages);
	}
	return 0;
}

static int load_files_of(struct load *l)
{
	int fd = openat(l->src->dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_closedir_ DIR *d = fd < 0 ? NULL : fdopendir(fd);
	int err = 0;

	if (!d) {
		err = -errno;
		if (fd >= 0)
			close(fd);
		return fail(err, "%s: list", l->src->path);
	}
	for (struct dirent *e; !err && (e = readdir(d));)
		err = load_file(l, e->d_name);
	return err;
}

static int compare_pids(const void *a, const void *b)
{
	const struct mm *x = *(struct mm *const *)a, *y = *(struct mm *const *)b;

	return x->pid < y->pid ? -1 : x->pid > y->pid;
}

int images_load_memory(int dirfd, const char *path, struct model **ret)
{
	struct image_source src = image_source_dir(dirfd, path);
	struct load l = { .src = &src };
	struct manifest *manifest = NULL;
	int err = image_set_recover(dirfd, path);

	if (!err)
		err = images_memory_only(&src) ? 0 : -ENOENT;
	if (err)
		return err;
	l.m = model_create();
	if (!l.m)
		return fail(-ENOMEM, "%s: read the images", path);
	err = manifest_load(&src, &manifest);
	src.manifest = manifest;
	if (!err)
		err = load_files_of(&l);
	parents_close(l.parents);
	manifest_destroy(manifest);
	if (err) {
		model_destroy(l.m);
		return err;
	}
	qsort(l.m->mms.v, l.m->mms.nr, sizeof(*l.m->mms.v), compare_pids);
	*ret = l.m;
	return 0;
}
