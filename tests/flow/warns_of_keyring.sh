#!/bin/bash
# A session keyring that is not bcr's is not carried: dump says so, once, and the program runs on after restore with bcr's.
set -eu
# shellcheck source=tests/lib/bcr.sh
. "$SRC/tests/lib/bcr.sh"

spawn "$PWD/own" "$lib/keyring" own
await file "$PWD/own/ready" || { show_log own/log; fail "it did not get ready"; }
dump "$PWD/images" "$pid"
[ "$(grep -c 'has another session keyring than bcr' images/dump.log)" = 1 ] ||
	{ show_log images/dump.log; fail "dump does not warn once"; }
gone "$pid"
restore "$PWD/images"
kill_tree "$pid"

spawn "$PWD/common" "$lib/keyring" common
await file "$PWD/common/ready" || { show_log common/log; fail "it did not get ready"; }
dump "$PWD/images-common" "$pid"
if grep 'session keyring' images-common/dump.log; then fail "dump warns of its own keyring"; fi
