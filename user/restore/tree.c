/* Sessions and process groups: who has to be forked when. What can be built, and how, is said by model/tree_check.h. */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "model/tree_check.h"
#include "restore/plan.h"

int plan_tree(struct restore_plan *p)
{
	_cleanup_free_ struct tree_birth *births = calloc(p->tasks.nr, sizeof(*births));
	struct tree_flaw flaw;

	if (!births)
		return fail(-ENOMEM, "restore plan");
	int err = tree_check(p->m, births, &flaw);
	if (err == -EUCLEAN)
		return fail(0, "pid %d: %s", flaw.pid, flaw.text);
	if (!err)
		err = tree_check_sharing(p->m, NULL);
	if (err)
		return err == -ENOMEM ? fail(err, "restore plan") : err;
	for (size_t i = 0; i < p->tasks.nr; i++) {
		p->tasks.v[i].parent = births[i].parent;
		p->tasks.v[i].birth_sid = births[i].sid;
		p->tasks.v[i].early = births[i].early;
	}
	return 0;
}
