/*
 * model → images → model gives an equal model; sets appear as a whole; damaged sets are refused.
 *
 *   image_roundtrip              the tests
 *   image_roundtrip --write DIR  writes the set into DIR, for looking at it with other tools
 *   image_roundtrip --seed FILE  writes it as one file, the fuzzer's seed
 *   image_roundtrip --seed-child FILE  the same of a set with a parent, and the parent
 *
 * timeout: 600
 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "image/parts.h"
#include "image_model.h"
#include "image_pack.h"

static unsigned failures;

#define CHECK(cond, ...)                                                                           \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			printf("%s:%d: %s: ", __FILE__, __LINE__, #cond);                          \
			printf(__VA_ARGS__);                                                       \
			putchar('\n');                                                             \
			failures++;                                                                \
		}                                                                                  \
	} while (0)

/* Fields of two structs x and y that must be equal. */
#define SAME(field)                                                                                \
	CHECK(x->field == y->field, "%s: %llu, loaded %llu", what, (unsigned long long)x->field,   \
	      (unsigned long long)y->field)
#define SAME_BYTES(field) CHECK(!memcmp(&x->field, &y->field, sizeof(x->field)), "%s", what)

/* Lists: the number, then each pair. */
#define EACH_PAIR(vec, a, b, body)                                                                 \
	do {                                                                                       \
		CHECK((a)->vec.nr == (b)->vec.nr, "%s: %zu, loaded %zu", what, (a)->vec.nr, (b)->vec.nr); \
		for (size_t i = 0; i < (a)->vec.nr && i < (b)->vec.nr; i++) {                      \
			__typeof__((a)->vec.v) x = &(a)->vec.v[i], y = &(b)->vec.v[i];             \
			body;                                                                      \
		}                                                                                  \
	} while (0)

/* --- comparing --- */

static void same_pending(const char *what, const struct siginfo_raw *a, size_t na, const struct siginfo_raw *b,
			 size_t nb)
{
	CHECK(na == nb && (!na || !memcmp(a, b, na * sizeof(*a))), "%s: pending signals", what);
}

static void same_cpu(const char *what, const struct cpu *x, const struct cpu *y)
{
	SAME_BYTES(regs);
	SAME(fpu.len_bytes);
	if (!x->fpu.xsave || !y->fpu.xsave || x->fpu.len_bytes != y->fpu.len_bytes)
		return;
	for (uint32_t i = 0; i < x->fpu.len_bytes; i++) {
		if (x->fpu.xsave[i] == y->fpu.xsave[i])
			continue;
		CHECK(false, "%s: byte %u of the extended state: %02x, loaded %02x", what, i, x->fpu.xsave[i],
		      y->fpu.xsave[i]);
		return;
	}
}

static void same_creds(const char *what, const struct creds *x, const struct creds *y)
{
	CHECK(!memcmp(x, y, offsetof(struct creds, cap_inh)), "%s: ids", what);
	SAME(cap_inh);
	SAME(cap_prm);
	SAME(cap_eff);
	SAME(cap_bnd);
	SAME(cap_amb);
	SAME(securebits);
	SAME(no_new_privs);
	CHECK(x->groups.nr == y->groups.nr, "%s: groups", what);
	for (size_t i = 0; i < x->groups.nr && i < y->groups.nr; i++)
		CHECK(x->groups.v[i] == y->groups.v[i], "%s: group %zu", what, i);
}

static void same_thread(const char *what, const struct thread *x, const struct thread *y)
{
	SAME(tid);
	SAME(exited);
	SAME_BYTES(comm);
	same_cpu(what, &x->cpu, &y->cpu);
	SAME_BYTES(restart);
	SAME(sigmask);
	same_pending(what, x->pending.v, x->pending.nr, y->pending.v, y->pending.nr);
	SAME_BYTES(altstack);
	SAME(clear_tid);
	SAME(robust_list);
	SAME(robust_list_len);
	SAME_BYTES(rseq);
	same_creds(what, &x->creds, &y->creds);
	SAME(nice);
	SAME(sched_policy);
	SAME(sched_priority);
	SAME(pdeath_signal);
	SAME(seccomp_mode);
	SAME(seccomp_filter);
	SAME(timer_slack_ns);
	SAME_BYTES(affinity);
	SAME(ioprio);
	SAME(mce_kill);
	SAME(tsc);
	SAME(spec_store_bypass);
	SAME(spec_indirect_branch);
	SAME(io_flusher);
}

