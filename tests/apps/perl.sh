#!/bin/bash
# perl with an interval timer, a child behind a socket pair and one behind a pipe; left running once, then dumped in mid-work,
# gone and restored, three times: no answer is wrong, no number is lost or doubled.
set -eu
# shellcheck source=tests/lib/bcr.sh
. "$SRC/tests/lib/bcr.sh"
# shellcheck source=tests/lib/progress.sh
. "$SRC/tests/lib/progress.sh"

# shellcheck disable=SC2034 # progress.sh uses them
names=("rounds," "ticks of the timer," "answers of a child") more=(50 50 50)
at_work 1 50 perl "$SRC/tests/apps/lib/work.pl"
dump_at_work 3
