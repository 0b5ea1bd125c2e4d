#!/bin/bash
# A dump that ends its target copies memory while it runs, in rounds, and inside the stop only what was written
# since: less is copied in the stop, every byte is right after a restore, a writer that is too fast ends the
# rounds, and --track=none does without.
set -eu
# shellcheck source=tests/lib/bcr.sh
. "$SRC/tests/lib/bcr.sh"

stored() {
	cat "$1"/pages-*.img | wc -c | awk '{ print $1 / 4096 }'
}

figure() {
	sed -n "s/^$1: \([0-9]*\).*/\1/p" stats.out
}

# precopied NAME MIB HOT_PAGES NAP_US [OPTIONS...]: dumps a `dirty` of these arguments, and looks at the statistics.
precopied() {
	local name=$1 mib=$2 hot=$3 nap=$4
	shift 4
	say "$name: $mib MiB, $hot pages written, nap $nap us $*"
	target "$PWD/$name" "$lib/dirty" "$mib" "$hot" "$nap"
	dump "$PWD/images-$name" "$pid" --display-stats "$@" >stats.out
	gone "$pid"
	cat stats.out
	[ $(($(figure "Memory pages written") + $(figure "Shared memory pages written"))) = "$(stored "images-$name")" ] ||
		fail "the statistics are not what is stored: $(stored "images-$name") pages"
}

came_back() {
	restore "$PWD/images-$1"
	finish "$PWD/$1" "$pid"
}

for observe in bpf proc; do
	precopied "slow-$observe" 64 300 500 --observe "$observe"
	[ "$(figure "Rounds before the stop")" -ge 2 ] || fail "memory was not copied in rounds"
	[ "$(figure "Pages copied before the stop")" -ge 16384 ] || fail "memory was not copied ahead"
	[ "$(figure "Pages copied inside the stop")" -le 2000 ] || fail "nearly all was copied inside the stop"
	came_back "slow-$observe"
done

precopied idle 64 0 0
[ "$(figure "Pages copied inside the stop")" -le 100 ] || fail "memory of an idle program was copied inside the stop"
! grep -q "pages came or went" images-idle/dump.log || fail "the pages of an idle program were copied twice"
came_back idle

precopied fast 32 8192 0
[ "$(figure "Rounds before the stop")" -le 6 ] || fail "the rounds went on against a fast writer"
came_back fast

precopied stopped 16 200 200 --track none
[ "$(figure "Rounds before the stop")" = 0 ] || fail "--track=none copies ahead"
came_back stopped

say "a parent, and pre-copy above it"
target "$PWD/above" "$lib/dirty" 32 400 200
mkdir base
"$BCR" pre-dump -t "$pid" -D base || fail "pre-dump"
dump "$PWD/images-above" "$pid" --prev-images-dir ../base --display-stats >stats.out
gone "$pid"
[ "$(figure "Memory pages skipped from parent")" -ge 7000 ] || { cat stats.out; fail "the parent's pages were written again"; }
[ $(($(figure "Memory pages written") + $(figure "Shared memory pages written"))) = "$(stored images-above)" ] || fail "the statistics are not what is stored"
came_back above

say "several processes, with pages they share"
target "$PWD/tree" "$lib/crowd"
round_trip "$PWD/tree" "$PWD/images-tree"
finish "$PWD/tree" "$pid"

say "left stopped: nothing is protected or traced any more"
target "$PWD/left" "$lib/dirty" 16 200 200
dump "$PWD/images-left" "$pid" --leave-stopped
grep -q '^State:.T (stopped)' "/proc/$pid/status" || fail "it is not stopped"
! grep -qE '^VmFlags:.* (um|uw)( |$)' "/proc/$pid/smaps" || fail "its memory is still protected"
kill -CONT "$pid"
finish "$PWD/left" "$pid"

say "too little room: the target goes on"
if mkdir small && mount -t tmpfs -o size=8m none small 2>/dev/null; then
	target "$PWD/room" "$lib/dirty" 32 200 200
	rc=0
	"$BCR" dump -t "$pid" -D small -v4 >full.out 2>&1 || rc=$?
	umount small
	[ $rc = 1 ] && grep -q "too full" full.out || { show_log full.out; fail "a full disk: exit status $rc"; }
	not_stopped "$pid"
	! grep -qE '^VmFlags:.* (um|uw)( |$)' "/proc/$pid/smaps" || fail "its memory is still protected"
	finish "$PWD/room" "$pid"
fi