static void same_filters(const struct model *x, const struct model *y)
{
	const char *what = "seccomp filter";

	SAME(seccomp_filters.nr);
	for (size_t i = 0; i < x->seccomp_filters.nr && i < y->seccomp_filters.nr; i++) {
		const struct seccomp_filter *a = &x->seccomp_filters.v[i], *b = &y->seccomp_filters.v[i];

		CHECK(a->prev == b->prev && a->flags == b->flags && a->len_bytes == b->len_bytes &&
		      !memcmp(a->insns, b->insns, a->len_bytes), "seccomp filter %zu", i);
	}
}

static void same_task(const struct task *x, const struct task *y)
{
	char what[32];

	snprintf(what, sizeof(what), "pid %d", x->pid);
	SAME(pid);
	if (x->pid != ROOT)
		SAME(ppid);
	SAME(pgid);
	SAME(sid);
	SAME(state);
	SAME(exit_code);
	SAME(stop_signal);
	SAME(stop_reported);
	SAME(continued);
	SAME(personality);
	SAME(mm_id);
	SAME(files_id);
	SAME(fs_id);
	SAME(sighand_id);
	SAME_BYTES(sigactions);
	same_pending(what, x->pending.v, x->pending.nr, y->pending.v, y->pending.nr);
	SAME_BYTES(itimers);
	SAME_BYTES(rlimits);
	SAME(child_subreaper);
	SAME(oom_score_adj);
	SAME(autogroup_nice);
	SAME(membarrier);
	if (x->state != TASK_ZOMBIE)
		SAME(loginuid);
	SAME(exit_signal);
	SAME(ctty_id);
	SAME_BYTES(ns);
	SAME(cgroup_id);

	const struct task *a = x, *b = y;

	EACH_PAIR(timers, a, b, CHECK(!memcmp(x, y, sizeof(*x)), "%s: POSIX timer %d", what, x->id));
	EACH_PAIR(threads, a, b, same_thread(what, x, y));
}

static void same_pages(const char *what, const struct page_run *x, const struct page_run *y)
{
	SAME(start);
	SAME(nr_pages);
	SAME(flags);
	SAME(offset_bytes);
}

static void same_mm(const struct mm *x, const struct mm *y)
{
	char what[32];
	const struct mm *a = x, *b = y;

	snprintf(what, sizeof(what), "mm %u", x->id);
	SAME(id);
	SAME(pid);
	CHECK(!memcmp(&x->start_code, &y->start_code, offsetof(struct mm, auxv) - offsetof(struct mm, start_code)),
	      "%s: layout", what);
	SAME(exe_file_id);
	SAME(dumpable);
	SAME(thp_disabled);
	SAME(mdwe);
	SAME(merge_all);
	SAME(coredump_filter);
	SAME(pages_id);
	EACH_PAIR(auxv, a, b, CHECK(*x == *y, "%s: auxv %zu", what, i));
	EACH_PAIR(vmas, a, b, CHECK(!memcmp(x, y, sizeof(*x)), "%s: mapping %zu", what, i));
	EACH_PAIR(pages, a, b, same_pages(what, x, y));
}

static void same_inet(const char *what, const struct file *x, const struct file *y)
{
	SAME(inet.family);
	SAME(inet.type);
	SAME(inet.proto);
	SAME(inet.state);
	SAME(inet.port);
	SAME_BYTES(inet.addr);
	SAME(inet.backlog);
	SAME(inet.so_sndbuf);
	SAME(inet.so_rcvbuf);
	SAME(inet.so_priority);
	SAME(inet.so_mark);
	SAME(inet.so_rcvlowat);
	SAME(inet.so_rcvtimeo_us);
	SAME(inet.so_sndtimeo_us);
	SAME(inet.reuseaddr);
	SAME(inet.reuseport);
	SAME(inet.keepalive);
	SAME(inet.v6only);
	SAME(inet.nodelay);
	SAME(inet.freebind);
	SAME(inet.keepcnt);
	SAME(inet.keepidle);
	SAME(inet.keepintvl);
}

