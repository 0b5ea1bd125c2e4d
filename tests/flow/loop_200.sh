#!/bin/bash
# A tree of 20 processes and 50 threads that checks itself is dumped and restored 200 times in a row.
# timeout: 3600
set -eu
# shellcheck source=tests/lib/bcr.sh
. "$SRC/tests/lib/bcr.sh"
rounds=${ROUNDS:-200}
dir=$PWD/crowd

# Descriptors of all processes: number and what it is; pipes without their numbers, which are new each time.
descriptors() {
	local p fd
	for p in $(tree "$pid"); do
		for fd in /proc/"$p"/fd/*; do
			echo "$p ${fd##*/} $(readlink "$fd" | sed 's/:\[[0-9]*\]$//')"
		done
	done
}

# Programs, maps and links of BPF in the kernel.
bpf_objects() {
	bpftool prog show -j | tr '{' '\n' | sed -n 's/.*"id":\([0-9]*\),.*/prog \1/p'
	bpftool map show -j | tr '{' '\n' | sed -n 's/.*"id":\([0-9]*\),.*/map \1/p'
	bpftool link show -j | tr '{' '\n' | sed -n 's/.*"id":\([0-9]*\),.*/link \1/p'
}

# Files outside the test's directory whose name says that bcr made them; objects are a compiler's, of somebody's build of bcr.
stray_files() {
	{
		find /tmp /run /dev/shm /var/tmp -maxdepth 1 -name '*bcr*' ! -name 'bcr-test.*' ! -name '*.[os]' 2>/dev/null
		find /sys/fs/cgroup -maxdepth 3 -name '*bcr*' 2>/dev/null
	} | sort
}

target "$dir" "$lib/crowd"
tree "$pid" >tree.before
descriptors >descriptors.before
bpf_objects >bpf.before
stray_files >files.before
[ "$(wc -l <tree.before)" = 20 ] || fail "the tree has $(wc -l <tree.before) processes"

say "$rounds rounds"
for ((i = 1; i <= rounds; i++)); do
	images=$PWD/images-$((i % 2))
	round_trip "$dir" "$images"
	# The token has been all round the tree since.
	now=$(cat "$dir/rounds")
	await number "$dir/rounds" $((10#$now + 2)) || { show_log "$dir/log"; fail "round $i: the tree does not go on"; }
	tree "$pid" | diff tree.before - || { show_log "$dir/log"; fail "round $i: another tree than before"; }
done

say "nothing is left behind"
descriptors | diff descriptors.before - || fail "descriptors differ"
for i in 0 1; do
	(cd "images-$i" && find . | sort) >names.$i
done
diff names.0 names.1 || fail "one image directory holds other files than the other"
grep -v -e '\.img$' -e '\.bcr$' -e '^\.$' -e '\.log$' -e stats- -e pidfile names.0 && fail "the image directory holds other files"
while read -r p; do
	# shellcheck disable=SC2013 # the file is words
	for child in $(cat /proc/"$p"/task/*/children); do
		grep -q '^State:.*Z' "/proc/$child/status" && fail "$child is a zombie"
	done
done <tree.before
# What is new may be that of a test beside this one, which does not keep it for ever.
bpf_objects | grep -vxFf bpf.before >new.before || true
stray_files | comm -13 files.before - >>new.before
deadline=$((SECONDS + 10 * patience))
while { bpf_objects; stray_files; } | grep -xFf new.before >left; do
	[ $SECONDS -lt $deadline ] || { cat left; fail "BPF objects or files were left behind"; }
done
finish "$dir" "$pid"
