#!/bin/bash
# node with its default settings: timers, promises, the thread pool, a worker thread, a child process behind two socket pairs;
# left running once, then dumped in mid-work, gone and restored, twice.
# timeout: 600
set -eu
# shellcheck source=tests/lib/bcr.sh
. "$SRC/tests/lib/bcr.sh"
# It has more to do than most until there is something to see.
patience=$((patience * 4))
command -v node >/dev/null || skip "node is not installed"

# Fields of work/progress: ticks of an interval, delays, rounds of the pool, answers of the worker, lines of the child.
names=(ticks delays "rounds of the pool" "answers of the worker" "lines of the child")
more=(20 10 2 20 500)

goes_on() {
	local k value before
	before=$(cat work/progress)
	for k in 1 2 3 4 5; do
		value=$(($(cut -d ' ' -f $k <<<"$before") + more[k - 1]))
		await field work/progress $k $value || { show_log work/log; fail "it does not get to $value ${names[k - 1]}"; }
	done
}

spawn "$PWD/work" node "$SRC/tests/apps/lib/work.js"
await field work/progress 5 1000 || { show_log work/log; fail "the program does not run"; }
goes_on
say "$(find /proc/"$pid"/task -mindepth 1 -maxdepth 1 | wc -l) threads, $(cat work/progress)"
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
