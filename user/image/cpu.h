/* Processor state of a thread ↔ messages: one implementation per architecture. Private to image/. */
#ifndef BCR_IMAGE_CPU_H
#define BCR_IMAGE_CPU_H

#include "image/io.h"
#include "images/bcr-threads.pb-c.h"
#include "images/core.pb-c.h"
#include "model/model.h"
#include "sys/xstate-x86_64.h"

/* Fills core->mtype and core->thread_info, and what has no field there into `extra`. Failure is reported. */
int cpu_save(struct arena *a, const struct xstate_layout *l, const struct thread *th,
	     CoreEntry *core, BcrThreadEntry *extra);

/* `extra` may be NULL. State that this processor does not have is refused by name. */
int cpu_load(const struct image_reader *r, const struct xstate_layout *l, const CoreEntry *core,
	     const BcrThreadEntry *extra, struct thread *th);

/* Refuses images of another architecture, by name. */
int cpu_check_march(const struct image_reader *r, const CoreEntry *core);

#endif
