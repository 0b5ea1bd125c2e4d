#!/bin/bash
# node with its default settings: timers, promises, the thread pool, a worker thread, a child process behind two socket pairs;
# left running once, then dumped in mid-work, gone and restored, twice.
# timeout: 600
set -eu
# shellcheck source=tests/lib/bcr.sh
. "$SRC/tests/lib/bcr.sh"
# shellcheck source=tests/lib/progress.sh
. "$SRC/tests/lib/progress.sh"
# It has more to do than most until there is something to see.
patience=$((patience * 4))
command -v node >/dev/null || skip "node is not installed"

# shellcheck disable=SC2034 # progress.sh uses them
names=("ticks of an interval," "delays," "rounds of the pool," "answers of the worker," "lines of the child") more=(20 10 2 20 500)
at_work 5 1000 node "$SRC/tests/apps/lib/work.js"
goes_on
dump_at_work 2
