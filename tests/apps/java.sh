#!/bin/bash
# java with its default settings: 36 threads of its own, the compiler's and the collector's, timers, a child process; left
# running once, then dumped in mid-work, gone and restored, twice. Every thread checks its own results.
# timeout: 600
set -eu
# shellcheck source=tests/lib/bcr.sh
. "$SRC/tests/lib/bcr.sh"
# It has more to do than most until there is something to see.
patience=$((patience * 4))
command -v javac >/dev/null || skip "java and its compiler are not installed"

# Fields of work/progress: rounds of the slowest thread, timer ticks, garbage collections, ms spent compiling.
field() {
	cut -d ' ' -f "$1" work/progress
}

goes_on() {
	local rounds=$(($(field 1) + 3)) ticks=$(($(field 2) + 3)) collections=$(($(field 3) + 1))
	await field work/progress 1 $rounds || { show_log work/log; fail "its threads do not get to round $rounds"; }
	await field work/progress 2 $ticks || { show_log work/log; fail "its timer does not get to tick $ticks"; }
	await field work/progress 3 $collections || { show_log work/log; fail "it does not get to garbage collection $collections"; }
}

spawn "$PWD/work" java "$SRC/tests/apps/lib/Work.java"
await field work/progress 1 20 || { show_log work/log; fail "the program does not run"; }
threads=$(find /proc/"$pid"/task -mindepth 1 -maxdepth 1 | wc -l)
[ "$threads" -ge 40 ] || fail "it has $threads threads only"
[ "$(field 4)" -gt 0 ] || fail "nothing has been compiled"
say "$threads threads; rounds, ticks, collections, ms compiling: $(cat work/progress)"
dump "$PWD/images" "$pid" -R
goes_on
for round in 1 2; do
	say "round trip $round at $(cat work/progress)"
	round_trip work "$PWD/images"
	goes_on
done
touch work/stop
gone "$pid"
[ "$(tail -n 1 work/log)" = PASS ] || { show_log work/log; fail "it computed something wrong"; }
say "at the end: $(cat work/progress)"
