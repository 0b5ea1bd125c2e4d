/* Processor state of a thread ↔ messages: one implementation per architecture. Private to image/. */
#ifndef BCR_IMAGE_CPU_H
#define BCR_IMAGE_CPU_H

#include "image/io.h"
#include "images/bcr-threads.pb-c.h"
#include "images/core.pb-c.h"
#include "model/model.h"

/* Where this processor keeps its extended state, standard format. */
struct xstate_layout {
	uint64_t features;   /* components the system has enabled */
	uint32_t size_bytes; /* of the whole area */
	uint32_t mxcsr_mask;
	struct {
		uint32_t offset, size_bytes;
	} comp[64];
};

void xstate_layout_get(struct xstate_layout *ret);

/* Fills core->mtype and core->thread_info, and what has no field there into `extra`. Failure is reported. */
int cpu_save(struct arena *a, const struct xstate_layout *l, const struct thread *th,
	     CoreEntry *core, BcrThreadEntry *extra);

/* `extra` may be NULL. State that this processor does not have is refused by name. */
int cpu_load(const struct image_reader *r, const struct xstate_layout *l, const CoreEntry *core,
	     const BcrThreadEntry *extra, struct thread *th);

/* Refuses images of another architecture, by name. */
int cpu_check_march(const struct image_reader *r, const CoreEntry *core);

#endif
