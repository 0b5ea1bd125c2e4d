# For real programs that work on and on: work/progress, in their directory, has numbers that grow, and work/stop ends them, with PASS
# as the last line of work/log when all they computed was right. Sourced, after bcr.sh.
# shellcheck shell=bash

# at_work FIELD N COMMAND...: starts it as a target is started, and waits until that number has come to N. Sets $pid.
at_work() {
	local field=$1 least=$2
	shift 2
	spawn "$PWD/work" "$@"
	await field work/progress "$field" "$least" || { show_log work/log; fail "the program does not run"; }
}

# goes_on: each number grows by as much as `more` says, an array of the test.
goes_on() {
	local before k
	before=$(cat work/progress)
	for k in "${!more[@]}"; do
		await field work/progress $((k + 1)) $(($(cut -d ' ' -f $((k + 1)) <<<"$before") + more[k])) ||
			{ show_log work/log; fail "it does not go on from $before: ${names[k]}"; }
	done
}

# dump_at_work ROUNDS: it is left running once, then dumped in mid-work, gone and restored, and in the end has made no mistake.
dump_at_work() {
	local round
	say "$(find /proc/"$pid"/task -mindepth 1 -maxdepth 1 | wc -l) threads; ${names[*]}: $(cat work/progress)"
	dump "$PWD/images" "$pid" -R
	goes_on
	for ((round = 1; round <= $1; round++)); do
		say "round trip $round at $(cat work/progress)"
		round_trip work "$PWD/images"
		goes_on
	done
	touch work/stop
	gone "$pid"
	[ "$(tail -n 1 work/log)" = PASS ] || { show_log work/log; fail "it computed something wrong"; }
	say "at the end: $(cat work/progress)"
}
