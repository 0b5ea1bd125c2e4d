/* Shared anonymous memory: made and filled once, by the coordinator, and inherited by every task. */
#include <errno.h>
#include <inttypes.h>
#include <sys/mman.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "restore/plan.h"

enum { CHUNK_BYTES = 1 << 20 };

static int fill_run(struct restore *r, struct pages_reader *from, const struct shmem *s, const struct page_run *run, uint8_t *at)
{
	uint64_t len = run->nr_pages * MODEL_PAGE_SIZE;

	if (run->start > s->size_bytes || len > s->size_bytes - run->start + MODEL_PAGE_SIZE - 1)
		return fail(0, "shared memory %u: its pages reach beyond its end", s->id);
	for (uint64_t done = 0; done < len; done += CHUNK_BYTES) {
		size_t part = len - done < CHUNK_BYTES ? len - done : CHUNK_BYTES;
		int err = pages_reader_read(from, run, done, at + run->start + done, part);

		if (err)
			return fail(err, "shared memory %u: its pages were not read", s->id);
		r->control->bytes_done += part;
		r->control->pages_restored += part / MODEL_PAGE_SIZE;
		if (r->opts.progress)
			r->opts.progress(r->control->bytes_done, r->all_bytes);
	}
	return 0;
}

static int fill(struct restore *r, const struct shmem *s, uint8_t *at)
{
	struct pages_reader from = { .dirfd = r->opts.images_dirfd, .pages_id = s->pages_id };
	int err = 0;

	VEC_FOREACH(run, &s->pages) {
		if (!err && page_run_has_contents(run))
			err = fill_run(r, &from, s, run, at);
	}
	pages_reader_close(&from);
	return err;
}

/* Memory is accounted for as it was: not, when no mapping of the object was. */
static int reserve_flag(const struct model *m, const struct shmem *s)
{
	VEC_FOREACH(mm, &m->mms) {
		VEC_FOREACH(vma, &(*mm)->vmas) {
			if (vma->shmem_id == s->id && !(vma->flags & MAP_NORESERVE))
				return 0;
		}
	}
	return MAP_NORESERVE;
}

int shmem_map_all(struct restore *r)
{
	for (size_t i = 0; i < r->m->shmems.nr; i++) {
		const struct shmem *s = r->m->shmems.v[i];
		void *at = (void *)(uintptr_t)r->plan->shmem_at.v[i];

		if (s->size_bytes && mmap(at, s->size_bytes, PROT_READ | PROT_WRITE,
					  MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED | reserve_flag(r->m, s), -1, 0) != at)
			return fail(-errno, "shared memory %u: make %" PRIu64 " bytes", s->id, s->size_bytes);
		int err = fill(r, s, at);
		if (err)
			return err;
	}
	return 0;
}