static void same_unix(const char *what, const struct file *x, const struct file *y)
{
	SAME(unix_sk.type);
	SAME(unix_sk.state);
	SAME(unix_sk.backlog);
	SAME_BYTES(unix_sk.name);
	SAME(unix_sk.name_len);
	SAME(unix_sk.so_sndbuf);
	SAME(unix_sk.so_rcvbuf);
	SAME(unix_sk.passcred);
	SAME(unix_sk.reuseaddr);
	SAME(unix_sk.peer_ino);
	SAME(unix_sk.peer_id);
	SAME(unix_sk.shutdown);
	SAME(unix_sk.cred_pid);
	SAME(unix_sk.cred_uid);
	SAME(unix_sk.cred_gid);
	SAME(unix_sk.len_bytes);
	CHECK(!x->unix_sk.len_bytes || !memcmp(x->unix_sk.data, y->unix_sk.data, x->unix_sk.len_bytes), "%s: data", what);
}

static void same_epoll(const char *what, const struct file *a, const struct file *b)
{
	EACH_PAIR(epoll.items, a, b, {
		SAME(fd);
		SAME(file_id);
		SAME(events);
		SAME(data);
		SAME(ino);
		SAME(dev);
		SAME(pos);
	});
}

static void same_file(const struct file *x, const struct file *y)
{
	char what[48];

	snprintf(what, sizeof(what), "file %u of type %d", x->id, x->type);
	SAME(id);
	SAME(type);
	SAME(flags);
	SAME(pos);
	SAME_BYTES(fown);
	CHECK(!x->path == !y->path && (!x->path || (y->path && !strcmp(x->path, y->path))), "%s: path %s, loaded %s",
	      what, x->path ? x->path : "-", y->path ? y->path : "-");
	switch (x->type) {
	case FILE_REG:
		SAME(reg.size_bytes);
		SAME(reg.mode);
		SAME(reg.rdev);
		SAME(reg.ghost_id);
		break;
	case FILE_PIPE:
	case FILE_FIFO:
		SAME(pipe.pipe_id);
		break;
	case FILE_EVENTFD:
		SAME(eventfd.counter);
		SAME(eventfd.semaphore);
		break;
	case FILE_EPOLL:
		same_epoll(what, x, y);
		break;
	case FILE_TIMERFD:
		SAME(timerfd.clockid);
		SAME(timerfd.ticks);
		SAME(timerfd.settime_flags);
		SAME(timerfd.value_ns);
		SAME(timerfd.interval_ns);
		SAME(timerfd.date_ns);
		break;
	case FILE_SIGNALFD:
		SAME(signalfd.mask);
		break;
	case FILE_MEMFD:
		SAME(memfd.shmem_id);
		break;
	case FILE_TTY:
		SAME(tty.tty_id);
		break;
	case FILE_INET:
		same_inet(what, x, y);
		break;
	case FILE_UNIX:
		same_unix(what, x, y);
		break;
	default:
		CHECK(false, "%s: not compared", what);
	}
}

static void same_fs(const char *what, const struct fs *x, const struct fs *y)
{
	SAME(id);
	SAME(pid);
	SAME(cwd_file_id);
	SAME(root_file_id);
	SAME(umask);
}

static void same_pipe(const char *what, const struct pipe *x, const struct pipe *y)
{
	SAME(id);
	SAME(size_bytes);
	SAME(len_bytes);
	CHECK(!x->len_bytes || x->len_bytes != y->len_bytes || !memcmp(x->data, y->data, x->len_bytes), "%s: data",
	      what);
}

