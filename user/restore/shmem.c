/*
 * Memory objects: made and filled once, by the coordinator.
 *
 * Memory files are held as descriptors, which every process of the restore can open anew. Shared anonymous memory and System
 * V segments are mapped, which tasks inherit and map from. Seals would be in the way of filling and mapping, and a
 * segment that is removed goes with its last attachment: both are seen to when every task has its mappings.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/memfd.h>
#include <linux/mman.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "restore/plan.h"
#include "sys/uapi.h"

enum { CHUNK_BYTES = 1 << 20, ATTACHED_LOOKS = 100 /* a second of 10 ms */, CREATE_TRIES = 5 };

/* SHM_DEST and SHM_LOCKED, bits of the mode; the C library has them under one feature macro or another. */
enum { SHM_DEST_BIT = 01000, SHM_LOCKED_BIT = 02000 };

/* --- contents --- */

static int fill_run(struct restore *r, struct pages_reader *from, const struct shmem *s, const struct page_run *run, uint8_t *at)
{
	uint64_t len = run->nr_pages * MODEL_PAGE_SIZE, size = shmem_whole_bytes(s);

	if (run->start > size || len > size - run->start)
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

static int make_failed(const struct shmem *s)
{
	int err = -errno;

	return fail(err, "shared memory %u: make %" PRIu64 " bytes%s", s->id, s->size_bytes,
		    s->huge_bytes ? " of huge pages (are there enough free ones, /proc/sys/vm/nr_hugepages?)" : "");
}

/* Which pages, as mmap(2), memfd_create(2) and shmget(2) are told alike. */
static uint32_t huge_size_flag(const struct shmem *s)
{
	return s->huge_bytes ? (uint32_t)__builtin_ctzll(s->huge_bytes) << MAP_HUGE_SHIFT : 0;
}

/* --- memory files --- */

static int create_memfd(const struct shmem *s)
{
	unsigned flags = MFD_CLOEXEC | (s->huge_bytes ? MFD_HUGETLB | huge_size_flag(s) : 0);

	if (s->seals != F_SEAL_SEAL)
		flags |= MFD_ALLOW_SEALING;
	/* Before Linux 6.3 there is no such flag, and a sysctl may forbid it. */
	int fd = syscall(SYS_memfd_create, s->name, flags | BCR_MFD_EXEC);
	if (fd < 0 && (errno == EINVAL || errno == EACCES))
		fd = syscall(SYS_memfd_create, s->name, flags);
	return fd;
}

static int fill_memfd(struct restore *r, const struct shmem *s, int fd)
{
	uint64_t bytes = shmem_whole_bytes(s);

	if (ftruncate(fd, s->size_bytes))
		return make_failed(s);
	if (!s->pages.nr)
		return 0;
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | (s->huge_bytes ? 0 : MAP_NORESERVE), fd, 0);
	if (at == MAP_FAILED)
		return make_failed(s);
	int err = fill(r, s, at);
	munmap(at, bytes);
	return err;
}

static int make_memfd(struct restore *r, const struct shmem *s, int number)
{
	_cleanup_close_ int fd = create_memfd(s);

	if (fd < 0)
		return make_failed(s);
	if (fchmod(fd, s->mode) || fchown(fd, s->uid, s->gid))
		return fail(-errno, "memory file %u (%s): set its owner and mode", s->id, s->name);
	int err = fill_memfd(r, s, fd);
	if (err)
		return err;
	if (dup3(fd, number, O_CLOEXEC) < 0)
		return fail(-errno, "memory file %u (%s): keep it as descriptor %d; the limit of open files may be too low", s->id,
			    s->name, number);
	return 0;
}

int shmem_make_files(struct restore *r)
{
	for (size_t i = 0; i < r->m->shmems.nr; i++) {
		const struct shmem *s = r->m->shmems.v[i];
		int err = s->sort == SHMEM_MEMFD ? make_memfd(r, s, r->plan->fd_objects + (int)i) : 0;

		if (err)
			return err;
	}
	return 0;
}

static ssize_t index_of(const struct model *m, uint32_t id)
{
	for (size_t i = 0; i < m->shmems.nr; i++) {
		if (m->shmems.v[i]->id == id && m->shmems.v[i]->sort == SHMEM_MEMFD)
			return i;
	}
	return -1;
}

