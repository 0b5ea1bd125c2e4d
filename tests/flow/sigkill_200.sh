#!/bin/bash
# bcr is killed by SIGKILL at 200 random instants of a dump. The target always still runs and checks itself, the image set
# of before stays valid, and nothing prevents the next dump.
# timeout: 3600
set -eu
# shellcheck source=tests/lib/bcr.sh
. "$SRC/tests/lib/bcr.sh"
kills=${KILLS:-200}
dir=$PWD/crowd images=$PWD/images

# All processes of this test that run bcr.
bcr_processes() {
	local p
	for p in /proc/[0-9]*; do
		if [ "$p/exe" -ef "$BCR" ] && grep -qz "^BCR_TEST_ID=${BCR_TEST_ID:-}$" "$p/environ" 2>/dev/null; then echo "${p#/proc/}"; fi
	done
}

still_fine() {
	local now
	now=$(cat "$dir/rounds")
	await number "$dir/rounds" $((10#$now + 2)) || {
		show_log "$dir/log"
		# shellcheck disable=SC2046 # words are meant
		ps -o pid,stat,wchan,comm -p $(tr '\n' , <tree.before)1 || true
		fail "kill $1: the target does not go on"
	}
	not_stopped "$pid"
}

target "$dir" "$lib/crowd"
tree "$pid" >tree.before
dump "$images" "$pid" -R

# How long a dump takes: the median of five and a tenth more, so that its end is hit as well.
duration_us=$(for i in 1 2 3 4 5; do
	start=${EPOCHREALTIME/./}
	"$BCR" dump -t "$pid" -D "$images" -R
	echo $((${EPOCHREALTIME/./} - start))
done | sort -n | sed -n 3p)
duration_us=$((duration_us * 11 / 10))
say "kills within $duration_us us"

# With sanitizers a process that looks for leaks when bcr ends is taken for one of bcr's. Who kills that has the other one wait for it
# for ever. What leaks in a dump that is not killed is found above and below.
leaks=${ASAN_OPTIONS:-}
export ASAN_OPTIONS=${leaks:+$leaks:}detect_leaks=0
hit=0 restores=0
for ((i = 1; i <= kills; i++)); do
	# Every fourth would end the target, and may have done so.
	mode=-R
	[ $((i % 4)) != 0 ] || mode=
	# shellcheck disable=SC2086 # none or one
	"$BCR" dump -t "$pid" -D "$images" $mode >out 2>&1 &
	bcr=$!
	us=$(((RANDOM * 32768 + RANDOM) % duration_us))
	# The random instant is what is tested: this sleep waits for nothing.
	sleep "$((us / 1000000)).$(printf %06d $((us % 1000000)))"
	# Any of its processes may be the one; in every other round it is the one that was started.
	victims=$(bcr_processes)
	victim=$bcr
	if [ $((i % 2)) = 0 ] && [ -n "$victims" ]; then
		# shellcheck disable=SC2086 # words are meant
		victim=$(shuf -n 1 -e $victims)
	fi
	if kill -KILL "$victim" 2>/dev/null; then hit=$((hit + 1)); fi
	rc=0
	wait $bcr 2>/dev/null || rc=$?
	for p in $victims; do
		await exit "$p" || fail "kill $i at $us us: process $p of bcr goes on"
	done

	"$BCR" show -D "$images" >shown 2>&1 || { cat shown; fail "kill $i at $us us: there is no valid image set any more"; }
	if [ -z "$mode" ] && ! kill -0 "$pid" 2>/dev/null; then
		# Killed after the set was complete: then it is restored.
		# shellcheck disable=SC2046
		gone $(cat tree.before)
		restore "$images"
		restores=$((restores + 1))
	elif [ $((i % 40)) = 0 ]; then
		# The set in the directory is not only shown, but good.
		kill_tree "$pid"
		restore "$images"
		restores=$((restores + 1))
	fi
	still_fine "$i at $us us (exit status $rc)"
	tree "$pid" | cmp -s - tree.before || fail "kill $i at $us us: another tree than before"
done
say "$hit of $kills killed it in mid-work; $restores restores"
export ASAN_OPTIONS=$leaks
# How long a dump takes changes with what else the machine does: a tenth is few, but not by chance.
[ $hit -ge $((kills / 10)) ] || fail "only $hit of $kills kills met a running bcr"

say "and a good dump, which also removes what the killed ones left"
round_trip "$dir" "$images"
left=$(find "$images" -mindepth 1 ! -name '*.img' ! -name '*.bcr' ! -name '*.log' ! -name 'stats-*' ! -name pidfile)
[ -z "$left" ] || fail "left behind: $left"
still_fine "at the end"
finish "$dir" "$pid"
