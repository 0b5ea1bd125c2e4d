/*
 * Compares two models of one tree, field by field. Ids are compared by what they share: the first time two objects
 * meet they become a pair, and from then on each must meet the other again.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/model.h"

struct compare {
	const struct model *a, *b;
	uint64_t slack_ns;
	void (*differ)(void *arg, const char *what, const char *a, const char *b);
	void *arg;
	size_t nr;
	char path[160];          /* "pid 12 thread 13" */
	uint32_t *a_to_b, *b_to_a; /* by id; 0: not met */
};

enum { VALUE_LEN = 160 };

static void differ(struct compare *c, const char *field, const char *a, const char *b)
{
	char what[256];

	c->nr++;
	snprintf(what, sizeof(what), "%s%s%s", c->path, *c->path ? " " : "", field);
	c->differ(c->arg, what, a, b);
}

static void cmp_dec(struct compare *c, const char *field, int64_t a, int64_t b)
{
	char x[32], y[32];

	if (a == b)
		return;
	snprintf(x, sizeof(x), "%lld", (long long)a);
	snprintf(y, sizeof(y), "%lld", (long long)b);
	differ(c, field, x, y);
}

static void cmp_hex(struct compare *c, const char *field, uint64_t a, uint64_t b)
{
	char x[32], y[32];

	if (a == b)
		return;
	snprintf(x, sizeof(x), "%#llx", (unsigned long long)a);
	snprintf(y, sizeof(y), "%#llx", (unsigned long long)b);
	differ(c, field, x, y);
}

/* Remaining times: armed in both or in none, and about equal. */
static void cmp_time(struct compare *c, const char *field, uint64_t a, uint64_t b, uint64_t slack)
{
	uint64_t apart = a > b ? a - b : b - a;

	if (apart > slack || !a != !b)
		cmp_dec(c, field, a, b);
}

static void cmp_string(struct compare *c, const char *field, const char *a, const char *b)
{
	if (!a || !b ? a != b : strcmp(a, b))
		differ(c, field, a ? a : "(none)", b ? b : "(none)");
}

/* Bytes as hexadecimal from the first that differs. */
static void cmp_bytes(struct compare *c, const char *field, const void *a, const void *b, size_t len)
{
	const uint8_t *p = a, *q = b;
	char name[96], x[VALUE_LEN] = "", y[VALUE_LEN] = "";
	size_t at = 0;

	while (at < len && p[at] == q[at])
		at++;
	if (at == len)
		return;
	snprintf(name, sizeof(name), "%s byte %zu", field, at);
	for (size_t i = 0; i < 48 && at + i < len; i++) {
		snprintf(x + 2 * i, sizeof(x) - 2 * i, "%02x", p[at + i]);
		snprintf(y + 2 * i, sizeof(y) - 2 * i, "%02x", q[at + i]);
	}
	differ(c, name, x, y);
}

#define DEC(field) cmp_dec(c, #field, a->field, b->field)
#define HEX(field) cmp_hex(c, #field, a->field, b->field)
#define BYTES(field) cmp_bytes(c, #field, a->field, b->field, sizeof(a->field))

/* Appends to the path; the caller puts it back with path_pop(). */
__attribute__((format(printf, 2, 3))) static size_t path_push(struct compare *c, const char *fmt, ...)
{
	size_t len = strlen(c->path);
	va_list ap;

	if (len && len + 2 < sizeof(c->path))
		strcat(c->path, " ");
	size_t at = strlen(c->path);
	va_start(ap, fmt);
	vsnprintf(c->path + at, sizeof(c->path) - at, fmt, ap);
	va_end(ap);
	return len;
}

static void path_pop(struct compare *c, size_t len)
{
	c->path[len] = 0;
}

/* True when the two objects meet for the first time: then their contents are to be compared. */
static bool cmp_id(struct compare *c, const char *field, uint32_t a, uint32_t b)
{
	if (!a && !b)
		return false;
	if (!a || !b) {
		differ(c, field, a ? "has one" : "has none", b ? "has one" : "has none");
		return false;
	}
	if (a > c->a->next_id || b > c->b->next_id) {
		differ(c, field, "id out of range", "id out of range");
		return false;
	}
	if (!c->a_to_b[a] && !c->b_to_a[b]) {
		c->a_to_b[a] = b;
		c->b_to_a[b] = a;
		return true;
	}
	if (c->a_to_b[a] != b)
		differ(c, field, c->a_to_b[a] ? "shared with an earlier one" : "not seen before",
		       c->b_to_a[b] ? "shared with an earlier one" : "not seen before");
	return false;
}

