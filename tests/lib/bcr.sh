# What the shell tests share: start targets, dump, restore, wait for events. Sourced, after `set -eu`.
# shellcheck shell=bash
#
# A test runs in an empty directory of its own, with BCR, BUILD and SRC set (tests/run sets them). A target is a program
# that is dumped: it is started by `target`, in a session of its own and with no descriptor that leads outside, as
#     PROGRAM DIR [ARGS...]
# makes DIR/ready (its pid in it) when it has built its state, looks at its state again when DIR/go appears, and ends its
# output with a line PASS or with what differed. DIR/log is its output.

: "${BCR:?}" "${BUILD:?}" "${SRC:?}"
lib=$BUILD/tests/flow/lib
# Limit for one wait, in seconds: many times what it takes, for slow machines and sanitizers.
patience=${PATIENCE:-30}

fail() {
	echo "FAIL: $*"
	exit 1
}

# Exit as skipped; the reason is what the user sees.
skip() {
	echo "$*"
	exit 77
}

say() {
	echo "== $*"
}

trap 'rc=$?; [ $rc = 0 ] || [ $rc = 77 ] || [ $rc = 1 ] || echo "exit status $rc near line $LINENO of $0"' EXIT
trap 'echo "FAIL: line $LINENO: $BASH_COMMAND"' ERR
set -E

# await exit PID | file PATH | number PATH N | text PATH STRING | ...: waits for the event (tests/flow/lib/await.c);
# false when it did not come.
await() {
	"$lib/await" -t "$patience" "$@"
}

# spawn DIR COMMAND...: starts a command as a target is started; sets $pid. DIR/log is its output. bash does not report
# its end, and cannot wait for it: spawn_child is for that.
spawn() {
	spawn_child "$@"
	disown "$pid"
}

spawn_child() {
	local dir=$1
	shift
	mkdir -p "$dir"
	(
		cd "$dir" || exit
		# Descriptors of the test must not be in the target.
		for fd in /proc/self/fd/*; do
			fd=${fd##*/}
			if [ "$fd" -gt 2 ]; then eval "exec $fd>&-" || true; fi
		done
		exec setsid "$@" </dev/null >>"$dir/log" 2>&1
	) &
	pid=$!
}

# target DIR PROGRAM [ARGS...]: starts PROGRAM DIR ARGS and waits until it is ready; sets $pid.
target() {
	local dir
	mkdir -p "$1"
	dir=$(cd "$1" && pwd)
	local program=$2
	shift 2
	spawn "$dir" "$program" "$dir" "$@"
	await file "$dir/ready" || { show_log "$dir/log"; fail "$program did not get ready"; }
	pid=$(cat "$dir/ready")
}

show_log() {
	echo "-- ${1}:"
	tail -n 15 "$1" 2>/dev/null || true
}

# dump IMAGES PID [OPTIONS...]: must succeed.
dump() {
	local images=$1 target_pid=$2
	shift 2
	mkdir -p "$images"
	"$BCR" dump -t "$target_pid" -D "$images" -v4 -o dump.log "$@" ||
		{ local rc=$?; show_log "$images/dump.log"; fail "dump of $target_pid: exit status $rc"; }
	[ -s "$images/inventory.img" ] || fail "dump of $target_pid: no inventory.img in $images"
}

# dump_refused IMAGES PID TEXT [OPTIONS...]: exit 1, TEXT among the errors, no image set.
dump_refused() {
	local images=$1 target_pid=$2 text=$3 rc=0
	shift 3
	mkdir -p "$images"
	"$BCR" dump -t "$target_pid" -D "$images" "$@" >refused.out 2>&1 || rc=$?
	[ $rc = 1 ] || { show_log refused.out; fail "dump of $target_pid: exit status $rc, expected 1"; }
	grep -qiE -- "$text" refused.out || { show_log refused.out; fail "dump of $target_pid does not say '$text'"; }
	no_set "$images"
}

# No image set, and nothing half done, is to be seen in the directory: logs only.
no_set() {
	local other
	other=$(find "$1" -mindepth 1 ! -name '*.log' ! -name 'stats-*' | head -n 3)
	[ -z "$other" ] || fail "a failed dump left $other"
}

# restore IMAGES [OPTIONS...]: detached; must succeed. Sets $pid to the root.
restore() {
	local images=$1
	shift
	rm -f "$images/pidfile"
	"$BCR" restore -D "$images" -d -v4 -o restore.log --pidfile "$images/pidfile" "$@" ||
		{ local rc=$?; show_log "$images/restore.log"; fail "restore of $images: exit status $rc"; }
	pid=$(head -n 1 "$images/pidfile")
	kill -0 "$pid" || fail "restore of $images: no process $pid"
}

# gone PID...: each has ended and been reaped.
gone() {
	local p
	for p; do
		await exit "$p" || fail "process $p is still there"
	done
}

# finish DIR PID: lets the target look at its state and end.
finish() {
	touch "$1/go"
	await exit "$2" || { show_log "$1/log"; fail "$2 did not end"; }
	[ "$(tail -n 1 "$1/log")" = PASS ] || { show_log "$1/log"; fail "$2 did not find its state"; }
}

# tree PID: the process and all that descend from it, parents first.
tree() {
	local p
	echo "$1"
	# shellcheck disable=SC2013 # the file is words
	for p in $(cat /proc/"$1"/task/*/children 2>/dev/null || true); do
		tree "$p"
	done
}

# kill_tree PID...: for tests that do not let the target end by itself.
kill_tree() {
	local p all=
	for p; do
		all="$all $(tree "$p")"
	done
	# shellcheck disable=SC2086
	kill -KILL $all 2>/dev/null || true
	for p in $all; do
		await exit "$p" || fail "process $p survives SIGKILL"
	done
}

# round_trip DIR IMAGES [DUMP OPTIONS...]: dumps $pid, sees it gone, restores it; the same pid runs then.
round_trip() {
	local images=$2 old=$pid
	shift 2
	dump "$images" "$old" "$@"
	gone "$old"
	# shellcheck disable=SC2086 # words are meant
	restore "$images" ${RESTORE_OPTIONS:-}
	[ "$pid" = "$old" ] || fail "restored as $pid, was $old"
}

# both_ways PROGRAM [ARGS...]: the common case: the target finds its state when restored, and when left running.
both_ways() {
	target "$PWD/restored" "$@"
	round_trip "$PWD/restored" "$PWD/images"
	finish "$PWD/restored" "$pid"
	target "$PWD/running" "$@"
	dump "$PWD/images-running" "$pid" --leave-running
	kill -0 "$pid" || fail "--leave-running: $pid is gone"
	finish "$PWD/running" "$pid"
}

# running NAME: no thread of the tree is stopped or traced.
not_stopped() {
	local p
	for p in $(tree "$1"); do
		grep -hE '^(State:.*[tT] \(|TracerPid:.*[1-9])' /proc/"$p"/task/*/status && fail "process $p is stopped or traced"
	done
	return 0
}
