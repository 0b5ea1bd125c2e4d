/* A process tree made by hand, with every class of object and every kind of file. For the image tests and the fuzzer's seed. */
#ifndef BCR_TESTS_IMAGE_MODEL_H
#define BCR_TESTS_IMAGE_MODEL_H

#include <cpuid.h>
#include <fcntl.h>
#include <linux/mman.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include "image/image.h"
#include "model/model.h"

enum { ROOT = 100, THREAD = 101, CHILD = 110, SHARER = 120, LEFT = 121, ZOMBIE = 130 };

static inline uint32_t xsave_size(void)
{
	unsigned a, b, c, d;

	return __get_cpuid_count(0xd, 0, &a, &b, &c, &d) ? b : 576;
}

/* A pattern in every register; components beyond SSE that this processor has, by CPUID. */
static inline void make_cpu(struct cpu *cpu, uint8_t seed)
{
	uint64_t *reg = (uint64_t *)&cpu->regs, bv = 3;
	uint32_t len = xsave_size(), mxcsr = 0x1f80, mask = 0xffbf;
	uint8_t fx[512] __attribute__((aligned(16))), *area = calloc(1, len);

	for (size_t i = 0; i < sizeof(cpu->regs) / 8; i++)
		reg[i] = 0x1000000000ULL * seed + i;
	cpu->regs.cs = 0x33;
	cpu->regs.ss = 0x2b;
	cpu->regs.ds = cpu->regs.es = cpu->regs.fs = cpu->regs.gs = 0;
	for (uint32_t i = 0; i < 416 && i < len; i++)
		area[i] = seed + i;
	__asm__ volatile("fxsave64 %0" : "=m"(fx));
	memcpy(&mask, fx + 28, 4);
	memcpy(area + 24, &mxcsr, 4);
	memcpy(area + 28, &mask, 4);
	for (unsigned i = 2; i < 10; i++) {
		unsigned size = 0, at = 0, c, d, lo, hi;

		__asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
		if (!(lo & 1u << i))
			continue;
		__cpuid_count(0xd, i, size, at, c, d);
		for (unsigned k = 0; k < size; k++)
			area[at + k] = seed + i + k;
		bv |= 1u << i;
	}
	memcpy(area + 512, &bv, 8);
	cpu->fpu.xsave = area;
	cpu->fpu.len_bytes = len;
}

static inline struct siginfo_raw make_siginfo(int signo, int value)
{
	struct siginfo_raw raw = {};
	siginfo_t si = {};

	si.si_signo = signo;
	si.si_code = SI_QUEUE;
	si.si_pid = 77;
	si.si_value.sival_int = value;
	memcpy(raw.bytes, &si, sizeof(raw.bytes));
	return raw;
}

static inline void make_thread(struct task *t, pid_t tid, uint8_t seed)
{
	struct thread *th = VEC_ADD(&t->threads);

	th->tid = tid;
	snprintf(th->comm, sizeof(th->comm), "thread %d", tid);
	make_cpu(&th->cpu, seed);
	th->sigmask = 0x8000000000000200ULL + seed;
	VEC_PUSH(&th->pending, make_siginfo(SIGRTMIN + 1, seed));
	VEC_PUSH(&th->pending, make_siginfo(SIGRTMIN + 1, seed + 1));
	th->altstack.sp = 0x7f0000001000;
	th->altstack.size_bytes = 8192;
	th->altstack.flags = 2;
	th->clear_tid = 0x7f0000000010 + seed;
	th->robust_list = 0x7f0000000020 + seed;
	th->robust_list_len = 24;
	th->rseq.ptr = 0x7f0000000040;
	th->rseq.len_bytes = 32;
	th->rseq.sig = 0x53053053;
	th->creds = (struct creds){ .uid = 1000, .gid = 1001, .euid = 1002, .egid = 1003, .suid = 1004,
				    .sgid = 1005, .fsuid = 1006, .fsgid = 1007, .cap_inh = 0x1,
				    .cap_prm = 0x1ffffffffff, .cap_eff = 0x100000002, .cap_bnd = 0x1fffffffffe,
				    .cap_amb = 0x1, .securebits = 0x10, .no_new_privs = true };
	VEC_PUSH(&th->creds.groups, 4);
	VEC_PUSH(&th->creds.groups, 1000);
	th->nice = -5;
	th->sched_policy = SCHED_BATCH;
	th->pdeath_signal = SIGHUP;
	th->timer_slack_ns = 50000 + seed;
	th->affinity[0] = 3;
	th->affinity[127] = 0x80;
	if (seed % 2) {
		th->ioprio = 0x4007;
		th->mce_kill = 1 + seed % 3 / 2;
		th->tsc = 2;
		th->spec_store_bypass = 8;
		th->spec_indirect_branch = 4;
		th->io_flusher = true;
	}
	if (seed % 2)
		th->restart = (struct restart){ RESTART_NANOSLEEP, 230, CLOCK_MONOTONIC, 123456789 };
}