static void same_shmem(const char *what, const struct shmem *a, const struct shmem *b)
{
	const struct shmem *x = a, *y = b;

	SAME(id);
	SAME(sort);
	SAME(size_bytes);
	SAME(huge_bytes);
	CHECK(!x->name == !y->name && (!x->name || !strcmp(x->name, y->name)), "%s: name", what);
	SAME(seals);
	SAME(uid);
	SAME(gid);
	SAME(mode);
	SAME_BYTES(sysv);
	SAME(pages_id);
	EACH_PAIR(pages, a, b, same_pages(what, x, y));
}

static void same_ghost(const struct ghost *a, const struct ghost *b)
{
	const struct ghost *x = a, *y = b;
	const char *what = "file without a name";

	SAME(id);
	SAME(parent_id);
	SAME(uid);
	SAME(gid);
	SAME(mode);
	SAME(dev);
	SAME(ino);
	SAME(atime_us);
	SAME(mtime_us);
	SAME(size_bytes);
	EACH_PAIR(pieces, a, b, {
		SAME(offset_bytes);
		SAME(len_bytes);
		CHECK(x->len_bytes != y->len_bytes || !memcmp(x->data, y->data, x->len_bytes), "%s: contents", what);
	});
}

static void same_model(const struct model *a, const struct model *b)
{
	const char *what = "model";

	same_filters(a, b);
	EACH_PAIR(tasks, a, b, same_task(x, y));
	EACH_PAIR(mms, a, b, same_mm(*x, *y));
	EACH_PAIR(shmems, a, b, same_shmem("shared memory", *x, *y));
	EACH_PAIR(ghosts, a, b, same_ghost(*x, *y));
	EACH_PAIR(fss, a, b, same_fs("fs", *x, *y));
	EACH_PAIR(files, a, b, same_file(*x, *y));
	EACH_PAIR(pipes, a, b, same_pipe("pipe", *x, *y));
	EACH_PAIR(ttys, a, b, CHECK(!memcmp(*x, *y, sizeof(**x)), "terminal %u", (*x)->id));
	CHECK(a->fdtables.nr == b->fdtables.nr, "tables %zu, loaded %zu", a->fdtables.nr, b->fdtables.nr);
	for (size_t i = 0; i < a->fdtables.nr && i < b->fdtables.nr; i++) {
		const struct fdtable *ta = a->fdtables.v[i], *tb = b->fdtables.v[i];

		what = "descriptors";
		EACH_PAIR(fds, ta, tb, {
			SAME(fd);
			SAME(file_id);
			SAME(cloexec);
		});
	}
	const struct model *x = a, *y = b;

	SAME(uptime_us);
	SAME_BYTES(clocks);
	SAME_BYTES(root_ns);
}

/* --- sets in directories --- */

static int write_set(int dirfd, struct model *m, struct image_set **ret)
{
	int err = image_set_create(dirfd, "dir", NULL, ret);

	if (!err)
		err = write_pages(m, *ret);
	if (!err)
		err = image_set_save(*ret, m);
	return err;
}

static int write_and_commit(int dirfd, struct model *m)
{
	struct image_set *set = NULL;
	int err = write_set(dirfd, m, &set);

	if (!err)
		err = image_set_commit(set);
	if (err)
		image_set_abort(set);
	else
		image_set_close(set);
	return err;
}

/* A set with the model, and one above it that has the parent's pages but for a few. */
static int write_chain(int base_fd, int child_fd, const char *link)
{
	struct model *m = make_model();
	struct image_set *set = NULL;
	int err = write_and_commit(base_fd, m);

	if (!err)
		err = image_set_create(child_fd, "child", link, &set);
	if (!err)
		err = write_child_pages(m, set);
	if (!err)
		err = image_set_save(set, m);
	if (!err)
		err = image_set_commit(set);
	if (err)
		image_set_abort(set);
	else
		image_set_close(set);
	model_destroy(m);
	return err;
}

static bool has(int dirfd, const char *name)
{
	return !faccessat(dirfd, name, F_OK, 0);
}

static bool is_image(const char *name)
{
	const char *suffix = strrchr(name, '.');

	return suffix && (!strcmp(suffix, ".img") || !strcmp(suffix, ".bcr"));
}

static void put(int dirfd, const char *name, const char *text)
{
	int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text), "%s", name);
	close(fd);
}

