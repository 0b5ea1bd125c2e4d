#!/bin/bash
# Incremental sets: a chain of pre-dumps and a dump of a program that goes on writing is restored with every
# byte right; what did not change is not written again; parents that are missing, damaged, exchanged or in a
# loop are refused.
set -eu
# shellcheck source=tests/lib/bcr.sh
. "$SRC/tests/lib/bcr.sh"

# pre_dump IMAGES [OPTIONS...]: must succeed and leave $pid running.
pre_dump() {
	local images=$1
	shift
	mkdir -p "$images"
	"$BCR" pre-dump -t "$pid" -D "$images" --track-mem -v4 -o pre-dump.log "$@" ||
		{ show_log "$images/pre-dump.log"; fail "pre-dump of $pid"; }
	[ -s "$images/inventory.img" ] || fail "pre-dump of $pid: no inventory in $images"
	[ ! -e "$images/pstree.img" ] || fail "pre-dump of $pid: a process tree in $images"
	not_stopped "$pid"
}

# stored DIR: pages in the files of a set.
stored() {
	local bytes
	bytes=$(cat "$1"/pages-*.img | wc -c)
	echo $((bytes / 4096))
}

# at_most WHAT NUMBER LIMIT
at_most() {
	say "$1: $2 pages, at most $3 expected"
	[ "$2" -le "$3" ] || fail "$1 holds $2 pages"
}

stats() {
	sed -n "s/^$1: \([0-9]*\).*/\1/p" "$2"
}

# refused TEXT VERB ARGS...: exit 1 and a sentence.
refused() {
	local text=$1 rc=0
	shift
	"$BCR" "$@" >refused.out 2>&1 || rc=$?
	[ $rc = 1 ] || { show_log refused.out; fail "bcr $*: exit status $rc, expected 1"; }
	grep -qiE -- "$text" refused.out || { show_log refused.out; fail "bcr $* does not say '$text'"; }
}

# The program writes 512 of its 8192 pages; the rest is found in the parents.
target "$PWD/writer" "$lib/dirty" 32 512 200
writer=$pid
say "a chain of two pre-dumps and two dumps"
pre_dump 1
[ "$(stored 1)" -ge 8192 ] || fail "the first pre-dump is not complete: $(stored 1) pages"
pre_dump 2 --prev-images-dir ../1
[ "$(readlink 2/parent)" = ../1 ] || fail "the link to the parent is $(readlink 2/parent)"
dump 3 "$pid" -R --track-mem --prev-images-dir ../2
not_stopped "$pid"
dump 4 "$pid" --track-mem --prev-images-dir "$PWD/3" --display-stats >stats.out
gone "$pid"
for set in 2 3 4; do
	at_most "set $set" "$(stored $set)" 2500
done
skipped=$(stats "Memory pages skipped from parent" stats.out)
written=$(($(stats "Memory pages written" stats.out) + $(stats "Shared memory pages written" stats.out)))
[ "$skipped" -ge 7000 ] || fail "$skipped pages were found in the parent"
[ "$written" = "$(stored 4)" ] || fail "the statistics say $written pages, $(stored 4) are there"
"$BCR" show -D 4 | grep -q "in the parent set" || fail "show does not tell of the parent"
refused "pre-dump, which holds memory only" restore -d -D 2
refused "there is no plan" show --plan -D 2
"$BCR" show -D 2 >shown || fail "show of a pre-dump"
grep -q "^Pre-dump 2: memory of 1 process, .* in the parent set" shown || { cat shown; fail "show of a pre-dump"; }
"$BCR" show --json -D 2 | python3 -c 'import json, sys
set = json.load(sys.stdin)
sys.exit(not (set["pre_dump"] and set["parent_bytes"] > 4096 * 7000 and set["processes"][0]["pid"] == int(sys.argv[1])))' "$pid" ||
	fail "show --json of a pre-dump"
for set in 3 4; do
	say "restored from set $set"
	rm -f writer/go
	: >writer/log
	restore "$PWD/$set"
	[ "$pid" = "$writer" ] || fail "restored as $pid, was $writer"
	finish "$PWD/writer" "$pid"
