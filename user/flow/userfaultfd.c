/* A userfaultfd of any process of the target: of one thread, or while all who have its descriptors are held. */
#include "flow/userfaultfd.h"

#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "capture/userfaultfd.h"
#include "freeze/freeze.h"

/* Who is to be held: the threads of these processes, and nobody who descends from them. */
static int list_sharers(void *arg, bool stopping, int (*add)(void *ctx, pid_t pid, pid_t tid), void *ctx)
{
	const proc_numbers *sharers = arg;
	int err = 0;

	(void)stopping;
	for (size_t i = 0; !err && i < sharers->nr; i++) {
		_cleanup_close_ int dir = -1;
		proc_numbers tids = {};

		/* One that has ended has nothing to share. */
		if (!proc_open(sharers->v[i], &dir) && !proc_list(dir, "task", &tids))
			for (size_t k = 0; !err && k < tids.nr; k++)
				err = add(ctx, sharers->v[i], tids.v[k]);
		VEC_FREE(&tids);
	}
	return err;
}

static int take_held(pid_t pid, const proc_numbers *sharers, unsigned timeout_s, struct waits *waits, uint32_t *held_us,
		     int *ret)
{
	const struct freeze_lister lister = { (void *)sharers, list_sharers };
	struct way_back_code code;
	struct freeze *hold = NULL;
	int err = freeze_create("ptrace", pid, timeout_s, &hold);

	if (err)
		return err;
	way_back_find(proc_living(pid), &code); /* not while everybody waits */
	freeze_set_lister(hold, &lister);
	freeze_set_waits(hold, waits);
	freeze_set_short(hold, true);
	err = freeze_stop(hold);
	if (!err)
		err = capture_userfaultfd_held(pid, &code, ret);
	int go_err = freeze_thaw(hold, THAW_RUN, NULL);
	*held_us += freeze_frozen_us(hold);
	freeze_destroy(hold);
	if (!err && go_err) {
		close(*ret);
		*ret = -1;
	}
	return err ? err : go_err;
}

int userfaultfd_take(pid_t pid, const proc_numbers *sharers, unsigned timeout_s, struct waits *waits, uint32_t *held_us,
		     int *ret)
{
	int err = sharers->nr > 1 ? -EBUSY : capture_userfaultfd(pid, waits, ret);

	if (err != -EBUSY)
		return err;
	/* Nothing is to be said of one that ends: a newer observation does not have it. */
	if (kill(pid, 0) && errno == ESRCH)
		return -ESRCH;
	return take_held(pid, sharers, timeout_s, waits, held_us, ret);
}
