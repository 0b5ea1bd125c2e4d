#!/bin/bash
# bcr bench: compares all back ends there are, on a workload of its own and on a process of the user's; leaves nothing behind.
# timeout: 240
# shellcheck disable=SC2015 # fail does not return
# alone: it measures
set -eu
# shellcheck source=tests/lib/bcr.sh
. "$SRC/tests/lib/bcr.sh"

export TMPDIR=$PWD/tmp
mkdir "$TMPDIR"
cgroups=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)

nothing_left() {
	[ -z "$(ls "$TMPDIR")" ] || fail "left in the directory for temporary files: $(ls "$TMPDIR")"
	[ -z "$cgroups" ] || [ -z "$(find "$cgroups" -maxdepth 3 -name "bcr-bench.$1")" ] || fail "a cgroup of the workload is left"
}

say "each back end has a row, or a reason"
"$BCR" bench --mib 16 --threads 3 --write 20 --rounds 2 --json >out.json || fail "bench --json"
nothing_left "$(/usr/bin/python3 -IS - out.json <<'PROGRAM'
import json, statistics, sys
found = json.load(open(sys.argv[1]))
for option, names in {"observe": ["bpf", "proc"], "freezer": ["cgroup", "ptrace"],
                      "track": ["wp-cow", "wp-async", "soft-dirty", "none"]}.items():
    for name in names:
        rows = [r for r in found["rows"] if r[option] == name]
        why = [m["why"] for m in found["missing"] if m["option"] == option and m["name"] == name]
        assert bool(rows) != bool(why), f"{option} {name}: {rows} {why}"
for row in found["rows"]:
    assert not row["failed"], row
    assert row["gap_us"] > 0 and row["dump_us"] > row["frozen_us"] > 0, row
    assert row["track"] != "none" or row["pages_copied_in_stop"] >= 16 << 8, row
assert found["gap_without_bcr_us"] > 0
# The workload cannot have seen less than bcr's own stop, apart from what the stop takes to begin and end; now and then that is long.
assert statistics.median(row["gap_us"] / row["frozen_us"] for row in found["rows"]) >= 1 / 4, found["rows"]
print(found["pid"])
PROGRAM
)" || exit 1

say "text, and all combinations of those that are named"
"$BCR" bench --mib 4 --rounds 1 --all --freezer=ptrace >out || { cat out; fail "bench --all"; }
[ "$(grep -cE '^(bpf|proc) +ptrace +none ' out)" = 2 ] || { cat out; fail "not both ways of observing"; }
! grep -q '^[a-z]* *cgroup ' out || { cat out; fail "a freezer that was not asked for"; }

say "a process of the user's: it goes on, and has no gap to show"
dir=$PWD/target
target "$dir" "$lib/cow"
"$BCR" bench -t "$pid" --rounds 1 >out || { cat out; fail "bench -t"; }
grep -q "Process $pid" out && ! grep -q 'gap ms' out || { cat out; fail "bench -t: the table"; }
grep -q '^not here: --freezer=cgroup: ' out || { cat out; fail "bench -t: no reason why there is no cgroup freezer"; }
rc=0
"$BCR" bench -t "$pid" --rounds 1 --freezer=cgroup >out 2>&1 || rc=$?
[ $rc = 1 ] && grep -q -- '--freezer=cgroup cannot be used: ' out || { cat out; fail "a freezer that is not there, status $rc"; }
not_stopped "$pid"
finish "$dir" "$pid"

say "what makes no sense is refused"
for bad in "--rounds 0" "--mib 0" "--threads 1 --write 5" "-t 999999999"; do
	# shellcheck disable=SC2086 # words are meant
	! "$BCR" bench $bad >out 2>&1 || { cat out; fail "bench $bad succeeded"; }
done

say "interrupted in the middle"
for signal in INT TERM; do
	"$BCR" bench --mib 16 --rounds 100000 >out 2>&1 &
	bench=$!
	await entries "$TMPDIR" "" 1 || { cat out; fail "bench makes no directory"; }
	images=$(echo "$TMPDIR"/*)/images
	await entries "$images" .img 1 || { cat out; fail "bench makes no snapshot"; }
	workload=$(pgrep -P $bench | sort -n | head -n 1)
	kill -$signal $bench
	rc=0
	wait $bench || rc=$?
	[ $rc = 1 ] || { cat out; fail "$signal: exit status $rc"; }
	nothing_left "$workload"
	gone "$workload"
done
