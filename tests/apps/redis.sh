#!/bin/bash
# redis-server with 100,000 keys, listening on TCP and on a Unix socket, without a client: dumped, gone, restored, and
# every key is there.
set -eu
# shellcheck source=tests/lib/bcr.sh
. "$SRC/tests/lib/bcr.sh"
command -v redis-server >/dev/null || skip "redis-server is not installed"
keys=100000

# A port that nobody has, below those that the kernel hands out.
port=21379
while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done
tcp=(redis-cli -p "$port")
unix=(redis-cli -s "$PWD/work/socket")

# Key k<i> holds i * 7, and there is a counter.
verify() {
	local size
	size=$("$@" dbsize)
	[ "$size" = $((keys + 1)) ] || fail "$size keys, not $((keys + 1))"
	"$@" eval "for i = 1, $keys do
		local v = redis.call('get', 'k' .. i)
		if v ~= tostring(i * 7) then return 'k' .. i .. ' is ' .. tostring(v) end
	end
	return 'all right'" 0 >answer
	grep -q '^all right$' answer || fail "$(cat answer)"
}

# A client is gone for redis a moment after it has ended: a question more may be needed to see none but itself.
no_clients() {
	local clients=x end=$((SECONDS + patience))
	while [ "$clients" != 1 ]; do
		[ $SECONDS -lt $end ] || fail "$clients clients are connected"
		clients=$("${unix[@]}" info clients | tr -d '\r' | sed -n 's/^connected_clients://p')
	done
}

spawn "$PWD/work" redis-server --port "$port" --bind 127.0.0.1 --unixsocket "$PWD/work/socket" --save '' \
	--appendonly no --dir "$PWD/work" --daemonize no
await text work/log "eady to accept connections" || { show_log work/log; fail "redis-server does not start"; }
await file work/log
while ! "${unix[@]}" ping >pong 2>&1; do kill -0 "$pid" || { show_log work/log; fail "redis-server has ended"; }; done
seq 1 $keys | awk '{ print "set k" $1 " " $1 * 7 }' | "${tcp[@]}" --pipe >loaded
counter=$("${tcp[@]}" incr counter)
verify "${tcp[@]}"

for round in 1 2; do
	no_clients
	mkdir -p images
	# The server has yet to close the socket of the client that asked: until it has, the dump is refused.
	for ((try = 1; ; try++)); do
		rc=0
		"$BCR" dump -t "$pid" -D images -v4 -o dump.log 2>errors || rc=$?
		[ $rc != 0 ] || break
		if [ $try = 20 ] || ! cat errors images/dump.log | grep -qiE "unix|tcp|socket"; then
			show_log images/dump.log
			fail "dump: exit status $rc"
		fi
	done
	old=$pid
	gone "$old"
	if "${tcp[@]}" ping >pong 2>&1; then fail "somebody still answers on port $port"; fi
	say "absent: nobody answers on port $port"
	restore "$PWD/images"
	[ "$pid" = "$old" ] || fail "restored as $pid, was $old"
	counter=$((counter + 1))
	[ "$("${tcp[@]}" incr counter)" = $counter ] || fail "the counter is not $counter"
	verify "${tcp[@]}"
	verify "${unix[@]}"
	say "restored ($round): all keys there, over TCP and the Unix socket; the counter goes on to $counter"
done

say "every key over the network"
seq 1 $keys | sed 's/^/get k/' | "${tcp[@]}" |
	awk '{ if ($1 != NR * 7) { print "k" NR " is " $1; exit 1 } } END { if (NR != '$keys') exit 1 }' || fail "a key is missing"
"${tcp[@]}" shutdown nosave 2>/dev/null || true
gone "$pid"
grep -q "bye bye" work/log || { show_log work/log; fail "redis-server did not end in order"; }