/* --- files --- */

static void cmp_shmem_id(struct compare *c, uint32_t ia, uint32_t ib)
{
	if (!cmp_id(c, "shmem", ia, ib))
		return;
	const struct shmem *a = model_find_shmem(c->a, ia), *b = model_find_shmem(c->b, ib);
	if (!a || !b) {
		differ(c, "shmem", a ? "there" : "missing", b ? "there" : "missing");
		return;
	}
	DEC(sort);
	DEC(size_bytes);
	DEC(huge_bytes);
	cmp_string(c, "name", a->name, b->name);
	HEX(seals);
	DEC(uid);
	DEC(gid);
	HEX(mode);
	DEC(sysv.id);
	HEX(sysv.key);
	DEC(sysv.cuid);
	DEC(sysv.cgid);
	DEC(ino);
	DEC(pid);
	DEC(fd);
	HEX(start);
	HEX(map_files_end);
}

static void cmp_file(struct compare *c, const struct file *a, const struct file *b);

static void cmp_file_id(struct compare *c, const char *field, uint32_t ia, uint32_t ib)
{
	if (!cmp_id(c, field, ia, ib))
		return;
	const struct file *a = model_find_file(c->a, ia), *b = model_find_file(c->b, ib);
	if (!a || !b) {
		if (a != b)
			differ(c, field, a ? "there" : "missing", b ? "there" : "missing");
		return;
	}
	size_t len = path_push(c, "%s", field);
	cmp_file(c, a, b);
	path_pop(c, len);
}

static void cmp_pipe_id(struct compare *c, uint32_t ia, uint32_t ib)
{
	if (!cmp_id(c, "pipe", ia, ib))
		return;
	const struct pipe *a = model_find_pipe(c->a, ia), *b = model_find_pipe(c->b, ib);
	if (!a || !b) {
		differ(c, "pipe", a ? "there" : "missing", b ? "there" : "missing");
		return;
	}
	DEC(ino);
	DEC(size_bytes);
	DEC(captured);
	DEC(len_bytes);
	if (a->len_bytes == b->len_bytes && a->len_bytes)
		cmp_bytes(c, "data", a->data, b->data, a->len_bytes);
}

static void cmp_tty_id(struct compare *c, const char *field, uint32_t ia, uint32_t ib)
{
	if (!cmp_id(c, field, ia, ib))
		return;
	const struct tty *a = model_find_tty(c->a, ia), *b = model_find_tty(c->b, ib);
	if (!a || !b) {
		differ(c, field, a ? "there" : "missing", b ? "there" : "missing");
		return;
	}
	DEC(type);
	DEC(index);
	HEX(rdev);
	DEC(sid);
	DEC(pgrp);
	DEC(exclusive);
	DEC(packet_mode);
	DEC(locked);
	DEC(has_termios);
	DEC(has_winsize);
	BYTES(termios);
	DEC(winsize.row);
	DEC(winsize.col);
	DEC(winsize.xpixel);
	DEC(winsize.ypixel);
	DEC(has_master);
}

static int compare_items(const void *x, const void *y)
{
	const struct epoll_item *a = x, *b = y;

	if (a->fd != b->fd)
		return a->fd < b->fd ? -1 : 1;
	return (a->ino > b->ino) - (a->ino < b->ino);
}

/* In no order that means anything: the kernel keeps them in a tree by address. */
static struct epoll_item *sorted_items(const struct file *f)
{
	struct epoll_item *items = calloc(f->epoll.items.nr + 1, sizeof(*items));

	if (items && f->epoll.items.nr) {
		memcpy(items, f->epoll.items.v, f->epoll.items.nr * sizeof(*items));
		qsort(items, f->epoll.items.nr, sizeof(*items), compare_items);
	}
	return items;
}

