/*
 * System V shared memory: a segment with a key, attached twice (once for reading only) and by a child; one that is removed
 * already and lives by its attachment; one of which only a part is mapped still.
 */
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/wait.h>

#include "target.h"

enum { PAGE = 4096, SIZE = 3 * PAGE + 10 };

struct seen {
	volatile int go;
	char child_saw[32];
};

static struct shmid_ds stat_of(int id)
{
	struct shmid_ds ds;

	CHECK(!shmctl(id, IPC_STAT, &ds));
	return ds;
}

/* Whoever looks at a process that ends, as ps does, has its attachments until then. */
static void await_attached(int id, unsigned nr)
{
	while (stat_of(id).shm_nattch != nr)
		usleep(1000);
}

/* Writable by mprotect(2)? Not what was attached for reading only. */
static int may_write(void *at)
{
	int no = mprotect(at, PAGE, PROT_READ | PROT_WRITE);

	CHECK(!no || errno == EACCES);
	if (!no)
		CHECK(!mprotect(at, PAGE, PROT_READ));
	return !no;
}

static void child(struct seen *seen, char *rest)
{
	const struct timespec pause = { .tv_nsec = 10 * 1000 * 1000 };

	while (!seen->go)
		nanosleep(&pause, NULL);
	snprintf(seen->child_saw, sizeof(seen->child_saw), "%s", rest);
	strcpy(rest, "from the child");
	_exit(0);
}

int main(void)
{
	key_t key = 0x62000000 | getpid();
	int id = shmget(key, SIZE, IPC_CREAT | IPC_EXCL | 0640), gone, part, status;
	struct shmid_ds ds, before;

	CHECK(id >= 0);
	struct seen *seen = shmat(id, NULL, 0);
	char *reads = shmat(id, NULL, SHM_RDONLY), *rest = (char *)seen + 2 * PAGE;
	CHECK(seen != (void *)-1 && reads != (void *)-1);
	strcpy(rest, "from the parent");

	gone = shmget(IPC_PRIVATE, PAGE, 0600);
	char *lives = shmat(gone, NULL, 0);
	CHECK(gone >= 0 && lives != (void *)-1 && !shmctl(gone, IPC_RMID, NULL));
	strcpy(lives, "removed");

	part = shmget(IPC_PRIVATE, 4 * PAGE, 0600);
	char *pieces = shmat(part, NULL, 0);
	CHECK(part >= 0 && pieces != (void *)-1);
	for (int i = 0; i < 4; i++)
		pieces[i * PAGE] = 'a' + i;
	CHECK(!munmap(pieces, PAGE) && !mprotect(pieces + 2 * PAGE, PAGE, PROT_READ));

	before = stat_of(id);
	before.shm_perm.uid = 77;
	before.shm_perm.gid = 88;
	CHECK(!shmctl(id, IPC_SET, &before));
	pid_t pid = fork();
	if (!pid)
		child(seen, rest);
	CHECK(pid > 0);

	target_ready();
	ds = stat_of(id);
	CHECK_EQUAL(ds.shm_perm.__key, key);
	CHECK_EQUAL(ds.shm_segsz, SIZE);
	CHECK_EQUAL(ds.shm_perm.mode, 0640);
	CHECK_EQUAL(ds.shm_perm.uid, 77);
	CHECK_EQUAL(ds.shm_perm.gid, 88);
	CHECK_EQUAL(ds.shm_perm.cuid, 0);
	CHECK_EQUAL(ds.shm_nattch, 4);
	CHECK_EQUAL(shmget(key, 0, 0), id);
	CHECK(!strcmp(reads + 2 * PAGE, "from the parent"));
	CHECK(!may_write(reads));
	seen->go = 1;
	CHECK(waitpid(pid, &status, 0) == pid && !status);
	CHECK(!strcmp(seen->child_saw, "from the parent") && !strcmp(reads + 2 * PAGE, "from the child"));

	await_attached(gone, 1);
	ds = stat_of(gone);
	CHECK_EQUAL(ds.shm_perm.mode, 01600);
	CHECK(!strcmp(lives, "removed"));
	CHECK(!shmdt(lives) && shmctl(gone, IPC_STAT, &ds) && errno == EINVAL);

	await_attached(part, 3);
	for (int i = 1; i < 4; i++)
		CHECK(pieces[i * PAGE] == 'a' + i && !pieces[i * PAGE + 1]);
	pieces[PAGE] = 'X';
	char *whole = shmat(part, NULL, SHM_RDONLY);
	CHECK(whole != (void *)-1 && whole[0] == 'a' && whole[PAGE] == 'X');

	CHECK(!shmdt(whole) && !shmdt(pieces) && !shmdt(reads) && !shmdt(seen));
	CHECK_EQUAL(stat_of(part).shm_nattch, 0);
	CHECK(!shmctl(id, IPC_RMID, NULL) && !shmctl(part, IPC_RMID, NULL));
	return target_pass();
}