int shmem_open_file(const struct restore *r, uint32_t id, uint32_t flags, int *ret)
{
	ssize_t i = index_of(r->m, id);

	if (i < 0)
		return fail(0, "memory file %u: it is not in the images", id);
	return restore_open_held(r->plan->fd_objects + (int)i, flags, r->m->shmems.v[i]->name, ret);
}

/* --- System V segments --- */

static bool is_leftover(const struct shmem *s, const struct shmid_ds *ds)
{
	return ds->shm_perm.__key == s->sysv.key && ds->shm_segsz == s->size_bytes && ds->shm_perm.cuid == s->sysv.cuid &&
	       ds->shm_perm.cgid == s->sysv.cgid;
}

/*
 * A segment outlives the processes that attached it: the one that was dumped may be there still, and is taken again; it
 * gets the contents of the images.
 */
static int check_segment(const struct shmem *s, bool *there)
{
	const struct timespec look_again = { .tv_nsec = 10 * 1000 * 1000 };
	struct shmid_ds ds;

	*there = !shmctl(s->sysv.id, IPC_STAT, &ds);
	/* Attachments of a process that has just ended go when nobody looks at its memory any more (/proc does, for ps). */
	for (int i = 0; *there && is_leftover(s, &ds) && ds.shm_nattch && i < ATTACHED_LOOKS; i++) {
		nanosleep(&look_again, NULL);
		*there = !shmctl(s->sysv.id, IPC_STAT, &ds);
	}
	if (!*there && errno != EINVAL && errno != EIDRM)
		return fail(-errno, "System V segment %d: look whether it is there", s->sysv.id);
	if (*there && !is_leftover(s, &ds))
		return fail(0, "System V segment %d: the number belongs to another segment by now (key 0x%x); remove that (ipcrm -m %d), or "
			       "restore in an IPC namespace of its own",
			    s->sysv.id, (unsigned)ds.shm_perm.__key, s->sysv.id);
	if (*there && ds.shm_nattch)
		return fail(0, "System V segment %d: %lu processes outside the tree have attached it; end them first", s->sysv.id,
			    (unsigned long)ds.shm_nattch);
	if (!*there && s->sysv.key && shmget(s->sysv.key, 0, 0) >= 0)
		return fail(0, "System V segment %d: its key 0x%x belongs to another segment by now; remove that (ipcrm -M 0x%x)", s->sysv.id,
			    (unsigned)s->sysv.key, (unsigned)s->sysv.key);
	return 0;
}

int shmem_check(const struct restore *r)
{
	VEC_FOREACH(s, &r->m->shmems) {
		bool there;
		int err = (*s)->sort == SHMEM_SYSV ? check_segment(*s, &there) : 0;

		if (err)
			return err;
	}
	return 0;
}

/* The next segment gets this number, when it is free (CONFIG_CHECKPOINT_RESTORE). */
static int ask_for_id(int32_t id)
{
	static const char path[] = "/proc/sys/kernel/shm_next_id";
	char text[16];
	int len = snprintf(text, sizeof(text), "%d", id);
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, len) != len)
		return fail(-errno, "System V segment %d: ask for its number by %s", id, path);
	return 0;
}

/* Who makes a segment is its creator for ever. */
static int create_as(const struct shmem *s)
{
	int flags = IPC_CREAT | IPC_EXCL | (s->mode & 0777) | (s->huge_bytes ? SHM_HUGETLB | huge_size_flag(s) : 0);
	uid_t uid = geteuid();
	gid_t gid = getegid();

	if (setegid(s->sysv.cgid) || seteuid(s->sysv.cuid))
		return -1;
	int id = shmget(s->sysv.key, s->size_bytes, flags), err = errno;
	if (seteuid(uid) || setegid(gid))
		return -1;
	errno = err;
	return id;
}

static int create_segment(struct restore *r, const struct shmem *s)
{
	int err = VEC_RESERVE(&r->segments, r->segments.nr + 1) ? fail(-ENOMEM, "System V segment %d", s->sysv.id) :
								    ask_for_id(s->sysv.id);

	if (err)
		return err;
	int id = create_as(s);
	/* The file is the same for all: another restore may have asked for a number in between. */
	for (int i = 1; id >= 0 && id != s->sysv.id && i < CREATE_TRIES; i++) {
		if (shmctl(id, IPC_RMID, NULL))
			return fail(-errno, "System V segment %d: remove one that was made by a wrong number (%d)", s->sysv.id, id);
		err = ask_for_id(s->sysv.id);
		if (err)
			return err;
		id = create_as(s);
	}
	if (id < 0)
		return make_failed(s);
	r->segments.v[r->segments.nr++] = id;
	if (id != s->sysv.id)
		return fail(0, "System V segment %d: the kernel has no place for this number (it gave %d)", s->sysv.id, id);
	return 0;
}