static void cmp_epoll(struct compare *c, const struct file *fa, const struct file *fb)
{
	struct epoll_item *items_a = sorted_items(fa), *items_b = sorted_items(fb);
	size_t nr = fa->epoll.items.nr;

	cmp_dec(c, "number of items", nr, fb->epoll.items.nr);
	for (size_t i = 0; items_a && items_b && i < nr && nr == fb->epoll.items.nr; i++) {
		const struct epoll_item *a = &items_a[i], *b = &items_b[i];
		size_t len = path_push(c, "item %zu", i);

		DEC(fd);
		HEX(events);
		HEX(data);
		DEC(ino);
		DEC(pos);
		HEX(dev);
		cmp_file_id(c, "watches", a->file_id, b->file_id);
		path_pop(c, len);
	}
	free(items_a);
	free(items_b);
}

static void cmp_timerfd(struct compare *c, const struct file *a, const struct file *b)
{
	DEC(timerfd.clockid);
	DEC(timerfd.ticks);
	HEX(timerfd.settime_flags);
	cmp_time(c, "timerfd.value_ns", a->timerfd.value_ns, b->timerfd.value_ns, c->slack_ns);
	DEC(timerfd.interval_ns);
	cmp_time(c, "timerfd.date_ns", a->timerfd.date_ns, b->timerfd.date_ns, c->slack_ns);
}

static void cmp_inet(struct compare *c, const struct file *a, const struct file *b)
{
	DEC(inet.ino);
	DEC(inet.family);
	DEC(inet.type);
	DEC(inet.proto);
	DEC(inet.state);
	DEC(inet.port);
	BYTES(inet.addr);
	DEC(inet.backlog);
	DEC(inet.ifindex);
	DEC(inet.so_sndbuf);
	DEC(inet.so_rcvbuf);
	DEC(inet.so_priority);
	DEC(inet.so_mark);
	DEC(inet.so_rcvlowat);
	DEC(inet.so_rcvtimeo_us);
	DEC(inet.so_sndtimeo_us);
	DEC(inet.reuseaddr);
	DEC(inet.reuseport);
	DEC(inet.keepalive);
	DEC(inet.v6only);
	DEC(inet.nodelay);
	DEC(inet.freebind);
	DEC(inet.keepcnt);
	DEC(inet.keepidle);
	DEC(inet.keepintvl);
	DEC(inet.uid);
}

static void cmp_unix(struct compare *c, const struct file *a, const struct file *b)
{
	DEC(unix_sk.ino);
	DEC(unix_sk.type);
	DEC(unix_sk.state);
	DEC(unix_sk.backlog);
	DEC(unix_sk.name_len);
	BYTES(unix_sk.name);
	HEX(unix_sk.mode);
	DEC(unix_sk.uid);
	DEC(unix_sk.gid);
	DEC(unix_sk.so_sndbuf);
	DEC(unix_sk.so_rcvbuf);
	DEC(unix_sk.passcred);
	DEC(unix_sk.reuseaddr);
	DEC(unix_sk.peer_ino);
	DEC(unix_sk.shutdown);
	DEC(unix_sk.cred_pid);
	DEC(unix_sk.cred_uid);
	DEC(unix_sk.cred_gid);
}

static void cmp_ghost_id(struct compare *c, uint32_t ia, uint32_t ib)
{
	if (!cmp_id(c, "file without a name", ia, ib))
		return;
	const struct ghost *a = model_find_ghost(c->a, ia), *b = model_find_ghost(c->b, ib);
	if (!a || !b) {
		differ(c, "file without a name", a ? "there" : "missing", b ? "there" : "missing");
		return;
	}
	HEX(mode);
	DEC(uid);
	DEC(gid);
	HEX(dev);
	DEC(ino);
	DEC(size_bytes);
	cmp_ghost_id(c, a->parent_id, b->parent_id);
}

static void cmp_file(struct compare *c, const struct file *a, const struct file *b)
{
	DEC(type);
	HEX(flags);
	DEC(pos);
	DEC(fown.uid);
	DEC(fown.euid);
	DEC(fown.signum);
	DEC(fown.pid_type);
	DEC(fown.pid);
	cmp_string(c, "path", a->path, b->path);
	if (a->type != b->type)
		return;
	switch (a->type) {
	case FILE_REG:
		DEC(reg.size_bytes);
		HEX(reg.mode);
		HEX(reg.rdev);
		DEC(reg.mnt_id);
		cmp_ghost_id(c, a->reg.ghost_id, b->reg.ghost_id);
		break;
	case FILE_PIPE:
	case FILE_FIFO:
		cmp_pipe_id(c, a->pipe.pipe_id, b->pipe.pipe_id);
		break;
	case FILE_EVENTFD:
		DEC(eventfd.counter);
		DEC(eventfd.semaphore);
		break;
	case FILE_EPOLL:
		cmp_epoll(c, a, b);
		break;
	case FILE_TIMERFD:
		cmp_timerfd(c, a, b);
		break;
	case FILE_SIGNALFD:
		HEX(signalfd.mask);
		break;
	case FILE_MEMFD:
		cmp_shmem_id(c, a->memfd.shmem_id, b->memfd.shmem_id);
		break;
	case FILE_TTY:
		cmp_tty_id(c, "tty", a->tty.tty_id, b->tty.tty_id);
		break;
	case FILE_INET:
		cmp_inet(c, a, b);
		break;
	case FILE_UNIX:
		cmp_unix(c, a, b);
		break;
	default:
		break;
	}
}

