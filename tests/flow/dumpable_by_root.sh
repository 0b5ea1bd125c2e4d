#!/bin/bash
# A core for root only (dumpable 2): what fs.suid_dumpable=2 makes of programs that change their ids. A restore gives it back
# where the system is set up so, and refuses where it is not.
# alone: it sets fs.suid_dumpable, for all
set -eu
# shellcheck source=tests/lib/bcr.sh
. "$SRC/tests/lib/bcr.sh"

setting=/proc/sys/fs/suid_dumpable
was=$(cat $setting)
trap 'echo $was >$setting' EXIT

for who in user root; do
	echo 2 >$setting || skip "fs.suid_dumpable cannot be set here"
	target "$PWD/$who" "$lib/suid_dumpable" $who
	dump "$PWD/images-$who" "$pid"
	gone "$pid"
	echo 0 >$setting
	if "$BCR" restore -D "images-$who" -d >refused.out 2>&1; then fail "$who: restored as something else"; fi
	grep -q 'fs.suid_dumpable=0' refused.out || { show_log refused.out; fail "$who: restore does not say why not"; }
	echo 2 >$setting
	restore "$PWD/images-$who"
	echo "$was" >$setting
	finish "$PWD/$who" "$pid"
done
