#!/bin/bash
# java with its default settings: 36 threads of its own, the compiler's and the collector's, timers, a child process; left
# running once, then dumped in mid-work, gone and restored, twice. Every thread checks its own results.
# timeout: 600
set -eu
# shellcheck source=tests/lib/bcr.sh
. "$SRC/tests/lib/bcr.sh"
# shellcheck source=tests/lib/progress.sh
. "$SRC/tests/lib/progress.sh"
# It has more to do than most until there is something to see.
patience=$((patience * 4))
command -v javac >/dev/null || skip "java and its compiler are not installed"

# shellcheck disable=SC2034 # progress.sh uses them
names=("rounds of the slowest thread," "timer ticks," "garbage collections," "ms spent compiling") more=(3 3 1)
at_work 1 20 java "$SRC/tests/apps/lib/Work.java"
threads=$(find /proc/"$pid"/task -mindepth 1 -maxdepth 1 | wc -l)
[ "$threads" -ge 40 ] || fail "it has $threads threads only"
[ "$(cut -d ' ' -f 4 work/progress)" -gt 0 ] || fail "nothing has been compiled"
dump_at_work 2