static void cmp_fdtable(struct compare *c, uint32_t ia, uint32_t ib)
{
	if (!cmp_id(c, "descriptor table", ia, ib))
		return;
	const struct fdtable *a = model_find_fdtable(c->a, ia), *b = model_find_fdtable(c->b, ib);
	if (!a || !b) {
		differ(c, "descriptor table", a ? "there" : "missing", b ? "there" : "missing");
		return;
	}
	size_t i = 0, j = 0;
	while (i < a->fds.nr || j < b->fds.nr) {
		const struct fd *x = i < a->fds.nr ? &a->fds.v[i] : NULL;
		const struct fd *y = j < b->fds.nr ? &b->fds.v[j] : NULL;
		int number = !y || (x && x->fd < y->fd) ? x->fd : y->fd;
		bool in_a = x && x->fd == number, in_b = y && y->fd == number;
		size_t len = path_push(c, "fd %d", number);

		if (in_a && in_b) {
			cmp_dec(c, "cloexec", x->cloexec, y->cloexec);
			cmp_file_id(c, "file", x->file_id, y->file_id);
		} else {
			differ(c, "number", in_a ? "open" : "closed", in_b ? "open" : "closed");
		}
		path_pop(c, len);
		i += in_a;
		j += in_b;
	}
}

/* --- mm --- */

static void cmp_vma(struct compare *c, const struct vma *a, const struct vma *b)
{
	HEX(end);
	HEX(pgoff);
	HEX(prot);
	HEX(flags);
	HEX(status);
	HEX(madv);
	HEX(fdflags);
	DEC(lock_on_fault);
	DEC(sealed);
	DEC(reserved);
	DEC(has_anon);
	cmp_file_id(c, "file", a->file_id, b->file_id);
	cmp_shmem_id(c, a->shmem_id, b->shmem_id);
}

static void cmp_vmas(struct compare *c, const struct mm *a, const struct mm *b)
{
	size_t i = 0, j = 0;

	while (i < a->vmas.nr || j < b->vmas.nr) {
		const struct vma *x = i < a->vmas.nr ? &a->vmas.v[i] : NULL;
		const struct vma *y = j < b->vmas.nr ? &b->vmas.v[j] : NULL;
		taddr_t start = !y || (x && x->start < y->start) ? x->start : y->start;
		bool in_a = x && x->start == start, in_b = y && y->start == start;
		size_t len = path_push(c, "mapping %llx", (unsigned long long)start);

		if (in_a && in_b)
			cmp_vma(c, x, y);
		else
			differ(c, "start", in_a ? "mapped" : "not there", in_b ? "mapped" : "not there");
		path_pop(c, len);
		i += in_a;
		j += in_b;
	}
}

/* Words behind AT_NULL are the unused part of the kernel's array. */
static void cmp_auxv(struct compare *c, const struct mm *a, const struct mm *b)
{
	size_t nr = a->auxv.nr > b->auxv.nr ? a->auxv.nr : b->auxv.nr;

	for (size_t i = 0; i < nr; i++) {
		char name[32];

		snprintf(name, sizeof(name), "auxv %zu", i);
		cmp_hex(c, name, i < a->auxv.nr ? a->auxv.v[i] : 0, i < b->auxv.nr ? b->auxv.v[i] : 0);
	}
}

