#!/bin/bash
# The command line: what a driver written for CRIU relies on, and bcr's own verbs.
# timeout: 180
# shellcheck disable=SC2015 # fail does not return
set -eu
# shellcheck source=tests/lib/bcr.sh
. "$SRC/tests/lib/bcr.sh"

valid_json() {
	/usr/bin/python3 -IS -c 'import json, sys; json.load(sys.stdin)' <"$1" || { show_log "$1"; fail "$1 is no JSON"; }
}

# A new target: $pid, directory $dir.
nr=0
fresh() {
	nr=$((nr + 1))
	dir=$PWD/target-$nr
	target "$dir" "$lib/cow"
}

say "version and help"
"$BCR" --version >out
head -n 1 out | grep -qE '^Version: [0-9]+\.[0-9]+' || { cat out; fail "--version"; }
"$BCR" -V | cmp - out || fail "-V is another answer than --version"
"$BCR" --help >out || fail "--help"
grep -q dump out || fail "--help does not mention dump"
for verb in page-server lazy-pages service dedup; do
	rc=0
	"$BCR" $verb >out 2>&1 || rc=$?
	[ $rc = 1 ] && grep -q "not supported yet" out || { cat out; fail "$verb: exit status $rc"; }
done

say "forms of options, and the name criu"
ln -s "$BCR" criu
fresh
mkdir images-a
./criu dump --tree="$pid" --images-dir=images-a --log-file=dump.log --leave-running -vvvv || fail "dump as criu"
[ -s images-a/dump.log ] || fail "no log file in the images directory"
for v in -v -vv -v4 --verbosity=3 -verbosity=0; do
	"$BCR" dump -t "$pid" -D images-a -R $v >out 2>&1 || { cat out; fail "$v"; }
done
"$BCR" dump -t"$pid" -Dimages-a -R --no-shell-job --shell-job --no-tcp-established --timeout 5 || fail "short forms, --no- forms"
printf '# a comment\ntree %s\nleave-running\nimages-dir=images-c\n--log-file conf.log\n' "$pid" >config
mkdir images-c
"$BCR" dump --config "$PWD/config" || fail "--config"
[ -e images-c/conf.log ] && [ -s images-c/inventory.img ] || fail "--config: options were not used"

say "work directory and log file"
mkdir images-w work
"$BCR" dump -t "$pid" -D images-w -W work -o dump.log -R -v4 || fail "dump with -W"
[ -s work/dump.log ] && [ -s work/stats-dump ] || fail "log and statistics are not in the work directory"
[ ! -e images-w/dump.log ] || fail "the log is in the images directory"
rm work/dump.log
"$BCR" dump -t 999999999 -D images-w -W work -o dump.log -v4 2>/dev/null && fail "a dump of nothing succeeded"
[ -e work/dump.log ] || fail "no log file after a failure"
mkdir images-n
"$BCR" dump -t "$pid" -D images-n -R --no-such-option 2>/dev/null && fail "an unknown option was accepted"
[ -z "$(ls images-n)" ] || fail "an unknown option, and something was written"

say "status descriptor: one zero byte, then closed"
exec 9>status
"$BCR" dump -t "$pid" -D images-a -R --status-fd 9 || fail "--status-fd"
exec 9>&-
[ "$(od -An -tx1 status)" = " 00" ] || fail "the status descriptor got $(od -An -tx1 status)"

say "dump neither writes nor removes a pid file"
"$BCR" dump -t "$pid" -D images-a -R --pidfile "$PWD/pidfile-d" || fail "dump --pidfile"
[ ! -e pidfile-d ] || fail "dump wrote a pid file"
echo 1 >pidfile-d
"$BCR" dump -t "$pid" -D images-a -R --pidfile "$PWD/pidfile-d" || fail "dump --pidfile"
[ "$(cat pidfile-d)" = 1 ] || fail "dump touched a pid file"

say "left stopped: every thread is in state T"
for p in $(tree "$pid"); do await state "$p" SR || fail "$p does not run"; done
dump "$PWD/images-a" "$pid" -s
for p in $(tree "$pid"); do
	grep -hq '^TracerPid:.0$' "/proc/$p/status" || fail "$p is still traced"
	await state "$p" T || fail "$p is not stopped: $(grep -h State "/proc/$p/status")"
done
# shellcheck disable=SC2046 # words are meant
kill -CONT $(tree "$pid")
finish "$dir" "$pid"

say "the parent sees SIGKILL"
dir=$PWD/child
mkdir "$dir"
spawn_child "$dir" "$lib/cow" "$dir"
await file "$dir/ready" || fail "no target"
child=$pid
dump "$PWD/images-a" "$pid" --display-stats >out
grep -qi "frozen time" out || fail "--display-stats prints none"
# What the stop consists of, as printed and as kept; the end of it, in "commit", is not among the parts.
for stage in freeze capture-state capture-files capture-memory thaw save; do
	grep -qE "^Frozen time, $stage: [0-9]+ us$" out || { cat out; fail "--display-stats: no time of $stage"; }
done
grep -qE "^Pages copied inside the stop: [1-9]" out || { cat out; fail "--display-stats: no pages copied inside the stop"; }
"$BCR" show -D images-a --json >out.json || fail "show --json"
/usr/bin/python3 -IS - out.json <<'PROGRAM' || fail "show: what the stop consists of"
import json, sys
found = json.load(open(sys.argv[1]))
parts = found["frozen_stages_us"]
assert list(parts) == ["freeze", "capture-state", "capture-files", "capture-memory", "thaw", "save"], parts
assert parts["freeze"] > 0 and parts["capture-state"] > 0, parts
# The first stage begins before the stop does; the others lie in it.
assert sum(parts.values()) - parts["freeze"] <= found["frozen_us"], (parts, found["frozen_us"])
PROGRAM
rc=0
wait "$child" || rc=$?
[ $rc = 137 ] || fail "the parent of a dumped process sees status $rc"

