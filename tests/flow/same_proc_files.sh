#!/bin/bash
# A restored program looks the same from outside: /proc/PID/{maps,status,stat,fdinfo,limits,...}, field by field.
# What may differ, and why, is listed in tests/lib/procfiles.
set -eu
# shellcheck source=tests/lib/bcr.sh
. "$SRC/tests/lib/bcr.sh"
procfiles=$SRC/tests/lib/procfiles

compare() {
	local name=$1 program=$2
	say "$name, restored"
	target "$PWD/$name" "$program"
	# shellcheck disable=SC2046 # words are meant
	"$procfiles" save "$name.before" $(tree "$pid")
	round_trip "$PWD/$name" "$PWD/images-$name"
	# shellcheck disable=SC2046
	"$procfiles" save "$name.after" $(tree "$pid")
	"$procfiles" compare "$name.before" "$name.after" || different="$different $name"
	finish "$PWD/$name" "$pid"

	say "$name, left running"
	target "$PWD/$name-running" "$program"
	# shellcheck disable=SC2046
	"$procfiles" save "$name.before" $(tree "$pid")
	dump "$PWD/images-$name-running" "$pid" -R
	# shellcheck disable=SC2046
	"$procfiles" save "$name.after" $(tree "$pid")
	"$procfiles" compare "$name.before" "$name.after" || different="$different $name-running"
	finish "$PWD/$name-running" "$pid"
}

different=
for program in rich creds sessions signals memory; do
	compare $program "$lib/$program"
done
[ -z "$different" ] || fail "differs:$different"