static void cmp_kin(struct compare *c, const struct mm *a, const struct mm *b)
{
	cmp_dec(c, "kin", a->kin.nr, b->kin.nr);
	for (size_t i = 0; i < a->kin.nr && i < b->kin.nr; i++) {
		const struct kin_run *x = &a->kin.v[i], *y = &b->kin.v[i];

		cmp_hex(c, "kin start", x->start, y->start);
		cmp_dec(c, "kin pages", x->nr_pages, y->nr_pages);
		cmp_dec(c, "kin pid", x->pid, y->pid);
	}
}

static void cmp_mm(struct compare *c, uint32_t ia, uint32_t ib)
{
	if (!cmp_id(c, "mm", ia, ib))
		return;
	const struct mm *a = model_find_mm(c->a, ia), *b = model_find_mm(c->b, ib);
	if (!a || !b) {
		differ(c, "mm", a ? "there" : "missing", b ? "there" : "missing");
		return;
	}
	size_t len = path_push(c, "mm");
	DEC(pid);
	HEX(start_code);
	HEX(end_code);
	HEX(start_data);
	HEX(end_data);
	HEX(start_stack);
	HEX(start_brk);
	HEX(brk);
	HEX(arg_start);
	HEX(arg_end);
	HEX(env_start);
	HEX(env_end);
	DEC(dumpable);
	DEC(thp_disabled);
	DEC(merge_all);
	DEC(lock_future);
	DEC(mdwe);
	HEX(coredump_filter);
	cmp_auxv(c, a, b);
	cmp_file_id(c, "exe", a->exe_file_id, b->exe_file_id);
	cmp_kin(c, a, b);
	cmp_vmas(c, a, b);
	path_pop(c, len);
}

static void cmp_fs(struct compare *c, uint32_t ia, uint32_t ib)
{
	if (!cmp_id(c, "fs", ia, ib))
		return;
	const struct fs *a = model_find_fs(c->a, ia), *b = model_find_fs(c->b, ib);
	if (!a || !b) {
		differ(c, "fs", a ? "there" : "missing", b ? "there" : "missing");
		return;
	}
	DEC(pid);
	HEX(umask);
	cmp_file_id(c, "cwd", a->cwd_file_id, b->cwd_file_id);
	cmp_file_id(c, "root", a->root_file_id, b->root_file_id);
}

/* --- threads --- */

static void cmp_regs(struct compare *c, const struct cpu_regs *a, const struct cpu_regs *b)
{
	HEX(r15);
	HEX(r14);
	HEX(r13);
	HEX(r12);
	HEX(bp);
	HEX(bx);
	HEX(r11);
	HEX(r10);
	HEX(r9);
	HEX(r8);
	HEX(ax);
	HEX(cx);
	HEX(dx);
	HEX(si);
	HEX(di);
	HEX(orig_ax);
	HEX(ip);
	HEX(cs);
	HEX(flags);
	HEX(sp);
	HEX(ss);
	HEX(fs_base);
	HEX(gs_base);
	HEX(ds);
	HEX(es);
	HEX(fs);
	HEX(gs);
}

static void cmp_cpu(struct compare *c, const struct cpu *a, const struct cpu *b)
{
	cmp_regs(c, &a->regs, &b->regs);
	DEC(fpu.len_bytes);
	if (a->fpu.len_bytes == b->fpu.len_bytes && a->fpu.len_bytes)
		cmp_bytes(c, "fpu", a->fpu.xsave, b->fpu.xsave, a->fpu.len_bytes);
}

static void cmp_creds(struct compare *c, const struct creds *a, const struct creds *b)
{
	DEC(uid);
	DEC(gid);
	DEC(euid);
	DEC(egid);
	DEC(suid);
	DEC(sgid);
	DEC(fsuid);
	DEC(fsgid);
	HEX(cap_inh);
	HEX(cap_prm);
	HEX(cap_eff);
	HEX(cap_bnd);
	HEX(cap_amb);
	HEX(securebits);
	DEC(no_new_privs);
	cmp_dec(c, "number of groups", a->groups.nr, b->groups.nr);
	for (size_t i = 0; i < a->groups.nr && i < b->groups.nr; i++)
		cmp_dec(c, "group", a->groups.v[i], b->groups.v[i]);
}

static void cmp_pending(struct compare *c, const struct siginfo_raw *a, size_t nr_a, const struct siginfo_raw *b,
			size_t nr_b)
{
	cmp_dec(c, "number of pending signals", nr_a, nr_b);
	for (size_t i = 0; i < nr_a && i < nr_b; i++)
		cmp_bytes(c, "pending signal", a[i].bytes, b[i].bytes, sizeof(a[i].bytes));
}