/* Loads that nobody needs, then "allow". */
static inline void add_filter(struct model *m, uint32_t prev, uint32_t nr_loads)
{
	struct seccomp_filter *f = VEC_ADD(&m->seccomp_filters);

	f->prev = prev;
	f->flags = nr_loads ? 2 : 0;
	f->len_bytes = 8 * (nr_loads + 1);
	f->insns = calloc(nr_loads + 1, 8);
	for (uint32_t i = 0; i < nr_loads; i++)
		memcpy(f->insns + 8 * i, "\x20\x00\x00\x00\x04\x00\x00\x00", 8);
	memcpy(f->insns + 8 * nr_loads, "\x06\x00\x00\x00\x00\x00\xff\x7f", 8);
}

/* The main thread exits, and leaves the process to others. */
static inline void exit_thread(struct task *t, uint32_t exit_code)
{
	struct thread *th = &t->threads.v[0];

	free(th->cpu.fpu.xsave);
	memset(&th->cpu, 0, sizeof(th->cpu));
	th->clear_tid = 0;
	th->exited = true;
	t->exit_code = exit_code;
}

static inline struct task *make_task(struct model *m, pid_t pid, pid_t ppid, uint32_t mm_id,
				     uint32_t files_id, uint32_t fs_id)
{
	struct task *t = VEC_ADD(&m->tasks);

	t->pid = pid;
	t->ppid = ppid;
	t->pgid = t->sid = ROOT;
	t->state = TASK_ALIVE;
	t->personality = 0x0040000;
	t->mm_id = mm_id;
	t->files_id = files_id;
	t->fs_id = fs_id;
	t->sighand_id = model_new_id(m);
	for (int i = 0; i < MODEL_NSIG; i++) {
		if (i + 1 != SIGKILL && i + 1 != SIGSTOP)
			t->sigactions[i] = (struct sigaction_raw){ 0x400000 + i, SA_RESTART | 0x04000000,
								   0x401000, i };
	}
	VEC_PUSH(&t->pending, make_siginfo(SIGUSR1, 1));
	t->itimers[0] = (struct itimer){ 1000001, 2500000 };
	t->itimers[2] = (struct itimer){ 0, 7 };
	for (int i = 0; i < MODEL_NR_RLIMITS; i++)
		t->rlimits[i] = (struct rlimit_raw){ 1000 + i, i % 2 ? UINT64_MAX : 2000 };
	t->child_subreaper = pid == ROOT;
	t->oom_score_adj = -500;
	t->autogroup_nice = pid == ROOT ? -7 : 0;
	t->membarrier = pid == ROOT ? 0x154 : 0;
	t->loginuid = UINT32_MAX;
	t->exit_signal = pid == CHILD ? SIGUSR2 : SIGCHLD;
	t->cgroup_id = 4711;
	t->ns.pid = 1, t->ns.net = 2, t->ns.ipc = 3, t->ns.uts = 4;
	t->ns.mnt = 5, t->ns.user = 6, t->ns.cgroup = 7, t->ns.time = 8;
	return t;
}

