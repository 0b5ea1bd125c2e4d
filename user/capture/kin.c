/*
 * Which pages the processes of a tree have in common, beyond what a child has of its parent.
 *
 * Theory of operation. After a fork both show the same pages of memory until one of them writes. What parent and child still
 * share a restore finds by comparing contents. But a page that the parent has written since, and that its children have in
 * common, cannot come from the parent. The page maps tell which page of memory is where (to CAP_SYS_ADMIN). Noted is, for each
 * process, who came before it in the tree and has the same page at the same address, when its parent has another one there.
 * It is a hint: whoever does not follow it, or finds other contents, restores the same, only larger. So nothing is lost when a
 * running target changes while it is looked at.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/ident.h"
#include "base/log.h"
#include "capture/capture.h"
#include "sys/proc.h"

enum { AT_ONCE = 512 };

/* Bits of an entry, Documentation/admin-guide/mm/pagemap.rst. */
static const uint64_t entry_present = 1ULL << 63, entry_file = 1ULL << 61, entry_exclusive = 1ULL << 56,
		      entry_frame = (1ULL << 55) - 1;

struct kin_search {
	struct model *m;
	struct ident_map holders; /* page frame → index in m->mms, plus one, of the first that has it */
	size_t at;                /* index in m->mms */
	int fd, parent_fd;        /* page maps; parent_fd is -1 at the root */
};

static int open_page_map(pid_t pid)
{
	char path[48];

	snprintf(path, sizeof(path), "/proc/%d/pagemap", proc_living(pid));
	return open(path, O_RDONLY | O_CLOEXEC);
}

/* The address space of the parent of the first task that has this one; NULL: it is the root's, or a task's that shares its parent's. */
static const struct mm *parent_of(const struct model *m, const struct mm *mm)
{
	VEC_FOREACH(t, &m->tasks) {
		if (t->mm_id != mm->id)
			continue;
		const struct task *parent = model_find_task(m, t->ppid);
		return parent && parent->mm_id != mm->id ? model_find_mm(m, parent->mm_id) : NULL;
	}
	return NULL;
}

static int note(struct mm *mm, taddr_t addr, pid_t holder)
{
	struct kin_run *last = mm->kin.nr ? &mm->kin.v[mm->kin.nr - 1] : NULL;
	struct kin_run run = { .start = addr, .nr_pages = 1, .pid = holder };

	if (last && last->pid == holder && last->start + last->nr_pages * MODEL_PAGE_SIZE == addr) {
		last->nr_pages++;
		return 0;
	}
	return VEC_PUSH(&mm->kin, run);
}

static int look_at_page(struct kin_search *s, taddr_t addr, uint64_t entry, uint64_t parents)
{
	uint64_t frame = entry & entry_frame;

	if (!(entry & entry_present) || entry & (entry_file | entry_exclusive) || !frame)
		return 0;
	if (parents & entry_present && (parents & entry_frame) == frame)
		return 0;
	uint32_t holder = ident_map_find(&s->holders, frame);
	if (!holder)
		return ident_map_add(&s->holders, frame, s->at + 1);
	return holder - 1 == s->at ? 0 : note(s->m->mms.v[s->at], addr, s->m->mms.v[holder - 1]->pid);
}

static int look_at_run(struct kin_search *s, const struct page_run *run)
{
	uint64_t entries[AT_ONCE], parents[AT_ONCE];
	taddr_t end = run->start + run->nr_pages * MODEL_PAGE_SIZE;

	for (taddr_t at = run->start; at < end;) {
		uint64_t nr = (end - at) / MODEL_PAGE_SIZE < AT_ONCE ? (end - at) / MODEL_PAGE_SIZE : AT_ONCE;
		off_t where = at / MODEL_PAGE_SIZE * 8;
		ssize_t got = pread(s->fd, entries, nr * 8, where), got_parents = -1;

		/* It has ended, or has no memory there any more. */
		if (got < 8)
			return 0;
		if (s->parent_fd >= 0)
			got_parents = pread(s->parent_fd, parents, got, where);
		for (ssize_t i = 0; i < got / 8; i++, at += MODEL_PAGE_SIZE) {
			int err = look_at_page(s, at, entries[i], (i + 1) * 8 <= got_parents ? parents[i] : 0);

			if (err)
				return err;
		}
	}
	return 0;
}

static int look_at_mm(struct kin_search *s)
{
	struct mm *mm = s->m->mms.v[s->at];
	const struct mm *parent = parent_of(s->m, mm);
	_cleanup_close_ int fd = open_page_map(mm->pid);
	_cleanup_close_ int parent_fd = parent ? open_page_map(parent->pid) : -1;
	int err = 0;

	mm->kin.nr = 0;
	if (fd < 0)
		return 0;
	s->fd = fd;
	s->parent_fd = parent_fd;
	VEC_FOREACH(run, &mm->pages) {
		if (!err && page_run_has_contents(run))
			err = look_at_run(s, run);
	}
	return err;
}

int capture_kin(struct model *m)
{
	struct kin_search s = { .m = m };
	int err = 0;

	/* Two cannot share what a parent and its child do not. */
	for (s.at = 0; m->mms.nr > 2 && s.at < m->mms.nr && !err; s.at++)
		err = look_at_mm(&s);
	ident_map_deinit(&s.holders);
	return err ? fail(err, "find out which pages the processes share") : 0;
}
