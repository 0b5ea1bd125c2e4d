#!/bin/bash
# System calls under way go on: none returns EINTR, and each ends when its time is over, neither sooner nor later.
set -eu
# shellcheck source=tests/lib/bcr.sh
. "$SRC/tests/lib/bcr.sh"

both_ways "$lib/interrupted"

say "stopped and let go many times, it still notices nothing"
target "$PWD/often" "$lib/interrupted"
for i in 1 2 3 4 5; do
	dump "$PWD/images-often-$i" "$pid" -R
done
finish "$PWD/often" "$pid"
