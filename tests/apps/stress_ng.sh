#!/bin/bash
# stress-ng --verify with stressors for processor, memory, processes, signals and timers; left running once, then dumped in
# mid-work, gone and restored, three times. Each stressor works on, and none finds anything wrong.
# timeout: 600
set -eu
# shellcheck source=tests/lib/bcr.sh
. "$SRC/tests/lib/bcr.sh"
# It has more to do than most until there is something to see.
patience=$((patience * 4))
command -v stress-ng >/dev/null || skip "stress-ng is not installed"

stressors=(cpu vm fork kill sigq sigsuspend sigsegv sigpending itimer)

goes_on() {
	/usr/bin/python3 -IS "$SRC/tests/apps/lib/children_go_on.py" "$pid" ${#stressors[@]} "$patience" ||
		{ show_log work/log; fail "not all stressors go on"; }
}

options=()
for s in "${stressors[@]}"; do
	options+=("--$s" 1)
done
spawn "$PWD/work" stress-ng --verify --vm-bytes 32M "${options[@]}"
goes_on
say "$(tree "$pid" | wc -l) processes; left running"
dump "$PWD/images" "$pid" -R
goes_on
for round in 1 2 3; do
	round_trip work "$PWD/images"
	goes_on
	say "round trip $round: all ${#stressors[@]} stressors go on"
done
kill -INT "$pid"
gone "$pid"
grep -q "successful run completed" work/log || { show_log work/log; fail "it did not end in order"; }
! grep -iE "fail|error" work/log || fail "a stressor found something wrong"
