#!/bin/bash
# Each stage is made to fail. The target of a dump goes on as if nothing had been, an older image set stays what it is,
# and a failed restore leaves no process behind.
# timeout: 200
set -eu
# shellcheck source=tests/lib/bcr.sh
. "$SRC/tests/lib/bcr.sh"
dir=$PWD/crowd

still_fine() {
	local now
	not_stopped "$pid"
	now=$(cat "$dir/rounds")
	await number "$dir/rounds" $((10#$now + 2)) || { show_log "$dir/log"; fail "$1: the target does not go on"; }
	tree "$pid" | cmp -s - tree.before || fail "$1: the tree changed"
	descriptors >descriptors.now
	cmp -s descriptors.before descriptors.now || { diff descriptors.before descriptors.now; fail "$1: the target's descriptors changed"; }
}

# Number and target of each; pipes without their numbers, which are new after a restore.
descriptors() {
	local p
	for p in $(tree "$pid"); do
		find "/proc/$p/fd" -type l -printf "$p %f %l\n" | sed 's/:\[[0-9]*\]$//' | sort
	done
}

# fails VERB STAGE ARGS...: exit 1 and a sentence with the stage in it.
fails() {
	local verb=$1 stage=$2 rc=0
	shift 2
	"$BCR" "$verb" --fail-at "$stage" "$@" >out 2>&1 || rc=$?
	[ $rc = 1 ] || { show_log out; fail "$verb, stage $stage: exit status $rc, expected 1"; }
	grep -q -- "$stage" out || { show_log out; fail "$verb, stage $stage: the stage is not named"; }
}

"$BCR" dump --fail-at list >dump-stages
"$BCR" dump --fail-at list --leave-running >dump-stages--leave-running
"$BCR" restore --fail-at list >restore-stages
for list in dump-stages dump-stages--leave-running; do
	[ "$(wc -l <$list)" -ge 8 ] || fail "there are hardly any stages of a dump"
done
[ "$(wc -l <restore-stages)" -ge 5 ] || fail "there are hardly any stages of a restore"

target "$dir" "$lib/crowd"
tree "$pid" >tree.before
descriptors >descriptors.before
mkdir new
dump "$PWD/old" "$pid" -R
(cd old && sha256sum -- *.img bcr-*.bcr) >old.sums

for options in "" --leave-running; do
	while read -r stage; do
		say "dump $options, failing at $stage"
		# shellcheck disable=SC2086 # none or one
		fails dump "$stage" -t "$pid" -D new $options
		no_set new
		still_fine "dump $options, stage $stage"
		# shellcheck disable=SC2086
		fails dump "$stage" -t "$pid" -D old $options
		(cd old && sha256sum --quiet -c ../old.sums && find . -name '*.img' -o -name 'bcr-*.bcr' | wc -l) >sums ||
			{ cat sums; fail "stage $stage: the older set was touched"; }
		[ "$(tail -n 1 sums)" = "$(wc -l <old.sums)" ] || fail "stage $stage: the older set has other files"
	done <"dump-stages$options"
done

say "and a good dump"
dump "$PWD/new" "$pid"
# shellcheck disable=SC2046 # words are meant
gone $(cat tree.before)

while read -r stage; do
	say "restore, failing at $stage"
	fails restore "$stage" -d -D new --pidfile "$PWD/pidfile"
	while read -r p; do
		if kill -0 "$p" 2>/dev/null; then fail "stage $stage: process $p is there"; fi
	done <tree.before
	[ ! -e pidfile ] || fail "stage $stage: a pid file is there"
done <restore-stages

say "and a good restore"
restore "$PWD/new"
still_fine "restore"
finish "$dir" "$pid"
