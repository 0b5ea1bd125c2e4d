#!/bin/bash
# python3 with 8 threads and 200 MiB of data it checks over and over, dumped in mid-work.
set -eu
# shellcheck source=tests/lib/bcr.sh
. "$SRC/tests/lib/bcr.sh"

spawn "$PWD/work" /usr/bin/python3 -IS "$SRC/tests/apps/lib/threads.py"
await number work/progress 1 || { show_log work/log; fail "the program does not run"; }
[ "$(find /proc/"$pid"/task -mindepth 1 -maxdepth 1 | wc -l)" = 9 ] || fail "it has another number of threads than 9"

say "left running"
dump "$PWD/images" "$pid" -R
before=$(cat work/progress)
await number work/progress $((before + 2)) || { show_log work/log; fail "it does not go on after round $before"; }
for round in 1 2; do
	say "round trip $round, at round $(cat work/progress)"
	round_trip work "$PWD/images"
	before=$(cat work/progress)
	await number work/progress $((before + 2)) || { show_log work/log; fail "it does not go on after round $before"; }
done
touch work/stop
gone "$pid"
[ "$(tail -n 1 work/log)" = PASS ] || { show_log work/log; fail "its data is damaged"; }
tail -n 2 work/log