static void cmp_thread(struct compare *c, const struct thread *a, const struct thread *b)
{
	if (strncmp(a->comm, b->comm, sizeof(a->comm)))
		differ(c, "comm", a->comm, b->comm);
	cmp_cpu(c, &a->cpu, &b->cpu);
	DEC(restart.kind);
	DEC(restart.nr);
	DEC(restart.clockid);
	cmp_time(c, "restart.remaining_ns", a->restart.remaining_ns, b->restart.remaining_ns, c->slack_ns);
	HEX(sigmask);
	cmp_pending(c, a->pending.v, a->pending.nr, b->pending.v, b->pending.nr);
	HEX(altstack.sp);
	DEC(altstack.size_bytes);
	HEX(altstack.flags);
	HEX(clear_tid);
	HEX(robust_list);
	DEC(robust_list_len);
	HEX(rseq.ptr);
	DEC(rseq.len_bytes);
	HEX(rseq.sig);
	HEX(rseq.flags);
	cmp_creds(c, &a->creds, &b->creds);
	DEC(nice);
	HEX(sched_policy);
	DEC(sched_priority);
	DEC(pdeath_signal);
	DEC(seccomp_mode);
	DEC(exited);
	DEC(timer_slack_ns);
	BYTES(affinity);
	HEX(ioprio);
	DEC(mce_kill);
	DEC(tsc);
	DEC(spec_store_bypass);
	DEC(spec_indirect_branch);
	DEC(io_flusher);
}

/* --- tasks --- */

static void cmp_sigactions(struct compare *c, const struct task *ta, const struct task *tb)
{
	for (int i = 0; i < MODEL_NSIG; i++) {
		const struct sigaction_raw *a = &ta->sigactions[i], *b = &tb->sigactions[i];
		size_t len = path_push(c, "signal %d", i + 1);

		HEX(handler);
		HEX(flags);
		HEX(restorer);
		HEX(mask);
		path_pop(c, len);
	}
}

static void cmp_itimers(struct compare *c, const struct task *ta, const struct task *tb)
{
	for (int i = 0; i < 3; i++) {
		const struct itimer *a = &ta->itimers[i], *b = &tb->itimers[i];
		size_t len = path_push(c, "itimer %d", i);

		DEC(interval_us);
		cmp_time(c, "value_us", a->value_us, b->value_us, c->slack_ns / 1000);
		path_pop(c, len);
	}
}

static int compare_timers(const void *x, const void *y)
{
	const struct posix_timer *a = x, *b = y;

	return (a->id > b->id) - (a->id < b->id);
}

/* The kernel lists them in the order of its hash table. */
static struct posix_timer *sorted_timers(const struct task *t)
{
	struct posix_timer *timers = calloc(t->timers.nr + 1, sizeof(*timers));

	if (timers && t->timers.nr) {
		memcpy(timers, t->timers.v, t->timers.nr * sizeof(*timers));
		qsort(timers, t->timers.nr, sizeof(*timers), compare_timers);
	}
	return timers;
}

static void cmp_timers(struct compare *c, const struct task *ta, const struct task *tb)
{
	struct posix_timer *timers_a = sorted_timers(ta), *timers_b = sorted_timers(tb);

	cmp_dec(c, "number of timers", ta->timers.nr, tb->timers.nr);
	for (size_t i = 0; timers_a && timers_b && i < ta->timers.nr && i < tb->timers.nr; i++) {
		const struct posix_timer *a = &timers_a[i], *b = &timers_b[i];
		size_t len = path_push(c, "timer %d", a->id);

		DEC(id);
		DEC(clockid);
		DEC(notify);
		DEC(signo);
		HEX(sigval);
		DEC(notify_tid);
		DEC(overrun);
		DEC(interval_ns);
		cmp_time(c, "value_ns", a->value_ns, b->value_ns, c->slack_ns);
		cmp_time(c, "late_ns", a->late_ns, b->late_ns, c->slack_ns);
		DEC(date_ns);
		path_pop(c, len);
	}
	free(timers_a);
	free(timers_b);
}