static int new_dir(const char *name)
{
	mkdir(name, 0755);
	return open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static void test_equal(void)
{
	_cleanup_close_ int dirfd = new_dir("equal");
	struct model *m = make_model(), *loaded = NULL;
	int fd, err = write_and_commit(dirfd, m);
	char page[MODEL_PAGE_SIZE];

	CHECK(!err, "write: %d", err);
	err = images_load(dirfd, "dir", &loaded);
	CHECK(!err, "load: %d", err);
	if (!err)
		same_model(m, loaded);
	if (!images_open_pages(dirfd, 1, &fd)) {
		CHECK(pread(fd, page, sizeof(page), 5 * sizeof(page)) == sizeof(page) && page[0] == 0x33,
		      "the last page");
		close(fd);
	}
	model_destroy(loaded);

	CHECK(!has(dirfd, ".bcr-writing") && !has(dirfd, ".bcr-commit"), "temporary directories are left");
	model_destroy(m);
}

/* Loads what is in the directory and tells sets apart by their uptime; 0 when there is none. */
static uint64_t set_in(int dirfd)
{
	struct model *m;
	uint64_t uptime;

	if (images_load(dirfd, "dir", &m))
		return 0;
	uptime = m->uptime_us;
	model_destroy(m);
	return uptime;
}

static void check_page_bytes(int dirfd, uint32_t pages_id, const page_runs *runs, taddr_t addr, uint8_t fill, uint32_t flag)
{
	struct pages_reader r = { .dirfd = dirfd, .pages_id = pages_id };
	uint8_t page[MODEL_PAGE_SIZE] = {};
	bool found = false;

	VEC_FOREACH(run, runs) {
		if (addr < run->start || addr >= run->start + run->nr_pages * MODEL_PAGE_SIZE)
			continue;
		found = run->flags == flag && !pages_reader_read(&r, run, addr - run->start, page, sizeof(page));
	}
	CHECK(found && page[0] == fill && page[sizeof(page) - 1] == fill, "page at %llx", (unsigned long long)addr);
	pages_reader_close(&r);
}

static void test_parent(void)
{
	_cleanup_close_ int base_fd = new_dir("base"), child_fd = new_dir("child");
	struct model *m = NULL;

	CHECK(!write_chain(base_fd, child_fd, "../base"), "write");
	CHECK(!images_load(child_fd, "child", &m), "load");
	if (!m)
		return;
	const struct mm *mm = m->mms.v[0];
	const struct shmem *shmem = m->shmems.v[0];
	check_page_bytes(child_fd, mm->pages_id, &mm->pages, 0x501000, 0x11, PAGES_PARENT);
	check_page_bytes(child_fd, mm->pages_id, &mm->pages, 0x503000, 0x22, PAGES_PARENT);
	check_page_bytes(child_fd, mm->pages_id, &mm->pages, 0x504000, 0x55, PAGES_PRESENT);
	check_page_bytes(child_fd, mm->pages_id, &mm->pages, 0x7ffffffde000, 0x66, PAGES_PRESENT);
	check_page_bytes(child_fd, mm->pages_id, &mm->pages, 0x7ffffffdf000, 0x33, PAGES_PARENT);
	check_page_bytes(child_fd, shmem->pages_id, &shmem->pages, 0x2000, 0x44, PAGES_PARENT);
	VEC_FOREACH(run, &mm->pages)
		CHECK(run->start != 0x505000 && run->start + (run->nr_pages - 1) * MODEL_PAGE_SIZE != 0x505000, "a page that is gone");
	model_destroy(m);
}

static void test_older_set(void)
{
	_cleanup_close_ int dirfd = new_dir("older");
	struct model *m = make_model();
	struct image_set *set = NULL, *second;

	m->uptime_us = 1;
	put(dirfd, "dump.log", "a log\n");
	put(dirfd, "descriptors.json", "[]");
	put(dirfd, "pages-foo.img", "foreign");
	CHECK(!write_and_commit(dirfd, m), "first set");
	put(dirfd, "filelocks.img", "stale");
	put(dirfd, "core-999.img", "stale");
	put(dirfd, "tcp-stream-1f.img", "stale");

	m->uptime_us = 2;
	CHECK(!write_set(dirfd, m, &set), "second set");
	CHECK(set_in(dirfd) == 1, "while the second set is being written");
	CHECK(image_set_create(dirfd, "dir", NULL, &second) == -EBUSY, "two writers at once");
	image_set_abort(set);
	CHECK(set_in(dirfd) == 1 && has(dirfd, "core-999.img"), "after the second set was given up");

	CHECK(!write_set(dirfd, m, &set) && !image_set_commit(set), "third set");
	image_set_close(set);
	CHECK(set_in(dirfd) == 2, "after the commit");
	CHECK(!has(dirfd, "filelocks.img") && !has(dirfd, "core-999.img") && !has(dirfd, "tcp-stream-1f.img"),
	      "files of the older set are left");
	CHECK(has(dirfd, "dump.log") && has(dirfd, "descriptors.json") && has(dirfd, "pages-foo.img"),
	      "foreign files are gone");
	image_set_abort(NULL);
	model_destroy(m);
}

static void test_killed_writer(void)
{
	_cleanup_close_ int dirfd = new_dir("killed");
	struct model *m = make_model();
	struct image_set *set;
	pid_t pid;

	m->uptime_us = 1;
	CHECK(!write_and_commit(dirfd, m), "first set");
	pid = fork();
	if (!pid) {
		m->uptime_us = 2;
		if (write_set(dirfd, m, &set))
			_exit(1);
		kill(getpid(), SIGKILL);
	}
	waitpid(pid, NULL, 0);
	CHECK(has(dirfd, ".bcr-writing") && set_in(dirfd) == 1, "after a writer was killed");
	m->uptime_us = 3;
	CHECK(!write_and_commit(dirfd, m), "the next writer");
	CHECK(set_in(dirfd) == 3 && !has(dirfd, ".bcr-writing"), "after the next writer");
	model_destroy(m);
}

/* A commit stopped after each of its steps is finished by the next reader. */
static void test_killed_commit(void)
{
	struct model *m = make_model();

	for (int step = 0;; step++) {
		char name[32];
		struct image_set *set = NULL;

		snprintf(name, sizeof(name), "commit%d", step);
		_cleanup_close_ int dirfd = new_dir(name);
		m->uptime_us = 1;
		CHECK(!write_and_commit(dirfd, m), "first set");
		put(dirfd, "core-999.img", "stale");
		m->uptime_us = 2;
		CHECK(!write_set(dirfd, m, &set), "second set");

		/* What image_set_commit() does, cut off after `step` moves. */
		_cleanup_close_ int new_fd = openat(dirfd, ".bcr-writing", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		int left = step;

		renameat(dirfd, ".bcr-writing", dirfd, ".bcr-commit");
		if (left-- > 0) {
			DIR *d = fdopendir(openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));

			unlinkat(dirfd, "inventory.img", 0);
			for (struct dirent *e; (e = readdir(d));) {
				if (is_image(e->d_name))
					unlinkat(dirfd, e->d_name, 0);
			}
			closedir(d);
			put(new_fd, "older-set-removed", "");
			d = fdopendir(openat(new_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
			for (struct dirent *e; left > 0 && (e = readdir(d));) {
				if (!is_image(e->d_name) || !strcmp(e->d_name, "inventory.img"))
					continue;
				renameat(new_fd, e->d_name, dirfd, e->d_name);
				left--;
			}
			closedir(d);
			if (left-- > 0)
				renameat(new_fd, "inventory.img", dirfd, "inventory.img");
			if (left-- > 0)
				unlinkat(new_fd, "older-set-removed", 0);
		}
		/* The lock must be gone, as it is when the writer was killed. */
		image_set_close(set);
		CHECK(set_in(dirfd) == 2, "after a commit cut off at step %d", step);
		CHECK(!has(dirfd, ".bcr-commit") && !has(dirfd, "core-999.img"), "step %d left something", step);
		if (left > 0)
			break;
	}
	model_destroy(m);
}

/* --- damaged sets --- */

struct image_file {
	char name[64];
	uint8_t *data;
	uint32_t len;
};

static size_t read_files(int dirfd, struct image_file *files, size_t max)
{
	DIR *d = fdopendir(openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	size_t nr = 0;

	for (struct dirent *e; nr < max && (e = readdir(d));) {
		struct stat st;

		if (!is_image(e->d_name) || nr == max || fstatat(dirfd, e->d_name, &st, 0))
			continue;

		struct image_file *f = &files[nr++];
		_cleanup_close_ int fd = openat(dirfd, e->d_name, O_RDONLY | O_CLOEXEC);

		snprintf(f->name, sizeof(f->name), "%.63s", e->d_name);
		f->len = st.st_size;
		f->data = malloc(f->len + 1);
		if (read(fd, f->data, f->len) != (ssize_t)f->len)
			abort();
	}
	closedir(d);
	return nr;
}

/* Files as the loader sees them, with one of them replaced. */
struct altered {
	const struct image_file *files;
	size_t nr, which;
	const uint8_t *data;
	uint32_t len;
	bool gone;
};

static const struct image_file *altered_find(const struct altered *a, const char *name, bool *which)
{
	for (size_t i = 0; i < a->nr; i++) {
		if (strcmp(a->files[i].name, name))
			continue;
		*which = i == a->which;
		return *which && a->gone ? NULL : &a->files[i];
	}
	return NULL;
}

static int altered_read(const struct image_source *src, const char *name, uint8_t **ret, size_t *ret_len)
{
	const struct altered *a = src->arg;
	bool which;
	const struct image_file *f = altered_find(a, name, &which);

	if (!f)
		return -ENOENT;
	*ret_len = which ? a->len : f->len;
	*ret = malloc(*ret_len + 1);
	memcpy(*ret, which ? a->data : f->data, *ret_len);
	return 0;
}

static int altered_size(const struct image_source *src, const char *name, uint64_t *ret)
{
	const struct altered *a = src->arg;
	bool which;
	const struct image_file *f = altered_find(a, name, &which);

	if (!f)
		return -ENOENT;
	*ret = which ? a->len : f->len;
	return 0;
}

static bool loads(struct altered *a)
{
	struct image_source src = { .path = "dir", .read = altered_read, .size = altered_size, .arg = a };
	struct model *m;

	if (images_load_from(&src, &m))
		return false;
	model_destroy(m);
	return true;
}

/* Loads, and equals the original? */
static bool loads_equal(struct altered *a, const struct model *original)
{
	struct image_source src = { .path = "dir", .read = altered_read, .size = altered_size, .arg = a };
	struct model *m;
	unsigned before = failures;

	if (images_load_from(&src, &m))
		return true;
	same_model(original, m);
	model_destroy(m);
	return failures == before;
}

/*
 * Without the manifest, as in a set of CRIU's, not all damage can be noticed: then loading must only return. `stride`
 * leaves bytes out, because each trial loads the whole set.
 */
static void try_damage(struct altered *a, const struct image_file *f, const struct model *original, bool manifest,
		       uint32_t stride)
{
	uint8_t *copy = malloc(f->len + 1);

	memcpy(copy, f->data, f->len);
	a->data = copy;
	for (a->len = 0; a->len < f->len; a->len += stride) {
		bool loaded = loads(a);

		CHECK(!manifest || !loaded, "%s cut off at %u of %u loads", f->name, a->len, f->len);
	}
	a->len = f->len;
	a->gone = true;
	CHECK(!manifest || !loads(a) || !strcmp(f->name, "bcr-manifest.bcr"), "%s missing loads", f->name);
	a->gone = false;
	for (uint32_t at = 0; at < f->len && strncmp(f->name, "pages-", 6); at += stride) {
		copy[at] ^= 1u << at % 8;
		if (manifest)
			CHECK(loads_equal(a, original), "%s with byte %u changed loads as something else", f->name, at);
		else
			loads(a);
		copy[at] = f->data[at];
	}
	free(copy);
}

static void test_damaged(void)
{
	_cleanup_close_ int dirfd = new_dir("equal");
	struct image_file files[64];
	size_t nr = read_files(dirfd, files, 64);
	struct model *original = NULL;
	struct altered a = { files, nr, SIZE_MAX, NULL, 0, false };

	CHECK(nr > 20 && loads(&a), "%zu files", nr);
	images_load(dirfd, "dir", &original);
	for (size_t i = 0; original && i < nr; i++) {
		a.which = i;
		try_damage(&a, &files[i], original, true, files[i].len > 8000 ? 97 : files[i].len > 500 ? 7 : 1);
	}
	for (size_t i = 0; i < nr; i++) {
		if (!strcmp(files[i].name, "bcr-manifest.bcr"))
			strcpy(files[i].name, "-");
	}
	for (size_t i = 0; i < nr; i++) {
		a.which = i;
		try_damage(&a, &files[i], NULL, false, files[i].len > 8000 ? 499 : 5);
	}
	model_destroy(original);
	for (size_t i = 0; i < nr; i++)
		free(files[i].data);
}

/* --- writing a set for others --- */

static int write_dir(const char *path)
{
	_cleanup_close_ int dirfd = new_dir(path);
	struct model *m = make_model();
	int err = write_and_commit(dirfd, m);

	model_destroy(m);
	return err ? 1 : 0;
}

static void pack_file(FILE *out, const char *name, const void *data, uint32_t len, bool with_data)
{
	uint8_t name_len = strlen(name);

	fwrite(&name_len, 1, 1, out);
	fwrite(name, 1, name_len, out);
	fwrite(&len, 4, 1, out);
	if (with_data)
		fwrite(data, 1, len, out);
}

/* Without the list of files: with it the loader would refuse whatever the fuzzer changes. */
static void pack_dir(FILE *out, int dirfd)
{
	struct image_file files[64];
	size_t nr = read_files(dirfd, files, 64);

	for (size_t i = 0; i < nr; i++) {
		if (strcmp(files[i].name, "bcr-manifest.bcr"))
			pack_file(out, files[i].name, files[i].data, files[i].len, strncmp(files[i].name, "pages-", 6) != 0);
		free(files[i].data);
	}
}

static int write_seed(const char *path)
{
	_cleanup_close_ int dirfd = new_dir("seed-set");
	struct model *m = make_model();
	FILE *out = fopen(path, "w");

	if (!out || write_and_commit(dirfd, m))
		return 1;
	pack_dir(out, dirfd);
	model_destroy(m);
	return fclose(out) ? 1 : 0;
}

static int write_child_seed(const char *path)
{
	_cleanup_close_ int base_fd = new_dir("seed-base"), child_fd = new_dir("seed-child");
	FILE *out = fopen(path, "w");
	char *base = NULL;
	size_t len;

	if (!out || write_chain(base_fd, child_fd, "../seed-base"))
		return 1;

	FILE *in_memory = open_memstream(&base, &len);

	pack_dir(in_memory, base_fd);
	fclose(in_memory);
	pack_dir(out, child_fd);
	pack_file(out, "parent", base, len, true);
	free(base);
	return fclose(out) ? 1 : 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "--write"))
		return write_dir(argv[2]);
	if (argc == 3 && !strcmp(argv[1], "--seed"))
		return write_seed(argv[2]);
	if (argc == 3 && !strcmp(argv[1], "--seed-child"))
		return write_child_seed(argv[2]);

	char dir[] = "/tmp/image_roundtrip.XXXXXX";

	if (!mkdtemp(dir) || chdir(dir)) {
		perror(dir);
		return 1;
	}
	test_equal();
	test_parent();
	/* Refusals are expected from here on: they would be thousands of lines. */
	_cleanup_close_ int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

	log_set_fd(null);
	log_set_err_fd(-1);
	test_older_set();
	test_killed_writer();
	test_killed_commit();
	test_damaged();

	char command[64];

	snprintf(command, sizeof(command), "rm -rf %s", dir);
	if (chdir("/") || system(command))
		failures++;
	printf(failures ? "%u differences\n" : "PASS\n", failures);
	return failures != 0;
}
