# Dumps of a running stress program at random moments. Sourced, after tests/lib/bcr.sh.
# shellcheck shell=bash

# stress PROGRAM: dumps of it at moments that only chance knows, 25, or ROUNDS of the environment; 100 is the full size. Of five, four
# leave it running, and the image of every eighth takes the place of the program, which is ended; one is dumped for good and
# restored. After each the program must go on, and in the end it must have found nothing wrong.
stress() {
	local dir=$PWD/target images i all=${ROUNDS:-25} now rounds_restored=0
	target "$dir" "$1"
	for ((i = 1; i <= all; i++)); do
		images=$PWD/images-$((i % 2))
		sleep "0.0$((RANDOM % 30 + 10))"
		if [ $((i % 5)) = 0 ]; then
			round_trip "$dir" "$images"
			rounds_restored=$((rounds_restored + 1))
		else
			dump "$images" "$pid" -R
			if [ $((i % 8)) = 1 ]; then
				kill_tree "$pid"
				restore "$images"
				rounds_restored=$((rounds_restored + 1))
			fi
		fi
		now=$(cat "$dir/rounds")
		await number "$dir/rounds" $((10#$now + 2)) || { show_log "$dir/log"; fail "round $i: the program does not go on"; }
	done
	finish "$dir" "$pid"
	say "$all dumps, $rounds_restored restores: $(tail -n 2 "$dir/log" | head -n 1)"
}