static void cmp_rlimits(struct compare *c, const struct task *a, const struct task *b)
{
	for (int i = 0; i < MODEL_NR_RLIMITS; i++) {
		char name[32];

		snprintf(name, sizeof(name), "rlimit %d cur", i);
		cmp_dec(c, name, a->rlimits[i].cur, b->rlimits[i].cur);
		snprintf(name, sizeof(name), "rlimit %d max", i);
		cmp_dec(c, name, a->rlimits[i].max, b->rlimits[i].max);
	}
}

static const struct thread *find_thread(const struct task *t, pid_t tid)
{
	VEC_FOREACH(th, &t->threads) {
		if (th->tid == tid)
			return th;
	}
	return NULL;
}

static void cmp_threads(struct compare *c, const struct task *a, const struct task *b)
{
	cmp_dec(c, "number of threads", a->threads.nr, b->threads.nr);
	if (a->threads.nr && b->threads.nr)
		cmp_dec(c, "first thread", a->threads.v[0].tid, b->threads.v[0].tid);
	VEC_FOREACH(th, &a->threads) {
		const struct thread *other = find_thread(b, th->tid);
		size_t len = path_push(c, "thread %d", th->tid);

		if (other)
			cmp_thread(c, th, other);
		else
			differ(c, "tid", "there", "not there");
		path_pop(c, len);
	}
	VEC_FOREACH(th, &b->threads)
		if (!find_thread(a, th->tid))
			cmp_dec(c, "thread", 0, th->tid);
}

static void cmp_task(struct compare *c, const struct task *a, const struct task *b)
{
	DEC(ppid);
	DEC(pgid);
	DEC(sid);
	DEC(state);
	HEX(exit_code);
	DEC(stop_signal);
	DEC(stop_reported);
	DEC(continued);
	HEX(personality);
	DEC(child_subreaper);
	DEC(oom_score_adj);
	DEC(autogroup_nice);
	HEX(membarrier);
	DEC(loginuid);
	DEC(exit_signal);
	DEC(ns.pid);
	DEC(ns.net);
	DEC(ns.ipc);
	DEC(ns.uts);
	DEC(ns.mnt);
	DEC(ns.user);
	DEC(ns.cgroup);
	DEC(ns.time);
	DEC(cgroup_id);
	cmp_sigactions(c, a, b);
	cmp_pending(c, a->pending.v, a->pending.nr, b->pending.v, b->pending.nr);
	cmp_itimers(c, a, b);
	cmp_timers(c, a, b);
	cmp_rlimits(c, a, b);
	cmp_threads(c, a, b);
	cmp_mm(c, a->mm_id, b->mm_id);
	cmp_fdtable(c, a->files_id, b->files_id);
	cmp_fs(c, a->fs_id, b->fs_id);
	cmp_id(c, "signal handlers", a->sighand_id, b->sighand_id);
	cmp_tty_id(c, "controlling terminal", a->ctty_id, b->ctty_id);
}

static void cmp_tasks(struct compare *c)
{
	VEC_FOREACH(t, &c->a->tasks) {
		const struct task *other = model_find_task(c->b, t->pid);
		size_t len = path_push(c, "pid %d", t->pid);

		if (other)
			cmp_task(c, t, other);
		else
			differ(c, "process", "there", "not there");
		path_pop(c, len);
	}
	VEC_FOREACH(t, &c->b->tasks) {
		size_t len = path_push(c, "pid %d", t->pid);

		if (!model_find_task(c->a, t->pid))
			differ(c, "process", "not there", "there");
		path_pop(c, len);
	}
}

size_t model_compare(const struct model *a, const struct model *b, uint64_t slack_ns,
		     void (*differ_fn)(void *arg, const char *what, const char *a, const char *b), void *arg)
{
	struct compare compare = { .a = a, .b = b, .slack_ns = slack_ns, .differ = differ_fn, .arg = arg };
	struct compare *c = &compare;

	c->a_to_b = calloc(a->next_id + 1, sizeof(uint32_t));
	c->b_to_a = calloc(b->next_id + 1, sizeof(uint32_t));
	if (!c->a_to_b || !c->b_to_a) {
		differ(c, "comparison", "out of memory", "out of memory");
	} else {
		cmp_time(c, "uptime", a->uptime_us, b->uptime_us, slack_ns / 1000);
		for (int i = 0; i < 8; i++)
			cmp_dec(c, "own namespace", a->root_ns[i], b->root_ns[i]);
		cmp_tasks(c);
	}
	free(c->a_to_b);
	free(c->b_to_a);
	return c->nr;
}