static int set_segment(const struct shmem *s)
{
	struct shmid_ds ds = { .shm_perm = { .uid = s->uid, .gid = s->gid, .mode = s->mode & 0777 } };

	if (shmctl(s->sysv.id, IPC_SET, &ds) || (s->mode & SHM_LOCKED_BIT && shmctl(s->sysv.id, SHM_LOCK, NULL)))
		return fail(-errno, "System V segment %d: set its owner and mode", s->sysv.id);
	return 0;
}

static int attach_segment(struct restore *r, const struct shmem *s, void *at)
{
	bool there;
	int err = check_segment(s, &there);

	if (!err && !there)
		err = create_segment(r, s);
	if (!err)
		err = set_segment(s);
	if (err)
		return err;
	if (shmat(s->sysv.id, at, SHM_REMAP) != at)
		return fail(-errno, "System V segment %d: attach it", s->sysv.id);
	/* What was there is not what it held. */
	if (there && madvise(at, shmem_whole_bytes(s), MADV_REMOVE))
		memset(at, 0, shmem_whole_bytes(s));
	return 0;
}

void shmem_undo(struct restore *r)
{
	VEC_FOREACH(id, &r->segments)
		shmctl(*id, IPC_RMID, NULL);
	VEC_FREE(&r->segments);
}

/* --- what is mapped --- */

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

static int map_anonymous(struct restore *r, const struct shmem *s, void *at)
{
	int flags = MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED | reserve_flag(r->m, s);

	if (s->huge_bytes)
		flags |= MAP_HUGETLB | huge_size_flag(s);
	return mmap(at, s->size_bytes, PROT_READ | PROT_WRITE, flags, -1, 0) == at ? 0 : make_failed(s);
}

/* Programs can have mappings larger than the object: accesses behind its end are bus errors, before and after. */
static int extend(const struct shmem *s, const struct shmem_place *place)
{
	uint64_t bytes = shmem_whole_bytes(s);
	char *at = (void *)(uintptr_t)place->at;

	if (place->bytes <= bytes)
		return 0;
	/* It grows in place only. */
	munmap(at + bytes, place->bytes - bytes);
	if (mremap(at, bytes, place->bytes, 0) != at)
		return fail(-errno, "shared memory %u: map beyond its end", s->id);
	return 0;
}

int shmem_map_all(struct restore *r)
{
	for (size_t i = 0; i < r->m->shmems.nr; i++) {
		const struct shmem *s = r->m->shmems.v[i];
		const struct shmem_place *place = &r->plan->shmems.v[i];
		void *at = (void *)(uintptr_t)place->at;

		if (s->sort == SHMEM_MEMFD || !s->size_bytes)
			continue;
		int err = s->sort == SHMEM_SYSV ? attach_segment(r, s, at) : map_anonymous(r, s, at);
		if (!err)
			err = fill(r, s, at);
		if (!err)
			err = extend(s, place);
		if (err)
			return err;
	}
	return 0;
}

/* --- when all have them --- */

static int seal(const struct restore *r, size_t i)
{
	const struct shmem *s = r->m->shmems.v[i];
	_cleanup_close_ int fd = -1;

	/* That it cannot be sealed is how it was made. */
	if (!s->seals || s->seals == F_SEAL_SEAL)
		return 0;
	int err = shmem_open_file(r, s->id, O_RDWR, &fd);
	if (!err && fcntl(fd, F_ADD_SEALS, s->seals))
		err = fail(-errno, "memory file %u (%s): seal it (0x%x)", s->id, s->name, s->seals);
	return err;
}

int shmem_finish(struct restore *r)
{
	for (size_t i = 0; i < r->m->shmems.nr; i++) {
		const struct shmem *s = r->m->shmems.v[i];
		int err = s->sort == SHMEM_MEMFD ? seal(r, i) : 0;

		if (!err && s->sort == SHMEM_SYSV && s->mode & SHM_DEST_BIT && shmctl(s->sysv.id, IPC_RMID, NULL))
			err = fail(-errno, "System V segment %d: mark it as removed", s->sysv.id);
		if (err)
			return err;
	}
	return 0;
}
