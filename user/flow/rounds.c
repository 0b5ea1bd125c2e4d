/*
 * How often memory is copied ahead before the last stop.
 *
 * Theory of operation. A round copies what was written during the one before, so rounds become shorter as long
 * as the target writes more slowly than bcr copies. When a round is not much shorter than the one before it,
 * the target writes as fast as it is copied, and further ones would only write the same pages again: then it is
 * stopped with what it writes in one round left to do. After the rounds the files are brought in order and onto
 * the disk, which takes a while; one more round takes what was written during that.
 */
#include "flow/rounds.h"

#include "base/log.h"

enum {
	MAX_ROUNDS = 12,
	FEW_PAGES = 256,   /* copied inside the stop without anybody noticing */
	PAYS_PERCENT = 70, /* a round with more pages than these of the one before does not pay */
};

static int one_round(struct precopy *p, const struct rounds_env *env, const struct model *running, uint64_t *ret_pages)
{
	int err = running ? 0 : env->observe(env->arg, &running);

	if (!err)
		err = precopy_round(p, running, ret_pages, env->progress);
	if (!err)
		log_info("round %u: %llu pages copied while the target runs", precopy_stats(p)->rounds,
			 (unsigned long long)*ret_pages);
	return err;
}

int rounds_run(struct precopy *p, const struct model *running, const struct rounds_env *env)
{
	uint64_t before, now = 0;
	int err = one_round(p, env, running, &now);

	do {
		before = now;
		if (!err && before > FEW_PAGES)
			err = one_round(p, env, NULL, &now);
		if (err)
			return err;
	} while (now > FEW_PAGES && now * 100 <= before * PAYS_PERCENT && precopy_stats(p)->rounds < MAX_ROUNDS);
	err = precopy_settle(p);
	return err ? err : one_round(p, env, NULL, &now);
}