static inline struct file *make_file(struct model *m, enum file_type type, const char *path)
{
	struct file *f = model_add_file(m, 0);

	f->type = type;
	f->flags = O_RDWR | O_NONBLOCK;
	f->fown = (struct fown){ 1, 2, SIGIO, 1, ROOT };
	f->path = path ? strdup(path) : NULL;
	return f;
}

static inline struct file *make_reg(struct model *m, const char *path, uint32_t mode)
{
	struct file *f = make_file(m, FILE_REG, path);

	f->flags = S_ISDIR(mode) ? O_RDONLY | O_DIRECTORY : O_RDWR | O_APPEND;
	f->pos = 12345;
	f->reg.mode = mode;
	f->reg.mnt_id = -1;
	if (S_ISREG(mode))
		f->reg.size_bytes = 1 << 20;
	if (S_ISCHR(mode))
		f->reg.rdev = 1 << 20 | 3;
	return f;
}

static inline struct pipe *make_pipe(struct model *m, uint32_t len_bytes)
{
	struct pipe *p = model_add_pipe(m, 0);

	p->size_bytes = 131072;
	p->len_bytes = len_bytes;
	p->data = len_bytes ? malloc(len_bytes) : NULL;
	for (uint32_t i = 0; i < len_bytes; i++)
		p->data[i] = i * 7;
	p->captured = true;
	return p;
}

static inline struct tty *make_tty(struct model *m)
{
	struct tty *tty = model_add_tty(m, 0);

	tty->type = TTY_PTY;
	tty->index = 5;
	tty->rdev = 136 << 20 | 5;
	tty->sid = tty->pgrp = ROOT;
	tty->exclusive = true;
	tty->has_termios = tty->has_winsize = tty->has_master = true;
	for (int i = 0; i < 44; i++)
		tty->termios[i] = i + 1;
	tty->winsize.row = 24;
	tty->winsize.col = 80;
	tty->winsize.xpixel = 65535;
	return tty;
}

static inline void make_sockets(struct model *m, struct file *ret[2])
{
	struct file *in = make_file(m, FILE_INET, NULL), *un = make_file(m, FILE_UNIX, NULL);

	in->inet.ino = 9001;
	in->inet.family = AF_INET6;
	in->inet.type = SOCK_STREAM;
	in->inet.proto = 6;
	in->inet.state = 10;
	in->inet.port = 8080;
	in->inet.addr[0] = 0xfe80;
	in->inet.addr[3] = 0x01000000;
	in->inet.backlog = 128;
	in->inet.so_sndbuf = 16384;
	in->inet.so_rcvbuf = 131072;
	in->inet.so_rcvlowat = 1;
	in->inet.so_rcvtimeo_us = 1500000;
	in->inet.reuseaddr = in->inet.v6only = in->inet.keepalive = in->inet.nodelay = true;
	in->inet.keepcnt = 9;
	in->inet.keepidle = 7200;
	in->inet.keepintvl = 75;
	un->unix_sk.ino = 9002;
	un->unix_sk.type = SOCK_STREAM;
	un->unix_sk.state = 10;
	un->unix_sk.backlog = 5;
	memcpy(un->unix_sk.name, "\0abstract", 9);
	un->unix_sk.name_len = 9;
	un->unix_sk.so_sndbuf = un->unix_sk.so_rcvbuf = 212992;
	un->unix_sk.passcred = un->unix_sk.reuseaddr = true;
	ret[0] = in;
	ret[1] = un;
}

