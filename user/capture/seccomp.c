/*
 * Programs of seccomp(2): read by ptrace, of stopped threads, oldest first.
 *
 * Threads share them when one was made by another, or by SECCOMP_FILTER_FLAG_TSYNC. Nothing tells so, and programs that are
 * equal, and come after the same ones, are taken for one.
 */
#include "capture/capture.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>

#include "base/cleanup.h"
#include "base/log.h"

enum { MAX_FILTERS = 1024 };

/* PTRACE_SECCOMP_GET_FILTER and _get_metadata, include/uapi/linux/ptrace.h. */
static const int get_filter = 0x420c, get_metadata = 0x420d;

struct metadata {
	uint64_t filter_off;
	uint64_t flags;
};

/* Position of the program in the model, from 1; 0: out of memory. Takes `insns` or frees it. */
static uint32_t add_filter(struct model *m, const struct seccomp_filter *f)
{
	for (size_t i = 0; i < m->seccomp_filters.nr; i++) {
		const struct seccomp_filter *o = &m->seccomp_filters.v[i];

		if (o->prev != f->prev || o->flags != f->flags || o->len_bytes != f->len_bytes ||
		    memcmp(o->insns, f->insns, f->len_bytes))
			continue;
		free(f->insns);
		return i + 1;
	}
	if (VEC_PUSH(&m->seccomp_filters, *f)) {
		free(f->insns);
		return 0;
	}
	return m->seccomp_filters.nr;
}

static int read_failed(pid_t pid, pid_t tid, int err)
{
	if (err == -EACCES)
		return fail(err, "pid %d thread %d: read its seccomp filters (bcr needs CAP_SYS_ADMIN for that, and must not run under "
				 "seccomp itself)",
			    pid, tid);
	return fail(err, "pid %d thread %d: read its seccomp filters", pid, tid);
}

/* Program number `at` of a thread, 0 is the oldest; f->len_bytes 0: there is none. */
static int read_filter(pid_t pid, pid_t tid, uint64_t at, struct seccomp_filter *f)
{
	struct metadata md = { .filter_off = at };
	long nr = ptrace(get_filter, tid, at, NULL);

	if (nr < 0)
		return errno == ENOENT || (errno == EINVAL && !at) ? 0 : read_failed(pid, tid, -errno);
	f->insns = calloc(nr, sizeof(struct sock_filter));
	if (!f->insns)
		return fail(-ENOMEM, "pid %d thread %d: read its seccomp filters", pid, tid);
	if (ptrace(get_filter, tid, at, f->insns) != nr)
		return read_failed(pid, tid, -errno);
	/* Since Linux 4.16; before there was no flag to be told of. */
	if (ptrace(get_metadata, tid, sizeof(md), &md) >= 0)
		f->flags = md.flags;
	f->len_bytes = nr * sizeof(struct sock_filter);
	return 0;
}

int capture_seccomp_thread(struct model *m, pid_t pid, pid_t tid, uint32_t *ret)
{
	*ret = 0;
	for (uint64_t at = 0; at < MAX_FILTERS; at++) {
		struct seccomp_filter f = { .prev = *ret };
		int err = read_filter(pid, tid, at, &f);

		if (err || !f.len_bytes) {
			free(f.insns);
			return err;
		}
		*ret = add_filter(m, &f);
		if (!*ret)
			return fail(-ENOMEM, "pid %d thread %d: read its seccomp filters", pid, tid);
	}
	return unsupported("pid %d thread %d: has more than %d seccomp filters", pid, tid, MAX_FILTERS);
}

static bool may_notify(const struct seccomp_filter *f)
{
	const struct sock_filter *insns = (const void *)f->insns;

	for (size_t i = 0; i < f->len_bytes / sizeof(*insns); i++)
		if (insns[i].code == (BPF_RET | BPF_K) && (insns[i].k & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_USER_NOTIF)
			return true;
	return false;
}

static int refuse_notify(const struct model *m, const struct task *t, const struct thread *th)
{
	for (uint32_t at = th->seccomp_filter; at; at = m->seccomp_filters.v[at - 1].prev)
		if (may_notify(&m->seccomp_filters.v[at - 1]))
			return unsupported("pid %d thread %d: has a seccomp filter by which another program may decide on its calls "
					   "(SECCOMP_RET_USER_NOTIF), which is not supported; --observe=bpf could tell whether there is one",
					   t->pid, th->tid);
	return 0;
}

int capture_seccomp(struct model *m, bool judge)
{
	VEC_FOREACH(t, &m->tasks) {
		VEC_FOREACH(th, &t->threads) {
			int err = th->seccomp_mode != SECCOMP_MODE_FILTER || th->exited || t->state == TASK_ZOMBIE ? 0 :
					  capture_seccomp_thread(m, t->pid, th->tid, &th->seccomp_filter);

			if (!err && judge)
				err = refuse_notify(m, t, th);
			if (err)
				return err;
		}
	}
	return 0;
}
