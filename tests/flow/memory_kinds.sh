#!/bin/bash
# Every kind of mapping, with its contents; and nothing becomes memory that was a hole.
set -eu
# shellcheck source=tests/lib/bcr.sh
. "$SRC/tests/lib/bcr.sh"

rss_anon_kib() {
	sed -n 's/^RssAnon:[[:space:]]*\([0-9]*\) kB/\1/p' "/proc/$1/status"
}

target "$PWD/restored" "$lib/memory"
before=$(rss_anon_kib "$pid")
round_trip "$PWD/restored" "$PWD/images"
after=$(rss_anon_kib "$pid")
say "private memory: $before kB before, $after kB after"
# The restored program has touched a few pages of its stack and of libc again.
[ "$after" -le $((before + 128)) ] || fail "private memory grew from $before kB to $after kB"
finish "$PWD/restored" "$pid"

target "$PWD/running" "$lib/memory"
dump "$PWD/images-running" "$pid" --leave-running
finish "$PWD/running" "$pid"