/* A pair of Unix sockets; bytes wait in one of them, and the third has lost its other end. */
static inline void make_pair(struct model *m, struct file *ret[3])
{
	for (uint32_t i = 0; i < 3; i++) {
		struct file *f = ret[i] = make_file(m, FILE_UNIX, NULL);

		f->unix_sk.ino = 9010 + i;
		f->unix_sk.type = SOCK_STREAM;
		f->unix_sk.state = 1;
		f->unix_sk.so_sndbuf = f->unix_sk.so_rcvbuf = 212992;
		f->unix_sk.cred_pid = 1234;
		f->unix_sk.cred_uid = 1000;
		f->unix_sk.cred_gid = 1001;
	}
	ret[0]->unix_sk.peer_ino = 9011;
	ret[0]->unix_sk.peer_id = ret[1]->id;
	ret[1]->unix_sk.peer_ino = 9010;
	ret[1]->unix_sk.peer_id = ret[0]->id;
	ret[1]->unix_sk.shutdown = 2;
	ret[2]->unix_sk.shutdown = 3;
	ret[1]->unix_sk.len_bytes = 70000;
	ret[1]->unix_sk.data = malloc(70000);
	for (uint32_t i = 0; i < 70000; i++)
		ret[1]->unix_sk.data[i] = i * 7;
}

static inline void add_fd(struct fdtable *t, int fd, const struct file *f, bool cloexec)
{
	struct fd d = { fd, f->id, cloexec };

	VEC_PUSH(&t->fds, d);
}

/* Every kind, in descriptors 0 and up. */
static inline struct fdtable *make_files(struct model *m, struct tty *tty)
{
	struct fdtable *t = model_add_fdtable(m, 0);
	struct file *f, *sk[2], *pair[3];
	struct pipe *p = make_pipe(m, 5000);
	int fd = 0;

	f = make_file(m, FILE_TTY, "/dev/pts/5");
	f->tty.tty_id = tty->id;
	add_fd(t, fd++, f, false);
	add_fd(t, fd++, f, true);
	add_fd(t, fd++, make_reg(m, "/tmp/data", S_IFREG | 0644), false);
	add_fd(t, fd++, make_reg(m, "/dev/null", S_IFCHR | 0666), false);
	f = make_file(m, FILE_PIPE, NULL);
	f->flags = O_RDONLY;
	f->pipe.pipe_id = p->id;
	VEC_PUSH(&p->files, f->id);
	add_fd(t, fd++, f, false);
	f = make_file(m, FILE_PIPE, NULL);
	f->flags = O_WRONLY;
	f->pipe.pipe_id = p->id;
	VEC_PUSH(&p->files, f->id);
	add_fd(t, fd++, f, false);
	f = make_file(m, FILE_FIFO, "/tmp/fifo");
	p = make_pipe(m, 3);
	f->pipe.pipe_id = p->id;
	VEC_PUSH(&p->files, f->id);
	add_fd(t, fd++, f, false);

	struct file *efd = make_file(m, FILE_EVENTFD, NULL);

	efd->eventfd.counter = 42;
	efd->eventfd.semaphore = true;
	add_fd(t, fd, efd, false);
	f = make_file(m, FILE_EPOLL, NULL);
	f->flags = O_RDWR;
	struct epoll_item item = { .fd = fd++, .file_id = efd->id, .events = EPOLLIN | EPOLLET, .data = ~7ULL,
				   .ino = 55, .dev = 14 };
	VEC_PUSH(&f->epoll.items, item);
	item = (struct epoll_item){ .fd = 200, .events = EPOLLOUT, .data = 8, .ino = 56, .dev = 14 };
	VEC_PUSH(&f->epoll.items, item);
	add_fd(t, fd++, f, true);
	f = make_file(m, FILE_TIMERFD, NULL);
	f->timerfd.clockid = CLOCK_MONOTONIC;
	f->timerfd.ticks = 3;
	f->timerfd.value_ns = 1500000001;
	f->timerfd.interval_ns = 999999999;
	f->timerfd.date_ns = 1800000000123456789;
	add_fd(t, fd++, f, false);
	f = make_file(m, FILE_SIGNALFD, NULL);
	f->signalfd.mask = 0x8000000000000201;
	add_fd(t, fd++, f, false);
	make_sockets(m, sk);
	add_fd(t, fd++, sk[0], false);
	add_fd(t, 1000, sk[1], false);
	make_pair(m, pair);
	for (int i = 0; i < 3; i++)
		add_fd(t, 1001 + i, pair[i], false);
	return t;
}

