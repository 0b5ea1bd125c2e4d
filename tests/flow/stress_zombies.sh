#!/bin/bash
# A program that makes, leaves and reaps zombies all the time is dumped 25 times (ROUNDS; 100 is the full size), whenever it comes;
# every tenth time it is ended and restored, from that set or from one of those that were made while it ran on.
# timeout: 400
set -eu
# shellcheck source=tests/lib/bcr.sh
. "$SRC/tests/lib/bcr.sh"
rounds=${ROUNDS:-25}
dir=$PWD/storm

target "$dir" "$lib/zombie_storm"
RANDOM=1
for ((i = 1; i <= rounds; i++)); do
	# No event: any moment of the program will do.
	sleep "$(printf '0.%06d' $((RANDOM % 20000)))"
	images=$PWD/images-$i
	if ((i % 10)); then
		dump "$images" "$pid" --leave-running
	elif ((i % 20)); then
		round_trip "$dir" "$images"
	else
		dump "$images" "$pid" --leave-running
		kill_tree "$pid"
		restore "$images"
	fi
	kill -0 "$pid" || { show_log "$dir/log"; fail "round $i: $pid has ended"; }
	rm -r "$images"
done
finish "$dir" "$pid"
