#!/bin/sh
# bcr exec: results, errors and strings; the target does not notice.
set -eu
fail() { echo "FAIL: $*"; exit 1; }

# The target sleeps in one call; EINTR or a wrong length of sleep would end it with another status.
sh -c 'exec sleep 600' &
pid=$!
trap 'kill $pid 2>/dev/null || :' EXIT
while [ "$(cat /proc/$pid/comm)" != sleep ]; do :; done

out=$("$BCR" exec -t $pid getpid) || fail "getpid: exit status $?"
[ "$out" = "getpid = $pid" ] || fail "getpid says: $out"
"$BCR" exec --tree=$pid mkdir "$PWD/made" 0755 || fail "mkdir"
[ -d made ] || fail "mkdir made nothing"
if out=$("$BCR" exec -t $pid mkdir "$PWD/made" 0755); then fail "a second mkdir succeeds"; fi
[ "$out" = "mkdir = -1 EEXIST (File exists)" ] || fail "a second mkdir says: $out"
out=$("$BCR" exec -t $pid 39) || fail "a call by its number"
[ "$out" = "39 = $pid" ] || fail "39 says: $out"
"$BCR" exec -t $pid mkdir "str:$PWD/0x10" 0755 && [ -d "$PWD/0x10" ] || fail "str:"

refused() {
	if out=$("$BCR" exec "$@" 2>&1); then fail "exec $* succeeds: $out"; fi
	[ "$(echo "$out" | wc -l)" = 1 ] || fail "exec $* says more than one sentence: $out"
}
refused getpid
refused -t $pid
refused -t $pid nosuchcall
refused -t $pid fork
refused -t $pid getpid 1 2 3 4 5 6 7
refused -t 999999999 getpid
refused -t x getpid
refused -t $$ getpid
refused --timeout 1 -t $pid pause

kill -0 $pid || fail "the target is gone"
# 35 nanosleep, 230 clock_nanosleep, 219 restart_syscall: it still sleeps, once it has run again
nr=running
deadline=$((SECONDS + ${PATIENCE:-30}))
while [ "$nr" = running ] && [ $SECONDS -lt $deadline ]; do
	# shellcheck disable=SC2034 # the rest is not looked at
	read -r nr rest < /proc/$pid/syscall
done
case $nr in 35 | 230 | 219) ;; *) fail "the target is in call $nr" ;; esac
echo PASS