static inline void add_vma(struct mm *mm, taddr_t start, uint64_t pages, uint32_t prot, uint32_t flags,
			   uint32_t status, uint32_t file_id, uint32_t shmem_id)
{
	struct vma *v = VEC_ADD(&mm->vmas);

	v->start = start;
	v->end = start + pages * MODEL_PAGE_SIZE;
	v->prot = prot;
	v->flags = flags;
	v->status = VMA_REGULAR | status;
	v->file_id = file_id;
	v->shmem_id = shmem_id;
	if (file_id)
		v->fdflags = O_RDWR;
}

static inline struct mm *make_mm(struct model *m, pid_t pid, const struct file *exe, struct shmem *shmem)
{
	struct mm *mm = model_add_mm(m, 0);

	mm->pid = pid;
	mm->start_code = 0x400000, mm->end_code = 0x401000;
	mm->start_data = 0x402000, mm->end_data = 0x403000;
	mm->start_brk = 0x500000, mm->brk = 0x504000;
	mm->start_stack = 0x7ffffffde000;
	mm->arg_start = 0x7ffffffde100, mm->arg_end = 0x7ffffffde110;
	mm->env_start = 0x7ffffffde110, mm->env_end = 0x7ffffffde200;
	for (uint64_t i = 0; i < 40; i++)
		VEC_PUSH(&mm->auxv, i);
	mm->exe_file_id = exe->id;
	mm->dumpable = 1;
	mm->thp_disabled = 3;
	mm->mdwe = 3;
	mm->coredump_filter = 0x1ff;
	add_vma(mm, 0x400000, 1, PROT_READ | PROT_EXEC, MAP_PRIVATE, VMA_FILE_PRIVATE, exe->id, 0);
	mm->vmas.v[0].pgoff = MODEL_PAGE_SIZE;
	add_vma(mm, 0x500000, 4, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		VMA_HEAP | VMA_ANON_PRIVATE, 0, 0);
	mm->vmas.v[1].madv = 1ULL << MADV_HUGEPAGE;
	mm->vmas.v[1].sealed = true;
	mm->lock_future = MCL_FUTURE | MCL_ONFAULT;
	mm->merge_all = true;
	VEC_PUSH(&mm->kin, ((struct kin_run){ .start = 0x500000, .nr_pages = 2, .pid = 7 }));
	VEC_PUSH(&mm->kin, ((struct kin_run){ .start = 0x502000, .nr_pages = 1, .pid = 8 }));
	add_vma(mm, 0x504000, 4, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, VMA_ANON_PRIVATE, 0, 0);
	mm->vmas.v[2].reserved = true;
	add_vma(mm, 0x508000, 4, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, VMA_ANON_PRIVATE, 0, 0);
	mm->vmas.v[3].lock_on_fault = true;
	add_vma(mm, 0x50c000, 1, PROT_READ | PROT_WRITE, 0x08 /* MAP_DROPPABLE */ | MAP_ANONYMOUS, VMA_ANON_PRIVATE, 0, 0);
	add_vma(mm, 0x600000, 2, PROT_READ | PROT_WRITE, MAP_SHARED, VMA_FILE_SHARED, exe->id, 0);
	add_vma(mm, 0x700000, 4, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, VMA_ANON_SHARED, 0,
		shmem->id);
	add_vma(mm, 0x800000, 512, PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB | 21 << MAP_HUGE_SHIFT, VMA_ANON_SHARED, 0, shmem->id + 1);
	add_vma(mm, 0xa00000, 3, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, VMA_ANON_SHARED | VMA_SYSVIPC, 0, shmem->id + 2);
	add_vma(mm, 0xb00000, 2, PROT_READ, MAP_PRIVATE, VMA_FILE_PRIVATE | VMA_MEMFD, m->files.v[0]->id, 0);
	add_vma(mm, 0x7ffff7fc0000, 4, PROT_READ, MAP_PRIVATE, VMA_VVAR, 0, 0);
	add_vma(mm, 0x7ffff7fc4000, 2, PROT_READ | PROT_EXEC, MAP_PRIVATE, VMA_VDSO | VMA_ANON_PRIVATE, 0, 0);
	add_vma(mm, 0x7ffffffde000, 33, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN,
		VMA_STACK | VMA_ANON_PRIVATE, 0, 0);
	return mm;
}

