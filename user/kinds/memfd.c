/*
 * memfd_create(2): a file in memory. The description is of this kind; the file itself is a struct shmem, which mappings
 * of it and other descriptions share.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "images/memfd.pb-c.h"
#include "kinds/common.h"
#include "kinds/path.h"
#include "kinds/shmem.h"
#include "observe/observe.h"

#define PREFIX "memfd:"

static bool memfd_match(const struct file_record *rec)
{
	return (rec->sb_magic == MAGIC_TMPFS || rec->sb_magic == MAGIC_HUGETLBFS) && S_ISREG(rec->mode) && !rec->nlink &&
	       !strncmp(rec->name, PREFIX, strlen(PREFIX));
}

/* "/memfd:NAME (deleted)" */
static char *memfd_name(const char *path)
{
	static const char front[] = "/" PREFIX, behind[] = " (deleted)";
	size_t len = path ? strlen(path) : 0, cut = strlen(front) + strlen(behind);

	if (len < cut || strncmp(path, front, strlen(front)) || strcmp(path + len - strlen(behind), behind))
		return NULL;
	return strndup(path + strlen(front), len - cut);
}

static int memfd_collect(const struct collect_ctx *ctx, const struct observed_file *of, struct file *f)
{
	struct path_where where = path_where(of);
	struct shmem *s = ctx->shmem(ctx, of, SHMEM_MEMFD);

	if (!s)
		return -ENOMEM;
	if (!s->name)
		s->name = memfd_name(of->path);
	if (!s->name)
		return unsupported("%s: %s is an unlinked file that looks like a memory file, which is not supported; close it first",
				   where.text, of->path ? of->path : of->rec.name);
	f->memfd.shmem_id = s->id;
	int err = shmem_look(s);
	if (err == -ENOENT)
		return -EAGAIN; /* it was closed or unmapped meanwhile */
	return err ? err : common_collect_owner(ctx, of, f);
}

static int memfd_save(struct save_ctx *ctx, const struct file *f, FileEntry *msg)
{
	MemfdFileEntry *e = NEW_MESSAGE(ctx, MemfdFileEntry, memfd_file_entry__init);
	FownEntry *fown = common_save_owner(ctx, f);

	if (!e || !fown)
		return -ENOMEM;
	e->id = f->id;
	e->flags = f->flags;
	e->pos = f->pos;
	e->fown = fown;
	e->inode_id = f->memfd.shmem_id;
	msg->memfd = e;
	return 0;
}

static const struct shmem *find_inode(const struct model *m, uint32_t inode_id)
{
	VEC_FOREACH(s, &m->shmems) {
		if ((*s)->sort == SHMEM_MEMFD && (*s)->ino == inode_id)
			return *s;
	}
	return NULL;
}

static int memfd_load(struct model *m, const FileEntry *msg, struct file *f)
{
	const MemfdFileEntry *e = msg->memfd;
	const struct shmem *s = e ? find_inode(m, e->inode_id) : NULL;

	if (!e || e->id != f->id)
		return fail(0, "memory file %u: its entry is damaged", f->id);
	if (!s)
		return fail(0, "memory file %u: its contents %u are not in memfd.img", f->id, e->inode_id);
	if (e->pos > INT64_MAX)
		return fail(0, "memory file %u: position %" PRIu64 " is damaged", f->id, e->pos);
	f->pos = e->pos;
	f->memfd.shmem_id = s->id;
	return common_load("memory file", e->flags, e->fown, f);
}

static int memfd_restore(const struct restore_ctx *ctx, const struct file *f, int *ret)
{
	_cleanup_close_ int fd = -1;
	int err = ctx->open_object(ctx, f, f->flags, &fd);

	if (err || f->flags & O_PATH) {
		*ret = take_fd(&fd);
		return err;
	}
	if (f->pos && lseek(fd, f->pos, SEEK_SET) < 0)
		return fail(-errno, "memory file %u: go to position %" PRIu64, f->id, f->pos);
	err = common_set_flags("memory file", f, fd);
	if (!err)
		*ret = take_fd(&fd);
	return err;
}

static int memfd_connect(const struct restore_ctx *ctx, const struct file *f, int fd)
{
	return f->flags & O_PATH ? 0 : common_connect(ctx, f, fd);
}

static void memfd_show(const struct model *m, const struct file *f, FILE *out)
{
	const struct shmem *s = model_find_shmem(m, f->memfd.shmem_id);

	fprintf(out, "memory file");
	if (!s)
		return;
	fputc(' ', out);
	for (const char *at = s->name; *at; at++)
		fputc((unsigned char)*at < ' ' || *at == 127 ? '?' : *at, out);
	fprintf(out, ", %" PRIu64 " bytes%s", s->size_bytes, s->huge_bytes ? " in huge pages" : "");
	if (s->seals)
		fprintf(out, ", seals 0x%x", s->seals);
}

const struct kind memfd_kind = {
	.name = "memfd",
	.type = FILE_MEMFD,
	.match = memfd_match,
	.collect = memfd_collect,
	.asks = true,
	.save = memfd_save,
	.load = memfd_load,
	.restore = memfd_restore,
	.connect = memfd_connect,
	.show = memfd_show,
};
