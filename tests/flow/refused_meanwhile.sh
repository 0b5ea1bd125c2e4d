#!/bin/bash
# A program that has something unsupported now and then, while it is dumped: it is refused once, with one list, and has not been
# stopped if that was seen before the stop; or it is dumped.
# timeout: 240
set -eu
# shellcheck source=tests/lib/bcr.sh
. "$SRC/tests/lib/bcr.sh"

spawn "$PWD/target" /usr/bin/python3 -IS -c '
import os, sys, time
turn = 0
while True:
    fd = os.pidfd_open(os.getpid())
    time.sleep(0.07)
    os.close(fd)
    time.sleep(0.07)
    turn += 1
    if turn == 2:
        print("ready", file=open(sys.argv[1], "w"), flush=True)
' "$PWD/ready"
await file "$PWD/ready" || { show_log target/log; fail "the target did not get ready"; }

late=0 whole=0
for try in $(seq 100); do
	mkdir -p images
	rc=0
	"$BCR" dump -t "$pid" -D images -R -v4 -o dump.log >out 2>&1 || rc=$?
	if [ $rc = 0 ]; then
		whole=$((whole + 1))
	else
		lists=$(grep -c "cannot be dumped: 1 reason above" out) || true
		[ "$lists" = 1 ] || { cat out; fail "try $try: $lists lists of what is refused"; }
		grep -q "a pidfd" out || { cat out; fail "try $try: the reason is another one"; }
		# Between the first look and the last.
		if grep -q "stage precut" images/dump.log; then late=$((late + 1)); fi
	fi
	rm -rf images
	[ $late -lt 3 ] || [ $whole -lt 1 ] || break
done
say "$try dumps: $whole whole, $late refused by the last look"
[ $late -ge 3 ] || fail "no dump met the file after its first look: nothing was tested"
kill -9 "$pid"