/* Memory objects: what CRIU has a file for, and what it has not. The first one is what the mappings of make_mm() show. */
static inline struct shmem *make_shmems(struct model *m, struct file *memfd)
{
	struct shmem *anon = model_add_shmem(m, 0), *huge = model_add_shmem(m, 0), *sysv = model_add_shmem(m, 0);
	struct shmem *file = model_add_shmem(m, 0);

	anon->size_bytes = 8 * MODEL_PAGE_SIZE; /* more than is mapped */
	huge->size_bytes = 4 << 20;
	huge->huge_bytes = 2 << 20;
	sysv->sort = SHMEM_SYSV;
	sysv->size_bytes = 12345;
	sysv->uid = 1, sysv->gid = 2, sysv->mode = 01640;
	sysv->sysv.id = 32769, sysv->sysv.key = -5, sysv->sysv.cuid = 3, sysv->sysv.cgid = 4;
	file->sort = SHMEM_MEMFD;
	file->size_bytes = 54321;
	file->huge_bytes = 1 << 30;
	file->name = strdup("a/b (deleted)");
	file->seals = 0x3f;
	file->uid = 5, file->gid = 6, file->mode = 0666;
	memfd->memfd.shmem_id = file->id;
	return anon;
}

/* Two open files without names, of the same file. With a hole it goes into the image by pieces, without one as a whole. */
static inline void make_ghost(struct model *m, bool whole, struct file *ret[2])
{
	struct ghost *g = model_add_ghost(m, 0);
	struct ghost_piece piece = { whole ? 0 : 4096, 100, malloc(100) }, last = { 20480, 7, malloc(7) };

	memset(piece.data, 'g', 100);
	memset(last.data, 'h', 7);
	g->mode = S_IFREG | 04750;
	g->uid = 7, g->gid = 8, g->dev = 9 << 20 | 10, g->ino = 1ULL << 40;
	g->atime_us = 1234567890123456, g->mtime_us = 999999;
	g->size_bytes = whole ? 100 : 1 << 20;
	VEC_PUSH(&g->pieces, piece);
	if (whole)
		free(last.data);
	else
		VEC_PUSH(&g->pieces, last);
	for (int i = 0; i < 2; i++) {
		ret[i] = make_reg(m, whole ? "/tmp/whole" : "/tmp/holes", g->mode);
		ret[i]->reg.size_bytes = g->size_bytes;
		ret[i]->reg.ghost_id = g->id;
	}
}

/* A removed directory, as the working directory of somebody, in another one that nobody is in. */
static inline struct file *make_removed(struct model *m)
{
	struct ghost *dirs[2];

	for (int i = 0; i < 2; i++) {
		dirs[i] = model_add_ghost(m, 0);
		dirs[i]->mode = S_IFDIR | (i ? 0700 : 01777);
		dirs[i]->uid = 9 + i, dirs[i]->gid = 11, dirs[i]->dev = 12 << 20, dirs[i]->ino = 13 + i;
		dirs[i]->atime_us = 5000000, dirs[i]->mtime_us = 6000001;
	}
	dirs[0]->parent_id = dirs[1]->id;
	struct file *cwd = make_reg(m, "/tmp/outer/inner", S_IFDIR | 01777);
	cwd->reg.ghost_id = dirs[0]->id;
	return cwd;
}