done

say "nothing changed: nothing is written"
target "$PWD/idle" "$lib/dirty" 16 0 0
pre_dump i1
dump i2 "$pid" --prev-images-dir ../i1
gone "$pid"
at_most "the dump of an idle program" "$(stored i2)" 40

say "a parent of somebody else is no use, and does no harm"
target "$PWD/other" "$lib/dirty" 4 64 0
dump o2 "$pid" --prev-images-dir ../1
gone "$pid"
[ "$(stored o2)" -ge 1024 ] || fail "pages of another program were taken for this one's"
restore "$PWD/o2"
finish "$PWD/other" "$pid"

say "a parent of an earlier process with the same pid, and the same addresses"
printf '#!/bin/sh\nexec setarch -R %s "$@"\n' "$lib/dirty" >same-places
chmod +x same-places
target "$PWD/first" "$PWD/same-places" 4 512 0
first=$pid
pre_dump p1
kill_tree "$first"
target "$PWD/second" "$PWD/same-places" 4 512 100
mv "p1/pagemap-$first.img" "p1/pagemap-$pid.img"
rm p1/bcr-manifest.bcr
dump p2 "$pid" --prev-images-dir ../p1 --display-stats >stats.out
gone "$pid"
[ "$(stats "Memory pages skipped from parent" stats.out)" -ge 300 ] || { cat stats.out; fail "no page was the same: nothing was tested"; }
restore "$PWD/p2"
finish "$PWD/second" "$pid"

say "the parent is not what it was"
mv i1 away
refused "i2/parent" restore -d -D i2
refused "i2/parent" show -D i2
mkdir i1
refused "i1.*missing|parent.*missing" restore -d -D i2
rmdir i1
mv away i1
cp -a i1 kept
truncate -s -4096 "$(find i1 -name 'pages-*' -size +1M)"
refused "cut off or damaged" restore -d -D i2
rm -r i1
cp -a kept i1
printf X | dd of="$(find i1 -name 'pagemap-*' | head -n 1)" bs=1 seek=40 conv=notrunc status=none
refused "damaged" restore -d -D i2
rm -r i1
cp -a 2 i1
refused "not the image set that the one above it was made from" restore -d -D i2
rm -r i1
cp -a kept i1
rm i2/parent
refused "the link parent to it is missing" restore -d -D i2
ln -s . i2/parent
refused "lead back to itself" restore -d -D i2
rm i2/parent
ln -s ../i1 i2/parent
restore "$PWD/i2"
finish "$PWD/idle" "$pid"

say "what cannot be a parent is refused before anything happens"
target "$PWD/last" "$lib/dirty" 1 16 100
for verb in dump pre-dump; do
	mkdir -p new
	refused "--prev-images-dir ../none: open" $verb -t "$pid" -D new --prev-images-dir ../none
	refused "inventory.img: missing" $verb -t "$pid" -D new --prev-images-dir ../writer
	refused "lead back to itself" $verb -t "$pid" -D i1 --prev-images-dir .
	refused "lead back to itself" $verb -t "$pid" -D i1 --prev-images-dir ../i2
	no_set new
done
for stage in $("$BCR" pre-dump --fail-at list); do
	refused "$stage" pre-dump -t "$pid" -D new --fail-at "$stage"
	no_set new
	not_stopped "$pid"
done
cmp -s i1/inventory.img kept/inventory.img || fail "the refused pre-dump changed the set"

say "a chain of many sets, and one too many"
pre_dump c0
pre_dump c1 --prev-images-dir ../c0
for i in $(seq 2 64); do
	cp -a c1 "c$i"
	# It would say that the parent is c0.
	rm "c$i/bcr-manifest.bcr"
	ln -sfn "../c$((i - 1))" "c$i/parent"
done
mkdir c65 c
refused "chain of more than 64" pre-dump -t "$pid" -D c65 --prev-images-dir ../c64
dump c "$pid" --prev-images-dir ../c63
gone "$pid"
restore "$PWD/c"
finish "$PWD/last" "$pid"
