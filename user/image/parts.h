/* The parts of saving and loading a set, one file each, and what they share. Private to image/. */
#ifndef BCR_IMAGE_PARTS_H
#define BCR_IMAGE_PARTS_H

#include "image/cpu.h"
#include "image/image.h"
#include "image/io.h"
#include "images/bcr-objects.pb-c.h"
#include "images/bcr-threads.pb-c.h"
#include "images/vma.pb-c.h"
#include "model/model.h"

/* First address that a program cannot have, with 4-level page tables. */
static const uint64_t IMAGE_USER_END = 0x7ffffffff000;

/* The vsyscall page, which /proc shows behind it. */
static const uint64_t IMAGE_VSYSCALL = 0xffffffffff600000;

struct save {
	struct image_set *set;
	const struct model *m;
	struct xstate_layout xstate;
	uint32_t next_id; /* last id in use, of model objects and of what exists in images only */
	uint32_t *mm_pages_ids; /* parallel to m->mms: N of pages-N.img, never 0 */
	bool memory_only; /* a pre-dump */
};

/* Each reports its failure. */
int save_inventory(struct save *s);
int save_pstree(struct save *s);
int save_ids(struct save *s);
int save_core(struct save *s, const struct task *t); /* core-TID of all threads, bcr-threads-PID */
int save_mm(struct save *s, const struct task *t);   /* mm-PID, pagemap-PID */
int save_mm_pages(struct save *s, const struct mm *mm, pid_t pid); /* pagemap-PID */
int save_fs(struct save *s, const struct task *t);
int save_shmems(struct save *s); /* memfd, pagemap-shmem-N */
/* Memory objects but memory files, for bcr-objects. Returns -ENOMEM or 0. */
int fill_shmem_objects(struct arena *a, const struct model *m, BcrObjectsEntry *msg);
int save_files(struct save *s); /* files, fdinfo-N, pipes-data, fifo-data, sk-queues, tty-info */
int save_ghosts(struct save *s); /* remap-fpath, ghost-file-N */
/* Which removed directories are inside which, for bcr-objects. Returns -ENOMEM or 0. */
int fill_removed(struct arena *a, const struct model *m, BcrObjectsEntry *msg);
int save_objects(struct save *s);
int save_seccomp(struct save *s); /* seccomp.img, when there are filters */

/* What is in pairs of Unix sockets: sk-queues. */
int save_queues(struct save *s);
void save_socket_extra(const struct file *f, BcrFileEntry *e);

/* Guard regions of a task's address space, for bcr-threads-PID. Returns -ENOMEM or 0. */
int save_guards(struct arena *a, const struct mm *mm, BcrTaskEntry *msg);

/* Its other state that CRIU's format has no field for. Returns -ENOMEM or 0. */
int save_memory_extra(struct arena *a, const struct mm *mm, BcrTaskEntry *task);

/* Attributes that few programs have (attrs.c), for bcr-threads-PID; `mm` may be NULL. */
void save_thread_attrs(const struct thread *th, BcrThreadEntry *e);
void save_process_attrs(const struct task *t, const struct mm *mm, BcrTaskEntry *e);
int load_thread_attrs(const struct image_reader *r, const BcrThreadEntry *e, struct thread *th);
int load_task_attrs(const struct image_reader *r, const BcrTaskEntry *e, struct task *t);
int load_mm_attrs(const struct image_reader *r, const BcrTaskEntry *e, struct mm *mm);

struct load {
	const struct image_source *src;
	struct model *m;
	struct xstate_layout xstate;
	BcrObjectsEntry *objects;    /* NULL when the set was not written by bcr */
	struct parents *parents;     /* NULL: not needed so far */
};

/* Is this a set of a pre-dump, with an inventory that says so and no processes? */
bool images_memory_only(const struct image_source *src);

/* Opens the chain of parents, when that has not been done; a set without any is a reported failure. */
int load_parents(struct load *l);

int load_inventory(struct load *l);
int load_pstree(struct load *l); /* tasks and threads, numbers only */
int load_ids(struct load *l);
int load_seccomp(struct load *l);
int load_objects(struct load *l);
int load_files(struct load *l);
int load_ghosts(struct load *l); /* after the files */
/* Once all open files are there: pairs of Unix sockets, what is in them, who made one. */
int load_pairs(struct load *l);
int load_queues(struct load *l);
int apply_socket_extra(const struct image_reader *r, const BcrFileEntry *e, struct file *f);
/* Everything of a task that is in core-N and bcr-threads-N; *ret_extra is owned by the caller, NULL when there is none. */
int load_core(struct load *l, struct task *t, BcrTaskEntry **ret_extra);
int load_mm(struct load *l, const struct task *t, const BcrTaskEntry *extra);
/* The memory part of bcr-threads-N, once the mappings are loaded; `r` names the file in messages. */
int load_memory_extra(const struct image_reader *r, const BcrTaskEntry *task, struct mm *mm);
/* Reads a page map, and finds where the pages are that it says are in the parent set. */
int load_pages(struct load *l, const char *name, uint64_t end_max, uint32_t *pages_id, page_runs *runs);
int load_fs(struct load *l, const struct task *t);
/* Memory objects that the set tells of, before anything names them; that of a mapping; and the pages of all. */
int load_shmem_objects(struct load *l);
int load_vma_shmem(struct load *l, const struct image_reader *r, const VmaEntry *e, struct vma *vma);
int load_shmems(struct load *l);

/* Pieces that image/load.c and the fuzzer share: loads from any source. */
int images_load_from(const struct image_source *src, struct model **ret);

#endif