static inline struct model *make_model(void)
{
	struct model *m = model_create();
	struct tty *tty = make_tty(m);
	struct file *memfd = make_file(m, FILE_MEMFD, NULL);
	struct shmem *shmem = make_shmems(m, memfd);
	struct fdtable *files = make_files(m, tty), *few = model_add_fdtable(m, 0);
	struct file *exe = make_reg(m, "/usr/bin/prog", S_IFREG | 0755);
	struct file *cwd = make_removed(m), *root = make_reg(m, "/", S_IFDIR | 0755);
	struct fs *fs = model_add_fs(m, 0);

	exe->pos = cwd->pos = root->pos = 0;
	m->uptime_us = 123456789;
	strcpy(m->clocks, "4e103375-94fd-4b12-bcd8-f78bcb1a568e -1 999999999");
	for (uint32_t i = 0; i < 8; i++)
		m->root_ns[i] = i + 1;
	memfd->pos = 4321;
	add_fd(few, 1, memfd, true);
	add_fd(few, 2, m->files.v[1], false);
	for (int whole = 0; whole < 2; whole++) {
		struct file *gone[2];

		make_ghost(m, whole, gone);
		add_fd(few, 10 + 2 * whole, gone[0], false);
		add_fd(few, 11 + 2 * whole, gone[1], false);
	}
	fs->pid = ROOT;
	fs->cwd_file_id = cwd->id;
	fs->root_file_id = root->id;
	fs->umask = 027;

	struct mm *mm = make_mm(m, ROOT, exe, shmem), *mm2 = make_mm(m, CHILD, exe, shmem);
	struct task *t = make_task(m, ROOT, 1, mm->id, files->id, fs->id);

	t->ctty_id = tty->id;
	make_thread(t, ROOT, 1);
	make_thread(t, THREAD, 2);
	t->threads.v[1].sched_policy = SCHED_RR | SCHED_RESET_ON_FORK;
	t->threads.v[1].sched_priority = 7;
	t->threads.v[1].seccomp_mode = 1;
	add_filter(m, 0, 1);
	add_filter(m, 1, 0);
	add_filter(m, 1, 0);
	struct posix_timer timer = { .id = 3, .clockid = CLOCK_REALTIME, .notify = SIGEV_THREAD_ID, .signo = SIGRTMIN,
				     .sigval = 0xdeadbeefcafe, .notify_tid = THREAD, .overrun = 2,
				     .interval_ns = 5000000007, .value_ns = 999999999, .late_ns = 77, .date_ns = 1800000000123456789 };
	VEC_PUSH(&t->timers, timer);
	timer = (struct posix_timer){ .id = 9, .clockid = CLOCK_MONOTONIC, .notify = SIGEV_SIGNAL, .signo = SIGALRM };
	VEC_PUSH(&t->timers, timer);

	t = make_task(m, CHILD, ROOT, mm2->id, few->id, fs->id);
	make_thread(t, CHILD, 4);
	t->threads.v[0].seccomp_mode = 2;
	t->threads.v[0].seccomp_filter = 3;
	t->state = TASK_STOPPED;
	t->stop_signal = SIGTSTP;
	t->stop_reported = true;
	t = make_task(m, SHARER, CHILD, mm->id, files->id, fs->id);
	t->continued = true;
	make_thread(t, SHARER, 6);
	make_thread(t, LEFT, 8);
	exit_thread(t, 0x2300);

	t = VEC_ADD(&m->tasks);
	*t = (struct task){ .pid = ZOMBIE, .ppid = ROOT, .pgid = ROOT, .sid = ROOT, .state = TASK_ZOMBIE,
			    .exit_code = 0x2a00, .exit_signal = SIGCHLD };
	t->ns.pid = 1, t->ns.net = 2, t->ns.ipc = 3, t->ns.uts = 4;
	t->ns.mnt = 5, t->ns.user = 6, t->ns.cgroup = 7, t->ns.time = 8;
	struct thread *th = VEC_ADD(&t->threads);
	th->tid = ZOMBIE;
	th->creds.uid = 1000;
	snprintf(th->comm, sizeof(th->comm), "dead");
	return m;
}

