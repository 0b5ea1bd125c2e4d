/*
 * The /proc back end: mappings. Flags are in smaps only, which costs ten times what maps does: this is the
 * fallback, BPF is the fast way.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "observe/proc.h"

/* Two letters of VmFlags → field of the facts. Letters that say nothing new are left out. */
static const struct {
	char letters[3];
	size_t offset;
} vm_flags[] = {
#define FLAG(letters, field) { letters, offsetof(struct vma_facts, field) }
	FLAG("mw", may_write),	  FLAG("gd", grows_down), FLAG("nr", no_reserve),   FLAG("lo", locked),
	FLAG("ht", hugetlb),	  FLAG("dc", dont_copy),  FLAG("wf", wipe_on_fork), FLAG("dd", dont_dump),
	FLAG("hg", hugepage),	  FLAG("nh", nohugepage), FLAG("mg", mergeable),    FLAG("sr", seq_read),
	FLAG("rr", rand_read),	  FLAG("io", io),	  FLAG("pf", pfnmap),	    FLAG("sl", sealed),
	FLAG("dp", droppable),	  FLAG("um", uffd),	  FLAG("uw", uffd_wp),	    FLAG("ui", uffd),
	FLAG("lf", lock_on_fault), FLAG("ac", reserved),
#undef FLAG
};

static void parse_vm_flags(const char *p, struct vma_facts *facts)
{
	for (; p[0] && p[0] != '\n'; p += p[2] == ' ' ? 3 : 2) {
		if (!p[1] || p[1] == '\n')
			break;
		for (size_t i = 0; i < sizeof(vm_flags) / sizeof(vm_flags[0]); i++)
			if (!strncmp(p, vm_flags[i].letters, 2))
				*(bool *)((char *)facts + vm_flags[i].offset) = true;
	}
}

/* "7f00-7f10 rw-p 00001000 fe:01 1234   /path": false when the line is not the head of a mapping. */
static bool parse_head(const char *line, struct vma_facts *facts, uint64_t *ino, const char **path)
{
	unsigned long long start, end, off, n;
	char perms[5];
	int at = 0;

	if (sscanf(line, "%llx-%llx %4s %llx %*x:%*x %llu %n", &start, &end, perms, &off, &n, &at) != 5 || !at)
		return false;
	*facts = (struct vma_facts){
		.start = start,
		.end = end,
		.pgoff_bytes = off,
		.read = perms[0] == 'r',
		.write = perms[1] == 'w',
		.exec = perms[2] == 'x',
		.shared = perms[3] == 's',
		.special = "",
	};
	*ino = n;
	*path = line + at;
	return true;
}

static void name_facts(struct vma_facts *facts, uint64_t ino, const char *path)
{
	facts->has_file = ino || path[0] == '/';
	vma_facts_name(facts, path);
	if (!facts->has_file && path[0] == '[')
		facts->special = path;
	/* Whether there are private pages is asked of the page tables later; /proc does not show an anon_vma. */
	facts->has_anon = !facts->shared;
}

static int add_mapping(struct proc_run *r, size_t at, struct vma_facts *facts, bool *refused)
{
	struct task_idents *id = &r->o->idents.v[at];
	size_t nr = id->layout.vmas.nr;
	uint64_t ident = 0;
	char name[64];

	if (!r->o->tracked)
		facts->uffd |= facts->uffd_wp;
	/* The text is read in pieces, and a program that maps memory meanwhile shows in it twice: not of one moment. */
	if (nr && id->layout.vmas.v[nr - 1].end > facts->start)
		return -EAGAIN;
	int err = observe_add_vma(&id->layout, r->o->m->tasks.v[at].pid, facts);

	if (err == -EOPNOTSUPP) {
		*refused = true;
		return 0;
	}
	if (err || id->layout.vmas.nr == nr)
		return err;
	if (facts->has_file) {
		snprintf(name, sizeof(name), "map_files/%llx-%llx", (unsigned long long)facts->start,
			 (unsigned long long)facts->end);
		err = proc_other(r, at, name, &ident);
	}
	return err ? err : VEC_PUSH(&id->vma_files, ident);
}

/*
 * The end of the heap is known to the page; where in its last page the break is, only the task itself can tell
 * (brk(2)). The C library moves it by whole pages.
 */
static void guess_brk(struct mm *mm)
{
	mm->brk = mm->start_brk;
	VEC_FOREACH(vma, &mm->vmas)
		if (vma->status & VMA_HEAP && vma->end > mm->brk)
			mm->brk = vma->end;
}

static int read_auxv(struct proc_run *r, size_t at)
{
	struct mm *mm = &r->o->idents.v[at].layout;
	_cleanup_free_ char *bytes = NULL;
	size_t len = 0;
	int err = proc_read(r->dirs.v[at], "auxv", &bytes, &len);

	for (size_t i = 0; !err && i + sizeof(uint64_t) <= len; i += sizeof(uint64_t)) {
		uint64_t word;

		memcpy(&word, bytes + i, sizeof(word));
		err = VEC_PUSH(&mm->auxv, word);
	}
	return err;
}

/* Each mapping is a head, lines with figures, and VmFlags last. Cuts `text` into lines. */
static int parse_smaps(struct proc_run *r, size_t at, char *text, bool *refused)
{
	struct vma_facts facts = {};
	char *save = NULL;
	int err = 0;

	for (char *line = strtok_r(text, "\n", &save); line && !err; line = strtok_r(NULL, "\n", &save)) {
		uint64_t ino;
		const char *path;

		unsigned long long kilobytes;

		if (parse_head(line, &facts, &ino, &path)) {
			name_facts(&facts, ino, path);
		} else if (sscanf(line, "KernelPageSize: %llu kB", &kilobytes) == 1) {
			facts.huge_bytes = kilobytes * 1024;
		} else if (!strncmp(line, "VmFlags: ", 9)) {
			parse_vm_flags(line + 9, &facts);
			err = add_mapping(r, at, &facts, refused);
		}
	}
	return err;
}

int proc_maps(struct proc_run *r, size_t at)
{
	pid_t pid = r->o->m->tasks.v[at].pid;
	_cleanup_free_ char *text = NULL;
	bool refused = false;
	int err = proc_read(r->dirs.v[at], "smaps", &text, NULL);

	if (!err)
		err = parse_smaps(r, at, text, &refused);
	if (!err)
		err = read_auxv(r, at);
	if (err)
		return proc_fail(err, pid, "read its mappings");
	guess_brk(&r->o->idents.v[at].layout);
	return refused ? -EOPNOTSUPP : 0;
}