say "restore: detached, pid file, statistics"
exec 9>status
"$BCR" restore -d -D images-a --pidfile "$PWD/pidfile" --status-fd 9 --display-stats >out || fail "restore"
exec 9>&-
[ "$(od -An -tx1 status)" = " 00" ] || fail "restore: the status descriptor got $(od -An -tx1 status)"
[ "$(head -n 1 pidfile)" = "$child" ] || fail "the pid file says $(head -n 1 pidfile)"
[ -s images-a/stats-restore ] || fail "no stats-restore"
finish "$dir" "$child"

say "restore: attached, it ends as the root does"
fresh
dump "$PWD/images-a" "$pid"
gone "$pid"
"$BCR" restore -D images-a &
restored=$!
touch "$dir/go"
wait $restored || fail "restore ends with status $?"
[ "$(tail -n 1 "$dir/log")" = PASS ] || fail "the restored target did not pass"
cat >root.sh <<'PROGRAM'
echo $$ >"$1/ready"
while [ ! -e "$1/go" ]; do :; done
exit 9
PROGRAM
mkdir root
spawn "$PWD/root" /bin/bash "$PWD/root.sh" "$PWD/root"
await file root/ready || fail "no target"
dump "$PWD/images-a" "$pid"
gone "$pid"
"$BCR" restore -D images-a &
restored=$!
touch root/go
rc=0
wait $restored || rc=$?
[ $rc = 9 ] || fail "restore ends with status $rc, not with that of the root, 9"

say "restore: sibling, and a command that takes over"
fresh
dump "$PWD/images-a" "$pid"
gone "$pid"
"$BCR" restore -d -S -D images-a || fail "restore --restore-sibling"
[ "$(awk '{ print $4 }' "/proc/$pid/stat")" = $$ ] || fail "the parent is not that of bcr"
dump "$PWD/images-a" "$pid"
gone "$pid"
"$BCR" restore -D images-a --exec-cmd -- /bin/sh -c 'cat /proc/'"$pid"'/stat >stat; echo $$ >shell; touch '"$dir"'/go; wait' ||
	fail "restore --exec-cmd"
[ "$(awk '{ print $4 }' stat)" = "$(cat shell)" ] || fail "the command is not the parent"
gone "$pid"
[ "$(tail -n 1 "$dir/log")" = PASS ] || fail "the target under --exec-cmd did not pass"

say "show"
fresh
dump "$PWD/images-s" "$pid" -R
"$BCR" show -D images-s >out || fail "show"
for p in $(tree "$pid"); do grep -qw "$p" out || { cat out; fail "show does not mention pid $p"; }; done
"$BCR" show -D images-s --json >out.json || fail "show --json"
valid_json out.json
"$BCR" show -D images-s --plan >out || fail "show --plan"
grep -qw "$pid" out || fail "the plan does not mention pid $pid"

say "check"
"$BCR" check >out || { cat out; fail "check: this machine cannot do what the tests need"; }
"$BCR" check --all >out 2>&1 || [ $? = 1 ] || fail "check --all"
"$BCR" check --json >out.json || fail "check --json"
valid_json out.json
"$BCR" check --feature pagemap_scan >out || { cat out; fail "check --feature pagemap_scan"; }
rc=0
"$BCR" check --feature no-such-feature >out 2>&1 || rc=$?
[ $rc = 1 ] || fail "check --feature of an unknown name: exit status $rc"

say "exec"
"$BCR" exec -t "$pid" getpid >out || { cat out; fail "exec getpid"; }
grep -qw "$pid" out || { cat out; fail "exec getpid does not say $pid"; }
rc=0
"$BCR" exec -t "$pid" close 987 >out 2>&1 || rc=$?
grep -qE "EBADF|[Bb]ad file" out || { cat out; fail "exec close 987 (status $rc)"; }
not_stopped "$pid"
finish "$dir" "$pid"

say "both ways of observing, both ways of stopping"
for how in --observe=bpf --observe=proc --freezer=ptrace; do
	fresh
	round_trip "$dir" "$PWD/images$how" $how
	finish "$dir" "$pid"
done
# A v2 cgroup of its own, for the freezer.
root=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
if [ -n "$root" ]; then
	cgroup=$root/bcr-test-${BCR_TEST_ID:-cli}
	mkdir "$cgroup"
	fresh
	for p in $(tree "$pid"); do echo "$p" >"$cgroup/cgroup.procs"; done
	dump "$PWD/images-cgroup" "$pid" -R --freezer=cgroup
	[ "$(cat "$cgroup/cgroup.freeze")" = 0 ] || fail "the cgroup is still frozen"
	finish "$dir" "$pid"
	say "confined by seccomp in a cgroup of its own: threads are traced after the freezer has stopped them"
	dir=$PWD/confined
	target "$dir" "$BUILD/tests/kinds/seccomp_filters"
	for p in $(tree "$pid"); do echo "$p" >"$cgroup/cgroup.procs"; done
	dump "$PWD/images-confined" "$pid" -R --freezer=cgroup
	kill_tree "$pid"
	restore "$PWD/images-confined"
	finish "$dir" "$pid"
	rmdir "$cgroup"
else
	say "no cgroup2 file system: the freezer of it is not tried"
fi
