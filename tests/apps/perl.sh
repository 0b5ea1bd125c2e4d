#!/bin/bash
# perl with an interval timer, a child behind a socket pair and one behind a pipe; left running once, then dumped in mid-work,
# gone and restored, three times: no answer is wrong, no number is lost or doubled.
set -eu
# shellcheck source=tests/lib/bcr.sh
. "$SRC/tests/lib/bcr.sh"

# Fields of work/progress: rounds, ticks of the timer, answers of a child.
goes_on() {
	local k before
	before=$(cat work/progress)
	for k in 1 2 3; do
		await field work/progress $k $(($(cut -d ' ' -f $k <<<"$before") + 50)) ||
			{ show_log work/log; fail "it does not go on from $before"; }
	done
}

spawn "$PWD/work" perl "$SRC/tests/apps/lib/work.pl"
await field work/progress 1 50 || { show_log work/log; fail "the program does not run"; }
dump "$PWD/images" "$pid" -R
goes_on
for round in 1 2 3; do
	say "round trip $round at $(cat work/progress)"
	round_trip work "$PWD/images"
	goes_on
done
touch work/stop
gone "$pid"
[ "$(tail -n 1 work/log)" = PASS ] || { show_log work/log; fail "it computed something wrong"; }
say "at the end: $(cat work/progress)"
