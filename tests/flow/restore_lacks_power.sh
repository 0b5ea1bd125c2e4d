#!/bin/bash
# A restore that lacks a limit or privilege which the tree had says which one, before it makes anything; with it, it works.
set -eu
# shellcheck source=tests/lib/bcr.sh
. "$SRC/tests/lib/bcr.sh"

# lacks TEXT COMMAND...: `COMMAND bcr restore` fails with TEXT, and nobody is there afterwards.
lacks() {
	local text=$1 rc=0
	shift
	"$@" "$BCR" restore -D images -d >refused.out 2>&1 || rc=$?
	[ $rc = 1 ] || { show_log refused.out; fail "$*: exit status $rc, expected 1"; }
	grep -qE -- "$text" refused.out || { show_log refused.out; fail "$*: restore does not say '$text'"; }
	if kill -0 "$pid" 2>/dev/null; then fail "$*: process $pid is there"; fi
}

command -v setpriv >/dev/null && command -v prlimit >/dev/null || skip "no setpriv or prlimit (util-linux)"
target "$PWD/target" "$lib/creds"
dump "$PWD/images" "$pid"
gone "$pid"
lacks 'it had capabilities that bcr does not have \(0x400000\)' setpriv --bounding-set=-sys_boot
lacks 'bcr itself may gain no new privileges' setpriv --no-new-privs
# Whoever may raise limits has nothing to lack.
if ! grep -q '^CapEff:.*[13579bdf]......$' /proc/self/status; then
	lacks 'its hard limit RLIMIT_MSGQUEUE .* is above that of bcr' prlimit --msgqueue=4711:4711
fi
restore "$PWD/images"
finish "$PWD/target" "$pid"
