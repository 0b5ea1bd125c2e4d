#!/bin/bash
# What dump refuses is refused, in both ways to observe, with a sentence that names process and object, all of it at once; no
# image set is left, and the program goes on as if nothing had been.
# timeout: 400
set -eu
# shellcheck source=tests/lib/bcr.sh
. "$SRC/tests/lib/bcr.sh"

# A machine may lack the better way to observe: then that is what it says.
ways=
for way in bpf proc; do
	if "$BCR" dump --observe=$way -t $$ -D . >way.out 2>&1; then fail "this shell has been dumped"; fi
	if grep -q 'not on this machine' way.out; then
		say "not tried: $(cat way.out)"
	else
		ways="$ways $way"
	fi
done
[ "$ways" != "" ] || fail "there is no way to observe"

# refused NAME WORKING: dump of $pid in each way; expected sentences are in NAME/expected. WORKING: no thread of it is stopped.
refused() {
	local dir=$1 working=$2 way rc
	for way in $ways; do
		rc=0
		mkdir -p "$dir/images"
		"$BCR" dump --observe="$way" -t "$pid" -D "$dir/images" -o dump.log >"$dir/$way" 2>&1 || rc=$?
		[ $rc = 1 ] || { show_log "$dir/$way"; fail "$dir, --observe=$way: exit status $rc, expected 1"; }
		while read -r sentence; do
			grep -qE -- "^bcr: $sentence" "$dir/$way" ||
				{ show_log "$dir/$way"; fail "$dir, --observe=$way does not say '$sentence'"; }
		done <"$dir/expected"
		# All reasons are in one list, which ends with their number. A root that has ended is not even looked at.
		[ "$dir" = zombie ] || grep -qE "pid $pid cannot be dumped: $(grep -c '^bcr: ' "$dir/$way" | awk '{ print $1 - 1 }') reasons? above" \
			"$dir/$way" || { show_log "$dir/$way"; fail "$dir, --observe=$way: not one list"; }
		# In the log, each is under the name of the module that refused it.
		[ "$dir" = zombie ] || grep -qE 'Error (observe|model|kinds)/[a-z_]+: pid ' "$dir/images/dump.log" ||
			{ show_log "$dir/images/dump.log"; fail "$dir, --observe=$way: no line of the log names who refused"; }
		no_set "$dir/images"
		[ ! -e "$dir/images/inventory.img" ] || fail "$dir: a refused dump left an inventory"
		# Refused before it was stopped, but for what only a stopped tree shows.
		[ "$dir" = vfork ] || ! grep -q 'stage freeze' "$dir/images/dump.log" || fail "$dir: it was frozen to be refused"
		[ "$working" != yes ] || not_stopped "$pid"
	done
}

tried=0
# try NAME PROGRAM MODES...
try() {
	local name=$1 program=$2 working=yes
	shift 2
	mkdir -p "$name"
	[ "$1" != exe ] || { cp "$program" "$name/copy"; program=$PWD/$name/copy; }
	# Whoever is traced, or has ended, has it in its state.
	case $1 in traced | zombie) working=no ;; esac
	spawn "$PWD/$name" "$program" "$PWD/$name" "$@"
	await file "$name/ready" || { show_log "$name/log"; fail "$name did not get ready"; }
	pid=$(cat "$name/ready")
	if [ "$pid" = unavailable ]; then
		say "$name: not on this machine: $(sed -n 's/^UNAVAILABLE: //p' "$name/log")"
		return
	fi
	sed -n 's/^EXPECT: //p' "$name/log" >"$name/expected"
	[ -s "$name/expected" ] || fail "$name expects nothing"
	refused "$name" $working
	finish "$name" "$pid"
	tried=$((tried + 1))
}

for mode in uffd-missing uffd-wp aio io-uring \
	io-uring-closed perf; do
	try $mode "$lib/refused_memory" $mode
done
for mode in thread-files thread-fs thread-uts traced share-above \
	vfork outside zombie ns-uts ns-mnt ns-net ns-ipc ns-user ns-cgroup ns-pid ns-time \
	children-pid children-time; do
	try $mode "$lib/refused_tasks" $mode
done
for mode in process-directory cgroup-directory flock posix ofd lease; do
	try $mode "$lib/refused_files" $mode
done

# A 32-bit program, without a C library: that may not be installed.
cat >i386.s <<'END'
.globl _start
_start:	movl $4, %eax			# write
	movl $1, %ebx
	movl $here, %ecx
	movl $5, %edx
	int $0x80
again:	movl $33, %eax			# access
	movl $name, %ebx
	xorl %ecx, %ecx
	int $0x80
	testl %eax, %eax
	jz done
	movl $162, %eax			# nanosleep
	movl $nap, %ebx
	xorl %ecx, %ecx
	int $0x80
	jmp again
done:	movl $4, %eax
	movl $1, %ebx
	movl $pass, %ecx
	movl $5, %edx
	int $0x80
	movl $1, %eax			# exit
	xorl %ebx, %ebx
	int $0x80
.data
here:	.ascii "HERE\n"
pass:	.ascii "PASS\n"
name:	.asciz "go"
nap:	.long 0, 2000000
END
as --32 -o i386.o i386.s
ld -m elf_i386 -o i386 i386.o
spawn "$PWD/32-bit" "$PWD/i386"
if "$lib/await" -t 5 text 32-bit/log HERE; then
	echo "pid $pid: is a 32-bit program" >32-bit/expected
	refused 32-bit yes
	finish 32-bit "$pid"
	tried=$((tried + 1))
else
	say "32-bit: not on this machine: $(cat 32-bit/log)"
fi

try several-mappings "$lib/refused_memory" uffd-missing uffd-wp aio
try several-states "$lib/refused_tasks" thread-uts ns-uts ns-ipc share-above
say "$tried states refused"
[ $tried -ge 30 ] || fail "only $tried states could be tried on this machine"
