/* A userfaultfd of any process of the target: of one thread, or while all of its threads are held. */
#include "flow/userfaultfd.h"

#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include "capture/userfaultfd.h"
#include "freeze/freeze.h"
#include "sys/proc.h"

static int take_held(pid_t pid, unsigned timeout_s, struct waits *waits, uint32_t *held_us, int *ret)
{
	struct way_back_code code;
	struct freeze *hold = NULL;
	int err = freeze_create("ptrace", pid, timeout_s, &hold);

	if (err)
		return err;
	way_back_find(proc_living(pid), &code); /* not while everybody waits */
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

int userfaultfd_take(pid_t pid, unsigned timeout_s, struct waits *waits, uint32_t *held_us, int *ret)
{
	int err = capture_userfaultfd(pid, waits, ret);

	if (err != -EBUSY)
		return err;
	/* Nothing is to be said of one that ends: a newer observation does not have it. */
	if (kill(pid, 0) && errno == ESRCH)
		return -ESRCH;
	return take_held(pid, timeout_s, waits, held_us, ret);
}
