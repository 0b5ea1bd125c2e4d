/* Memory objects of a target, looked at from outside: what they say of themselves, and their contents. */
#include "kinds/shmem.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "bpf/file.h"
#include "sys/proc.h"

int shmem_open(const struct shmem *s, int *ret)
{
	char path[96];
	struct stat st;

	if (s->start)
		snprintf(path, sizeof(path), "/proc/%d/map_files/%" PRIx64 "-%" PRIx64, proc_living(s->pid), s->start,
			 s->map_files_end);
	else
		snprintf(path, sizeof(path), "/proc/%d/fd/%d", proc_living(s->pid), s->fd);
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 && (errno == ENOENT || errno == ESRCH))
		return -ENOENT;
	if (fd < 0 || fstat(fd, &st))
		return fail(-errno, "pid %d: open shared memory %u by %s", s->pid, s->id, path);
	if (st.st_ino != s->ino)
		return -ENOENT;
	*ret = take_fd(&fd);
	return 0;
}

static int look_by_descriptor(struct shmem *s)
{
	_cleanup_close_ int fd = -1;
	struct stat st;
	struct statfs fs;
	int err = shmem_open(s, &fd);

	if (err)
		return err;
	if (fstat(fd, &st) || fstatfs(fd, &fs))
		return fail(-errno, "pid %d: look at shared memory %u", s->pid, s->id);
	s->huge_bytes = (uint32_t)fs.f_type == MAGIC_HUGETLBFS ? st.st_blksize : 0;
	s->size_bytes = st.st_size;
	if (s->sort != SHMEM_MEMFD) {
		s->size_bytes = shmem_whole_bytes(s);
		return 0;
	}
	int seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0)
		return fail(-errno, "pid %d: read the seals of memory file %s", s->pid, s->name ? s->name : "");
	s->seals = seals;
	s->uid = st.st_uid;
	s->gid = st.st_gid;
	s->mode = st.st_mode & 07777;
	return 0;
}

/* The C library calls the key __key. */
static int look_by_number(struct shmem *s)
{
	struct shmid_ds ds;

	if (shmctl(s->sysv.id, IPC_STAT, &ds))
		return errno == EINVAL || errno == EIDRM ? -ENOENT :
							   fail(-errno, "System V segment %d: look at it", s->sysv.id);
	s->size_bytes = ds.shm_segsz;
	s->uid = ds.shm_perm.uid;
	s->gid = ds.shm_perm.gid;
	s->mode = ds.shm_perm.mode;
	s->sysv.key = ds.shm_perm.__key;
	s->sysv.cuid = ds.shm_perm.cuid;
	s->sysv.cgid = ds.shm_perm.cgid;
	return 0;
}

int shmem_look(struct shmem *s)
{
	int err = look_by_descriptor(s);

	return err || s->sort != SHMEM_SYSV ? err : look_by_number(s);
}

uint64_t shmem_nr_attached(const struct shmem *s)
{
	struct shmid_ds ds;

	return shmctl(s->sysv.id, IPC_STAT, &ds) ? 0 : ds.shm_nattch;
}

int shmem_next_data(const struct shmem *s, int fd, uint64_t *start, uint64_t *end)
{
	uint64_t page = s->huge_bytes ? s->huge_bytes : MODEL_PAGE_SIZE;
	off_t data = lseek(fd, *start, SEEK_DATA);

	if (data < 0 && errno == ENXIO)
		return 0;
	off_t hole = data < 0 ? -1 : lseek(fd, data, SEEK_HOLE);
	if (hole < 0)
		return fail(-errno, "pid %d: size up shared memory %u", s->pid, s->id);
	*start = data / page * page;
	*end = (hole + page - 1) / page * page;
	return 1;
}

int shmem_read(const struct shmem *s, int fd, uint64_t offset, void *buf, size_t bytes)
{
	size_t done = 0;

	while (done < bytes) {
		ssize_t got = pread(fd, (char *)buf + done, bytes - done, offset + done);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return fail(-errno, "pid %d: read shared memory %u at offset %" PRIu64, s->pid, s->id, offset + done);
		if (!got)
			break;
		done += got;
	}
	memset((char *)buf + done, 0, bytes - done);
	return 0;
}
