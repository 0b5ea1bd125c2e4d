#!/bin/bash
# CLOCK_MONOTONIC and CLOCK_BOOTTIME are others after a reboot. A time namespace has such clocks: restored there, with clocks far ahead
# of those of the dump, and behind them, every timer and sleep goes on with what had remained of it.
set -eu
# shellcheck source=tests/lib/bcr.sh
. "$SRC/tests/lib/bcr.sh"

bcr=$BCR
# elsewhere MONOTONIC BOOTTIME: what is restored from now on gets these many seconds more.
elsewhere() {
	printf '#!/bin/sh\nexec unshare --time --monotonic %s --boottime %s --fork "%s" "$@"\n' "$1" "$2" "$bcr" >bcr-elsewhere
	chmod +x bcr-elsewhere
}
elsewhere 1 1
unshare --time --monotonic 1 --boottime 1 --fork true 2>why || skip "there are no time namespaces here: $(cat why)"

restore_elsewhere() {
	BCR=$PWD/bcr-elsewhere
	restore "$@"
	BCR=$bcr
	# shellcheck disable=SC2012 # a link of /proc
	[ "$(readlink "/proc/$pid/ns/time")" != "$(readlink /proc/self/ns/time)" ] || fail "its clocks are not others"
}

now_ms() {
	echo $(($(date +%s%N) / 1000000))
}

uptime=$(cut -d . -f 1 /proc/uptime)
for jump in "100000 200000" "-$((uptime / 2)) -$((uptime / 3))"; do
	# shellcheck disable=SC2086 # two words
	elsewhere $jump
	for name in timers_posix timers_interval timerfd_remaining; do
		dir=$PWD/$name.${jump%% *}
		say "$name, clocks $jump"
		target "$dir" "$BUILD/tests/kinds/$name"
		dump "$dir.images" "$pid"
		gone "$pid"
		restore_elsewhere "$dir.images"
		finish "$dir" "$pid"
	done

	say "sleep, clocks $jump"
	dir=$PWD/sleep.${jump%% *}
	begin=$(now_ms)
	spawn "$dir" sleep 8
	await state "$pid" S || fail "it does not sleep"
	dump "$dir.images" "$pid"
	gone "$pid"
	restore_elsewhere "$dir.images"
	gone "$pid"
	took=$(($(now_ms) - begin))
	say "it ended after $took ms, the time it was away included"
	[ $took -ge 8000 ] || fail "a sleep of 8000 ms has ended after $took ms"
done
