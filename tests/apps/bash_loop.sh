#!/bin/bash
# A bash loop with a child and a pipe between them, dumped in mid-work, gone, restored: no number is lost or doubled.
set -eu
# shellcheck source=tests/lib/bcr.sh
. "$SRC/tests/lib/bcr.sh"

cat >loop.sh <<'PROGRAM'
# The loop counts into a pipe; the child adds up, and writes down what it got.
i=0
while [ ! -e stop ]; do
	i=$((i + 1))
	echo $i
	sleep 0.01
done | {
	sum=0
	while read -r number; do
		sum=$((sum + number))
		echo "$number $sum"
	done
	echo end
}
PROGRAM

# The loop has come this far.
reaches() {
	await text work/log $'\n'"$1 " || { show_log work/log; fail "the loop does not go on to $1"; }
}

spawn "$PWD/work" /bin/bash ../loop.sh
reaches 20
for i in 1 2 3; do
	round_trip work "$PWD/images-$i"
	read -r number _ <<<"$(tail -n 1 work/log)"
	say "restored at $number"
	reaches $((number + 20))
done
touch work/stop
gone "$pid"
[ "$(tail -n 1 work/log)" = end ] || { show_log work/log; fail "the child did not see the end of its input"; }
awk '$1 != "end" { sum += $1; if ($1 != ++n || $2 != sum) { print "line " NR " is " $0; exit 1 } }' work/log ||
	fail "numbers were lost or doubled"
say "$(($(wc -l <work/log) - 1)) numbers, none lost, none doubled"
