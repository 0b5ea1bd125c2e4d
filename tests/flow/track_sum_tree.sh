#!/bin/bash
# Eight threads keep a tree of checksums over their memory while snapshots of them are taken; each snapshot is restored, in the place of
# the original, and passes its own check; so does the original. ROUNDS snapshots of MIB MiB: 200 of 512 is the full size, for
# ten minutes or more. BACKENDS: those to use. Once more with seven of the threads as processes that share the memory.
# timeout: 3600
set -eu
# shellcheck source=tests/lib/bcr.sh
. "$SRC/tests/lib/bcr.sh"
rounds=${ROUNDS:-4} mib=${MIB:-96} threads=8
dir=$PWD/tree images=$PWD/images

# The target checks itself, now, and goes on.
check() {
	checks=$((checks + 1))
	touch "$dir/check"
	await number "$dir/checked" $checks || { show_log "$dir/log"; fail "$backend, round $i: $1 does not pass its check"; }
}

# total NAME: the sum of this line of all statistics.
total() {
	cat stats.* | sed -n "s/^$1: //p" | awk '{ n += $1 } END { print n + 0 }'
}

# run BACKEND ROUNDS US [processes]: threads rest for so many microseconds between two changes.
run() {
	local i old tracked saved checks=0 backend=$1
	rm -rf "$dir" stats.*
	target "$dir" "$lib/sum_tree" "$mib" $threads "${@:3}"
	for ((i = 1; i <= $2; i++)); do
		dump "$images" "$pid" -R --track="$backend" --display-stats >"stats.$i"
		check "the original after the snapshot"
		old=$pid
		kill_tree "$pid"
		# The copy has not been told of the check since: it counts on from where it was.
		checks=$((checks - 1))
		restore "$images"
		[ "$pid" = "$old" ] || fail "round $i: restored as $pid, was $old"
		rm -f "$dir/checked"
		check "the snapshot"
	done
	finish "$dir" "$pid"
	tracked=$(cat stats.* | grep -c "^Tracked by: $backend" || true)
	saved=$(total "Pages copied before a write")
	say "$backend${4:+, $4}: $2 snapshots of $mib MiB restored and checked: $tracked cut while it ran, $saved pages copied before a write," \
		"$(total "Pages copied inside the stop") inside the stop, $(total "Pages torn") torn," \
		"$(total "Cuts made again") cuts made again; stopped for" \
		"$(cat stats.* | sed -n 's/^Frozen time: \(.*\) us/\1/p' | sort -n | sed -n "$((($2 + 1) / 2))p") us (median)"
	# Snapshots were taken as the back end does it, or this has tested nothing.
	case $backend in
	none) return ;;
	wp-cow) [ "$saved" -gt 0 ] || fail "no page was copied before a write" ;;
	esac
	[ "$tracked" -ge $((($2 + 3) / 4)) ] || fail "only $tracked snapshots were cut while it ran"
}

# works BACKEND: false where the machine cannot have it; the reason is printed.
works() {
	local rc=0
	spawn "$PWD/probe" sleep 1000
	await text "/proc/$pid/comm" sleep
	mkdir -p images
	"$BCR" dump -t "$pid" -D images -R --track="$1" >probe.out 2>&1 || rc=$?
	kill_tree "$pid"
	[ $rc != 0 ] || return 0
	grep -h -- "--track=$1: not on this machine" probe.out || { cat probe.out; fail "dump --track=$1 of a sleep"; }
	return 1
}

ran=0
for backend in ${BACKENDS:-wp-cow wp-async soft-dirty none}; do
	works "$backend" || continue
	ran=$((ran + 1))
	case $backend in
	wp-cow)
		run "$backend" "$rounds" 0
		run "$backend" "$rounds" 0 processes
		;;
	# These copy inside the stop what was written since they began: not too much, or all of it is.
	wp-async | soft-dirty) run "$backend" $(((rounds + 3) / 4)) 2000 ;;
	*) run "$backend" $(((rounds + 3) / 4)) 0 ;;
	esac
done
[ $ran -gt 0 ] || skip "no way to track memory works here"
