#!/bin/bash
# System calls under way go on: none returns EINTR, and each ends when its time is over, neither sooner nor later. Each
# is stopped at ten points of its wait.
# timeout: 300
# alone: it measures
set -eu
# shellcheck source=tests/lib/bcr.sh
. "$SRC/tests/lib/bcr.sh"

# Waits of a target begin 2.3 s before it is ready, and the stop has to come before the first is over. How long that takes is a
# matter of the machine: a dump on trial tells. When it was too late for one wait, all are made longer.
target "$PWD/trial" "$lib/interrupted"
begun=$(date +%s%3N)
dump "$PWD/images-trial" "$pid" -R
wait_ms=$((3500 + 2 * ($(date +%s%3N) - begun)))
finish "$PWD/trial" "$pid"
# The target is put into it.
cgroup_of_target=

# begin NAME: starts a target, and the twin that tells by how much the machine is late meanwhile.
begin() {
	target "$PWD/$1-twin" "$lib/interrupted"
	twin=$pid
	target "$PWD/$1" "$lib/interrupted" "$wait_ms"
	[ -z "$cgroup_of_target" ] || for p in $(tree "$pid"); do echo "$p" >"$cgroup_of_target/cgroup.procs"; done
}

# end NAME: lets it look at its state. False when the stop came too late.
end() {
	touch "$PWD/$1-twin/go"
	await exit "$twin" || fail "the twin did not end"
	cp "$PWD/$1-twin/noise" "$PWD/$1/noise"
	touch "$PWD/$1/go"
	await exit "$pid" || { show_log "$PWD/$1/log"; fail "$pid did not end"; }
	[ "$(tail -n 1 "$PWD/$1/log")" = PASS ] && return
	grep -q 'over before the stop' "$PWD/$1/log" || { show_log "$PWD/$1/log"; fail "$1: a call did not go on as it was"; }
	echo "$1: $(tail -n 1 "$PWD/$1/log")"
	[ "$wait_ms" -lt 60000 ] || fail "the machine is too slow"
	wait_ms=$((wait_ms * 2))
	return 1
}

# restored NAME [DUMP OPTIONS...]: dumped, ended, restored.
restored() {
	local name=$1
	shift
	say "$name"
	begin "$name"
	round_trip "$PWD/$name" "$PWD/images-$name" "$@"
	end "$name" || { rm -rf "$name" "$name-twin" "images-$name"; restored "$name" "$@"; }
}

# running NAME TIMES [DUMP OPTIONS...]: left running, many times.
running() {
	local name=$1 times=$2
	shift 2
	say "$name"
	begin "$name"
	touch "$PWD/$name/running"
	for ((i = 0; i < times; i++)); do
		dump "$PWD/images-$name-$i" "$pid" -R "$@"
	done
	end "$name" || { rm -rf "$name" "$name-twin" images-"$name"-*; running "$name" "$times" "$@"; }
}

restored restored
running left-running 2

# In a cgroup of its own, by the freezer.
root=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
if [ -n "$root" ]; then
	cgroup=$root/bcr-test-${BCR_TEST_ID:-calls}
	mkdir "$cgroup"
	cgroup_of_target=$cgroup running left-running-cgroup 2 --freezer=cgroup
	rmdir "$cgroup"
else
	say "no cgroup2 file system: its freezer is not tried"
fi

# Without BPF's view of tasks.
restored restored-proc --observe=proc
running left-running-proc 1 --observe=proc