static inline void add_pages(struct page_run *run, struct pages_writer *w, taddr_t start, uint64_t nr, uint8_t fill)
{
	uint8_t page[MODEL_PAGE_SIZE];

	*run = (struct page_run){ .start = start, .nr_pages = nr, .flags = PAGES_PRESENT, .offset_bytes = pages_writer_offset(w) };
	memset(page, fill, sizeof(page));
	for (uint64_t i = 0; i < nr; i++)
		pages_writer_append(w, page, sizeof(page));
}

/* Writes the pages of the model into the set, as capture does, and notes where they are. */
static inline int write_pages(struct model *m, struct image_set *set)
{
	struct pages_writer *w;
	struct mm *mm = m->mms.v[0];
	struct shmem *shmem = m->shmems.v[0];
	int err;

	mm->pages.nr = shmem->pages.nr = 0;
	mm->pages_id = 1;
	shmem->pages_id = 2;
	err = pages_writer_open(set, 1, &w);
	if (err)
		return err;
	add_pages(VEC_ADD(&mm->pages), w, 0x500000, 2, 0x11);
	struct page_run guard = { .start = 0x502000, .nr_pages = 1, .flags = PAGES_GUARD };
	VEC_PUSH(&mm->pages, guard);
	add_pages(VEC_ADD(&mm->pages), w, 0x503000, 3, 0x22); /* over two mappings that touch */
	add_pages(VEC_ADD(&mm->pages), w, 0x7ffffffdf000, 1, 0x33);
	err = pages_writer_close(w);
	if (!err)
		err = pages_writer_open(set, 2, &w);
	if (err)
		return err;
	add_pages(VEC_ADD(&shmem->pages), w, 0x1000, 2, 0x44);
	return pages_writer_close(w);
}

static inline void put_pages(struct pages_writer *w, taddr_t start, uint64_t nr, uint8_t fill, page_runs *runs)
{
	uint8_t page[MODEL_PAGE_SIZE];

	memset(page, fill, sizeof(page));
	for (uint64_t i = 0; i < nr; i++)
		pages_writer_put(w, start + i * MODEL_PAGE_SIZE, page, 1, runs);
}

/* The same into a set whose parent has the pages of write_pages(): some are the same, one has changed, one is new and one gone. */
static inline int write_child_pages(struct model *m, struct image_set *set)
{
	struct mm *mm = m->mms.v[0];
	struct shmem *shmem = m->shmems.v[0];
	struct page_run guard = { .start = 0x502000, .nr_pages = 1, .flags = PAGES_GUARD };
	struct pages_writer *w;

	mm->pages.nr = shmem->pages.nr = 0;
	int err = pages_writer_open(set, mm->pages_id = 1, &w);
	if (err)
		return err;
	err = pages_writer_compare_mm(w, mm->pid);
	put_pages(w, 0x500000, 2, 0x11, &mm->pages);
	VEC_PUSH(&mm->pages, guard);
	put_pages(w, 0x503000, 1, 0x22, &mm->pages);
	put_pages(w, 0x504000, 1, 0x55, &mm->pages);
	put_pages(w, 0x7ffffffde000, 1, 0x66, &mm->pages);
	put_pages(w, 0x7ffffffdf000, 1, 0x33, &mm->pages);
	int close_err = pages_writer_close(w);
	if (!err)
		err = close_err ? close_err : pages_writer_open(set, shmem->pages_id = 2, &w);
	if (err)
		return err;
	err = pages_writer_compare_shmem(w, shmem->id);
	put_pages(w, 0x1000, 2, 0x44, &shmem->pages);
	close_err = pages_writer_close(w);
	return err ? err : close_err;
}

#endif
